//! SentencePiece BPE: merges by the score of the token that two symbols become.

use ganglion_gguf::Header;

use crate::TokenId;
use crate::error::{Result, TokenizerError};
use crate::limits;
use crate::merge::{Merger, NONE};
use crate::vocabulary::Vocabulary;

/// Merge priorities.
#[derive(Clone, Debug)]
pub(crate) struct Spm {
    /// By token: the higher its score, the lower this.
    priorities: Vec<u32>,
}

impl Spm {
    pub(crate) fn from_gguf(gguf: &Header, vocabulary: &Vocabulary) -> Result<Spm> {
        const KEY: &str = "tokenizer.ggml.scores";
        let scores = gguf.get_f32_array(KEY)?;
        if scores.len() != vocabulary.len() {
            let (found, expected) = (scores.len(), vocabulary.len());
            return Err(TokenizerError::LengthMismatch { key: KEY, found, expected });
        }
        if let Some(index) = scores.iter().position(|score| score.is_nan()) {
            let text = String::from_utf8_lossy(vocabulary.token_bytes(index as TokenId)).into_owned();
            let reason = "a score that is not a number".to_owned();
            return Err(TokenizerError::InvalidToken { index, text, reason });
        }
        Ok(Spm { priorities: scores.iter().map(|&score| priority(score)).collect() })
    }

    /// Appends the tokens of one piece of at most [`limits::PIECE_BYTES_MAX`] bytes.
    pub(crate) fn encode_piece(
        &self,
        vocabulary: &Vocabulary,
        piece: &[u8],
        merger: &mut Merger,
        out: &mut Vec<TokenId>,
    ) {
        debug_assert!(piece.len() <= limits::PIECE_BYTES_MAX);
        let id = |bytes: &[u8]| vocabulary.by_bytes.get(bytes).copied();
        merger.clear();
        for chunk in piece.utf8_chunks() {
            for c in chunk.valid().chars() {
                let mut buffer = [0; 4];
                let bytes = c.encode_utf8(&mut buffer).as_bytes();
                merger.push(bytes.len(), id(bytes).unwrap_or(NONE));
            }
            for _ in chunk.invalid() {
                merger.push(1, NONE);
            }
        }
        merger.merge(|left, right| {
            let merged = id(&piece[left.range().start..right.range().end])?;
            Some((self.priorities[merged as usize], merged))
        });
        for symbol in merger.symbols() {
            match symbol.id {
                NONE => vocabulary.push_bytes(&piece[symbol.range()], out),
                id => out.push(id),
            }
        }
    }
}

/// Maps scores to integers in reverse order: IEEE 754 numbers sort like sign-magnitude integers.
fn priority(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0 becomes +0
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_scores_come_first() {
        let scores = [f32::INFINITY, 3.5, 1.0, 0.0, -0.5, -1.0, -1e9, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(priority(pair[0]) < priority(pair[1]), "{pair:?}");
        }
        assert_eq!(priority(0.0), priority(-0.0));
    }
}
