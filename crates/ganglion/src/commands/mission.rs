//! `ganglion mission`: an instruction of several steps, planned, verified and carried out.

use super::run;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Carry out an instruction of several steps
///
/// The instruction is split into clauses, each is decided like a sentence, and the steps become a plan. The plan is verified
/// before anything moves, and the rest of it again before each step, with what is read then.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                  ganglion mission examples/inspection \"open valve 3 and measure the pressure at valve 4\"\n  \
                  ganglion mission examples/inspection \"photograph valve 2\" --dry-run\n\n\
                  Typed meanwhile: !hold pauses before the next step (the one under way goes on), !unhold resumes; !stop and \
                  !estop send the safe command and end the mission, as does any other command.")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// What is to be done; clauses are joined by commas, `and`, or `then` where the order matters
    text: String,
    /// Show the verified plan; nothing is actuated
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON record a line
    #[arg(long)]
    json: bool,
    /// Folder of the audit log; `audit` beside the site file by default
    #[arg(long, value_name = "DIR")]
    audit: Option<PathBuf>,
    /// Program that searches for other plans
    #[arg(long, value_name = "FILE", default_value = ganglion_plan::Solver::PROGRAM)]
    solver: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { site, text, dry_run, json, audit, solver } = arguments;
    run::run(&run::Arguments {
        dry_run: *dry_run,
        json: *json,
        audit: audit.clone(),
        solver: solver.clone(),
        mission: Some(text.clone()),
        ..run::Arguments::of(site)
    })
}
