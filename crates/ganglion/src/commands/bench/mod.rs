//! `ganglion bench`: measurements, printed as they are.

pub mod decide;
pub mod device;
mod engine;
mod masks;
mod memory;
mod touched;
mod trace;

use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Measure decisions and the engine under them
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion bench engine models/nano/nano.gguf")]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Decide(decide::Arguments),
    Device(device::Arguments),
    Engine(engine::Arguments),
    Masks(masks::Arguments),
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Decide(arguments) => decide::run(arguments)?,
        What::Device(arguments) => device::run(arguments)?,
        What::Engine(arguments) => engine::run(arguments)?,
        What::Masks(arguments) => masks::run(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
