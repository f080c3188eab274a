//! `ganglion bench decide`: from event to command, alone and in turn with a llama-server.

mod http;
pub mod machine;
mod ours;
mod peer;
mod report;

use crate::load;
use anyhow::{Context, Result, bail};
use clap::Args;
use ganglion_decide::{Options, check_fit};
use ganglion_site::{Sentence, Site};
use ganglion_tokenizer::Tokenizer;
use machine::Machine;
use ours::Events;
pub use ours::nanoseconds;
use peer::Rounds;
use report::Report;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time from event to command, prefix warm
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion bench decide examples/hvac -n 2000 --no-memo\n  \
                  ganglion bench decide examples/hvac --no-memo --peer http://127.0.0.1:8080 --out decide")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// Decisions to time
    #[arg(short = 'n', long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// Sentences, one a line; events.txt beside the site file by default
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Another model than the site's
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Decide every event anew, repeated or not
    #[arg(long)]
    no_memo: bool,
    /// Give every event so long; without, as long as it takes
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    deadline_ms: Option<u64>,
    /// A llama-server with the same model, asked in turn with this program afterwards; implies --no-memo
    #[arg(long, value_name = "URL")]
    peer: Option<String>,
    /// Events that both sides decide
    #[arg(long, value_name = "N", default_value_t = 100, requires = "peer", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    peer_count: u64,
    /// Those of them that the peer decides once more without its cache; a quarter by default
    #[arg(long, value_name = "N", requires = "peer")]
    cold_count: Option<u64>,
    /// Write PREFIX.json, PREFIX.md, PREFIX.hgrm and PREFIX.svg
    #[arg(long, value_name = "PREFIX")]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut site = Site::load(&arguments.site)?;
    if let Some(model) = &arguments.model {
        site.model.path.clone_from(model);
    }
    let site = std::sync::Arc::new(site);
    let sentences = sentences(arguments, &site)?;
    let (gguf, _) = load::model_file(&site)?;
    // A server has no memory of answers: beside one, every event is decided.
    let memo = !arguments.no_memo && arguments.peer.is_none();
    let mut decider = load::decider(&site, &gguf, Options { memo, ..Options::default() })?;
    let mut events = Events::new(sentences, arguments.deadline_ms.map(Duration::from_millis));
    let mut machine = Machine::new()?;
    let totals = ours::measure(&mut decider, &mut events, arguments.count, &mut machine)?;
    let peer = match &arguments.peer {
        None => None,
        Some(url) => {
            let rounds = Rounds {
                warm: arguments.peer_count,
                cold: arguments
                    .cold_count
                    .unwrap_or(arguments.peer_count.div_ceil(4))
                    .min(arguments.peer_count),
            };
            let (prompt, tokenizer) = (check_fit(&site, &gguf)?, Tokenizer::from_gguf(&gguf)?);
            Some(peer::compare(url, &site, prompt, tokenizer, &mut decider, &mut events, rounds)?)
        }
    };
    let model = site.model.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let report = Report {
        site: site.name.clone(),
        model,
        model_sha256: gguf.sha256().to_string(),
        threads: site.model.threads,
        sentences: events.count(),
        prefix_tokens: decider.prompt().prefix().len(),
        deadline_ms: arguments.deadline_ms,
        totals,
        machine,
        peer,
    };
    if let Some(prefix) = &arguments.out {
        report.write(prefix)?;
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(())
}

fn sentences(arguments: &Arguments, site: &Site) -> Result<Vec<Sentence>> {
    let default = site.file.parent().unwrap_or(Path::new(".")).join("events.txt");
    let file = arguments.events.as_ref().unwrap_or(&default);
    let text = std::fs::read_to_string(file).with_context(|| {
        format!("{}: put one sentence a line there, or name another file with --events", file.display())
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sentences: Vec<_> = lines
        .map(|line| Sentence::new(line).with_context(|| format!("{}: too long: {line}", file.display())))
        .collect::<Result<_>>()?;
    if sentences.is_empty() {
        bail!("{}: holds no sentence", file.display());
    }
    Ok(sentences)
}
