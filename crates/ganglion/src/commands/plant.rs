//! `ganglion plant`: a simulated plant behind a real Modbus TCP server.

use anyhow::Result;
use clap::Args;
use ganglion_plant::Options;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Simulate a plant behind Modbus TCP
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion plant hvac --listen 127.0.0.1:1502")]
pub struct Arguments {
    /// Which plant: hvac, conveyor or inspection
    kind: String,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1502")]
    listen: SocketAddr,
    /// Parts to play instead of random ones (conveyor)
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Fixes every disturbance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Model seconds per real second
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// End when standard input does
    #[arg(long)]
    exit_with_stdin: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = Options {
        seed: arguments.seed,
        speed: arguments.speed,
        csv: arguments.csv.clone(),
        exit_with_stdin: arguments.exit_with_stdin,
        ..Options::new(arguments.kind.parse()?)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ganglion_plant::serve(arguments.listen, options, |address| {
        println!("listening on {address}")
    }))?;
    Ok(ExitCode::SUCCESS)
}
