//! What the machine does to any program, measured beside the decisions: how late it wakes a thread, and how long it keeps
//! the processor from one that runs.

use anyhow::{Result, anyhow};
use ganglion_guard::measure_wake_ups;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WAKE_PERIOD_US: u64 = 1000;
const WAKES_PER_SLICE: u64 = 100;
const SPIN_PER_SLICE: Duration = Duration::from_millis(50);
/// A shorter gap between two readings of the clock is ordinary work: an interrupt, a miss.
const STALL_MIN: Duration = Duration::from_micros(20);

/// Delays of an otherwise idle thread, in slices between the decisions.
pub struct Machine {
    wake_ns: Histogram<u64>,
    stall_ns: Histogram<u64>,
    stalled: Duration,
    spun: Duration,
}

impl Machine {
    pub fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Ok(Self {
            wake_ns: histogram()?,
            stall_ns: histogram()?,
            stalled: Duration::ZERO,
            spun: Duration::ZERO,
        })
    }

    /// Looks for about 150 ms.
    pub fn look(&mut self) -> Result<()> {
        let wakes = std::thread::spawn(|| measure_wake_ups(WAKE_PERIOD_US, WAKES_PER_SLICE));
        let wakes = wakes.join().map_err(|_| anyhow!("the measurement of wake-ups ended in a fault"))?;
        self.wake_ns += wake_up_histogram(&wakes)?;
        let start = Instant::now();
        let mut last = start;
        while last - start < SPIN_PER_SLICE {
            let now = Instant::now();
            if now - last >= STALL_MIN {
                self.stalled += now - last;
                self.stall_ns.record(u64::try_from((now - last).as_nanos())?)?;
            }
            last = now;
        }
        self.spun += last - start;
        Ok(())
    }

    /// p50, p99, p99.9 and max of wake-ups, in µs.
    pub fn wake_up_us(&self) -> [f64; 4] {
        [0.5, 0.99, 0.999, 1.0].map(|share| self.wake_ns.value_at_quantile(share) as f64 / 1000.0)
    }

    /// The longest time that a running thread had no processor, in µs; 0 when never for long.
    pub fn stall_max_us(&self) -> f64 {
        if self.stall_ns.is_empty() { 0.0 } else { self.stall_ns.max() as f64 / 1000.0 }
    }

    /// Share of its time that a running thread had no processor.
    pub fn stalled_share(&self) -> f64 {
        self.stalled.as_secs_f64() / self.spun.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    pub fn to_json(&self) -> Value {
        let [p50, p99, p999, max] = self.wake_up_us();
        json!({
            "wake_ups": self.wake_ns.len(), "wake_up_p50_us": p50, "wake_up_p99_us": p99, "wake_up_p999_us": p999,
            "wake_up_max_us": max, "stall_max_us": self.stall_max_us(), "stalled_share": self.stalled_share(),
        })
    }
}

/// Wake-up delays in ns. Those beyond the probe's own histogram count as the longest seen.
pub fn wake_up_histogram(wakes: &ganglion_guard::WakeUps) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?;
    // A histogram counts from 1: less than a µs is shown as half of one.
    for (us, &count) in (0_u64..).zip(&wakes.histogram) {
        if count > 0 {
            histogram.record_n((us * 1000).max(500), count)?;
        }
    }
    if wakes.beyond > 0 {
        histogram.record_n(wakes.max_us * 1000, wakes.beyond)?;
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wake_up_and_stall_is_counted() {
        let mut machine = Machine::new().unwrap();
        machine.look().unwrap();
        assert_eq!(machine.wake_ns.len(), WAKES_PER_SLICE);
        assert!(machine.spun >= SPIN_PER_SLICE && (0.0..=1.0).contains(&machine.stalled_share()));
        let [p50, p99, p999, max] = machine.wake_up_us();
        assert!(p50 <= p99 && p99 <= p999 && p999 <= max);
        let mut wakes = measure_wake_ups(500, 4);
        (wakes.beyond, wakes.max_us) = (2, 50_000);
        let histogram = wake_up_histogram(&wakes).unwrap();
        assert_eq!(histogram.len(), 6);
        assert!(histogram.max() >= 50_000_000);
    }
}
