//! `ganglion replay`: a recording's cycles run again, here and now, and compared with what was recorded.

use crate::load;
use anyhow::{Context, Result, bail};
use clap::Args;
use ganglion_decide::{Decider, LoadedModel, Options, ran_out_of_time};
use ganglion_gguf::Gguf;
use ganglion_kernels::Isa;
use ganglion_kernels::limits::THREADS_MAX;
use ganglion_llm::ModelOptions;
use ganglion_record::{Again, Recording, Report, files, replay};
use ganglion_site::{Decision, Event, Outcome, Site};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Run a recording again and compare every verdict, bit for bit
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion replay examples/hvac/record\n  \
                  ganglion replay fault-000001.grec --model models/nano/nano.gguf\n  \
                  ganglion replay examples/hvac/record --model models/nano/nano.gguf --isa scalar --threads 1\n\n\
                  Exit code 1 when something comes out differently; the first difference is printed.")]
pub struct Arguments {
    /// A file of a recording, or its folder
    log: PathBuf,
    /// Have the model decide again too: the file, or files, that answered then (known by their SHA-256)
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,
    /// Have the model decide on this instruction set, as on another processor: scalar, avx2, avx512 …
    #[arg(long, value_name = "NAME", requires = "model", value_parser = instruction_set)]
    isa: Option<Isa>,
    /// Threads of the model; the site's number by default
    #[arg(long, value_name = "N", requires = "model", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX as i64))]
    threads: Option<u16>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let recordings: Vec<_> =
        files(&arguments.log)?.iter().map(|file| Recording::open(file)).collect::<Result<_, _>>()?;
    let mut models = Models::open(arguments, &recordings)?;
    let mut decide =
        |site: &Arc<Site>, level: u8, event: &Event, then: &Decision| models.decide(site, level, event, then);
    let with_model = !arguments.model.is_empty();
    let report = replay(&recordings, with_model.then_some(&mut decide))?;
    if let Some(error) = models.error {
        return Err(error);
    }
    if let Some(header) = recordings.first().map(Recording::header)
        && header.program != env!("CARGO_PKG_VERSION")
    {
        eprintln!("note: recorded by version {}, replayed by {}", header.program, env!("CARGO_PKG_VERSION"));
    }
    if arguments.json {
        println!("{}", to_json(&report));
    } else {
        print!("{}", in_words(&report));
    }
    Ok(if report.difference.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn instruction_set(name: &str) -> Result<Isa, String> {
    let here = || Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>().join(", ");
    Isa::by_name(name).ok_or_else(|| format!("expected one of this processor's: {}", here()))
}

/// The models that answered, as far as they are given.
struct Models {
    /// How they are to be computed, where that is not the machine's and the site's own way.
    isa: Option<Isa>,
    threads: Option<u16>,
    /// By the place of the variant.
    files: BTreeMap<u8, Gguf>,
    deciders: BTreeMap<u8, Decider>,
    error: Option<anyhow::Error>,
}

impl Models {
    fn open(arguments: &Arguments, recordings: &[Recording]) -> Result<Self> {
        let wanted =
            recordings.first().map(|recording| recording.header().models.clone()).unwrap_or_default();
        let mut files = BTreeMap::new();
        for path in &arguments.model {
            let gguf = Gguf::open(path).with_context(|| format!("--model {}", path.display()))?;
            let hash = gguf.sha256();
            let Some(level) = wanted.iter().position(|model| *model == hash) else {
                bail!(
                    "--model {}: its SHA-256 is {hash}; expected a model of the recording: {}",
                    path.display(),
                    wanted.join(", ")
                );
            };
            files.insert(u8::try_from(level)?, gguf);
        }
        let Arguments { isa, threads, .. } = *arguments;
        Ok(Self { isa, threads, files, deciders: BTreeMap::new(), error: None })
    }

    fn load(&self, site: &Arc<Site>, gguf: &Gguf) -> Result<Decider> {
        let options = Options { memo: false, ..Options::default() };
        if self.isa.is_none() && self.threads.is_none() {
            return load::decider(site, gguf, options);
        }
        let own = ModelOptions::default();
        let threads = self.threads.map_or(site.model.threads, usize::from);
        let threads = if threads == 0 { own.threads } else { threads };
        let how = ModelOptions { isa: self.isa.unwrap_or(own.isa), threads };
        // Nothing that another run has computed: it is to be computed here.
        let (model, _) = LoadedModel::with_options(gguf, how, None)?;
        Ok(Decider::new(Arc::clone(site), &model, options)?)
    }

    fn decide(&mut self, site: &Arc<Site>, level: u8, event: &Event, then: &Decision) -> Again {
        if then.outcome == Outcome::Completion || ran_out_of_time(then) {
            return Again::CutByDeadline;
        }
        if !self.deciders.contains_key(&level) {
            let Some(gguf) = self.files.get(&level) else { return Again::NotHere };
            match self.load(site, gguf) {
                Ok(decider) => self.deciders.insert(level, decider),
                Err(error) => {
                    self.error = Some(error);
                    return Again::NotHere;
                }
            };
        }
        match self.deciders.get_mut(&level) {
            // A clock that stands still: only what was asked counts.
            Some(decider) => Again::Decided(decider.decide(event, &mut || 0)),
            None => Again::NotHere,
        }
    }
}

fn to_json(report: &Report) -> serde_json::Value {
    let [approved, clamped, rejected] = report.verdicts;
    json!({
        "same": report.difference.is_none(), "files": report.files, "cycles": report.cycles, "states": report.states,
        "events": report.events, "approved": approved, "clamped": clamped, "rejected": rejected,
        "actuated": report.actuated, "policies": report.policies, "gaps": report.gaps,
        "lost_cycles": report.lost_cycles, "torn": report.torn,
        "faults": report.faults.iter().map(|(cycle, what)| json!({"cycle": cycle, "fault": what})).collect::<Vec<_>>(),
        "model": report.model.map(|m| json!({
            "same": m.same, "cut_by_deadline": m.cut_by_deadline, "without_text": m.without_text,
            "without_model": m.without_model, "without_event": m.without_event,
        })),
        "difference": report.difference.as_ref().map(|d| json!({
            "file": d.file, "cycle": d.cycle, "time_us": d.time_us, "what": d.what, "recorded": d.recorded,
            "replayed": d.replayed,
        })),
    })
}

fn in_words(report: &Report) -> String {
    let [approved, clamped, rejected] = report.verdicts;
    let mut out = format!(
        "{} cycles of {} files run again, {} saved states compared\n{} events; {approved} verdicts approved, {clamped} clamped, \
         {rejected} rejected; {} commands to the plant\n",
        report.cycles, report.files, report.states, report.events, report.actuated
    );
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for (cycle, what) in &report.faults {
        line(format!("fault in cycle {cycle}: {what}"));
    }
    if report.policies > 0 {
        line(format!("{} changes of policy", report.policies));
    }
    if report.gaps > 0 {
        line(format!("{} gaps, {} cycles are missing", report.gaps, report.lost_cycles));
    }
    if report.torn > 0 {
        line(format!("{} files have a torn end: the writer was interrupted", report.torn));
    }
    if let Some(model) = report.model {
        line(format!("{} decisions of the model decided again, the same", model.same));
        for (count, why) in [
            (model.cut_by_deadline, "cut off by their deadline"),
            (model.without_text, "whose sentence was not kept ([record] keep_text)"),
            (model.without_model, "of a variant that was not given with --model"),
            (model.without_event, "asked before the recording began"),
        ] {
            if count > 0 {
                line(format!("{count} not compared: {why}"));
            }
        }
    }
    match &report.difference {
        None => line("everything is the same, bit for bit".into()),
        Some(d) => line(format!(
            "DIFFERENT in cycle {} at {} us ({}): {}\n  recorded  {}\n  replayed  {}",
            d.cycle,
            d.time_us,
            d.file.display(),
            d.what,
            d.recorded,
            d.replayed
        )),
    }
    out
}
