//! `ganglion check`: a site file and what follows from it.

use crate::load;
use anyhow::Result;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a site file and show its schema, limits, memory plan and prompt
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion check examples/hvac")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let site = load::site(&arguments.site)?;
    let (gguf, plan) = load::model_file(&site)?;
    let prompt = ganglion_decide::check_fit(&site, &gguf)?;
    ganglion_guard::Guard::new(&site)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: ok\n\nCommands, as JSON Schema (sha256 {})",
        site.file.display(),
        site.schema_sha256()
    )?;
    writeln!(out, "{}", serde_json::to_string_pretty(&site.schema())?)?;
    writeln!(out, "\nTags\n{}", site.tag_table())?;
    writeln!(out, "Limits\n{}", site.limit_table())?;
    if !site.triggers.is_empty() || site.commands.iter().any(|command| command.announce.is_some()) {
        writeln!(out, "Triggers\n{}", site.trigger_table())?;
    }
    writeln!(out, "Registers\n{}", site.register_table())?;
    writeln!(out, "Memory, all of it taken at the start\n{}", load::plan_table(&plan))?;
    let (form, tokens) = (prompt.form(), prompt.prefix().len());
    let left = site.model.context_tokens.saturating_sub(tokens);
    writeln!(
        out,
        "Prompt prefix ({form}, {tokens} tokens, pinned; {left} left for the event and its command)"
    )?;
    writeln!(out, "{}", prompt.prefix_text())?;
    Ok(ExitCode::SUCCESS)
}
