//! How late the system wakes a thread that sleeps until a point in time: what cyclictest measures, with the clock and the
//! sleep that the guard's own loop uses.

use crate::limits::WAKE_HISTOGRAM_US;
use crate::rt;
use ganglion_site::Micros;
use std::fmt;

/// Delays of one measurement, in whole µs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WakeUps {
    /// Time between two wake-ups.
    pub period_us: Micros,
    /// Wake-ups measured.
    pub count: u64,
    /// Smallest delay.
    pub min_us: Micros,
    /// Last delay.
    pub last_us: Micros,
    /// Largest delay.
    pub max_us: Micros,
    /// Sum of all delays.
    pub sum_us: Micros,
    /// Bucket `i` counts delays of `i` µs.
    pub histogram: Vec<u64>,
    /// Delays beyond the histogram.
    pub beyond: u64,
}

impl WakeUps {
    fn none(period_us: Micros) -> Self {
        let histogram = vec![0; WAKE_HISTOGRAM_US];
        Self { period_us, count: 0, min_us: 0, last_us: 0, max_us: 0, sum_us: 0, histogram, beyond: 0 }
    }

    fn add(&mut self, late_us: Micros) {
        self.min_us = if self.count == 0 { late_us } else { self.min_us.min(late_us) };
        self.count += 1;
        self.last_us = late_us;
        self.max_us = self.max_us.max(late_us);
        self.sum_us += late_us;
        let bucket = usize::try_from(late_us).ok().and_then(|i| self.histogram.get_mut(i));
        match bucket {
            Some(bucket) => *bucket += 1,
            None => self.beyond += 1,
        }
    }

    /// Mean delay, rounded down as cyclictest does.
    pub fn mean_us(&self) -> Micros {
        self.sum_us.checked_div(self.count).unwrap_or(0)
    }

    /// cyclictest's line for one thread (`rt-tests`, `print_stat`).
    pub fn line(&self, thread: u32, priority: i32) -> impl fmt::Display + '_ {
        Line { wake_ups: self, thread, priority }
    }

    /// cyclictest's histogram (`--histogram`), without the empty buckets after the last one used.
    pub fn histogram(&self) -> impl fmt::Display + '_ {
        Histogram(self)
    }
}

struct Line<'a> {
    wake_ups: &'a WakeUps,
    thread: u32,
    priority: i32,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WakeUps { period_us, count, min_us, last_us, max_us, .. } = self.wake_ups;
        let (thread, priority, mean_us) = (self.thread, self.priority, self.wake_ups.mean_us());
        write!(
            f,
            "T: 0 ({thread:5}) P:{priority:2} I:{period_us} C:{count:7} Min:{min_us:7} Act:{last_us:5} Avg:{mean_us:5} \
             Max:{max_us:8}"
        )
    }
}

struct Histogram<'a>(&'a WakeUps);

impl fmt::Display for Histogram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0;
        writeln!(f, "# Histogram")?;
        let used = all.histogram.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        for (us, count) in all.histogram.iter().take(used).enumerate() {
            writeln!(f, "{us:06} {count:06}")?;
        }
        writeln!(f, "# Total: {:09}", all.count - all.beyond)?;
        writeln!(f, "# Min Latencies: {:05}", all.min_us)?;
        writeln!(f, "# Avg Latencies: {:05}", all.mean_us())?;
        writeln!(f, "# Max Latencies: {:05}", all.max_us)?;
        write!(f, "# Histogram Overflows: {:05}", all.beyond)
    }
}

/// Sleeps `count` times until the next point of a grid of `period_us` (at least 1), on the calling thread and with the
/// priority it has. A point that is over before its turn is skipped, as in the guard's loop.
pub fn measure_wake_ups(period_us: Micros, count: u64) -> WakeUps {
    let period_us = period_us.max(1);
    let mut wake_ups = WakeUps::none(period_us);
    let mut at = rt::monotonic_us() + period_us;
    for _ in 0..count {
        rt::sleep_until(at);
        let late_us = rt::monotonic_us().saturating_sub(at);
        wake_ups.add(late_us);
        at += (late_us / period_us + 1) * period_us;
    }
    wake_ups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_cyclictest_does() {
        let mut wake_ups = WakeUps::none(1000);
        for late_us in [3, 5, 3, 2_000_000] {
            wake_ups.add(late_us);
        }
        assert_eq!(
            wake_ups.line(321, 60).to_string(),
            "T: 0 (  321) P:60 I:1000 C:      4 Min:      3 Act:2000000 Avg:500002 Max: 2000000"
        );
        let expected = "# Histogram\n000000 000000\n000001 000000\n000002 000000\n000003 000002\n000004 000000\n\
                        000005 000001\n# Total: 000000003\n# Min Latencies: 00003\n# Avg Latencies: 500002\n\
                        # Max Latencies: 2000000\n# Histogram Overflows: 00001";
        assert_eq!(wake_ups.histogram().to_string(), expected);
    }

    #[test]
    fn every_wake_up_is_counted_once() {
        let begun = rt::monotonic_us();
        let wake_ups = measure_wake_ups(500, 20);
        let took_us = rt::monotonic_us() - begun;
        assert_eq!(wake_ups.count, 20);
        // Twenty points of the grid, and those that were over before their turn.
        assert!(
            (10_000..=10_000 + wake_ups.sum_us + 100_000).contains(&took_us),
            "{took_us} us: {wake_ups:?}"
        );
        assert_eq!(wake_ups.histogram.iter().sum::<u64>() + wake_ups.beyond, 20);
        assert!(wake_ups.min_us <= wake_ups.mean_us() && wake_ups.mean_us() <= wake_ups.max_us);
    }
}
