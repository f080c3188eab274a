//! `ganglion bench device`: what matrix products cost on this machine, for `ganglion model optimize` here or elsewhere.

use super::engine::now_ns;
use crate::load::{self, size};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use ganglion_compress::{Device, LayerTime, ProductTime};
use ganglion_gguf::{Gguf, GgufWriter};
use ganglion_kernels::probe::{DotProbe, ReadProbe};
use ganglion_kernels::{ActivationBuffer, BlockFormat, Input, Isa, Matrix, Pool, matmul, quantize};
use ganglion_llm::{Model, ModelOptions, Session, SessionOptions, tensor_type};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SCHEMA: &str = "ganglion-device";
const VERSION: u64 = 2;
/// (rows, columns) of the models that this is for, from the smallest to those of a billion weights.
const SHAPES: [(usize, usize); 10] = [
    (256, 256),
    (768, 256),
    (256, 768),
    (1536, 256),
    (1024, 1024),
    (4096, 1024),
    (1024, 4096),
    (2048, 2048),
    (5632, 2048),
    (2048, 5632),
];
/// Rows of activations: decoding, and prompts.
const TOKENS: [usize; 3] = [1, 8, 64];
/// Widths of models that layers are measured in beside their products.
const WIDTHS: [usize; 2] = [256, 1024];
/// Such a model: layers, values of a head, channels of the feed-forward part for each value of the stream, and tokens it knows. Its type
/// is one that every product is measured in.
const LAYERS: usize = 4;
const HEAD: usize = 64;
const FEED_FORWARD: usize = 3;
const VOCABULARY: usize = 256;
const LAYER_TYPE: BlockFormat = BlockFormat::Q8_0;
/// Weights from which on a matrix is also measured as it comes from memory.
const STREAMED_MIN: usize = 1 << 20;
/// Time for each product and each pass, and the fewest and most times it runs.
const PRODUCT_NS: u64 = 3_000_000;
const PASSES_NS: u64 = 30_000_000;
const RUNS_MIN: usize = 5;
const RUNS_MAX: usize = 2000;
const PROBE_NS: u64 = 300_000_000;
/// Copies of a matrix that are read in turn take this many times the largest cache.
const CACHES: usize = 2;
/// The largest cache where the system does not tell.
const CACHE_DEFAULT: u64 = 32 << 20;
/// Most entries of a profile that is read.
const PRODUCTS_MAX: usize = 1 << 16;

/// What matrix products cost on this machine, by type, shape and tokens
///
/// The result is what `ganglion model optimize --device FILE` plans with: products with the preparation of what they read, and what
/// layers take beside them. Of all runs a quarter was quicker than what is told. Leave the machine idle meanwhile.
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion bench device --json device.json")]
pub struct Arguments {
    /// Write the profile
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also measure the shapes of a model's matrices
    #[arg(long, value_name = "FILE.gguf")]
    model: Option<PathBuf>,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut shapes = SHAPES.to_vec();
    if let Some(file) = &arguments.model {
        shapes.extend(shapes_of(&Gguf::open(file).context("model")?));
        shapes.sort_unstable();
        shapes.dedup();
    }
    let device = measure(&shapes, &BlockFormat::ALL, arguments.threads)?;
    if let Some(file) = &arguments.json {
        let text = format!("{:#}\n", to_json(&device));
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    print(&device, &shapes)
}

/// The shapes of a model's matrices, as (rows, columns).
pub fn shapes_of(gguf: &Gguf) -> Vec<(usize, usize)> {
    let matrices = gguf.tensors().iter().filter(|info| info.shape.len() == 2);
    let mut shapes: Vec<_> = matrices.map(|info| (info.shape[1] as usize, info.shape[0] as usize)).collect();
    shapes.sort_unstable();
    shapes.dedup();
    shapes
}

/// Measures this machine; 0 threads: as many as it gives.
pub fn measure(shapes: &[(usize, usize)], formats: &[BlockFormat], threads: usize) -> Result<Device> {
    let given = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { given.min(ganglion_kernels::limits::THREADS_MAX) } else { threads };
    let (isa, pool) = (Isa::detect(), Pool::new(threads)?);
    let cache_bytes = cache_bytes();
    let probe = ReadProbe::new(CACHES * cache_bytes as usize);
    let mut device = Device {
        name: processor(),
        threads,
        available_bytes: load::available_bytes().unwrap_or(0),
        cache_bytes,
        read_bytes_per_s: probe.bandwidth(isa, &pool, PROBE_NS, now_ns).median,
        int8_macs_per_s: DotProbe::new().peak(isa, &pool, PROBE_NS, now_ns).median,
        products: Vec::new(),
        layers: Vec::new(),
    };
    drop(probe);
    let terminal = std::io::stderr().is_terminal();
    for (index, format) in formats.iter().enumerate() {
        for (rows, columns) in shapes.iter().filter(|shape| format.matrix_bytes(shape.0, shape.1).is_some()) {
            if terminal {
                eprint!("\r{} of {} types: {format}, {rows} × {columns}          ", index + 1, formats.len());
            }
            product(&mut device, (isa, &pool), *format, (*rows, *columns))?;
        }
    }
    if terminal {
        eprint!("\r{:60}\r", "");
    }
    for width in WIDTHS {
        layers(&mut device, (isa, &pool), width)?;
    }
    Ok(device)
}

/// What layers of a model of this width take beside their products, for each number of tokens.
fn layers(device: &mut Device, (isa, pool): (Isa, &Pool), width: usize) -> Result<()> {
    let mut products = Device::default();
    for (rows, columns) in layer_shapes(width) {
        product(&mut products, (isa, pool), LAYER_TYPE, (rows, columns))?;
    }
    let most = TOKENS.into_iter().fold(1, usize::max);
    let options = ModelOptions { threads: device.threads, ..ModelOptions::default() };
    let model = Model::load(&Gguf::parse(model_of(width)?)?, options)?;
    let mut session = Session::new(Arc::new(model), SessionOptions::new(most))?;
    let ids: Vec<u32> = (0..most as u32).map(|i| i * 37 % VOCABULARY as u32).collect();
    for tokens in TOKENS {
        let whole = quarter(PASSES_NS, &mut || {
            session.truncate(0)?;
            Ok(session.prefill(&ids[..tokens], &mut || false)?)
        })?;
        let inside: f64 = layer_shapes(width)
            .into_iter()
            .filter_map(|shape| products.product_ns(LAYER_TYPE, shape, tokens, false))
            .sum();
        let ns = whole / LAYERS as f64 - inside;
        device.layers.push(LayerTime { embedding_length: width, tokens, ns });
    }
    Ok(())
}

/// Query, key, value, output; gate, up, down: (rows, columns).
fn layer_shapes(width: usize) -> [(usize, usize); 7] {
    let inner = FEED_FORWARD * width;
    let square = (width, width);
    [square, square, square, square, (inner, width), (inner, width), (width, inner)]
}

/// A file of a model of this width; speed does not depend on the values.
fn model_of(width: usize) -> Result<Vec<u8>> {
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", "llama")?;
    let heads = width / HEAD;
    for (key, value) in [
        ("context_length", 512),
        ("embedding_length", width),
        ("block_count", LAYERS),
        ("feed_forward_length", FEED_FORWARD * width),
        ("attention.head_count", heads),
        ("attention.head_count_kv", heads),
        ("rope.dimension_count", HEAD),
    ] {
        writer.metadata(format!("llama.{key}"), value as u32)?;
    }
    writer.metadata("llama.attention.layer_norm_rms_epsilon", 1e-5f32)?;
    let mut add = |name: &str, rows: usize, columns: usize, format: BlockFormat| -> Result<()> {
        let shape: &[u64] = if rows == 1 { &[columns as u64] } else { &[columns as u64, rows as u64] };
        writer.tensor(name, shape, tensor_type(format), stored(format, rows, columns)?)?;
        Ok(())
    };
    add("token_embd.weight", VOCABULARY, width, LAYER_TYPE)?;
    add("output_norm.weight", 1, width, BlockFormat::F32)?;
    let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    for layer in 0..LAYERS {
        for (name, (rows, columns)) in names.into_iter().zip(layer_shapes(width)) {
            add(&format!("blk.{layer}.{name}.weight"), rows, columns, LAYER_TYPE)?;
        }
        add(&format!("blk.{layer}.attn_norm.weight"), 1, width, BlockFormat::F32)?;
        add(&format!("blk.{layer}.ffn_norm.weight"), 1, width, BlockFormat::F32)?;
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes)?;
    Ok(bytes)
}

/// Runs `work` for about `ns` nanoseconds, once more to warm up; the time that a quarter of the runs was quicker than: what else goes on
/// on a machine makes runs slower, never quicker.
pub fn quarter(ns: u64, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    work()?;
    let start = now_ns();
    while times.len() < RUNS_MIN || (now_ns() - start < ns && times.len() < RUNS_MAX) {
        let before = now_ns();
        work()?;
        times.push(now_ns() - before);
    }
    times.sort_unstable();
    Ok(times[times.len() / 4].max(1) as f64)
}

/// One shape of one type: from the cache, and from memory if it is large.
fn product(
    device: &mut Device,
    (isa, pool): (Isa, &Pool),
    format: BlockFormat,
    (rows, columns): (usize, usize),
) -> Result<()> {
    let stored = stored(format, rows, columns)?;
    let pack = || Matrix::pack("bench", format, rows, columns, &stored);
    let mut matrices = vec![pack()?];
    let most = TOKENS.into_iter().fold(1, usize::max);
    let mut quantised = ActivationBuffer::new(most, columns);
    let mut out = vec![0.0; most * rows];
    for from_memory in [false, true] {
        if from_memory {
            if rows * columns < STREAMED_MIN {
                break;
            }
            let packed = Matrix::packed_bytes(format, rows, columns).unwrap_or(1).max(1);
            let copies = (CACHES * device.cache_bytes as usize).div_ceil(packed);
            while matrices.len() < copies {
                matrices.push(pack()?);
            }
        }
        for tokens in TOKENS {
            let x: Vec<f32> = noise(7).take(tokens * columns).collect();
            let out = &mut out[..tokens * rows];
            let mut at = 0;
            let ns = quarter(PRODUCT_NS, &mut || {
                let matrix = &matrices[at % matrices.len()];
                quantised.prepare(isa, pool, &x, (tokens, columns), &[matrix]);
                matmul(isa, pool, &Input::new(&x, &quantised), &mut [(matrix, &mut *out)]);
                at += 1;
                Ok(())
            })?;
            device.products.push(ProductTime { format, rows, columns, tokens, from_memory, ns });
        }
    }
    Ok(())
}

/// Numbers without a pattern in −1 to 1.
fn noise(seed: u64) -> impl Iterator<Item = f32> {
    (seed..).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) % 2003).map(|v| v as f32 / 1001.0 - 1.0)
}

/// The bytes of a matrix whose rows are all alike, or zeros where a format needs more than a row: speed does not depend on the
/// values.
fn stored(format: BlockFormat, rows: usize, columns: usize) -> Result<Vec<u8>> {
    if !format.is_blockwise() {
        return Ok(vec![0; format.matrix_bytes(rows, columns).context("whole blocks")?]);
    }
    let mut row: Vec<f32> = noise(1).take(columns).collect();
    if format.sparse_bits().is_some() {
        // Two of every four.
        row.chunks_mut(4).for_each(|four| four.iter_mut().skip(2).for_each(|v| *v = 0.0));
    }
    let mut bytes = vec![0; format.size_bytes(columns).context("whole blocks")?];
    quantize(format, &row, &mut bytes)?;
    Ok(bytes.repeat(rows))
}

/// The largest cache of the first processor.
fn cache_bytes() -> u64 {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let size = |index: usize| {
        let text = std::fs::read_to_string(folder.join(format!("index{index}/size"))).ok()?;
        let text = text.trim();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = match unit {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(unit)
    };
    (0..8).filter_map(size).max().unwrap_or(CACHE_DEFAULT)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = named.map_or("", |(_, name)| name.trim());
    format!("{} ({})", if name.is_empty() { std::env::consts::ARCH } else { name }, Isa::detect().name())
}

fn to_json(device: &Device) -> Value {
    let product = |p: &ProductTime| {
        json!({"type": p.format.name(), "rows": p.rows, "columns": p.columns, "tokens": p.tokens,
            "from": if p.from_memory { "memory" } else { "cache" }, "ns": p.ns})
    };
    let layer =
        |l: &LayerTime| json!({"embedding_length": l.embedding_length, "tokens": l.tokens, "ns": l.ns});
    json!({
        "schema": SCHEMA,
        "version": VERSION,
        "name": device.name,
        "threads": device.threads,
        "available_bytes": device.available_bytes,
        "cache_bytes": device.cache_bytes,
        "read_bytes_per_s": device.read_bytes_per_s,
        "int8_macs_per_s": device.int8_macs_per_s,
        "products": device.products.iter().map(product).collect::<Vec<_>>(),
        "layers": device.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

/// Reads a profile that [`run`] wrote. Types that this program does not know are left out.
pub fn read(file: &Path) -> Result<Device> {
    let profile =
        || format!("device profile {}; `ganglion bench device --json FILE` writes one", file.display());
    let text = std::fs::read_to_string(file).with_context(profile)?;
    parse(&text).with_context(profile)
}

fn parse(text: &str) -> Result<Device> {
    let value: Value = serde_json::from_str(text)?;
    let found = (value["schema"].as_str(), value["version"].as_u64());
    ensure!(
        found == (Some(SCHEMA), Some(VERSION)),
        "schema and version are {} and {}, expected {SCHEMA:?} and {VERSION}; measure the device again with this program",
        value["schema"],
        value["version"]
    );
    let positive = |value: &Value, key: &str| {
        let number = value[key].as_f64().filter(|n| n.is_finite() && *n > 0.0);
        number.ok_or_else(|| anyhow!("{key} is {}, expected a number above 0", value[key]))
    };
    let products = value["products"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(
        (1..=PRODUCTS_MAX).contains(&products.len()),
        "products has {} entries, expected 1 to {PRODUCTS_MAX}",
        products.len()
    );
    let mut device = Device {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        threads: positive(&value, "threads")? as usize,
        available_bytes: positive(&value, "available_bytes")? as u64,
        cache_bytes: positive(&value, "cache_bytes")? as u64,
        read_bytes_per_s: positive(&value, "read_bytes_per_s")?,
        int8_macs_per_s: positive(&value, "int8_macs_per_s")?,
        products: Vec::new(),
        layers: Vec::new(),
    };
    let layers = value["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(
        (1..=PRODUCTS_MAX).contains(&layers.len()),
        "layers has {} entries, expected 1 to {PRODUCTS_MAX}",
        layers.len()
    );
    for layer in layers {
        let count = |key: &str| positive(layer, key).map(|n| n as usize);
        let (embedding_length, tokens) = (count("embedding_length")?, count("tokens")?);
        let ns = layer["ns"].as_f64().filter(|ns| ns.is_finite());
        let ns = ns.ok_or_else(|| anyhow!("ns of a layer is {}, expected a number", layer["ns"]))?;
        device.layers.push(LayerTime { embedding_length, tokens, ns });
    }
    for product in products {
        let name = product["type"].as_str().ok_or_else(|| anyhow!("a product without a type"))?;
        let Some(format) = BlockFormat::from_name(name) else { continue };
        let from_memory = match product["from"].as_str() {
            Some("cache") => false,
            Some("memory") => true,
            _ => return Err(anyhow!("from is {}, expected \"cache\" or \"memory\"", product["from"])),
        };
        let count = |key: &str| positive(product, key).map(|n| n as usize);
        let (rows, columns, tokens) = (count("rows")?, count("columns")?, count("tokens")?);
        let ns = positive(product, "ns")?;
        device.products.push(ProductTime { format, rows, columns, tokens, from_memory, ns });
    }
    Ok(device)
}

/// For each type, picoseconds a multiply-add: the smallest and the largest shape, for each number of tokens.
fn print(device: &Device, shapes: &[(usize, usize)]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}, {} threads, largest cache {}", device.name, device.threads, size(device.cache_bytes))?;
    writeln!(out, "available memory  {:>10}", size(device.available_bytes))?;
    writeln!(out, "read from memory  {:>10.1} GB/s", device.read_bytes_per_s / 1e9)?;
    writeln!(out, "int8 dot products {:>10.1} G multiply-adds/s", device.int8_macs_per_s / 1e9)?;
    let area = |shape: &&(usize, usize)| shape.0 * shape.1;
    let ends = [(shapes.iter().min_by_key(area), false), (shapes.iter().max_by_key(area), true)];
    for (shape, from_memory) in ends {
        let Some((rows, columns)) = shape else { continue };
        let from = if from_memory { "memory" } else { "the cache" };
        writeln!(out, "\n{rows} × {columns} from {from}, ps a multiply-add")?;
        writeln!(out, "{:<8} {:>10} {:>10} {:>10}", "type", "1 token", "8 tokens", "64 tokens")?;
        for format in device.formats() {
            let cell = |tokens: usize| {
                let same = |p: &&ProductTime| {
                    (p.format, p.rows, p.columns, p.tokens, p.from_memory)
                        == (format, *rows, *columns, tokens, from_memory)
                };
                let time = device.products.iter().find(same)?;
                Some(time.ns * 1e3 / (rows * columns * tokens) as f64)
            };
            if let [Some(one), Some(some), Some(many)] = TOKENS.map(cell) {
                writeln!(out, "{:<8} {one:>10.1} {some:>10.1} {many:>10.1}", format.name())?;
            }
        }
    }
    writeln!(
        out,
        "\na layer beside its products, µs\n{:<8} {:>10} {:>10} {:>10}",
        "width", "1 token", "8 tokens", "64 tokens"
    )?;
    for width in WIDTHS {
        let [one, some, many] = TOKENS.map(|tokens| device.other_ns(width, tokens) / 1e3);
        writeln!(out, "{width:<8} {one:>10.1} {some:>10.1} {many:>10.1}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let all = measure(&[(256, 256)], &BlockFormat::ALL, 1).unwrap();
        assert_eq!(all.formats(), BlockFormat::ALL);
        let formats = [BlockFormat::Q8_0, BlockFormat::Q4_K, BlockFormat::F32];
        let device = measure(&[(64, 96), (32, 256)], &formats, 1).unwrap();
        // Rows of 96 are no whole blocks of Q4_K.
        assert_eq!(device.products.len(), (2 + 1 + 2) * TOKENS.len());
        assert!(device.products.iter().all(|p| p.ns > 0.0 && !p.from_memory));
        let mut written = to_json(&device);
        assert_eq!(parse(&written.to_string()).unwrap(), device);
        assert_eq!(device.layers.len(), WIDTHS.len() * TOKENS.len());
        written["products"][0]["type"] = "IQ9_Z".into();
        assert_eq!(parse(&written.to_string()).unwrap().products.len(), device.products.len() - 1);
    }

    #[test]
    fn what_is_no_profile_is_refused_by_the_field() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        assert!(refused(r#"{"schema": "other", "version": 1}"#).contains("ganglion-device"));
        let mut value = to_json(&measure(&[(32, 32)], &[BlockFormat::Q4_0], 1).unwrap());
        value["cache_bytes"] = json!(-1);
        assert!(refused(&value.to_string()).contains("cache_bytes is -1"));
        value["cache_bytes"] = json!(1);
        value["products"][1]["from"] = json!("disk");
        assert!(refused(&value.to_string()).contains("from is \"disk\""));
        value["layers"] = json!([]);
        assert!(refused(&value.to_string()).contains("layers has 0 entries"));
    }
}
