//! Answers already given: greedy decoding of a fixed model on a fixed site is a pure function of the event's text.

use crate::limits::{MEMO_ENTRIES_MAX, MEMO_TEXT_BYTES_MAX};
use ganglion_site::Decision;
use std::collections::VecDeque;

/// A bounded, exact map from event text to its decision; the oldest entry goes first. Allocates when it is made, and never
/// again.
pub(crate) struct Memo {
    /// One per entry, close together: looking something up reads these, and hardly ever an entry in vain.
    hashes: VecDeque<u64>,
    entries: VecDeque<Entry>,
    entries_max: usize,
    /// The entries' texts, in a ring.
    text: Box<[u8]>,
    head: usize,
}

struct Entry {
    client: u64,
    start: usize,
    size_bytes: usize,
    decision: Decision,
}

impl Default for Memo {
    fn default() -> Self {
        Self::new(MEMO_ENTRIES_MAX, MEMO_TEXT_BYTES_MAX)
    }
}

impl Memo {
    /// Bytes that the default takes.
    pub(crate) const SIZE_BYTES: usize =
        MEMO_ENTRIES_MAX * (size_of::<Entry>() + size_of::<u64>()) + MEMO_TEXT_BYTES_MAX;

    fn new(entries_max: usize, text_bytes_max: usize) -> Self {
        Self {
            hashes: VecDeque::with_capacity(entries_max),
            entries: VecDeque::with_capacity(entries_max),
            entries_max,
            text: vec![0; text_bytes_max].into(),
            head: 0,
        }
    }

    pub(crate) fn get(&self, client: u64, text: &str) -> Option<&Decision> {
        let wanted = hash(client, text);
        let same = self.hashes.iter().zip(&self.entries).filter(|(hash, _)| **hash == wanted);
        same.map(|(_, entry)| entry)
            .find(|entry| entry.client == client && self.text_of(entry) == text.as_bytes())
            .map(|entry| &entry.decision)
    }

    /// Remembers an answer to a text that [`Self::get`] does not know. A text longer than all room is not remembered.
    pub(crate) fn put(&mut self, client: u64, text: &str, decision: Decision) {
        let (size_bytes, room) = (text.len(), self.text.len());
        if size_bytes > room || self.entries_max == 0 {
            return;
        }
        if self.entries.len() == self.entries_max {
            self.forget_oldest();
        }
        if size_bytes > room - self.head {
            // The end is left empty; whatever still lies there is the oldest.
            while self.entries.front().is_some_and(|oldest| oldest.start >= self.head) {
                self.forget_oldest();
            }
            self.head = 0;
        }
        let end = self.head + size_bytes;
        while self
            .entries
            .front()
            .is_some_and(|oldest| oldest.start < end && oldest.start + oldest.size_bytes > self.head)
        {
            self.forget_oldest();
        }
        if let Some(place) = self.text.get_mut(self.head..end) {
            place.copy_from_slice(text.as_bytes());
        }
        self.hashes.push_back(hash(client, text));
        self.entries.push_back(Entry { client, start: self.head, size_bytes, decision });
        self.head = end;
    }

    fn text_of(&self, entry: &Entry) -> &[u8] {
        self.text.get(entry.start..entry.start + entry.size_bytes).unwrap_or(&[])
    }

    fn forget_oldest(&mut self) {
        self.hashes.pop_front();
        self.entries.pop_front();
    }
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits. Texts are compared in full, so that a collision costs time and nothing else.
fn hash(client: u64, text: &str) -> u64 {
    let bytes = client.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(epoch: u64) -> Decision {
        Decision { epoch, ..Decision::SIGN_OF_LIFE }
    }

    /// Against a list of all that was put: what is found is right, and the newest are found as long as they must be.
    #[test]
    fn remembers_the_newest_within_its_bounds() {
        for (entries_max, bytes_max) in [(1, 64), (4, 64), (16, 64), (7, 1000), (0, 64)] {
            let mut memo = Memo::new(entries_max, bytes_max);
            let mut all: Vec<String> = Vec::new();
            let mut state = 88_172_645_463_325_252_u64;
            for round in 0..2000u64 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let size = (state >> 20) as usize % 40;
                let text = format!("{round}:{}", "x".repeat(size));
                assert!(memo.get(0, &text).is_none());
                memo.put(0, &text, decision(round));
                all.push(text);
                let mut bytes = 0;
                for (text, back) in all.iter().rev().zip(0..20) {
                    let epoch = round - back;
                    bytes += text.len();
                    let found = memo.get(0, text).map(|decision| decision.epoch);
                    assert!(found.is_none_or(|found| found == epoch));
                    // A ring that never splits a text may leave as much empty as the longest text takes.
                    let must = back < entries_max as u64 && bytes + 2 * 44 <= bytes_max;
                    assert!(found.is_some() || !must, "round {round}: {text} is gone");
                }
                assert!(memo.entries.len() <= entries_max && memo.entries.len() == memo.hashes.len());
            }
        }
    }

    #[test]
    fn a_text_longer_than_all_room_is_not_remembered() {
        let mut memo = Memo::new(4, 8);
        memo.put(0, "12345678", decision(1));
        memo.put(0, "123456789", decision(2));
        assert!(memo.get(0, "123456789").is_none() && memo.get(0, "12345678").is_some());
    }

    #[test]
    fn one_client_never_meets_what_is_kept_of_another() {
        let mut memo = Memo::new(4, 64);
        memo.put(1, "warmer", decision(1));
        assert!(memo.get(0, "warmer").is_none() && memo.get(2, "warmer").is_none());
        memo.put(2, "warmer", decision(2));
        let epoch = |client| memo.get(client, "warmer").map(|decision| decision.epoch);
        assert_eq!((epoch(1), epoch(2)), (Some(1), Some(2)));
    }
}
