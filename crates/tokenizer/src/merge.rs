//! Greedy merging of neighbouring symbols, best candidate first: what SPM and BPE have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::TokenId;

/// No symbol, or no token.
pub(crate) const NONE: u32 = u32::MAX;

/// A stretch of bytes that is one token so far ([`NONE`] if it is not a token).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    pub(crate) start: u32,
    /// 0 once the symbol was merged into its left neighbour.
    pub(crate) length: u32,
    pub(crate) id: TokenId,
    previous: u32,
    next: u32,
}

impl Symbol {
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.length) as usize
    }
}

/// Two neighbours that may become one.
///
/// Field order is the order of merging: lower priority value first, then further left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    right: u32,
    /// Length of both together when the candidate was found; else it is stale.
    length: u32,
    id: TokenId,
}

/// Working memory, kept between calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts a new piece.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.candidates.clear();
    }

    /// Appends a symbol that follows the last one without a gap.
    pub(crate) fn push(&mut self, length: usize, id: TokenId) {
        let index = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.start + last.length);
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let previous = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { start, length: length as u32, id, previous, next: NONE });
    }

    /// Merges until `lookup(left, right)` finds no more; it returns a priority (lower merges first) and the token
    /// that the two become. O(n log n) for n symbols.
    pub(crate) fn merge(&mut self, lookup: impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>) {
        for left in 0..self.symbols.len() {
            self.consider(left as u32, &lookup);
        }
        while let Some(Reverse(candidate)) = self.candidates.pop() {
            let left = self.symbols[candidate.left as usize];
            let right = self.symbols[candidate.right as usize];
            // Starts never move, so unchanged lengths mean that these are the two of then.
            if left.length == 0 || right.length == 0 || left.length + right.length != candidate.length {
                continue;
            }
            self.symbols[candidate.right as usize].length = 0;
            let merged = &mut self.symbols[candidate.left as usize];
            merged.length = candidate.length;
            merged.id = candidate.id;
            merged.next = right.next;
            if right.next != NONE {
                self.symbols[right.next as usize].previous = candidate.left;
            }
            if left.previous != NONE {
                self.consider(left.previous, &lookup);
            }
            self.consider(candidate.left, &lookup);
        }
    }

    fn consider(&mut self, left: u32, lookup: impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>) {
        let left_symbol = &self.symbols[left as usize];
        let right = left_symbol.next;
        if right == NONE {
            return;
        }
        let right_symbol = &self.symbols[right as usize];
        if let Some((priority, id)) = lookup(left_symbol, right_symbol) {
            let length = left_symbol.length + right_symbol.length;
            self.candidates.push(Reverse(Candidate { priority, left, right, length, id }));
        }
    }

    /// The symbols that are left, in order.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.length > 0)
    }
}
