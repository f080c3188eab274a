//! What this machine can do at best, by working set, threads and instruction set:
//! `cargo run --release -p ganglion-kernels --example limits`.

use ganglion_kernels::probe::{DotProbe, ReadProbe};
use ganglion_kernels::{Isa, Pool};
use std::sync::OnceLock;
use std::time::Instant;

const BUDGET_NS: u64 = 200_000_000;

fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn main() -> Result<(), ganglion_kernels::KernelError> {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<usize> = if most == 1 { vec![1] } else { vec![1, most] };
    println!("{:8} {:>7} {:>10} {:>9} {:>9}", "isa", "threads", "MiB", "GB/s", "at best");
    for isa in Isa::available() {
        for threads in &threads {
            let pool = Pool::new(*threads)?;
            for mib in [1, 4, 16, 64, 256, 1024] {
                let rate = ReadProbe::new(mib << 20).bandwidth(isa, &pool, BUDGET_NS, now_ns);
                let (median, best) = (rate.median / 1e9, rate.best / 1e9);
                println!("{:8} {threads:>7} {mib:>10} {median:>9.1} {best:>9.1}", isa.name());
            }
        }
    }
    println!("\n{:8} {:>7} {:>10} {:>9}", "isa", "threads", "GMAC/s", "at best");
    for isa in Isa::available() {
        for threads in &threads {
            let rate = DotProbe::new().peak(isa, &Pool::new(*threads)?, BUDGET_NS, now_ns);
            println!("{:8} {threads:>7} {:>10.1} {:>9.1}", isa.name(), rate.median / 1e9, rate.best / 1e9);
        }
    }
    Ok(())
}
