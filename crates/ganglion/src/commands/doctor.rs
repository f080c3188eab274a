//! `ganglion doctor`: what of the host's real-time settings is missing, and how punctually it wakes a thread.

use super::bench::decide::machine::wake_up_histogram;
use crate::hgrm;
use anyhow::{Result, anyhow};
use clap::Args;
use ganglion_guard::{go_real_time, measure_wake_ups};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Real-time priority of the measuring thread where it is granted, the guard's own.
const PRIORITY: i32 = ganglion_guard::limits::FIFO_PRIORITY;

/// Check the host's real-time settings and measure wake-up delays
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion doctor --seconds 10 --histogram")]
pub struct Arguments {
    /// How long to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Time between two wake-ups, in µs
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    interval_us: u32,
    /// Print the histogram, too, one line per µs
    #[arg(long)]
    histogram: bool,
    /// Write the delays as percentiles in µs, in HdrHistogram's form
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

/// One setting: how it is, and what to do about it if anything.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    found: String,
    advice: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = Path::new("/");
    let hgrm = arguments.hgrm.as_deref().map(|path| Ok::<_, anyhow::Error>((hgrm::create(path)?, path)));
    let hgrm = hgrm.transpose()?;
    let mut out = std::io::stdout().lock();
    for Finding { what, found, advice } in examine(root) {
        let mark = if advice.is_some() { "!" } else { " " };
        writeln!(out, "{mark} {what}: {found}")?;
        if let Some(advice) = advice {
            writeln!(out, "    {advice}")?;
        }
    }
    let interval_us = u64::from(arguments.interval_us);
    let count = u64::from(arguments.seconds) * 1_000_000 / interval_us;
    let steal_before = steal_ticks(root);
    // A thread of its own, as the guard is: what it is granted ends with it.
    let measured = std::thread::spawn(move || {
        let status = go_real_time();
        (status.fifo.is_ok(), status.advice(), measure_wake_ups(interval_us, count))
    });
    let (fifo, advice, wake_ups) =
        measured.join().map_err(|_| anyhow!("the measurement ended in a fault"))?;
    for line in &advice {
        writeln!(out, "! {line}")?;
    }
    let priority = if fifo { PRIORITY } else { 0 };
    writeln!(out, "{}", wake_ups.line(std::process::id(), priority))?;
    if let (Some(before), Some(after)) = (steal_before, steal_ticks(root)) {
        writeln!(out, "  ticks stolen by the hypervisor meanwhile: {}", after.saturating_sub(before))?;
    }
    if arguments.histogram {
        writeln!(out, "{}", wake_ups.histogram())?;
    }
    if let Some((file, path)) = hgrm {
        hgrm::write_to(file, path, &wake_up_histogram(&wake_ups)?, 1000.0)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every setting that can be read below `root`.
fn examine(root: &Path) -> Vec<Finding> {
    [kernel(root), clock(root), governor(root), throttling(root), isolation(root), swap(root)]
        .into_iter()
        .flatten()
        .collect()
}

fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

fn kernel(root: &Path) -> Option<Finding> {
    let release = read(root, "proc/sys/kernel/osrelease")?;
    let real_time = read(root, "sys/kernel/realtime").as_deref() == Some("1");
    let advice = "wake-ups may take milliseconds under load; install a PREEMPT_RT kernel (Debian: linux-image-rt-amd64)";
    let word = if real_time { "PREEMPT_RT" } else { "not PREEMPT_RT" };
    let advice = (!real_time).then(|| advice.to_owned());
    Some(Finding { what: "kernel", found: format!("{release}, {word}"), advice })
}

fn clock(root: &Path) -> Option<Finding> {
    let found = read(root, "sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let slow = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"].contains(&found.as_str());
    let advice = slow
        .then(|| "reading it is slow; boot with clocksource=tsc tsc=reliable if the processor allows".into());
    Some(Finding { what: "clock source", found, advice })
}

fn governor(root: &Path) -> Option<Finding> {
    let cpus = std::fs::read_dir(root.join("sys/devices/system/cpu")).ok()?.flatten();
    let mut found: Vec<String> = cpus
        .filter_map(|cpu| std::fs::read_to_string(cpu.path().join("cpufreq/scaling_governor")).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        return None;
    }
    let other = found.iter().any(|governor| governor != "performance");
    let advice = "clocks that change speed delay wake-ups; cpupower frequency-set -g performance";
    let advice = other.then(|| advice.to_owned());
    Some(Finding { what: "frequency governor", found: found.join(", "), advice })
}

fn throttling(root: &Path) -> Option<Finding> {
    let runtime: i64 = read(root, "proc/sys/kernel/sched_rt_runtime_us")?.parse().ok()?;
    let period: i64 = read(root, "proc/sys/kernel/sched_rt_period_us")?.parse().ok()?;
    let found = if runtime < 0 {
        "off: a real-time thread that hangs takes its processor for ever".to_owned()
    } else {
        format!("real-time threads get {runtime} of every {period} µs")
    };
    let advice =
        (runtime == 0).then(|| "SCHED_FIFO is refused so; sysctl kernel.sched_rt_runtime_us=950000".into());
    Some(Finding { what: "real-time throttling", found, advice })
}

fn isolation(root: &Path) -> Option<Finding> {
    let found = read(root, "sys/devices/system/cpu/isolated")?;
    if !found.is_empty() {
        return Some(Finding { what: "isolated processors", found, advice: None });
    }
    let advice = "with three or more processors keep one free of everything else: isolcpus=N nohz_full=N rcu_nocbs=N at \
                  boot, CPUAffinity=N in the service";
    Some(Finding { what: "isolated processors", found: "none".into(), advice: Some(advice.into()) })
}

fn swap(root: &Path) -> Option<Finding> {
    let areas = read(root, "proc/swaps")?.lines().skip(1).count();
    let found = if areas == 0 { "none".to_owned() } else { format!("{areas} areas") };
    let advice =
        "memory that is not locked may be swapped out; swapoff -a, or LimitMEMLOCK=infinity in the service";
    Some(Finding { what: "swap", found, advice: (areas > 0).then(|| advice.to_owned()) })
}

/// Ticks that the hypervisor gave to others, all processors together (`proc(5)`, `/proc/stat`, eighth number).
fn steal_ticks(root: &Path) -> Option<u64> {
    let stat = read(root, "proc/stat")?;
    stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files, removed when dropped.
    struct Root(std::path::PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("ganglion-doctor-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_host_in_order_gets_no_advice_and_one_out_of_order_gets_it_line_by_line() {
        let good = Root::new(
            "good",
            &[
                ("proc/sys/kernel/osrelease", "6.12.0-rt\n"),
                ("sys/kernel/realtime", "1\n"),
                ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
                ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
                ("proc/sys/kernel/sched_rt_runtime_us", "950000\n"),
                ("proc/sys/kernel/sched_rt_period_us", "1000000\n"),
                ("sys/devices/system/cpu/isolated", "3\n"),
                ("proc/swaps", "Filename Type Size Used Priority\n"),
                ("proc/stat", "cpu  1 2 3 4 5 6 7 88 0 0\ncpu0 1 2\n"),
            ],
        );
        let found = examine(&good.0);
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|finding| finding.advice.is_none()), "{found:?}");
        assert_eq!(steal_ticks(&good.0), Some(88));
        let bad = Root::new(
            "bad",
            &[
                ("proc/sys/kernel/osrelease", "6.12.0\n"),
                ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
                ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
                ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
                ("proc/sys/kernel/sched_rt_runtime_us", "0\n"),
                ("proc/sys/kernel/sched_rt_period_us", "1000000\n"),
                ("sys/devices/system/cpu/isolated", "\n"),
                ("proc/swaps", "Filename Type Size Used Priority\n/swap file 1 0 -2\n"),
            ],
        );
        let found = examine(&bad.0);
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|finding| finding.advice.is_some()), "{found:?}");
        assert_eq!(found[2].found, "performance, powersave");
        let empty = Root::new("empty", &[("x", "")]);
        assert_eq!(examine(&empty.0), [], "what cannot be read is not judged");
    }
}
