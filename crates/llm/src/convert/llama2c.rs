//! llama2.c checkpoints (legacy header, version 0) and their tokenizer files to GGUF.
//!
//! The checkpoint is seven little-endian i32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a
//! negative vocab_size announces a separate head), then f32 arrays kind by kind, each for all layers. The tokenizer is
//! an i32 (longest token), then for every token f32 score, i32 length, bytes. Rotary pairs are neighbours in both formats,
//! so no matrix is permuted.

use ganglion_gguf::{Array, GgufWriter, StringArray, Value};
use ganglion_kernels::{BlockFormat, quantize};

use crate::error::{LlmError, Result};
use crate::format::tensor_type;
use crate::limits;

/// How the converted weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    F32,
    /// Q8_0 where rows are whole blocks of 32, else F32; norms always F32.
    Q8_0,
}

/// RMSNorm's epsilon and the rotary base, fixed in llama2.c's source.
const RMS_EPSILON: f32 = 1e-5;
const ROPE_BASE: f32 = 10_000.0;
const MODEL: &str = "llama2.c checkpoint";
const VOCABULARY: &str = "llama2.c tokenizer";
/// SentencePiece's mark for a space.
const SPACE_MARK: &str = "\u{2581}";
/// Ids that SentencePiece gives its special tokens; byte tokens follow.
const UNKNOWN: u32 = 0;
const BOS: u32 = 1;
const EOS: u32 = 2;
const BYTES: std::ops::Range<u32> = 3..259;

struct Reader<'a> {
    part: &'static str,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, reason: String) -> Result<T> {
        Err(LlmError::Llama2c { part: self.part, offset: self.offset, reason })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let Some(taken) = rest.get(..count) else {
            return self.fail(format!("{count} bytes expected, {} left; the file is truncated", rest.len()));
        };
        self.offset += count;
        Ok(taken)
    }

    fn i32(&mut self) -> Result<i32> {
        let b = self.take(4)?;
        Ok(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn count(&mut self, name: &str, max: usize) -> Result<usize> {
        let found = self.i32()?;
        match usize::try_from(found) {
            Ok(value) if (1..=max).contains(&value) => Ok(value),
            _ => self.fail(format!("{name} is {found}, expected 1 to {max}")),
        }
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>> {
        let bytes = self.take(count.saturating_mul(4))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}

struct Shape {
    dim: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    separate_head: bool,
    context: usize,
}

impl Shape {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let dim = reader.count("dim", limits::EMBEDDING_MAX)?;
        let hidden = reader.count("hidden_dim", limits::FEED_FORWARD_MAX)?;
        let layers = reader.count("n_layers", limits::LAYERS_MAX)?;
        let heads = reader.count("n_heads", limits::HEADS_MAX)?;
        let kv_heads = reader.count("n_kv_heads", limits::HEADS_MAX)?;
        let vocab = reader.i32()?;
        let separate_head = vocab < 0;
        let vocab = vocab.unsigned_abs() as usize;
        if vocab == 0 || vocab > limits::VOCAB_MAX {
            return reader.fail(format!("vocab_size is {vocab}, expected 1 to {}", limits::VOCAB_MAX));
        }
        let context = reader.count("seq_len", limits::CONTEXT_MAX)?;
        if !dim.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) || !(dim / heads).is_multiple_of(2) {
            return reader.fail(format!("dim {dim}, n_heads {heads}, n_kv_heads {kv_heads} do not divide"));
        }
        Ok(Self { dim, hidden, layers, heads, kv_heads, vocab, separate_head, context })
    }
}

/// Converts a checkpoint and its tokenizer; the caller writes the result to a file.
///
/// # Errors
/// [`LlmError::Llama2c`] for a truncated or impossible file, [`LlmError::Gguf`] if the result exceeds GGUF's limits.
///
/// ```no_run
/// use ganglion_llm::convert::{Precision, llama2c};
/// let (model, vocabulary) = (std::fs::read("stories260K.bin")?, std::fs::read("tok512.bin")?);
/// llama2c(&model, &vocabulary, Precision::F32)?.write_file("stories260K.gguf")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn llama2c(model: &[u8], tokenizer: &[u8], precision: Precision) -> Result<GgufWriter<'static>> {
    let mut reader = Reader { part: MODEL, bytes: model, offset: 0 };
    let shape = Shape::read(&mut reader)?;
    let mut writer = GgufWriter::new();
    describe(&mut writer, &shape)?;
    vocabulary(&mut writer, tokenizer, shape.vocab)?;
    tensors(&mut writer, &mut reader, &shape, precision)?;
    Ok(writer)
}

fn describe(writer: &mut GgufWriter<'_>, shape: &Shape) -> Result<()> {
    writer.metadata("general.architecture", "llama")?;
    writer.metadata("general.name", "llama2.c")?;
    for (key, value) in [
        ("vocab_size", shape.vocab),
        ("context_length", shape.context),
        ("embedding_length", shape.dim),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.hidden),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("rope.dimension_count", shape.dim / shape.heads),
    ] {
        writer.metadata(format!("llama.{key}"), value as u32)?;
    }
    writer.metadata("llama.rope.freq_base", ROPE_BASE)?;
    writer.metadata("llama.attention.layer_norm_rms_epsilon", RMS_EPSILON)?;
    Ok(())
}

fn vocabulary(writer: &mut GgufWriter<'_>, bytes: &[u8], vocab: usize) -> Result<()> {
    // token types of GGUF: 1 normal, 2 unknown, 3 control, 6 byte
    let mut reader = Reader { part: VOCABULARY, bytes, offset: 0 };
    let _longest = reader.i32()?;
    let (mut tokens, mut scores, mut types) = (StringArray::new(), Vec::new(), Vec::new());
    for id in 0..vocab as u32 {
        scores.push(f32::from_bits(reader.i32()? as u32));
        let length = reader.count("token length", limits::LLAMA2C_TOKEN_BYTES_MAX)?;
        let Ok(text) = std::str::from_utf8(reader.take(length)?) else {
            return reader.fail(format!("token {id} is not UTF-8"));
        };
        // llama2.c pads the two control tokens with line breaks for its own display.
        let (text, kind) = match id {
            UNKNOWN => (text.to_owned(), 2),
            BOS | EOS => (text.trim().to_owned(), 3),
            id if BYTES.contains(&id) => (text.to_owned(), 6),
            _ => (text.replace(' ', SPACE_MARK), 1),
        };
        tokens.push(&text);
        types.push(kind);
    }
    writer.metadata("tokenizer.ggml.model", "llama")?;
    writer.metadata("tokenizer.ggml.tokens", tokens)?;
    writer.metadata("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))?;
    writer.metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))?;
    writer.metadata("tokenizer.ggml.bos_token_id", BOS)?;
    writer.metadata("tokenizer.ggml.eos_token_id", EOS)?;
    writer.metadata("tokenizer.ggml.unknown_token_id", UNKNOWN)?;
    writer.metadata("tokenizer.ggml.add_bos_token", true)?;
    writer.metadata("tokenizer.ggml.add_space_prefix", true)?;
    Ok(())
}

fn tensors(
    writer: &mut GgufWriter<'_>,
    reader: &mut Reader<'_>,
    shape: &Shape,
    precision: Precision,
) -> Result<()> {
    let Shape { dim, hidden, layers, vocab, .. } = *shape;
    let head_dim = dim / shape.heads;
    let kv = shape.kv_heads * head_dim;
    let mut add = |name: &str, sizes: &[usize], values: &[f32]| -> Result<()> {
        let sizes: Vec<u64> = sizes.iter().map(|size| *size as u64).collect();
        let blocks = sizes.len() == 2 && sizes[0].is_multiple_of(32) && precision == Precision::Q8_0;
        let format = if blocks { BlockFormat::Q8_0 } else { BlockFormat::F32 };
        let mut bytes = vec![0; format.size_bytes(values.len()).unwrap_or(0)];
        quantize(format, values, &mut bytes)?;
        writer.tensor(name, &sizes, tensor_type(format), bytes)?;
        Ok(())
    };
    add("token_embd.weight", &[dim, vocab], &reader.floats(vocab * dim)?)?;
    for (part, sizes) in [
        ("attn_norm", &[dim][..]),
        ("attn_q", &[dim, dim]),
        ("attn_k", &[dim, kv]),
        ("attn_v", &[dim, kv]),
        ("attn_output", &[dim, dim]),
        ("ffn_norm", &[dim]),
        ("ffn_gate", &[dim, hidden]),
        ("ffn_down", &[hidden, dim]),
        ("ffn_up", &[dim, hidden]),
    ] {
        for layer in 0..layers {
            let values = reader.floats(sizes.iter().product())?;
            add(&format!("blk.{layer}.{part}.weight"), sizes, &values)?;
        }
    }
    add("output_norm.weight", &[dim], &reader.floats(dim)?)?;
    // The rotary table that old checkpoints carry: recomputed on loading.
    reader.floats(shape.context * head_dim)?;
    if shape.separate_head {
        add("output.weight", &[dim, vocab], &reader.floats(vocab * dim)?)?;
    }
    match reader.bytes.len() - reader.offset {
        0 => Ok(()),
        rest => reader.fail(format!("{rest} bytes follow the last tensor; is this a version 0 file?")),
    }
}
