//! Tokens to text, one at a time.

use crate::{TokenId, Tokenizer};

/// Turns a stream of tokens into text, never splitting a UTF-8 character: bytes of an unfinished one are held back
/// until the tokens that complete it have come.
///
/// Control tokens add nothing. Bytes that can no longer become UTF-8 come out as U+FFFD.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    /// Text to hand out, replaced by each call.
    text: String,
    /// The start of a character, at most 3 bytes; longer only within a call.
    pending: Vec<u8>,
    is_at_start: bool,
}

impl Default for Detokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Detokenizer {
    /// For tokens from the start of a text: the space that SPM puts in front is taken off.
    pub fn new() -> Self {
        Detokenizer { text: String::new(), pending: Vec::new(), is_at_start: true }
    }

    /// For tokens that go on from others, such as an answer behind its prompt: a leading space is text.
    pub fn continuing() -> Self {
        Detokenizer { is_at_start: false, ..Self::new() }
    }

    /// The text that this token completes; often the token's own, sometimes none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId) -> &str {
        self.text.clear();
        self.pending.extend_from_slice(tokenizer.visible_bytes(id, &mut self.is_at_start));
        let mut consumed = 0;
        while consumed < self.pending.len() {
            match std::str::from_utf8(&self.pending[consumed..]) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    consumed = self.pending.len();
                }
                Err(error) => {
                    let valid = &self.pending[consumed..consumed + error.valid_up_to()];
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    consumed += valid.len();
                    let Some(invalid) = error.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    consumed += invalid;
                }
            }
        }
        self.pending.drain(..consumed);
        &self.text
    }

    /// Ends the text: U+FFFD if a character is still unfinished, else nothing. The next token starts a new text.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        self.pending.clear();
        self.is_at_start = true;
        &self.text
    }
}
