//! `ganglion audit`: read a log and check its chain.

use anyhow::Result;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verify or show an audit log
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Check that no record was edited, deleted, inserted or reordered
    #[command(after_help = "Example:\n  ganglion audit verify examples/hvac/audit")]
    Verify {
        /// Folder of the log
        dir: PathBuf,
    },
    /// Print the records, one JSON object a line
    #[command(after_help = "Example:\n  ganglion audit show examples/hvac/audit | tail -n 3")]
    Show {
        /// Folder of the log
        dir: PathBuf,
    },
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &arguments.action {
        Action::Verify { dir } => {
            let report = ganglion_audit::verify(dir)?;
            writeln!(out, "{report}")?;
        }
        Action::Show { dir } => {
            for line in ganglion_audit::show(dir)? {
                writeln!(out, "{}", line?.body)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
