//! Where the time of a pass goes: spans of operations, kept in a ring that is allocated once.
//!
//! A pass is a chain of operations, one after the other, so a profiler takes laps: each ends the span that the one
//! before began, at one look at the clock. Switched off it costs one branch an operation.

use ganglion_kernels::Matrix;

use crate::tensors::Linear;

/// Nanoseconds since a moment that stays the same; the caller's, because this crate reads no clock.
pub type Clock = fn() -> u64;

/// What an operation had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes of weights or of KV cache that it read.
    pub bytes: u64,
    /// Multiply-adds.
    pub macs: u64,
}

impl Work {
    /// Work that no figure is kept of.
    pub const NONE: Self = Self { bytes: 0, macs: 0 };

    /// Products of these matrices, or of their factors, with `tokens` rows of activations.
    pub(crate) fn linear<V>(all: &[&Linear<Matrix, V>], tokens: usize) -> Self {
        all.iter().flat_map(|linear| linear.first.iter().chain([&linear.matrix])).fold(
            Self::NONE,
            |sum, matrix| {
                let work = Self::products(&[matrix], tokens);
                Self { bytes: sum.bytes + work.bytes, macs: sum.macs + work.macs }
            },
        )
    }

    /// Products of these matrices with `tokens` rows of activations.
    pub fn products(matrices: &[&Matrix], tokens: usize) -> Self {
        matrices.iter().fold(Self::NONE, |sum, matrix| {
            let bytes = Matrix::packed_bytes(matrix.format(), matrix.rows(), matrix.k()).unwrap_or(0);
            Self {
                bytes: sum.bytes + bytes as u64,
                macs: sum.macs + (matrix.rows() * matrix.k() * tokens) as u64,
            }
        })
    }
}

/// One operation of one layer, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What was done: `qkv`, `attention`, …
    pub operation: &'static str,
    /// The layer; `None` outside of the layers.
    pub layer: Option<u16>,
    /// When it began, by the profiler's clock.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// What it had to do.
    pub work: Work,
}

/// All spans of one operation together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationTotal {
    /// What was done.
    pub operation: &'static str,
    /// How often.
    pub calls: u64,
    /// How long in all.
    pub total_ns: u64,
    /// What it had to do in all.
    pub work: Work,
}

/// A ring of spans; the oldest make room for the newest.
#[derive(Debug)]
pub struct Profiler {
    clock: Option<Clock>,
    spans: Vec<Span>,
    capacity: usize,
    /// Where the next span goes once the ring is full: also the oldest one.
    next: usize,
    overwritten: u64,
    last_ns: u64,
    layer: Option<u16>,
}

impl Profiler {
    /// A profiler that records nothing.
    pub const fn off() -> Self {
        Self { clock: None, spans: Vec::new(), capacity: 0, next: 0, overwritten: 0, last_ns: 0, layer: None }
    }

    /// A profiler that keeps the last `capacity` spans.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn new(clock: Clock, capacity: usize) -> Self {
        assert!(capacity > 0, "a profiler that is on keeps at least one span");
        Self { clock: Some(clock), spans: Vec::with_capacity(capacity), capacity, ..Self::off() }
    }

    /// Whether spans are recorded.
    pub fn is_on(&self) -> bool {
        self.clock.is_some()
    }

    /// The next operation begins now, outside of the layers.
    #[inline]
    pub fn begin(&mut self) {
        if let Some(clock) = self.clock {
            self.layer = None;
            self.last_ns = clock();
        }
    }

    /// Operations from here on belong to this layer, or to none.
    #[inline]
    pub fn enter(&mut self, layer: Option<usize>) {
        self.layer = layer.and_then(|layer| u16::try_from(layer).ok());
    }

    /// `operation` ends now, and the next one begins. `work` is asked only if the profiler is on.
    #[inline]
    pub fn lap(&mut self, operation: &'static str, work: impl FnOnce() -> Work) {
        if let Some(clock) = self.clock {
            self.record(clock, operation, work());
        }
    }

    #[cold]
    fn record(&mut self, clock: Clock, operation: &'static str, work: Work) {
        let end_ns = clock();
        let span = Span { operation, layer: self.layer, start_ns: self.last_ns, end_ns, work };
        self.last_ns = end_ns;
        if self.spans.len() < self.capacity {
            self.spans.push(span);
            return;
        }
        self.spans[self.next] = span;
        self.next = (self.next + 1) % self.capacity;
        self.overwritten += 1;
    }

    /// The spans that are kept, the oldest first.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        let (newer, older) = self.spans.split_at(self.next);
        older.iter().chain(newer)
    }

    /// Spans that made room for others.
    pub fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// Forgets all spans.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.next = 0;
        self.overwritten = 0;
    }

    /// The kept spans by operation, the longest in all first.
    pub fn totals(&self) -> Vec<OperationTotal> {
        let mut totals: Vec<OperationTotal> = Vec::new();
        for span in self.spans() {
            let place = totals.iter().position(|total| total.operation == span.operation);
            let place = place.unwrap_or_else(|| {
                totals.push(OperationTotal {
                    operation: span.operation,
                    calls: 0,
                    total_ns: 0,
                    work: Work::NONE,
                });
                totals.len() - 1
            });
            let total = &mut totals[place];
            total.calls += 1;
            total.total_ns += span.end_ns.saturating_sub(span.start_ns);
            total.work.bytes += span.work.bytes;
            total.work.macs += span.work.macs;
        }
        totals.sort_by_key(|total| std::cmp::Reverse(total.total_ns));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    /// Ten nanoseconds pass from one look to the next.
    fn clock() -> u64 {
        NOW.set(NOW.get() + 10);
        NOW.get()
    }

    const WORK: Work = Work { bytes: 3, macs: 5 };

    #[test]
    fn laps_follow_each_other_without_gaps() {
        NOW.set(0);
        let mut profiler = Profiler::new(clock, 8);
        profiler.begin();
        profiler.enter(Some(0));
        profiler.lap("norm", || Work::NONE);
        profiler.lap("qkv", || WORK);
        profiler.enter(None);
        profiler.lap("head", || WORK);
        let spans: Vec<_> = profiler.spans().copied().collect();
        let times: Vec<_> = spans.iter().map(|span| (span.operation, span.start_ns, span.end_ns)).collect();
        assert_eq!(times, [("norm", 10, 20), ("qkv", 20, 30), ("head", 30, 40)]);
        assert_eq!((spans[1].layer, spans[2].layer), (Some(0), None));
        assert_eq!((spans[0].work, spans[1].work), (Work::NONE, WORK));
    }

    #[test]
    fn a_full_ring_keeps_the_newest() {
        NOW.set(0);
        let mut profiler = Profiler::new(clock, 3);
        profiler.begin();
        for layer in 0..5 {
            profiler.enter(Some(layer));
            profiler.lap("norm", || Work::NONE);
        }
        let layers: Vec<_> = profiler.spans().filter_map(|span| span.layer).collect();
        assert_eq!((layers, profiler.overwritten()), (vec![2, 3, 4], 2));
        profiler.clear();
        assert_eq!((profiler.spans().count(), profiler.overwritten()), (0, 0));
    }

    #[test]
    fn totals_are_by_operation_and_the_longest_comes_first() {
        NOW.set(0);
        let mut profiler = Profiler::new(clock, 8);
        profiler.begin();
        profiler.lap("norm", || Work::NONE);
        profiler.lap("qkv", || WORK);
        profiler.lap("qkv", || WORK);
        let qkv =
            OperationTotal { operation: "qkv", calls: 2, total_ns: 20, work: Work { bytes: 6, macs: 10 } };
        let norm = OperationTotal { operation: "norm", calls: 1, total_ns: 10, work: Work::NONE };
        assert_eq!(profiler.totals(), [qkv, norm]);
    }

    #[test]
    fn switched_off_it_asks_for_nothing() {
        let mut profiler = Profiler::off();
        profiler.begin();
        profiler.lap("norm", || unreachable!("work of a profiler that is off"));
        assert!(!profiler.is_on() && profiler.spans().next().is_none());
    }
}
