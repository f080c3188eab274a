//! Which positions a token sees.

use std::ops::Range;

use crate::limits::KV_BLOCK;

/// What a ring keeps of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// First positions that stay for ever.
    pub(super) sinks: usize,
    /// Latest positions that stay, a token's own included.
    pub(super) recent: usize,
}

/// Everything that bounds a token's view besides causality.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// The layer's sliding window.
    pub(super) window: Option<usize>,
    /// The cache's ring.
    pub(super) kept: Option<Kept>,
}

/// The positions that a token sees, in ascending order: two ranges, of which the first may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sinks: Range<usize>,
    pub(super) recent: Range<usize>,
}

impl View {
    /// The window cuts everything before it, the sinks too: it is part of the model, the ring is not.
    pub(super) fn of(self, position: usize) -> Seen {
        let since = |length: usize| (position + 1).saturating_sub(length);
        let window = self.window.map_or(0, since);
        let recent = self.kept.map_or(window, |kept| window.max(since(kept.recent)));
        let sinks = self.kept.map_or(window, |kept| kept.sinks.clamp(window, recent));
        Seen { sinks: window..sinks, recent: recent..position + 1 }
    }

    /// The blocks that tokens at `first..=last` see anything of, in ascending order.
    pub(super) fn blocks(self, first: usize, last: usize) -> impl Iterator<Item = usize> {
        let (from, to) = (self.of(first), self.of(last));
        // A first token without a sink range sees all that later ones see in one piece, or is past the sinks.
        let sinks = match self.kept.filter(|_| !from.sinks.is_empty()) {
            Some(kept) => {
                let end = kept.sinks.min(to.recent.start).max(from.sinks.end);
                from.sinks.start / KV_BLOCK..end.div_ceil(KV_BLOCK)
            }
            None => 0..0,
        };
        let recent = (from.recent.start / KV_BLOCK).max(sinks.end)..last / KV_BLOCK + 1;
        sinks.chain(recent)
    }
}

impl Seen {
    /// Both ranges inside one block, as offsets from its start.
    pub(super) fn in_block(&self, block: usize) -> [Range<usize>; 2] {
        let start = block * KV_BLOCK;
        [&self.sinks, &self.recent].map(|range| {
            let inside = |at: usize| at.clamp(start, start + KV_BLOCK) - start;
            inside(range.start)..inside(range.end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, position by position.
    fn sees(view: View, token: usize, position: usize) -> bool {
        let within = |length: usize| position + length > token;
        position <= token
            && view.window.is_none_or(within)
            && view.kept.is_none_or(|kept| position < kept.sinks || within(kept.recent))
    }

    #[test]
    fn ranges_and_blocks_follow_the_definition() {
        let kept = [
            None,
            Some(Kept { sinks: 0, recent: 70 }),
            Some(Kept { sinks: 4, recent: 100 }),
            Some(Kept { sinks: 130, recent: 65 }),
        ];
        for kept in kept {
            for window in [None, Some(1), Some(5), Some(64), Some(200)] {
                let view = View { window, kept };
                for token in (0..600).step_by(7) {
                    let seen = view.of(token);
                    for position in 0..700 {
                        let found = seen.sinks.contains(&position) || seen.recent.contains(&position);
                        assert_eq!(found, sees(view, token, position), "{view:?} {token} {position}");
                        let parts = seen.in_block(position / KV_BLOCK);
                        let inside = parts.iter().any(|part| part.contains(&(position % KV_BLOCK)));
                        assert_eq!(inside, found);
                    }
                    for last in [token, token + 1, token + 90] {
                        let blocks: Vec<usize> = view.blocks(token, last).collect();
                        assert!(blocks.is_sorted_by(|a, b| a < b));
                        for position in 0..=last {
                            let needed = (token..=last).any(|token| sees(view, token, position));
                            assert!(!needed || blocks.contains(&(position / KV_BLOCK)));
                        }
                        let needed = blocks.iter().filter(|block| {
                            let positions = *block * KV_BLOCK..(*block + 1) * KV_BLOCK;
                            positions.clone().any(|p| (token..=last).any(|token| sees(view, token, p)))
                        });
                        assert_eq!(needed.count(), blocks.len(), "no block in vain: {view:?} {token} {last}");
                    }
                }
            }
        }
    }
}
