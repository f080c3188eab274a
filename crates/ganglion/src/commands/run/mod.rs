//! `ganglion run`: the guard, its brain and the world around them.
//!
//! ```text
//! typed lines, script ─┐                    ┌─► brain (child process)
//! POST /v1/decide ─────┼─► inbox ─► guard ◄─┘
//! POST /v1/mission ────┤
//! plant (Modbus TCP) ──┴─◄──────────┘ └─► records ─► screen, waiting clients, audit log
//! ```
//!
//! Threads: the guard's cycle; one for all network (tokio); two for typed lines or the script; one that prints, so that a
//! terminal that does not take output holds up nothing; this one, which joins them.

mod desk;
mod governor;
mod inbox;
mod inputs;
mod latch;
mod missions;
mod printer;
mod recording;
mod reload;
mod screen;
mod worker;
mod world;

use super::brain::Fault;
use crate::answer::Identity;
use crate::load;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ganglion_guard::{
    BrainState, Channels, DeviceWatchdog, Guard, Mode, Notice, OperatorCommand, Outside, RecordKind,
    RtStatus, Runner, Signals, Status, Supervisor,
};
use ganglion_record::Recorded;
use ganglion_site::{Reason, Site};
use inbox::Inbox;
use inputs::Inputs;
use latch::Latch;
use missions::{Missions, Order};
use printer::{Line, Printer};
use screen::Screen;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use world::News;

/// Run a site: guard, brain, plant, operator
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion run examples/hvac\n  \
                  ganglion run examples/hvac --script examples/hvac/script.txt --cycles 100 --json\n\n\
                  Type a sentence, `name=value …` for a sensor event, or !start !hold !unhold !stop !reset !clear !estop.")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    pub(super) site: PathBuf,
    /// Sentences and sensor events to play instead of typed ones; a .csv file is played row by row
    #[arg(long, value_name = "FILE")]
    pub(super) script: Option<PathBuf>,
    /// Time between rows of a .csv script
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pub(super) row_ms: u64,
    /// End after N guard cycles, as they stand: the plant's own watchdog then makes it safe
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) cycles: Option<u64>,
    /// Print one JSON record a line
    #[arg(long)]
    pub(super) json: bool,
    /// Decide, check and record, but never actuate nor arm the plant's watchdog
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Folder of the audit log; `audit` beside the site file by default
    #[arg(long, value_name = "DIR")]
    pub(super) audit: Option<PathBuf>,
    /// Folder to record every cycle in, to be run again by `ganglion replay`; see `[record]` in the site file
    #[arg(long, value_name = "DIR")]
    pub(super) record: Option<PathBuf>,
    /// Where /sys and /proc are, for tests
    #[arg(long, hide = true, value_name = "DIR", default_value = "/")]
    pub(super) host_root: PathBuf,
    /// Program that searches for other plans when a mission's is refused
    #[arg(long, value_name = "FILE", default_value = ganglion_plan::Solver::PROGRAM)]
    pub(super) solver: PathBuf,
    /// The run is there for this mission alone; see `ganglion mission`
    #[arg(skip)]
    pub(super) mission: Option<String>,
    /// Failure injection for tests, handed to the brain: loop-after=N
    #[arg(long, hide = true)]
    pub(super) brain_fault: Option<Fault>,
}

impl Arguments {
    /// A run of this site, with everything else as by default.
    pub fn of(site: &Path) -> Self {
        Self {
            site: site.to_owned(),
            script: None,
            row_ms: 200,
            cycles: None,
            json: false,
            dry_run: false,
            audit: None,
            record: None,
            host_root: "/".into(),
            solver: ganglion_plan::Solver::PROGRAM.into(),
            mission: None,
            brain_fault: None,
        }
    }
}

/// What a brain that was followed by another has beyond the brain's timeout.
const RETIRE_MARGIN_MS: u64 = 500;
/// How often this thread looks for records.
const TICK: Duration = Duration::from_millis(5);
/// Cycles after a stop was asked for in which the safe command still reaches the plant.
const CYCLES_TO_STOP: u32 = 4;

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (file, text) = Site::read(&arguments.site)?;
    let site = Arc::new(Site::parse(&text, &file)?);
    let text: Arc<str> = text.into();
    if site.plant.is_none() {
        bail!(
            "{}: section [plant] is missing: there is nothing to run; `ganglion ask` works without",
            site.file.display()
        );
    }
    if arguments.mission.is_some() && site.plan.is_none() {
        bail!(ganglion_plan::PlanError::NoPlan { file: site.file.clone() });
    }
    if let Some(instruction) = &arguments.mission {
        crate::mission::check(instruction)?;
    }
    let inputs = Inputs::open(&site, arguments.script.as_deref(), arguments.row_ms)?;
    let (identity, bytes) = check_models(&site)?;
    let guard = Guard::new(&site)?.with_dry_run(arguments.dry_run);
    let folder = arguments.record.as_deref();
    let (tape, recorder) = recording::start(&guard, &identity, &text, folder, arguments.dry_run)?;
    let simulator = world::start_simulator(&site)?;
    let (sink, writer) = start_audit(arguments, &identity)?;
    let mut latch = Latch::open(&audit_folder(arguments, &site)?, arguments.dry_run)?;
    let texts = reload::Texts::start(&audit_folder(arguments, &site)?, &text)?;
    let audit = sink.health().clone();
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let (site_argument, fault, brain_texts) = (arguments.site.clone(), arguments.brain_fault, texts.clone());
    // A brain that was followed by another still answers what it was asked; nothing may take longer than this.
    let retire_ms = u64::from(site.guard.brain_timeout_ms) + RETIRE_MARGIN_MS;
    let build = move |level: u8| {
        let mut command = Command::new(&executable);
        command.arg("brain").arg(&site_argument).arg("--text").arg(brain_texts.current());
        command.stdout(std::process::Stdio::null());
        command.args(fault.map(|fault| format!("--fault={fault}")));
        // A Ctrl-C is the guard's to answer: the brain and the plant must still be there for the safe command.
        command.process_group(0);
        command.arg(format!("--variant={level}"));
        command
    };
    let (supervisor, brain) = Supervisor::start_variants(build, retire_ms)?;
    let supervisor = Arc::new(supervisor);
    let (channels, outside) = Channels::new(&site, Some(brain), Some(sink));
    let Outside {
        signals,
        requests,
        operator,
        actuations,
        mut records,
        mut fields,
        mut statuses,
        news: to_guard,
        notes,
        retired,
    } = outside;
    let printer = Printer::start(Screen::new(identity.clone(), arguments.json, Arc::clone(&signals)))?;
    printer.show(Line::Begin {
        memory: load::size(bytes.first().copied().unwrap_or(0)),
        dry_run: arguments.dry_run,
    });
    let (told, real_time) = std::sync::mpsc::channel();
    let channels = Recorded::new(channels, tape);
    let inbox = Arc::new(Inbox::new(requests, operator, to_guard, Arc::clone(&signals)));
    let mut start_up = StartUp::of(&inbox, &latch);
    let guard = start_guard(guard, &site, channels, arguments.cycles, told)?;
    let governing = governor::Work {
        identity: identity.clone(),
        supervisor: Arc::clone(&supervisor),
        signals: Arc::clone(&signals),
        inbox: Arc::clone(&inbox),
        bytes,
    };
    let governing = governor::start(governing, &arguments.host_root)?;
    let reloader = reload::start(reload::Work {
        identity: identity.clone(),
        text,
        texts,
        recording: recorder.as_ref().map(|recorder| recorder.health().clone()),
        inbox: Arc::clone(&inbox),
        retired,
    })?;
    let (missions, words) = match &site.plan {
        Some(_) => Missions::start(&identity, &inbox, notes, arguments.solver.clone(), arguments.dry_run)
            .map(|(missions, words)| (Some(missions), Some(words)))?,
        None => (None, None),
    };
    let words = words.as_ref();
    let desk = desk::Desk::new(&identity, &inbox, missions.as_ref());
    let (world, news) = world::start(desk, &identity, &inbox, &signals, actuations, arguments.dry_run)?;
    let inputs_done = inputs.start(&site, &inbox, missions.as_ref(), printer.lines())?;
    if let (Some(missions), Some(instruction)) = (&missions, &arguments.mission) {
        missions.order(Order { alone: true, ..Order::typed(instruction) });
    }

    let mut stop_at_us = None;
    let mut audit_failing = false;
    let mut recording_failing = false;
    let mut taken = Vec::new();
    let mut records_lost = 0;
    while !guard.is_finished() {
        // Taken before the fields, given after them: a field that came before its answer is there by now.
        taken.extend(std::iter::from_fn(|| records.pop().ok()));
        while let Ok(field) = fields.pop() {
            inbox.decided(&field);
        }
        for record in taken.drain(..) {
            inbox.answered(&record);
            printer.show(Line::Record(Box::new(record)));
        }
        let lost = signals.records_lost();
        if std::mem::replace(&mut records_lost, lost) != lost {
            inbox.lose_answers();
        }
        while let Ok(status) = statuses.pop() {
            start_up.advance(&inbox, &status);
            inbox.publish(&status);
            printer.show(Line::Status(Box::new(status)));
        }
        if let Some(error) = inbox.status().and_then(|status| latch.follow(&status)) {
            printer.show(Line::Latch(error));
        }
        for item in news.try_iter() {
            match &item {
                News::Written(command) => inbox.wrote(command, None),
                News::Refused(command, failure) => {
                    let text = format!("the plant did not take {}: {failure}", command.describe(&site));
                    let notice = Notice { kind: RecordKind::Link, reason: Reason::cut(&text) };
                    inbox.tell_guard(ganglion_guard::News::Note(notice));
                    inbox.wrote(command, Some(failure.to_string()));
                }
                _ => {}
            }
            printer.show(Line::News(Box::new(item)));
        }
        words
            .iter()
            .flat_map(|words| words.try_iter())
            .for_each(|w| printer.show(Line::Mission(Box::new(w))));
        real_time.try_iter().for_each(|status| printer.show(Line::RealTime(status)));
        if audit.failing() != audit_failing {
            audit_failing = !audit_failing;
            printer.show(Line::Audit { failing: audit_failing, lost: audit.lost() });
        }
        if let Some(health) = recorder.as_ref().map(ganglion_record::Writer::health)
            && health.failing() != recording_failing
        {
            recording_failing = !recording_failing;
            printer.show(Line::Recording { failing: recording_failing, lost_bytes: health.lost_bytes() });
        }
        let now_us = ganglion_guard::monotonic_us();
        let asked_all = arguments.mission.is_some() || inputs_done.load(Ordering::Acquire);
        let no_more = asked_all && inbox.is_idle() && missions.as_ref().is_none_or(|m| m.is_idle());
        if stop_at_us.is_none() && (world.stop_asked() || printer.is_closed() || no_more) {
            start_up = StartUp::Done;
            // A stop is always taken.
            let _ = inbox.operate(OperatorCommand::Stop);
            stop_at_us = Some(now_us + u64::from(CYCLES_TO_STOP * site.guard.period_ms) * 1000);
        }
        if stop_at_us.is_some_and(|at| now_us >= at) {
            signals.stop();
        }
        std::thread::sleep(TICK);
    }
    let runner = guard.join().map_err(|_| anyhow!("the guard's thread ended in a fault"))?;
    while let Ok(record) = records.pop() {
        printer.show(Line::Record(Box::new(record)));
    }
    drop(governing);
    drop(reloader);
    drop(recorder);
    drop(supervisor);
    drop(world);
    drop(simulator);
    printer.end(Line::End { stats: Box::new(*runner.stats()), status: Box::new(*runner.guard().status()) });
    writer.close()?;
    let done = arguments.mission.is_none() || missions.is_some_and(|missions| missions.all_done());
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The one start that a run gives itself: out of Stopped, then into Execute once plant and brain are ready. An operator who
/// says anything that holds or stops has the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartUp {
    Reset,
    Start,
    Done,
}

impl StartUp {
    /// A run that follows an aborted one begins with an Abort of its own, before the guard's first cycle.
    fn of(inbox: &Inbox, latch: &Latch) -> Self {
        let Some(why) = latch.left_behind() else { return Self::Reset };
        // An abort is always taken.
        let _ = inbox.operate(OperatorCommand::Abort);
        let text = format!(
            "the run before was aborted ({why}) and not cleared since: !clear, then !reset and !start"
        );
        inbox.tell_guard(ganglion_guard::News::Note(Notice {
            kind: RecordKind::Mode,
            reason: Reason::cut(&text),
        }));
        Self::Done
    }

    fn advance(&mut self, inbox: &Inbox, status: &Status) {
        let ready = status.link.connected
            && status.link.watchdog == DeviceWatchdog::Armed
            && status.brain == BrainState::Ready;
        if inbox.is_held_back() {
            *self = Self::Done;
        }
        match (*self, status.mode) {
            // Not taken: again with the next status.
            (Self::Reset, Mode::Stopped) if inbox.operate(OperatorCommand::Reset).is_ok() => {
                *self = Self::Start
            }
            (Self::Start, Mode::Idle) if ready && inbox.operate(OperatorCommand::Start).is_ok() => {
                *self = Self::Done;
            }
            _ => {}
        }
    }
}

/// The site's models, checked before anything starts, and the memory that each takes.
fn check_models(site: &Arc<Site>) -> Result<(Identity, Vec<u64>)> {
    let (mut hashes, mut bytes) = (Vec::new(), Vec::new());
    for level in 0..=site.model.variants.len() {
        let site = load::variant(site, level)?;
        let (gguf, plan) = load::model_file(&site)?;
        ganglion_decide::check_fit(&site, &gguf)?;
        hashes.push(gguf.sha256());
        bytes.push(plan.total_bytes());
    }
    Ok((Identity::new(site, hashes), bytes))
}

fn audit_folder(arguments: &Arguments, site: &Site) -> Result<PathBuf> {
    let beside = site.file.parent().map(|folder| folder.join("audit"));
    arguments.audit.clone().or(beside).context("no folder for the audit log: name one with --audit")
}

fn start_audit(
    arguments: &Arguments,
    identity: &Identity,
) -> Result<(ganglion_audit::Sink, ganglion_audit::Writer)> {
    let dir = audit_folder(arguments, &identity.site)?;
    let header = ganglion_audit::Header {
        site: Arc::clone(&identity.site),
        model_sha256: identity.model_sha256().to_owned(),
        schema_sha256: identity.schema_sha256.clone(),
    };
    ganglion_audit::Writer::start(&dir, header, ganglion_audit::Options::default(), wall_ms)
        .with_context(|| format!("audit log {}", dir.display()))
}

/// Wall-clock time for what people read, milliseconds since 1970.
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn start_guard(
    guard: Guard,
    site: &Site,
    mut channels: Recorded<Channels>,
    cycles: Option<u64>,
    told: std::sync::mpsc::Sender<RtStatus>,
) -> Result<JoinHandle<Runner>> {
    let period_ms = site.guard.period_ms;
    std::thread::Builder::new()
        .name("guard".to_owned())
        .spawn(move || {
            let mut runner = Runner::new(guard, period_ms);
            // Heard or not, the cycle starts.
            let _ = told.send(ganglion_guard::go_real_time());
            runner.run(&mut channels, cycles);
            runner
        })
        .context("cannot start the guard's thread")
}

/// Shared with the network thread so that a signal ends the run.
#[derive(Debug, Default)]
struct StopFlag(AtomicBool);

impl StopFlag {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Time since the run began, in seconds.
fn seconds_since(start_us: u64) -> f64 {
    ganglion_guard::monotonic_us().saturating_sub(start_us) as f64 / 1e6
}

type SharedSignals = Arc<Signals>;
