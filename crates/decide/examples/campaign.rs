//! A million decisions over random sites and events with small random models: is every command valid, is none late?
//!
//! `cargo run --release -p ganglion-decide --example campaign -- validity|lateness [DECISIONS] [SEED]`

#[path = "../tests/random/mod.rs"]
mod random;

use random::campaign::{Size, Tally, lateness, validity};
use std::process::ExitCode;
use std::time::Instant;

const DECISIONS: u64 = 1_000_000;
const PER_SITE: u64 = 500;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let campaign: fn(Size) -> Tally = match arguments.next().as_deref() {
        Some("validity") => validity,
        Some("lateness") => lateness,
        _ => {
            eprintln!("usage: campaign validity|lateness [DECISIONS] [SEED]");
            return ExitCode::from(2);
        }
    };
    let mut number = |default| arguments.next().map_or(Some(default), |text| text.parse().ok());
    let (Some(decisions), Some(seed)) = (number(DECISIONS), number(1)) else {
        eprintln!("DECISIONS and SEED are numbers");
        return ExitCode::from(2);
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let start = Instant::now();
    let parts: Vec<_> = (0..threads)
        .map(|part| {
            let decisions = decisions * (part + 1) / threads - decisions * part / threads;
            let size = Size { decisions, per_site: PER_SITE, seed: seed * threads + part };
            std::thread::spawn(move || campaign(size))
        })
        .collect();
    let mut tally = Tally::default();
    for part in parts {
        match part.join() {
            Ok(part) => tally.add(part),
            Err(_) => return ExitCode::FAILURE,
        }
    }
    println!("{tally:#?}\n{:.0} s", start.elapsed().as_secs_f64());
    if tally.invalid + tally.late == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
