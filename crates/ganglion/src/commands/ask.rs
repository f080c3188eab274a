//! `ganglion ask`: one decision, or several, or those about a longer text; nothing actuated.

use crate::answer::{Answer, Identity};
use crate::document::Outcome as DocumentOutcome;
use crate::{display, load};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ganglion_decide::limits::WINDOW_BYTES_MIN;
use ganglion_decide::{Decider, Join, Options, Window, Windows};
use ganglion_guard::{Guard, Verdict, monotonic_us};
use ganglion_io::{encode::parse_tag, lines::check_sentence};
use ganglion_site::limits::SENTENCE_BYTES_MAX;
use ganglion_site::{Command, Decision, Event, Outcome, Sentence, Site};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Sentences of one call.
const PARTS_MAX: usize = ganglion_server::limits::PARTS_MAX;

/// Decide one sentence, several, or a document; nothing is actuated
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion ask examples/hvac \"set the kitchen to 21 degrees\"\n  \
                  ganglion ask examples/hvac \"set the kitchen to 21 degrees\" \"switch the office fan to 40 percent\"\n  \
                  ganglion ask examples/hvac --document minutes.txt --window 64\n  \
                  ganglion ask examples/conveyor \"\" --tag torque=71.5 --tag wear=12 --tag speed=1500 --json")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// What an operator says; may be empty when tags are given. Several sentences are decided together
    #[arg(required_unless_present = "document", conflicts_with = "document")]
    text: Vec<OsString>,
    /// A text of any length (`-`: standard input), decided window by window; what several windows say is joined
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Bytes of a window at most. A model trained on short sentences, as the default one is, is surer of short windows
    #[arg(long, value_name = "BYTES", requires = "document", default_value_t = SENTENCE_BYTES_MAX,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(WINDOW_BYTES_MIN as u64..=SENTENCE_BYTES_MAX as u64))]
    window: usize,
    /// Reading shown to the model and judged by limits and rules, for example kitchen_temperature=21.5
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<String>,
    /// Time for the decision; the site's deadline by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600_000))]
    deadline_ms: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What all decisions of a call have in common.
struct Asking {
    site: Arc<Site>,
    identity: Identity,
    guard: Guard,
    /// Readings, no sentence.
    event: Event,
    deadline_ms: u32,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let site = load::site(&arguments.site)?;
    if arguments.text.len() > PARTS_MAX {
        bail!("{} sentences: at most {PARTS_MAX} are decided together", arguments.text.len());
    }
    let event = readings(&site, &arguments.tags)?;
    let document = arguments.document.as_deref().map(open).transpose()?;
    let (gguf, _) = load::model_file(&site)?;
    let identity = Identity::new(&site, vec![gguf.sha256()]);
    let deadline_ms = arguments.deadline_ms.unwrap_or(site.guard.deadline_ms);
    let guard = Guard::new(&site)?;
    let decider = || load::decider(&site, &gguf, Options::default());
    let asking = Asking { identity, guard, event, deadline_ms, site: Arc::clone(&site) };
    match document {
        Some(reader) => asking.document(reader, arguments.window, decider()?, arguments.json),
        None => asking.sentences(&arguments.text, decider, arguments.json),
    }
}

fn readings(site: &Site, tags: &[String]) -> Result<Event> {
    let mut event = Event::new(1, 0);
    event.dry_run = true;
    for text in tags {
        let (index, value) = parse_tag(site, text).context("--tag")?;
        if event.tag(index).is_some() {
            bail!("--tag {text}: the tag is given twice");
        }
        event.set_tag(index, value);
    }
    Ok(event)
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = std::fs::File::open(path).with_context(|| format!("--document {}", path.display()))?;
    Ok(Box::new(file))
}

impl Asking {
    /// Each sentence is a decision of its own; they share passes through the model.
    fn sentences(
        &self,
        texts: &[OsString],
        decider: impl FnOnce() -> Result<Decider>,
        json: bool,
    ) -> Result<ExitCode> {
        let read: Vec<Result<Event, String>> = texts
            .iter()
            .map(|text| match sentence(text, &self.event) {
                Ok(sentence) => Ok(Event { sentence, ..self.event }),
                Err(error) => Err(error.to_string()),
            })
            .collect();
        let mut events: Vec<Event> = read.iter().flatten().copied().collect();
        let mut decided = Vec::new();
        if !events.is_empty() {
            decided = self.decide(&mut decider()?, &mut events, 1);
        }
        let mut decided = decided.into_iter();
        let (mut answers, mut code) = (Vec::new(), ExitCode::SUCCESS);
        let mut out = std::io::stdout().lock();
        for (read, text) in read.iter().zip(texts) {
            let (decision, latency_us) = match read {
                Ok(_) => decided.next().context("an event was not answered")?,
                Err(reason) => (no_answer(reason), 0),
            };
            let event = read.as_ref().unwrap_or(&self.event);
            let (outcome, command, verdict, reason) = judge(&self.guard, event, &decision, &self.site);
            let answer = Answer {
                outcome,
                command,
                verdict,
                reason: &reason,
                confidence: decision.confidence,
                deadline_ms: f64::from(self.deadline_ms),
                latency_ms: latency_us as f64 / 1000.0,
                timings: decision.timings,
            };
            if verdict == Verdict::Rejected {
                code = ExitCode::FAILURE;
            }
            if json {
                answers.push(answer.to_json(&self.identity));
                continue;
            }
            if texts.len() > 1 {
                writeln!(out, "sentence {}", text.to_string_lossy())?;
            }
            write!(out, "{}", display::answer(&answer, &self.site))?;
        }
        if json {
            match <[serde_json::Value; 1]>::try_from(answers) {
                Ok([answer]) => writeln!(out, "{answer}")?,
                Err(answers) => writeln!(out, "{}", json!({ "parts": answers }))?,
            }
        }
        Ok(code)
    }

    /// Window by window, as many at a time as share a pass; memory does not grow with the text.
    fn document(
        &self,
        reader: Box<dyn Read>,
        window_bytes: usize,
        mut decider: Decider,
        json: bool,
    ) -> Result<ExitCode> {
        let start = Instant::now();
        let mut windows = Windows::with_size(BufReader::new(reader), window_bytes);
        let mut join = Join::default();
        let mut batch: Vec<Window> = Vec::with_capacity(decider.parallel());
        let mut events: Vec<Event> = Vec::with_capacity(decider.parallel());
        loop {
            batch.clear();
            events.clear();
            while batch.len() < decider.parallel()
                && let Some(window) = windows.next()
            {
                let window = window.context("--document")?;
                events.push(Event { sentence: window.sentence, ..self.event });
                batch.push(window);
            }
            if batch.is_empty() {
                break;
            }
            let count = u32::try_from(batch.len()).unwrap_or(1);
            let decided = self.decide(&mut decider, &mut events, count);
            for (window, (decision, _)) in batch.iter().zip(decided) {
                join.add(&self.site, window.range.clone(), &decision);
            }
        }
        if join.windows == 0 {
            bail!("the document is empty");
        }
        let tags = given_tags(&self.event, &self.site);
        let outcome = DocumentOutcome::of(&self.site, join, windows.read_bytes(), start.elapsed(), &tags)?;
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", outcome.to_json(&self.identity))?;
        } else {
            write!(out, "{}", outcome.describe(&self.site))?;
        }
        Ok(if outcome.is_refused() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Decides all; decisions with their latency, in the order of `events`. They have `times` the deadline together.
    fn decide(&self, decider: &mut Decider, events: &mut [Event], times: u32) -> Vec<(Decision, u64)> {
        let start = monotonic_us();
        for (epoch, event) in (1..).zip(events.iter_mut()) {
            event.epoch = epoch;
            event.deadline_us = start + u64::from(self.deadline_ms) * u64::from(times) * 1000;
        }
        let mut decided = vec![(no_answer("not decided"), 0); events.len()];
        decider.decide_all(events, &mut load::clock(), &mut |place, decision| {
            if let Some(slot) = decided.get_mut(place) {
                *slot = (decision, monotonic_us() - start);
            }
        });
        decided
    }
}

fn sentence(text: &OsStr, event: &Event) -> Result<Sentence> {
    let text = text.to_str().context("the sentence is not UTF-8")?;
    if text.trim().is_empty() && event.tags_present != 0 {
        return Ok(Sentence::EMPTY);
    }
    let text =
        check_sentence(text.trim()).map_err(|reason| anyhow!("the sentence cannot be used: {reason}"))?;
    Sentence::new(&text).context("the sentence is too long")
}

fn no_answer(reason: &str) -> Decision {
    Decision { outcome: Outcome::Safe, reason: ganglion_site::Reason::cut(reason), ..Decision::SIGN_OF_LIFE }
}

fn given_tags(event: &Event, site: &Site) -> Vec<Option<f64>> {
    (0..site.tags.len()).map(|index| event.tag(index)).collect()
}

/// The guard's word on the answer; without one, the rule controller's command when time ran out, nothing otherwise.
fn judge(
    guard: &Guard,
    event: &Event,
    decision: &Decision,
    site: &Site,
) -> (Outcome, Option<Command>, Verdict, String) {
    let tags = given_tags(event, site);
    if let Some(command) = decision.command {
        let checked = guard.check(&command, &tags);
        let reason = match checked.reason.as_str() {
            "" if !decision.reason.as_str().is_empty() => decision.reason.as_str(),
            _ if command.is_none(site) => "nothing to do",
            reason => reason,
        };
        return (decision.outcome, Some(checked.command), checked.verdict, reason.to_owned());
    }
    let reason = decision.reason.as_str().to_owned();
    if !decision.ran_out_of_time() {
        return (decision.outcome, None, Verdict::Rejected, reason);
    }
    let (outcome, checked) = guard.fallback(&tags);
    (outcome, Some(checked.command), checked.verdict, reason)
}
