//! Random models and the way to the shared data, for all tests of the crate.
#![allow(dead_code)]

pub mod folder;
pub mod golden;
pub mod stored;

use std::path::PathBuf;
use std::sync::Arc;

use ganglion_gguf::{Gguf, GgufWriter, TensorType};
use ganglion_kernels::{BlockFormat, Isa, dequantize, quantize};
use ganglion_llm::{
    FACTORED, FIRST, KvType, Model, ModelOptions, SECOND, Session, SessionOptions, block_format, tensor_type,
};

pub const FORMATS: [(BlockFormat, TensorType); 5] = [
    (BlockFormat::F32, TensorType::F32),
    (BlockFormat::F16, TensorType::F16),
    (BlockFormat::Bf16, TensorType::BF16),
    (BlockFormat::Q8_0, TensorType::Q8_0),
    (BlockFormat::Q4_0, TensorType::Q4_0),
];

/// Sizes of a random model.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub embedding: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    pub vocab: usize,
    pub tied: bool,
}

pub const SMALL: Sizes = Sizes {
    embedding: 64,
    layers: 3,
    heads: 4,
    kv_heads: 2,
    head_dim: 24,
    feed_forward: 160,
    vocab: 203,
    tied: false,
};

pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A random model as a writer, so that tests can spoil it. `skip` leaves one tensor out.
pub fn writer(sizes: Sizes, format: (BlockFormat, TensorType), skip: &str) -> GgufWriter<'static> {
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", "llama").unwrap();
    for (key, value) in [
        ("context_length", 512),
        ("embedding_length", sizes.embedding),
        ("block_count", sizes.layers),
        ("feed_forward_length", sizes.feed_forward),
        ("attention.head_count", sizes.heads),
        ("attention.head_count_kv", sizes.kv_heads),
        ("attention.key_length", sizes.head_dim),
        ("attention.value_length", sizes.head_dim),
        ("rope.dimension_count", sizes.head_dim),
    ] {
        writer.metadata(format!("llama.{key}"), value as u32).unwrap();
    }
    writer.metadata("llama.attention.layer_norm_rms_epsilon", 1e-5f32).unwrap();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut add = |name: &str, k: usize, rows: usize| {
        // Rows of a quantised format must be whole blocks; the odd head size stays F32 then.
        let (block, dtype) = if k.is_multiple_of(format.0.block()) { format } else { FORMATS[0] };
        let scale = 3.0 / (k as f32).sqrt();
        let values: Vec<f32> = (0..k * rows).map(|_| noise.next() * scale).collect();
        let mut bytes = vec![0; block.size_bytes(values.len()).unwrap()];
        quantize(block, &values, &mut bytes).unwrap();
        if name != skip {
            writer.tensor(name, &[k as u64, rows as u64], dtype, bytes).unwrap();
        }
    };
    let (query, kv) = (sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
    add("token_embd.weight", sizes.embedding, sizes.vocab);
    if !sizes.tied {
        add("output.weight", sizes.embedding, sizes.vocab);
    }
    for layer in 0..sizes.layers {
        for (part, k, rows) in [
            ("attn_q", sizes.embedding, query),
            ("attn_k", sizes.embedding, kv),
            ("attn_v", sizes.embedding, kv),
            ("attn_output", query, sizes.embedding),
            ("ffn_gate", sizes.embedding, sizes.feed_forward),
            ("ffn_up", sizes.embedding, sizes.feed_forward),
            ("ffn_down", sizes.feed_forward, sizes.embedding),
        ] {
            add(&format!("blk.{layer}.{part}.weight"), k, rows);
        }
    }
    let norms = (0..sizes.layers)
        .flat_map(|layer| [format!("blk.{layer}.attn_norm.weight"), format!("blk.{layer}.ffn_norm.weight")])
        .chain(["output_norm.weight".to_owned()]);
    for name in norms {
        let bytes: Vec<u8> =
            (0..sizes.embedding).flat_map(|_| (1.0 + 0.1 * noise.next()).to_le_bytes()).collect();
        writer.tensor(name, &[sizes.embedding as u64], TensorType::F32, bytes).unwrap();
    }
    writer
}

/// A tensor of these values.
pub fn add(writer: &mut GgufWriter<'_>, name: &str, k: usize, format: BlockFormat, values: &[f32]) {
    let mut bytes = vec![0; format.size_bytes(values.len()).unwrap()];
    quantize(format, values, &mut bytes).unwrap();
    writer.tensor(name, &[k as u64, (values.len() / k) as u64], tensor_type(format), bytes).unwrap();
}

fn values(gguf: &Gguf, name: &str) -> (Vec<f32>, usize, usize) {
    let info = gguf.tensor(name).unwrap();
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize(block_format(info).unwrap(), gguf.tensor_bytes(name).unwrap(), &mut values).unwrap();
    (values, info.shape[0] as usize, info.shape[1] as usize)
}

fn identity(size: usize) -> Vec<f32> {
    (0..size * size).map(|i| f32::from(u8::from(i / size == i % size))).collect()
}

/// A model with all its layers' matrices in two factors, one of which is the identity.
pub fn factored(whole: &Gguf, format: BlockFormat, skip: &str) -> GgufWriter<'static> {
    let mut writer = GgufWriter::new();
    for (key, value) in whole.metadata() {
        writer.metadata(key, value.clone()).unwrap();
    }
    for info in whole.tensors() {
        let name = info.name.strip_suffix(".weight").unwrap();
        if !FACTORED.iter().any(|part| name.ends_with(part)) {
            writer
                .tensor(&info.name, &info.shape, info.dtype, whole.tensor_bytes(&info.name).unwrap().to_vec())
                .unwrap();
            continue;
        }
        let (values, k, rows) = values(whole, &info.name);
        let (first, second, rank) =
            if rows < k { (values, identity(rows), rows) } else { (identity(k), values, k) };
        for (end, k, values) in [(FIRST, k, first), (SECOND, rank, second)] {
            let name = format!("{name}{end}");
            if name != skip {
                add(&mut writer, &name, k, format, &values);
            }
        }
    }
    writer
}

pub fn finish(writer: GgufWriter<'_>) -> Gguf {
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Gguf::parse(bytes).unwrap()
}

pub fn random_gguf(sizes: Sizes, format: (BlockFormat, TensorType)) -> Gguf {
    finish(writer(sizes, format, ""))
}

/// A session with exact keys and values.
pub fn session(gguf: &Gguf, threads: usize, isa: Isa, context: usize, batch: usize) -> Session {
    session_with(gguf, threads, isa, exact(context, batch))
}

pub fn session_with(gguf: &Gguf, threads: usize, isa: Isa, options: SessionOptions) -> Session {
    let model = Arc::new(Model::load(gguf, ModelOptions { threads, isa }).unwrap());
    Session::new(model, options).unwrap()
}

/// f32 keys and values, as the golden values need them.
pub fn exact(context_tokens: usize, batch_tokens: usize) -> SessionOptions {
    SessionOptions { batch_tokens, kv: KvType::F32, ..SessionOptions::new(context_tokens) }
}

pub fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13) % vocab) as u32).collect()
}

pub fn logits(session: &mut Session) -> Vec<f32> {
    let mut out = vec![0.0; session.model().config().vocab_size];
    session.logits_all(&mut out).unwrap();
    out
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The folder of data shared between checkouts, or `None` with a visible line.
pub fn shared() -> Option<PathBuf> {
    let named = std::env::var_os("GANGLION_SHARED").map(PathBuf::from);
    let found = named.into_iter().chain(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .flat_map(|a| [a.join("shared"), a.join("../shared")]),
    );
    let folder = found.into_iter().find(|folder| folder.join("design.md").is_file());
    if folder.is_none() {
        println!("skipped: no shared/ folder with the test data; set GANGLION_SHARED");
    }
    folder
}
