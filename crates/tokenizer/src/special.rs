//! Tokens that are recognised in the text as a whole, before anything is split or merged.

use crate::hash::FastMap;
use crate::vocabulary::Vocabulary;
use crate::{TokenId, TokenKind};

/// Finds the longest of a set of token texts at a position.
#[derive(Clone, Debug)]
pub(crate) struct SpecialTokens {
    ids: FastMap<Box<[u8]>, TokenId>,
    /// By first byte: the lengths that occur, longest first.
    lengths: Vec<Vec<usize>>,
}

impl SpecialTokens {
    /// The tokens of a vocabulary whose kind `is_special` accepts.
    pub(crate) fn new(vocabulary: &Vocabulary, is_special: impl Fn(TokenKind) -> bool) -> SpecialTokens {
        let mut special = SpecialTokens { ids: FastMap::default(), lengths: vec![Vec::new(); 256] };
        for id in 0..vocabulary.len() as TokenId {
            let bytes = vocabulary.token_bytes(id);
            if let Some(&first) = bytes.first().filter(|_| is_special(vocabulary.kind(id))) {
                special.ids.entry(bytes.into()).or_insert(id);
                special.lengths[first as usize].push(bytes.len());
            }
        }
        for lengths in &mut special.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        special
    }

    /// The first special token in `text`: where it starts and ends, and its id. Of several that start there, the
    /// longest.
    pub(crate) fn find(&self, text: &[u8]) -> Option<(usize, usize, TokenId)> {
        text.iter().enumerate().find_map(|(start, &first)| {
            self.lengths[first as usize].iter().find_map(|&length| {
                let end = start + length;
                let id = self.ids.get(text.get(start..end)?)?;
                Some((start, end, *id))
            })
        })
    }
}
