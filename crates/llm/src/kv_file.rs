//! A session's keys and values in a file, so that a long prefix is evaluated once and not at every start. The format is
//! described in `docs/adr/0012-saved-kv-cache.md`.

use std::io::{Read, Write};

use sha2::{Digest, Sha256};

use crate::TokenId;
use crate::error::{LlmError, Result};
use crate::limits;
use crate::session::Session;

/// First bytes; the last one is the version of the format and of the engine's arithmetic.
const MAGIC: [u8; 8] = *b"GNGLKV\0\x01";
/// Written in the machine's byte order, as the keys and values are.
const BYTE_ORDER: u32 = 0x0102_0304;

/// What must be the same in file and session, as the file holds it.
struct Field {
    name: &'static str,
    bytes: Vec<u8>,
    /// How to show bytes in a message.
    show: fn(&[u8]) -> String,
}

fn show_number(bytes: &[u8]) -> String {
    bytes.try_into().map_or_else(|_| show_text(bytes), |bytes| u32::from_le_bytes(bytes).to_string())
}

fn show_text(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    format!("\"{}\"", bytes[..end].escape_ascii())
}

fn fields(session: &Session, model_id: &str) -> Result<Vec<Field>> {
    if model_id.len() > limits::MODEL_ID_BYTES_MAX {
        return Err(LlmError::KvFile {
            field: "the model's name",
            found: format!("{} bytes long", model_id.len()),
            expected: format!("at most {}", limits::MODEL_ID_BYTES_MAX),
        });
    }
    let plan = session.sequences[0].kv.plan();
    let number = |name, value: usize| Field {
        name,
        // Bounded by this crate's limits, all below 2^32.
        bytes: (value as u32).to_le_bytes().to_vec(),
        show: show_number,
    };
    let text = |name, text: &str, length: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length, 0);
        Field { name, bytes, show: show_text }
    };
    Ok(vec![
        Field { name: "the first bytes (magic, version)", bytes: MAGIC.to_vec(), show: show_text },
        Field { name: "the byte order", bytes: BYTE_ORDER.to_ne_bytes().to_vec(), show: show_number },
        text("the model", model_id, limits::MODEL_ID_BYTES_MAX),
        text("the type of keys and values", plan.kind.name(), 8),
        number("the layer count", plan.shape.layers),
        number("the number of key/value heads", plan.shape.kv_heads),
        number("the head dimension", plan.shape.head_dim),
        number("the block length", ganglion_kernels::limits::KV_BLOCK),
    ])
}

/// Passes bytes on and hashes them.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new() }
    }
}

impl<W: Write> Hashed<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes).map_err(|source| LlmError::KvFileIo { action: "write", source })
    }
}

impl<R: Read> Hashed<R> {
    fn take(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.take_unhashed(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn take_unhashed(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.inner.read_exact(bytes).map_err(|source| LlmError::KvFileIo { action: "read", source })
    }
}

impl Session {
    /// Writes all tokens held with their keys and values. `model_id` names the model file, best by its content
    /// (`Gguf::sha256`); at most 64 bytes.
    ///
    /// # Errors
    /// [`LlmError::KvFileIo`]; [`LlmError::Forgotten`] if the session is longer than its context.
    pub fn save(&self, model_id: &str, out: &mut impl Write) -> Result<()> {
        let tokens = self.tokens();
        if tokens.len() < self.position() {
            return Err(LlmError::Forgotten { length: self.position(), position: self.position() });
        }
        let mut out = Hashed::new(out);
        for field in fields(self, model_id)? {
            out.put(&field.bytes)?;
        }
        out.put(&(tokens.len() as u32).to_le_bytes())?;
        for token in tokens {
            out.put(&token.to_le_bytes())?;
        }
        let mut chunk = vec![0; self.sequences[0].kv.chunk_bytes()];
        for index in 0..self.sequences[0].kv.chunk_count(tokens.len()) {
            self.sequences[0].kv.read_chunk(index, tokens.len(), &mut chunk);
            out.put(&chunk)?;
        }
        let Hashed { inner, hash } = out;
        inner
            .write_all(&hash.finalize())
            .and_then(|()| inner.flush())
            .map_err(|source| LlmError::KvFileIo { action: "write", source })
    }

    /// Replaces what the session holds by what [`Session::save`] wrote for the same model and type of keys and values. What
    /// is evaluated afterwards has the bits it would have behind the same tokens evaluated anew. Logits can be read after the
    /// next evaluation.
    ///
    /// Nothing in the file decides how much memory is taken. On an error the session is as before if the file's head
    /// does not fit, and empty otherwise.
    ///
    /// # Errors
    /// [`LlmError::KvFile`] with what does not fit, or [`LlmError::KvFileIo`].
    pub fn restore(&mut self, model_id: &str, file: &mut impl Read) -> Result<()> {
        let mut file = Hashed::new(file);
        for Field { name, bytes, show } in fields(self, model_id)? {
            let mut found = vec![0; bytes.len()];
            file.take(&mut found)?;
            if found != bytes {
                let (found, expected) = (show(&found), show(&bytes));
                return Err(LlmError::KvFile { field: name, found, expected });
            }
        }
        let tokens = read_tokens(self, &mut file)?;
        self.truncate(0)?;
        let mut chunk = vec![0; self.sequences[0].kv.chunk_bytes()];
        for index in 0..self.sequences[0].kv.chunk_count(tokens.len()) {
            file.take(&mut chunk)?;
            self.sequences[0].kv.write_chunk(index, &chunk);
        }
        let found: [u8; 32] = file.hash.clone().finalize().into();
        let mut expected = [0; 32];
        file.take_unhashed(&mut expected)?;
        if found != expected {
            let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            self.sequences[0].kv.truncate(0);
            return Err(LlmError::KvFile {
                field: "the SHA-256 of the content",
                found: hex(found),
                expected: hex(expected),
            });
        }
        self.adopt(&tokens);
        Ok(())
    }
}

fn read_tokens<R: Read>(session: &Session, file: &mut Hashed<R>) -> Result<Vec<TokenId>> {
    let mut word = [0; 4];
    file.take(&mut word)?;
    let count = u32::from_le_bytes(word) as usize;
    let context_tokens = session.options().context_tokens;
    if count > context_tokens {
        return Err(LlmError::KvFile {
            field: "the token count",
            found: count.to_string(),
            expected: format!("at most the session's context of {context_tokens}"),
        });
    }
    let vocab_size = session.model().config().vocab_size;
    let mut tokens = Vec::with_capacity(count);
    for _ in 0..count {
        file.take(&mut word)?;
        let token = TokenId::from_le_bytes(word);
        if token as usize >= vocab_size {
            return Err(LlmError::KvFile {
                field: "a token",
                found: token.to_string(),
                expected: format!("below the vocabulary's size of {vocab_size}"),
            });
        }
        tokens.push(token);
    }
    Ok(tokens)
}
