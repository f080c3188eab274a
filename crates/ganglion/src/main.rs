//! `ganglion`: decisions from small language models, in time, in form, within limits.
//!
//! This file only reads the command line and maps results to exit codes: 0 done, 1 refused or failed, 2 wrong usage. Each
//! subcommand is one file under `commands/`.

mod answer;
mod commands;
mod display;
mod document;
mod hgrm;
mod load;
mod plot;
mod sandbox;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Real-time decisions from small language models on a machine's own CPU.
#[derive(Parser)]
#[command(name = "ganglion", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(commands::run::Arguments),
    Ask(commands::ask::Arguments),
    Check(commands::check::Arguments),
    Model(commands::model::Arguments),
    Generate(commands::generate::Arguments),
    Audit(commands::audit::Arguments),
    Bench(commands::bench::Arguments),
    Plant(commands::plant::Arguments),
    Replay(commands::replay::Arguments),
    Doctor(commands::doctor::Arguments),
    #[command(hide = true)]
    Brain(commands::brain::Arguments),
}

fn main() -> ExitCode {
    // A reader that closes its end (`ganglion check | head`) is no failure of ours.
    let result = match Cli::parse().command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Ask(arguments) => commands::ask::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Model(arguments) => commands::model::run(&arguments),
        Command::Generate(arguments) => commands::generate::run(&arguments),
        Command::Audit(arguments) => commands::audit::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Plant(arguments) => commands::plant::run(&arguments),
        Command::Replay(arguments) => commands::replay::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Brain(arguments) => commands::brain::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, without those that the message before them already quotes.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) && !text.contains(&format!("{cause};")) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
