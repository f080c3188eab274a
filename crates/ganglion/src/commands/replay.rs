//! `ganglion replay`: a recording's cycles run again, here and now, and compared with what was recorded.

use crate::load;
use anyhow::{Context, Result, bail};
use clap::Args;
use ganglion_decide::{Decider, LoadedModel, Options, ran_out_of_time};
use ganglion_gguf::Gguf;
use ganglion_kernels::Isa;
use ganglion_kernels::limits::THREADS_MAX;
use ganglion_llm::ModelOptions;
use ganglion_record::{Again, RecordError, Recording, Report, files, replay};
use ganglion_site::{Decision, Event, Outcome, Site};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Run a recording again and compare every verdict, bit for bit
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion replay examples/hvac/record\n  \
                  ganglion replay fault-000001.grec --model models/nano/nano.gguf\n  \
                  ganglion replay examples/hvac/record --model models/nano/nano.gguf --isa scalar --threads 1\n\n\
                  Exit code 1 when something comes out differently (the first difference is printed), when a file is\ndamaged, \
                  and when there is no cycle to compare.")]
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
    let recordings = open(&arguments.log)?;
    let mut models = Models::open(arguments, &recordings)?;
    let mut decide = |site: &Arc<Site>, model: &str, event: &Event, then: &Decision| {
        models.decide(site, model, event, then)
    };
    let with_model = !arguments.model.is_empty();
    let report = replay(&recordings, with_model.then_some(&mut decide))?;
    if let Some(error) = models.error {
        return Err(error);
    }
    let own = env!("CARGO_PKG_VERSION");
    if let Some(other) = recordings.iter().map(|r| &r.header().program).find(|program| *program != own) {
        eprintln!("note: recorded by version {other}, replayed by {own}");
    }
    if arguments.json {
        println!("{}", to_json(&report));
    } else {
        print!("{}", in_words(&report));
    }
    Ok(if report.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The headers of all files. One of several in which the writer was interrupted before the first cycle has nothing to say.
fn open(log: &Path) -> Result<Vec<Recording>> {
    let files = files(log)?;
    let mut recordings = Vec::new();
    for file in &files {
        match Recording::open(file) {
            Ok(recording) => recordings.push(recording),
            Err(error @ RecordError::Unbegun { .. }) if files.len() > 1 => {
                eprintln!("note: {error}; left out")
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(recordings)
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
    /// By SHA-256.
    files: BTreeMap<String, Gguf>,
    /// What a model was made ready for last.
    deciders: BTreeMap<String, (Arc<Site>, Decider)>,
    error: Option<anyhow::Error>,
}

impl Models {
    fn open(arguments: &Arguments, recordings: &[Recording]) -> Result<Self> {
        let wanted: BTreeSet<&str> =
            recordings.iter().flat_map(|r| &r.header().models).map(String::as_str).collect();
        let mut files = BTreeMap::new();
        for path in &arguments.model {
            let gguf = Gguf::open(path).with_context(|| format!("--model {}", path.display()))?;
            let hash = gguf.sha256();
            if !wanted.contains(hash.as_str()) {
                bail!(
                    "--model {}: its SHA-256 is {hash}; expected a model of the recording: {}",
                    path.display(),
                    wanted.into_iter().collect::<Vec<_>>().join(", ")
                );
            }
            files.insert(hash, gguf);
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

    fn decide(&mut self, site: &Arc<Site>, model: &str, event: &Event, then: &Decision) -> Again {
        if then.outcome == Outcome::Completion || ran_out_of_time(then) {
            return Again::CutByDeadline;
        }
        match self.decider(site, model) {
            // A clock that stands still: only what was asked counts.
            Ok(Some(decider)) => Again::Decided(decider.decide(event, &mut || 0)),
            Ok(None) => Again::NotHere,
            Err(error) => {
                self.error = Some(error);
                Again::NotHere
            }
        }
    }

    /// The model, made ready for this site: that of another run may have other commands.
    fn decider(&mut self, site: &Arc<Site>, model: &str) -> Result<Option<&mut Decider>> {
        let Some(gguf) = self.files.get(model) else { return Ok(None) };
        if self.deciders.get(model).is_none_or(|(of, _)| !Arc::ptr_eq(of, site)) {
            let decider = self.load(site, gguf)?;
            self.deciders.insert(model.to_owned(), (Arc::clone(site), decider));
        }
        Ok(self.deciders.get_mut(model).map(|(_, decider)| decider))
    }
}

fn to_json(report: &Report) -> serde_json::Value {
    let [approved, clamped, rejected] = report.verdicts;
    json!({
        "same": report.is_same(), "files": report.files, "runs": report.runs, "cycles": report.cycles, "states": report.states,
        "events": report.events, "approved": approved, "clamped": clamped, "rejected": rejected,
        "actuated": report.actuated, "policies": report.policies, "gaps": report.gaps,
        "lost_cycles": report.lost_cycles, "torn": report.torn, "damaged": report.damaged,
        "damages": report.damages.iter()
            .map(|d| json!({"file": d.file, "offset": d.offset, "what": d.what})).collect::<Vec<_>>(),
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
    if report.runs > 1 {
        line(format!("{} runs, each from its own beginning", report.runs));
    }
    if report.gaps > 0 {
        line(format!("{} gaps, {} cycles are missing", report.gaps, report.lost_cycles));
    }
    if report.torn > 0 {
        line(format!("{} files have a torn end: the writer was interrupted", report.torn));
    }
    for damage in &report.damages {
        line(format!("DAMAGED at byte {} of {}: {}", damage.offset, damage.file.display(), damage.what));
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
    let cycles = report.cycles;
    match &report.difference {
        None if cycles == 0 => line("nothing to compare: no cycle can be run again".into()),
        None if report.damaged > 0 => {
            line(format!(
                "{cycles} cycles are the same, bit for bit; the recording is damaged in {} places",
                report.damaged
            ));
        }
        None if report.torn > 0 || report.gaps > 0 => {
            line(format!("the {cycles} cycles that are there are the same, bit for bit"));
        }
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
