//! `ganglion ask`: one decision, nothing actuated.

use crate::answer::{Answer, Identity};
use crate::{display, load};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ganglion_decide::Options;
use ganglion_guard::{Guard, Verdict, monotonic_us};
use ganglion_io::{encode::parse_tag, lines::check_sentence};
use ganglion_site::{Command, Decision, Event, Outcome, Sentence, Site};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Decide one sentence; nothing is actuated
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion ask examples/hvac \"set the kitchen to 21 degrees\"\n  \
                  ganglion ask examples/conveyor \"\" --tag torque=71.5 --tag wear=12 --tag speed=1500 --json")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// What an operator says; may be empty when tags are given
    text: OsString,
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

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let site = load::site(&arguments.site)?;
    let mut event = Event::new(1, 0);
    event.dry_run = true;
    for text in &arguments.tags {
        let (index, value) = parse_tag(&site, text).context("--tag")?;
        if event.tag(index).is_some() {
            bail!("--tag {text}: the tag is given twice");
        }
        event.set_tag(index, value);
    }
    let refused = match sentence(arguments, &event) {
        Ok(sentence) => {
            event.sentence = sentence;
            None
        }
        Err(error) => Some(error.to_string()),
    };
    let (gguf, _) = load::model_file(&site)?;
    let identity = Identity::new(&site, vec![gguf.sha256()]);
    let deadline_ms = arguments.deadline_ms.unwrap_or(site.guard.deadline_ms);
    let guard = Guard::new(&site)?;
    let (decision, latency_us) = match refused {
        Some(reason) => (no_answer(&event, &reason), 0),
        None => {
            let mut decider = load::decider(&site, &gguf, Options::default())?;
            let start = monotonic_us();
            event.deadline_us = start + u64::from(deadline_ms) * 1000;
            let decision = decider.decide(&event, &mut load::clock());
            (decision, monotonic_us() - start)
        }
    };
    let (outcome, command, verdict, reason) = judge(&guard, &event, &decision, &site);
    let answer = Answer {
        outcome,
        command,
        verdict,
        reason: &reason,
        confidence: decision.confidence,
        deadline_ms: f64::from(deadline_ms),
        latency_ms: latency_us as f64 / 1000.0,
        timings: decision.timings,
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", answer.to_json(&identity))?;
    } else {
        write!(out, "{}", display::answer(&answer, &site))?;
    }
    Ok(if verdict == Verdict::Rejected { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn sentence(arguments: &Arguments, event: &Event) -> Result<Sentence> {
    let text = arguments.text.to_str().context("the sentence is not UTF-8")?;
    if text.trim().is_empty() && event.tags_present != 0 {
        return Ok(Sentence::EMPTY);
    }
    let text =
        check_sentence(text.trim()).map_err(|reason| anyhow!("the sentence cannot be used: {reason}"))?;
    Sentence::new(&text).context("the sentence is too long")
}

fn no_answer(event: &Event, reason: &str) -> Decision {
    Decision {
        epoch: event.epoch,
        command: None,
        outcome: Outcome::Safe,
        confidence: 0.0,
        timings: ganglion_site::Timings::default(),
        reason: ganglion_site::Reason::cut(reason),
    }
}

/// The guard's word on the answer; without one, the rule controller's command when time ran out, nothing otherwise.
fn judge(
    guard: &Guard,
    event: &Event,
    decision: &Decision,
    site: &Site,
) -> (Outcome, Option<Command>, Verdict, String) {
    let tags: Vec<Option<f64>> = (0..site.tags.len()).map(|index| event.tag(index)).collect();
    if let Some(command) = decision.command {
        let checked = guard.check(&command, &tags);
        let reason = if command.is_none(site) { "nothing to do" } else { checked.reason.as_str() };
        return (decision.outcome, Some(checked.command), checked.verdict, reason.to_owned());
    }
    let reason = decision.reason.as_str().to_owned();
    if !ganglion_decide::ran_out_of_time(decision) {
        return (decision.outcome, None, Verdict::Rejected, reason);
    }
    let (outcome, checked) = guard.fallback(&tags);
    (outcome, Some(checked.command), checked.verdict, reason)
}
