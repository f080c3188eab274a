//! Signals as the guard sees them: sample, quality, age; and the lock-free table they come through.

use crate::limits::{TAG_FUTURE_US_MAX, TAG_READ_TRIES_MAX};
use crate::text::{Quantity, reason};
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::{Micros, Reason, Tag};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

/// How far a value can be trusted; names as in OPC UA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Quality {
    /// A fresh reading.
    Good,
    /// Read while being written, or doubted by its source.
    Uncertain,
    /// The source says it is wrong.
    Bad,
}

/// One tag's latest value.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TagSample {
    /// In the tag's unit.
    pub value: f64,
    /// Trust.
    pub quality: Quality,
    /// Monotonic time of the last good reading; 0 = never read.
    pub time_us: Micros,
}

impl TagSample {
    /// Never read.
    pub const MISSING: Self = Self { value: 0.0, quality: Quality::Bad, time_us: 0 };

    /// A good reading.
    pub fn good(value: f64, time_us: Micros) -> Self {
        Self { value, quality: Quality::Good, time_us }
    }
}

/// Why a tag may not be used.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Unusable {
    Never,
    NotANumber,
    BadQuality,
    OutOfRange(f64),
    Stale(Micros),
    FromTheFuture,
    Frozen(f64, Micros),
}

/// The value, if the tag may be used at `now`.
pub(crate) fn usable(tag: &Tag, sample: &TagSample, now: Micros) -> Result<f64, Unusable> {
    if sample.time_us == 0 {
        return Err(Unusable::Never);
    }
    if !sample.value.is_finite() {
        return Err(Unusable::NotANumber);
    }
    if sample.quality != Quality::Good {
        return Err(Unusable::BadQuality);
    }
    if sample.value < tag.range_lo || sample.value > tag.range_hi {
        return Err(Unusable::OutOfRange(sample.value));
    }
    if sample.time_us > now.saturating_add(TAG_FUTURE_US_MAX) {
        return Err(Unusable::FromTheFuture);
    }
    let age_us = now.saturating_sub(sample.time_us);
    if age_us > Micros::from(tag.stale_ms) * 1000 {
        return Err(Unusable::Stale(age_us));
    }
    Ok(sample.value)
}

/// The sentence about an unusable tag.
pub(crate) fn unusable_reason(tag: &Tag, why: Unusable) -> Reason {
    let name = tag.name.as_str();
    match why {
        Unusable::Never => reason!("tag {name} has never been read"),
        Unusable::NotANumber => reason!("tag {name} is not a number"),
        Unusable::BadQuality => reason!("tag {name} has bad quality"),
        Unusable::OutOfRange(value) => reason!(
            "tag {name} reads {}, outside its range {} to {}",
            Quantity(value, &tag.unit),
            Quantity(tag.range_lo, ""),
            Quantity(tag.range_hi, &tag.unit)
        ),
        Unusable::Stale(age_us) => {
            reason!("tag {name} is {} ms old, allowed are {} ms", age_us / 1000, tag.stale_ms)
        }
        Unusable::Frozen(value, us) => reason!(
            "tag {name} has read exactly {} for {} ms; allowed are {} ms",
            Quantity(value, &tag.unit),
            us / 1000,
            tag.frozen_ms.unwrap_or(0)
        ),
        Unusable::FromTheFuture => reason!("tag {name} carries a time that has not come yet"),
    }
}

/// Latest value per tag, written by any I/O thread, read by the guard without a lock.
///
/// Each cell is a sequence lock made of atomics only. A writer turns the sequence odd by compare-and-exchange (so
/// writers exclude each other), fences `Release`, stores the fields relaxed, and stores the next even sequence with
/// `Release`. The reader loads the sequence with `Acquire`, the fields relaxed, fences `Acquire`, and loads the sequence
/// again: equal and even means that no writer was between the two loads, so the fields belong together. After
/// [`TAG_READ_TRIES_MAX`] failed tries the sample counts as [`Quality::Uncertain`]; the reader never waits.
#[derive(Debug)]
pub struct TagTable {
    cells: Box<[Cell]>,
}

#[derive(Debug, Default)]
struct Cell {
    sequence: AtomicU32,
    quality: AtomicU8,
    bits: AtomicU64,
    time_us: AtomicU64,
}

impl TagTable {
    /// Room for `count` tags ([`TAGS_MAX`] at most), none read yet.
    pub fn new(count: usize) -> Self {
        let cell = || Cell { quality: AtomicU8::new(2), ..Cell::default() };
        Self { cells: (0..count.min(TAGS_MAX)).map(|_| cell()).collect() }
    }

    /// Publishes a sample; `time_us` of a bad one should stay that of the last good reading. Unknown indices are ignored.
    pub fn write(&self, index: usize, sample: TagSample) {
        let Some(cell) = self.cells.get(index) else { return };
        let mut sequence = cell.sequence.load(Ordering::Relaxed);
        loop {
            let even = sequence & !1;
            match cell.sequence.compare_exchange_weak(
                even,
                even.wrapping_add(1),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    sequence = even;
                    break;
                }
                Err(found) => {
                    sequence = found;
                    std::hint::spin_loop();
                }
            }
        }
        fence(Ordering::Release);
        cell.quality.store(quality_code(sample.quality), Ordering::Relaxed);
        cell.bits.store(sample.value.to_bits(), Ordering::Relaxed);
        cell.time_us.store(sample.time_us, Ordering::Relaxed);
        cell.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Marks a tag as bad without touching the time of its last good reading.
    pub fn mark_bad(&self, index: usize) {
        let sample = self.read(index);
        self.write(index, TagSample { quality: Quality::Bad, ..sample });
    }

    /// The latest sample; [`TagSample::MISSING`] for an unknown index.
    pub fn read(&self, index: usize) -> TagSample {
        let Some(cell) = self.cells.get(index) else { return TagSample::MISSING };
        for _ in 0..TAG_READ_TRIES_MAX {
            let before = cell.sequence.load(Ordering::Acquire);
            let quality = cell.quality.load(Ordering::Relaxed);
            let bits = cell.bits.load(Ordering::Relaxed);
            let time_us = cell.time_us.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before & 1 == 0 && cell.sequence.load(Ordering::Relaxed) == before {
                let quality = match quality {
                    0 => Quality::Good,
                    1 => Quality::Uncertain,
                    _ => Quality::Bad,
                };
                return TagSample { value: f64::from_bits(bits), quality, time_us };
            }
        }
        TagSample { quality: Quality::Uncertain, time_us: 1, value: 0.0 }
    }

    /// Copies all samples into `out`, as far as it goes.
    pub fn read_all(&self, out: &mut [TagSample]) {
        for (index, place) in out.iter_mut().enumerate() {
            *place = self.read(index);
        }
    }
}

fn quality_code(quality: Quality) -> u8 {
    match quality {
        Quality::Good => 0,
        Quality::Uncertain => 1,
        Quality::Bad => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_sample_is_never_torn() {
        let table = Arc::new(TagTable::new(1));
        let writers: Vec<_> = (1..=2u64)
            .map(|writer| {
                let table = Arc::clone(&table);
                std::thread::spawn(move || {
                    for i in 1..20_000u64 {
                        let time = i * 2 + writer;
                        table.write(0, TagSample::good(time as f64, time));
                    }
                })
            })
            .collect();
        let mut whole = 0;
        for _ in 0..20_000 {
            let sample = table.read(0);
            if sample.quality == Quality::Good {
                assert_eq!(sample.value, sample.time_us as f64);
                whole += 1;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(table.read(0).quality, Quality::Good);
        assert!(whole > 0 || table.read(0).time_us > 0);
    }

    #[test]
    fn mark_bad_keeps_the_time_of_the_last_good_reading() {
        let table = TagTable::new(2);
        table.write(1, TagSample::good(3.5, 77));
        table.mark_bad(1);
        assert_eq!(table.read(1), TagSample { value: 3.5, quality: Quality::Bad, time_us: 77 });
        assert_eq!(table.read(0), TagSample::MISSING);
        assert_eq!(table.read(9), TagSample::MISSING);
    }
}
