//! Byte-level byte-pair encoding (GPT-2 and what followed it).

use ganglion_gguf::{Header, OptionalExt};

use crate::TokenId;
use crate::error::{Result, TokenizerError};
use crate::hash::FastMap;
use crate::limits;
use crate::merge::{Merger, NONE};
use crate::pretokenizer::PreTokenizer;
use crate::vocabulary::Vocabulary;

/// Merge rules and the pre-tokenizer.
#[derive(Clone, Debug)]
pub(crate) struct Bpe {
    pub(crate) pre: PreTokenizer,
    /// By (left token, right token) in one word: rank, and the token that the two become.
    merges: FastMap<u64, (u32, TokenId)>,
}

fn pair(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Bpe {
    pub(crate) fn from_gguf(gguf: &Header) -> Result<Bpe> {
        let pre = gguf.get_str("tokenizer.ggml.pre").optional()?.unwrap_or("default");
        let pre = PreTokenizer::named(pre)?;
        let rules = gguf.get_str_array("tokenizer.ggml.merges")?;
        if rules.len() > limits::MERGE_COUNT_MAX {
            let limit = limits::MERGE_COUNT_MAX;
            return Err(TokenizerError::LimitExceeded {
                what: "number of merges",
                found: rules.len(),
                limit,
            });
        }
        let texts = gguf.get_str_array("tokenizer.ggml.tokens")?;
        let mut ids: FastMap<&str, TokenId> =
            FastMap::with_capacity_and_hasher(texts.len(), Default::default());
        for (index, text) in texts.iter().enumerate() {
            ids.entry(text).or_insert(index as TokenId);
        }
        let mut merges = FastMap::with_capacity_and_hasher(rules.len(), Default::default());
        let mut joined = String::new();
        for (index, rule) in rules.iter().enumerate() {
            let invalid = |reason| TokenizerError::InvalidMerge { index, merge: rule.to_owned(), reason };
            // No token's text holds a space: the byte-level alphabet writes it as another character.
            let (left, right) =
                rule.split_once(' ').ok_or_else(|| invalid("is not two texts and a space"))?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = |text: &str| ids.get(text).copied();
            let (Some(left), Some(right), Some(merged)) = (id(left), id(right), id(&joined)) else {
                return Err(invalid("has a part or result that is no token"));
            };
            merges.entry(pair(left, right)).or_insert((index as u32, merged));
        }
        Ok(Bpe { pre, merges })
    }

    /// Appends the tokens of one piece of at most [`limits::PIECE_BYTES_MAX`] bytes.
    pub(crate) fn encode_piece(
        &self,
        vocabulary: &Vocabulary,
        piece: &[u8],
        merger: &mut Merger,
        out: &mut Vec<TokenId>,
    ) {
        if let [byte] = piece {
            return vocabulary.push_bytes(&[*byte], out);
        }
        if self.pre.ignore_merges
            && let Some(&id) = vocabulary.by_bytes.get(piece)
        {
            return out.push(id);
        }
        merger.clear();
        for &byte in piece {
            merger.push(1, vocabulary.byte_ids[byte as usize].unwrap_or(NONE));
        }
        merger.merge(|left, right| self.merges.get(&pair(left.id, right.id)).copied());
        for symbol in merger.symbols() {
            match symbol.id {
                NONE => out.extend(vocabulary.replacement),
                id => out.push(id),
            }
        }
    }
}
