//! `ganglion audit`: read a log and check its chain.

use anyhow::Result;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verify or show an audit log
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion audit verify examples/hvac/audit")]
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
            let unsealed = match report.unsealed {
                0 => String::new(),
                n => format!(", {n} of them not yet sealed (the writer was interrupted or still runs)"),
            };
            writeln!(
                out,
                "{}: intact, {} records in {} files{unsealed}",
                dir.display(),
                report.records,
                report.files
            )?;
            if report.lost_at_end > 0 {
                writeln!(
                    out,
                    "{} more records could not be stored when the last run ended",
                    report.lost_at_end
                )?;
            }
            writeln!(
                out,
                "last hash {}: keep it elsewhere, and not even the key's owner can rewrite the log",
                report.last_hash
            )?;
        }
        Action::Show { dir } => {
            for line in ganglion_audit::show(dir)? {
                writeln!(out, "{}", line?.text)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
