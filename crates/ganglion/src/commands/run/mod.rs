//! `ganglion run`: the guard, its brain and the world around them.
//!
//! ```text
//! typed lines, script ─┐                    ┌─► brain (child process)
//! POST /v1/decide ─────┼─► inbox ─► guard ◄─┘
//! plant (Modbus TCP) ──┴─◄──────────┘ └─► records ─► screen, waiting clients, audit log
//! ```
//!
//! Four threads: the guard's cycle; one for all network (tokio); one for typed lines or the script; this one, which prints.

mod inbox;
mod inputs;
mod screen;
mod world;

use super::brain::Fault;
use crate::answer::Identity;
use crate::load;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ganglion_guard::{Channels, Guard, OperatorCommand, Outside, RtStatus, Runner, Signals, Supervisor};
use ganglion_site::Site;
use inbox::Inbox;
use inputs::Inputs;
use screen::Screen;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Run a site: guard, brain, plant, operator
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion run examples/hvac\n  \
                  ganglion run examples/hvac --script examples/hvac/script.txt --cycles 100 --json\n\n\
                  Type a sentence, `name=value …` for a sensor event, or !start !hold !unhold !stop !reset !clear !estop.")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// Sentences and sensor events to play instead of typed ones; a .csv file is played row by row
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Time between rows of a .csv script
    #[arg(long, value_name = "MS", default_value_t = 200)]
    row_ms: u64,
    /// End after N guard cycles
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cycles: Option<u64>,
    /// Print one JSON record a line
    #[arg(long)]
    json: bool,
    /// Decide, check and record, but never actuate nor arm the plant's watchdog
    #[arg(long)]
    dry_run: bool,
    /// Folder of the audit log; `audit` beside the site file by default
    #[arg(long, value_name = "DIR")]
    audit: Option<PathBuf>,
    /// Failure injection for tests, handed to the brain: loop-after=N
    #[arg(long, hide = true)]
    brain_fault: Option<Fault>,
}

/// How often the screen looks for records.
const SCREEN_TICK: Duration = Duration::from_millis(5);
/// Cycles after a stop was asked for in which the safe command still reaches the plant.
const CYCLES_TO_STOP: u32 = 4;

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let site = load::site(&arguments.site)?;
    if site.plant.is_none() {
        bail!(
            "{}: section [plant] is missing: there is nothing to run; `ganglion ask` works without",
            site.file.display()
        );
    }
    let inputs = Inputs::open(&site, arguments.script.as_deref(), arguments.row_ms)?;
    let (gguf, plan) = load::model_file(&site)?;
    let identity = Identity {
        site: Arc::clone(&site),
        model_sha256: gguf.sha256(),
        schema_sha256: site.schema_sha256(),
    };
    drop(gguf);
    let guard = Guard::new(&site)?.with_dry_run(arguments.dry_run);
    let mut screen = Screen::new(identity.clone(), arguments.json);
    screen.begin(&load::size(plan.total_bytes()), arguments.dry_run);
    let simulator = world::start_simulator(&site)?;
    let (sink, writer) = start_audit(arguments, &identity)?;
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let (site_argument, fault) = (arguments.site.clone(), arguments.brain_fault);
    let (supervisor, brain) = Supervisor::start(move || {
        let mut command = Command::new(&executable);
        command.arg("brain").arg(&site_argument).stdout(std::process::Stdio::null());
        command.args(fault.map(|fault| format!("--fault={fault}")));
        command
    })?;
    let (channels, outside) = Channels::new(&site, Some(brain), Some(sink));
    let guard = start_guard(guard, &site, channels, arguments.cycles)?;
    let Outside { signals, requests, operator, actuations, mut records, mut statuses } = outside;
    let inbox = Arc::new(Inbox::new(requests, operator, Arc::clone(&signals)));
    let (world, news) = world::start(&identity, &inbox, &signals, actuations, arguments.dry_run)?;
    let inputs_done = inputs.start(&site, &inbox)?;

    let mut started = false;
    let mut stopping: Option<u32> = None;
    while !guard.is_finished() {
        while let Ok(record) = records.pop() {
            inbox.answered(&record);
            screen.record(&record)?;
        }
        while let Ok(status) = statuses.pop() {
            started = started || start_up(&inbox, &status);
            inbox.publish(&status);
            screen.status(&status)?;
        }
        for item in news.try_iter() {
            screen.news(&item)?;
        }
        screen.plant(&signals.tags)?;
        if stopping.is_none()
            && (world.stop_asked() || (inputs_done.load(Ordering::Acquire) && inbox.is_idle()))
        {
            inbox.operate(OperatorCommand::Stop);
            stopping = Some(CYCLES_TO_STOP * site.guard.period_ms);
        }
        if let Some(left_ms) = &mut stopping {
            *left_ms = left_ms.saturating_sub(u32::try_from(SCREEN_TICK.as_millis()).unwrap_or(1));
            if *left_ms == 0 {
                signals.stop();
            }
        }
        std::thread::sleep(SCREEN_TICK);
    }
    let (runner, real_time) = guard.join().map_err(|_| anyhow!("the guard's thread ended in a fault"))?;
    while let Ok(record) = records.pop() {
        screen.record(&record)?;
    }
    drop(supervisor);
    drop(world);
    drop(simulator);
    writer.close()?;
    screen.end(runner.stats(), runner.guard().status(), &real_time)?;
    Ok(ExitCode::SUCCESS)
}

/// The one start that a run gives itself: out of Stopped, then into Execute once the plant is ready.
fn start_up(inbox: &Inbox, status: &ganglion_guard::Status) -> bool {
    use ganglion_guard::{BrainState, DeviceWatchdog, Mode};
    match status.mode {
        Mode::Stopped => inbox.operate(OperatorCommand::Reset),
        Mode::Idle
            if status.link.connected
                && status.link.watchdog == DeviceWatchdog::Armed
                && status.brain == BrainState::Ready =>
        {
            inbox.operate(OperatorCommand::Start);
            return true;
        }
        _ => {}
    }
    false
}

fn start_audit(
    arguments: &Arguments,
    identity: &Identity,
) -> Result<(ganglion_audit::Sink, ganglion_audit::Writer)> {
    let beside = identity.site.file.parent().map(|folder| folder.join("audit"));
    let dir =
        arguments.audit.clone().or(beside).context("no folder for the audit log: name one with --audit")?;
    let header = ganglion_audit::Header {
        site: Arc::clone(&identity.site),
        model_sha256: identity.model_sha256.clone(),
        schema_sha256: identity.schema_sha256.clone(),
    };
    let wall_ms = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    ganglion_audit::Writer::start(&dir, header, ganglion_audit::Options::default(), wall_ms)
        .with_context(|| format!("audit log {}", dir.display()))
}

fn start_guard(
    guard: Guard,
    site: &Site,
    mut channels: Channels,
    cycles: Option<u64>,
) -> Result<JoinHandle<(Runner, RtStatus)>> {
    let period_ms = site.guard.period_ms;
    std::thread::Builder::new()
        .name("guard".to_owned())
        .spawn(move || {
            let mut runner = Runner::new(guard, period_ms);
            let real_time = ganglion_guard::go_real_time();
            runner.run(&mut channels, cycles);
            (runner, real_time)
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
