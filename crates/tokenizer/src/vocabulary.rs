//! The tokens: their bytes, kinds, and the ids with a role.

use ganglion_gguf::{Header, OptionalExt, StringArray};

use crate::error::{Result, TokenizerError};
use crate::hash::FastMap;
use crate::limits;
use crate::{Model, TokenId, TokenKind};

/// Every token's bytes and kind, and which of them have a role.
#[derive(Clone, Debug)]
pub(crate) struct Vocabulary {
    /// The bytes of all tokens one after the other; token `i` ends at `ends[i]`.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    /// Tokens that plain text may become, by their bytes: not control, unknown or byte tokens. A text that happens
    /// to spell a control token must not turn into it.
    pub(crate) by_bytes: FastMap<Box<[u8]>, TokenId>,
    /// The token that spells a single byte.
    pub(crate) byte_ids: [Option<TokenId>; 256],
    pub(crate) unknown: Option<TokenId>,
    /// What text without tokens becomes: the unknown token, unless it is a control token. Some files name their end
    /// of text as the unknown token, which text from outside must never become.
    pub(crate) replacement: Option<TokenId>,
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
    pub(crate) eot: Option<TokenId>,
    pub(crate) end_of_generation: Vec<TokenId>,
}

/// Texts of tokens that end a turn or an answer, in order of preference. Files written before
/// `tokenizer.ggml.eot_token_id` existed name them only by their text.
const END_OF_TURN_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<｜end▁of▁sentence｜>",
];

impl Vocabulary {
    pub(crate) fn from_gguf(gguf: &Header, model: Model) -> Result<Vocabulary> {
        let texts = gguf.get_str_array("tokenizer.ggml.tokens")?;
        let count = texts.len();
        if count > limits::VOCABULARY_COUNT_MAX {
            let limit = limits::VOCABULARY_COUNT_MAX;
            return Err(TokenizerError::LimitExceeded { what: "number of tokens", found: count, limit });
        }
        let mut vocabulary = Vocabulary {
            bytes: Vec::new(),
            ends: Vec::with_capacity(count),
            kinds: read_kinds(gguf, texts)?,
            by_bytes: FastMap::with_capacity_and_hasher(count, Default::default()),
            byte_ids: [None; 256],
            unknown: None,
            replacement: None,
            bos: None,
            eos: None,
            eot: None,
            end_of_generation: Vec::new(),
        };
        for (index, text) in texts.iter().enumerate() {
            vocabulary.add_token(index, text, model)?;
        }
        vocabulary.assign_roles(gguf, texts, model)?;
        vocabulary.check_ascii_is_spelled()?;
        Ok(vocabulary)
    }

    fn add_token(&mut self, index: usize, text: &str, model: Model) -> Result<()> {
        let start = self.bytes.len();
        let kind = self.kinds[index];
        match (kind, model) {
            (TokenKind::Byte, _) => {
                let byte = parse_byte_token(text).ok_or_else(|| TokenizerError::InvalidToken {
                    index,
                    text: text.to_owned(),
                    reason: "the type `byte`, but is not of the form <0xNN>".to_owned(),
                })?;
                self.bytes.push(byte);
            }
            (TokenKind::Normal | TokenKind::Unused, Model::Bpe) => push_unmapped(&mut self.bytes, text),
            (TokenKind::Normal | TokenKind::Unused, Model::Spm) => {
                self.bytes.extend_from_slice(text.replace('\u{2581}', " ").as_bytes());
            }
            _ => self.bytes.extend_from_slice(text.as_bytes()),
        }
        // A file's strings are limited to far less than 4 GiB in all.
        self.ends.push(self.bytes.len() as u32);
        let id = index as TokenId;
        let bytes = &self.bytes[start..];
        match kind {
            TokenKind::Byte => {
                self.byte_ids[bytes[0] as usize].get_or_insert(id);
            }
            TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused if !bytes.is_empty() => {
                if let ([byte], Model::Bpe) = (bytes, model) {
                    self.byte_ids[*byte as usize].get_or_insert(id);
                }
                self.by_bytes.entry(bytes.into()).or_insert(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn assign_roles(&mut self, gguf: &Header, texts: &StringArray, model: Model) -> Result<()> {
        let count = self.len();
        let role = |key: &'static str, spm_default: TokenId| -> Result<Option<TokenId>> {
            match gguf.get_u32(key).optional()? {
                Some(id) if (id as usize) < count => Ok(Some(id)),
                Some(found) => Err(TokenizerError::InvalidTokenId { key, found, vocabulary_size: count }),
                // SentencePiece's own defaults, where the token there is of a fitting kind.
                None => Ok(Some(spm_default).filter(|&id| {
                    let kind = self.kinds.get(id as usize);
                    model == Model::Spm && matches!(kind, Some(TokenKind::Control | TokenKind::Unknown))
                })),
            }
        };
        let unknown = role("tokenizer.ggml.unknown_token_id", 0)?;
        let bos = role("tokenizer.ggml.bos_token_id", 1)?;
        let eos = role("tokenizer.ggml.eos_token_id", 2)?;
        let eot_stated = role("tokenizer.ggml.eot_token_id", TokenId::MAX)?;
        (self.unknown, self.bos, self.eos) = (unknown, bos, eos);
        self.replacement = unknown.filter(|&id| self.kind(id) == TokenKind::Unknown);

        let special = |text: &str| {
            let mut candidates = texts.iter().zip(&self.kinds);
            let index = candidates.position(|(token, kind)| *kind != TokenKind::Normal && token == text)?;
            Some(index as TokenId)
        };
        let named: Vec<TokenId> = END_OF_TURN_TEXTS.iter().filter_map(|text| special(text)).collect();
        self.eot = eot_stated.or(named.first().copied());
        self.end_of_generation.extend(eos.into_iter().chain(self.eot).chain(named));
        self.end_of_generation.sort_unstable();
        self.end_of_generation.dedup();
        Ok(())
    }

    /// Without printable ASCII a vocabulary is of no use here. Rarer bytes may be missing: StarCoder's vocabulary, for
    /// one, lacks the first byte of some characters that are not assigned yet.
    fn check_ascii_is_spelled(&self) -> Result<()> {
        if self.replacement.is_some() {
            return Ok(());
        }
        match (b' '..=b'~').find(|&byte| self.missing_byte(&[byte]).is_some()) {
            Some(byte) => Err(TokenizerError::MissingByte { byte }),
            None => Ok(()),
        }
    }

    /// The first byte of one character that neither a token nor bytes of tokens spell.
    pub(crate) fn missing_byte(&self, character: &[u8]) -> Option<u8> {
        if self.by_bytes.contains_key(character) {
            return None;
        }
        character.iter().copied().find(|&byte| self.byte_ids[byte as usize].is_none())
    }

    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The bytes of a token; empty for ids outside the vocabulary.
    pub(crate) fn token_bytes(&self, id: TokenId) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// The kind of a token; [`TokenKind::Unused`] for ids outside the vocabulary.
    pub(crate) fn kind(&self, id: TokenId) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    /// Appends the tokens of single bytes that no longer token covers.
    pub(crate) fn push_bytes(&self, bytes: &[u8], out: &mut Vec<TokenId>) {
        if bytes.iter().all(|&byte| self.byte_ids[byte as usize].is_some()) {
            out.extend(bytes.iter().filter_map(|&byte| self.byte_ids[byte as usize]));
        } else {
            out.extend(self.replacement);
        }
    }
}

fn read_kinds(gguf: &Header, texts: &StringArray) -> Result<Vec<TokenKind>> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(types) = gguf.get_i32_array(KEY).optional()? else {
        return Ok(vec![TokenKind::Normal; texts.len()]);
    };
    if types.len() != texts.len() {
        let (found, expected) = (types.len(), texts.len());
        return Err(TokenizerError::LengthMismatch { key: KEY, found, expected });
    }
    let kind = |(index, found): (usize, &i32)| {
        Ok(match found {
            // llama.cpp treats "undefined" like a normal token.
            0 | 1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => {
                let text = texts.get(index).unwrap_or_default().to_owned();
                let reason = format!("type {found}, expected 1 to 6");
                return Err(TokenizerError::InvalidToken { index, text, reason });
            }
        })
    };
    types.iter().enumerate().map(kind).collect()
}

/// The byte of `<0x0A>`.
fn parse_byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let valid = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if valid { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte that a character of GPT-2's byte-level alphabet stands for.
///
/// Printable bytes of Latin-1 stand for themselves; the other 68 are numbered from U+0100 on, in order.
pub(crate) fn byte_of_char(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes that a byte-level text stands for; a text outside that alphabet stands for itself.
fn push_unmapped(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    for c in text.chars() {
        match byte_of_char(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(text.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_alphabet_is_a_bijection() {
        let mut seen = [false; 256];
        for code in 0..0x200 {
            if let Some(byte) = char::from_u32(code).and_then(byte_of_char) {
                assert!(!std::mem::replace(&mut seen[byte as usize], true), "{byte}");
            }
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(parse_byte_token("<0x0A>"), Some(10));
        for wrong in ["<0x0>", "<0x+A>", "<0x0A", "0x0A", "<0x100>"] {
            assert_eq!(parse_byte_token(wrong), None, "{wrong}");
        }
    }
}
