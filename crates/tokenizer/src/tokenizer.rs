//! The tokenizer: special tokens, pieces, merges.

use ganglion_gguf::{Gguf, Header, OptionalExt};

use crate::bpe::Bpe;
use crate::detokenizer::Detokenizer;
use crate::error::{Result, TokenizerError};
use crate::limits;
use crate::merge::Merger;
use crate::special::SpecialTokens;
use crate::spm::Spm;
use crate::vocabulary::Vocabulary;

/// A token's position in the vocabulary: a row of the embedding matrix, a column of the logits.
pub type TokenId = u32;

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text that no token spells.
    Unknown,
    /// Has a meaning for the model and no text: begin, end, turn markers.
    Control,
    /// Text that is always recognised as a whole.
    UserDefined,
    /// In the vocabulary, but in no training data.
    Unused,
    /// A single byte of text that no other token spells.
    Byte,
}

/// The algorithm of a vocabulary (`tokenizer.ggml.model`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// `llama`: SentencePiece BPE with byte fallback.
    Spm,
    /// `gpt2`: byte-level BPE.
    Bpe,
}

/// How to encode. The default adds nothing and takes all text literally, which is right for text from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the BOS token in front (if the vocabulary has one), whatever [`Tokenizer::add_bos_token`] says.
    pub add_bos: bool,
    /// Turn text that spells a control token into it. Only for text whose author may use control tokens, such as a
    /// rendered chat template whose parts were checked with [`Tokenizer::find_special`].
    pub parse_special: bool,
}

/// Working memory of [`Tokenizer::encode_into`]; reuse it, and encoding no longer allocates once it has grown.
#[derive(Clone, Debug, Default)]
pub struct EncodeScratch {
    merger: Merger,
    /// A fragment with the space that SPM puts in front.
    spaced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Algorithm {
    Spm(Spm),
    Bpe(Bpe),
}

/// A vocabulary with the rules to turn text into its tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    /// Recognised in any text.
    always_special: SpecialTokens,
    /// Recognised when special tokens are parsed.
    special: SpecialTokens,
    /// Tokens that swallow the whitespace behind them.
    strips_right: Vec<TokenId>,
    add_bos_token: bool,
    add_eos_token: bool,
    add_space_prefix: bool,
    chat_template: Option<String>,
}

impl Tokenizer {
    /// Reads `tokenizer.*` of a model or vocabulary file.
    ///
    /// # Errors
    /// [`TokenizerError`]: a key is missing or contradicts another, or the algorithm or pre-tokenizer is unknown.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        Self::from_header(gguf.header())
    }

    /// As [`Self::from_gguf`], for a header that was parsed alone.
    ///
    /// # Errors
    /// As [`Self::from_gguf`].
    pub fn from_header(gguf: &Header) -> Result<Tokenizer> {
        let model = match gguf.get_str("tokenizer.ggml.model")? {
            "llama" => Model::Spm,
            "gpt2" => Model::Bpe,
            other => return Err(TokenizerError::UnsupportedModel { found: other.to_owned() }),
        };
        let vocabulary = Vocabulary::from_gguf(gguf, model)?;
        let algorithm = match model {
            Model::Spm => Algorithm::Spm(Spm::from_gguf(gguf, &vocabulary)?),
            Model::Bpe => Algorithm::Bpe(Bpe::from_gguf(gguf)?),
        };
        let add_bos_default = match &algorithm {
            Algorithm::Spm(_) => true,
            Algorithm::Bpe(bpe) => bpe.pre.add_bos_default,
        };
        let flag =
            |key: &str, default| Ok::<_, TokenizerError>(gguf.get_bool(key).optional()?.unwrap_or(default));
        let special_kinds = [TokenKind::Control, TokenKind::UserDefined, TokenKind::Unknown];
        let special = SpecialTokens::new(&vocabulary, |kind| special_kinds.contains(&kind));
        Ok(Tokenizer {
            always_special: SpecialTokens::new(&vocabulary, |kind| kind == TokenKind::UserDefined),
            strips_right: strips_right(gguf, &vocabulary)?,
            special,
            add_bos_token: flag("tokenizer.ggml.add_bos_token", add_bos_default)?,
            add_eos_token: flag("tokenizer.ggml.add_eos_token", false)?,
            add_space_prefix: model == Model::Spm && flag("tokenizer.ggml.add_space_prefix", true)?,
            chat_template: gguf.get_str("tokenizer.chat_template").optional()?.map(str::to_owned),
            vocabulary,
            algorithm,
        })
    }

    /// Encodes a text.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Vec<TokenId> {
        self.encode_bytes(text.as_bytes(), options)
    }

    /// Encodes any bytes. Decoded, the tokens give the same bytes again, with two exceptions: bytes that the
    /// vocabulary cannot spell ([`Self::missing_byte`]) become the unknown token, or nothing if there is none; and SPM
    /// vocabularies put a space behind each special token that is recognised.
    pub fn encode_bytes(&self, bytes: &[u8], options: EncodeOptions) -> Vec<TokenId> {
        let mut out = Vec::new();
        self.encode_into(bytes, options, &mut EncodeScratch::default(), &mut out);
        out
    }

    /// As [`Self::encode_bytes`], appending to `out` and reusing `scratch`.
    pub fn encode_into(
        &self,
        bytes: &[u8],
        options: EncodeOptions,
        scratch: &mut EncodeScratch,
        out: &mut Vec<TokenId>,
    ) {
        if options.add_bos {
            out.extend(self.vocabulary.bos);
        }
        let special = if options.parse_special { &self.special } else { &self.always_special };
        let mut rest = bytes;
        let mut is_behind_special = true;
        while let Some((start, end, id)) = special.find(rest) {
            self.encode_fragment(&rest[..start], is_behind_special, scratch, out);
            out.push(id);
            rest = &rest[end..];
            if self.strips_right.contains(&id) {
                rest = rest.trim_ascii_start();
            }
            is_behind_special = true;
        }
        self.encode_fragment(rest, is_behind_special, scratch, out);
    }

    /// Encodes bytes that hold no special token.
    fn encode_fragment(
        &self,
        fragment: &[u8],
        is_behind_special: bool,
        scratch: &mut EncodeScratch,
        out: &mut Vec<TokenId>,
    ) {
        if fragment.is_empty() {
            return;
        }
        let EncodeScratch { merger, spaced } = scratch;
        match &self.algorithm {
            Algorithm::Bpe(bpe) => {
                let mut encode = |piece: &[u8]| {
                    for piece in piece.chunks(limits::PIECE_BYTES_MAX) {
                        bpe.encode_piece(&self.vocabulary, piece, merger, out);
                    }
                };
                for chunk in fragment.utf8_chunks() {
                    bpe.pre.split(chunk.valid(), &mut |piece| encode(piece.as_bytes()));
                    encode(chunk.invalid());
                }
            }
            Algorithm::Spm(spm) => {
                let mut fragment = fragment;
                if self.add_space_prefix && is_behind_special {
                    spaced.clear();
                    spaced.push(b' ');
                    spaced.extend_from_slice(fragment);
                    fragment = spaced;
                }
                for piece in fragment.chunks(limits::PIECE_BYTES_MAX) {
                    spm.encode_piece(&self.vocabulary, piece, merger, out);
                }
            }
        }
    }

    /// The first text in `text` that spells a special token (control, unknown or user-defined), as its id. Text from
    /// outside that does must not reach a prompt that is encoded with [`EncodeOptions::parse_special`].
    pub fn find_special(&self, text: &str) -> Option<TokenId> {
        self.special.find(text.as_bytes()).map(|(_, _, id)| id)
    }

    /// The first byte of `bytes` that no token spells, so that encoding would lose it. [`None`] for all text with
    /// vocabularies that are complete, as most are.
    pub fn missing_byte(&self, bytes: &[u8]) -> Option<u8> {
        bytes.utf8_chunks().find_map(|chunk| {
            let valid = chunk.valid();
            let mut characters = valid.char_indices().map(|(at, c)| &valid.as_bytes()[at..at + c.len_utf8()]);
            let missing = characters.find_map(|character| self.vocabulary.missing_byte(character));
            missing.or_else(|| self.vocabulary.missing_byte(chunk.invalid()))
        })
    }

    /// The text of tokens from its start: control tokens are left out, the space that SPM puts in front is taken
    /// off, bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut text = String::new();
        let mut detokenizer = Detokenizer::new();
        for &id in ids {
            text.push_str(detokenizer.push(self, id));
        }
        text.push_str(detokenizer.finish());
        text
    }

    /// The bytes of tokens, exactly as [`Self::decode`] but without replacing any.
    pub fn decode_bytes(&self, ids: &[TokenId]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut is_at_start = true;
        for &id in ids {
            bytes.extend_from_slice(self.visible_bytes(id, &mut is_at_start));
        }
        bytes
    }

    /// What a token adds to a text; `is_at_start` tells whether nothing was added yet, and is kept up to date.
    pub(crate) fn visible_bytes(&self, id: TokenId, is_at_start: &mut bool) -> &[u8] {
        let bytes = match self.vocabulary.kind(id) {
            TokenKind::Control => return &[],
            TokenKind::Unknown => "\u{fffd}".as_bytes(),
            _ => self.vocabulary.token_bytes(id),
        };
        if bytes.is_empty() || !std::mem::replace(is_at_start, false) || !self.add_space_prefix {
            return bytes;
        }
        bytes.strip_prefix(b" ").unwrap_or(bytes)
    }

    /// The raw bytes of a token: byte-level alphabets and `<0xNN>` resolved, SPM's `▁` as a space. Control and
    /// unknown tokens give their name in the file; ids outside the vocabulary give no bytes.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.vocabulary.token_bytes(id)
    }

    /// What a token is for; [`TokenKind::Unused`] for ids outside the vocabulary.
    pub fn token_kind(&self, id: TokenId) -> TokenKind {
        self.vocabulary.kind(id)
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The algorithm.
    pub fn model(&self) -> Model {
        match self.algorithm {
            Algorithm::Spm(_) => Model::Spm,
            Algorithm::Bpe(_) => Model::Bpe,
        }
    }

    /// Begin of sequence.
    pub fn bos(&self) -> Option<TokenId> {
        self.vocabulary.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<TokenId> {
        self.vocabulary.eos
    }

    /// End of a turn of a chat, as stated by the file or recognised by its text.
    pub fn eot(&self) -> Option<TokenId> {
        self.vocabulary.eot
    }

    /// The unknown token.
    pub fn unknown(&self) -> Option<TokenId> {
        self.vocabulary.unknown
    }

    /// All tokens that end an answer, ascending: EOS, EOT, and others recognised by their text.
    pub fn end_of_generation(&self) -> &[TokenId] {
        &self.vocabulary.end_of_generation
    }

    /// Whether prompts of this model start with BOS.
    pub fn add_bos_token(&self) -> bool {
        self.add_bos_token
    }

    /// Whether sequences of this model end with EOS; for training, not for prompts.
    pub fn add_eos_token(&self) -> bool {
        self.add_eos_token
    }

    /// Whether a text is encoded with a space in front (SPM), which decoding takes off again.
    pub fn add_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// The source of the model's chat template, if it has one; see [`crate::ChatTemplate`].
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

/// Files do not say which special tokens swallow the whitespace behind them; llama.cpp knows it by name of Phi-3,
/// whose special tokens all do but these.
fn strips_right(gguf: &Header, vocabulary: &Vocabulary) -> Result<Vec<TokenId>> {
    const KEEPS: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
    let name = gguf.get_str("general.name").optional()?.unwrap_or_default().to_lowercase();
    if !(name.contains("phi-3") || name.contains("phi3")) {
        return Ok(Vec::new());
    }
    let strips = |id: &TokenId| {
        let is_special =
            matches!(vocabulary.kind(*id), TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown);
        is_special && !KEEPS.contains(&vocabulary.token_bytes(*id))
    };
    Ok((0..vocabulary.len() as TokenId).filter(strips).collect())
}
