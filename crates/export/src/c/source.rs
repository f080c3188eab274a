//! The constants in front of `runtime.c`, and the header.

use std::fmt::Write as _;
use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_kernels::{Activation, BlockFormat, KvType, RopeOrder};
use ganglion_llm::{Anatomy, Dense, FeedForward, Linear, MatrixPart, Norm, Positions, QueryKeyNorm};

use super::{COptions, CReport};
use crate::Progress;
use crate::error::{ExportError, Result};
use crate::limits::C_VALUES_A_LINE;
use crate::matrix::{BLOCK, RowOrder, Rows, block_parts};
use crate::output::Output;

/// The program, which reads the names that this file writes.
const RUNTIME: &str = include_str!("runtime.c");
const HEADER: &str = include_str!("header.h");

/// What is to be written.
pub(super) struct Source<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) anatomy: &'a Anatomy,
    pub(super) options: COptions,
    pub(super) context: usize,
    /// Of the GGUF file.
    pub(super) sha256: String,
}

/// Counts while it writes.
struct Writer<'p> {
    out: Output,
    flash_bytes: u64,
    /// Types that occur: Q8_0, Q4_0, F32.
    has: [bool; 3],
    total_bytes: u64,
    progress: &'p mut dyn FnMut(Progress),
}

/// Takes one value of an array.
type Put<'p> = dyn FnMut(&dyn std::fmt::Display) -> Result<()> + 'p;

type LinearPart = Linear<MatrixPart, Vec<f32>>;

fn dense(anatomy: &Anatomy, layer: usize) -> &Dense<MatrixPart, Vec<f32>> {
    match &anatomy.weights.layers[layer].feed_forward {
        FeedForward::Dense(dense) => dense,
        FeedForward::Experts(_) => unreachable!("mixtures were refused"),
    }
}

/// The products of a layer, by their names in C.
fn linears(anatomy: &Anatomy, layer: usize) -> impl Iterator<Item = (&'static str, &LinearPart)> {
    let (attention, dense) = (&anatomy.weights.layers[layer].attention, dense(anatomy, layer));
    [
        ("query", Some(&attention.query)),
        ("key", Some(&attention.key)),
        ("value", Some(&attention.value)),
        ("output", Some(&attention.output)),
        ("gate", dense.gate.as_ref()),
        ("up", Some(&dense.up)),
        ("down", Some(&dense.down)),
    ]
    .into_iter()
    .filter_map(|(name, linear)| Some((name, linear?)))
}

/// Every matrix.
pub(super) fn matrices(anatomy: &Anatomy) -> impl Iterator<Item = &MatrixPart> {
    let weights = &anatomy.weights;
    let layers = (0..weights.layers.len())
        .flat_map(|layer| linears(anatomy, layer))
        .flat_map(|(_, linear)| linear.first.iter().chain([&linear.matrix]));
    [&weights.embedding].into_iter().chain(weights.head.as_ref()).chain(layers)
}

/// A float as C reads it back, bit for bit.
fn float(value: f32) -> String {
    format!("{value:e}f")
}

impl Writer<'_> {
    fn text(&mut self, text: &str) -> Result<()> {
        self.out.write(text.as_bytes())
    }

    /// An array of constants, some values a line.
    fn array(
        &mut self,
        (kind, size): (&str, u64),
        name: &str,
        count: usize,
        values: &mut dyn FnMut(&mut Put<'_>) -> Result<()>,
    ) -> Result<()> {
        self.flash_bytes += count as u64 * size;
        self.text(&format!("static const {kind} {name}[{count}] = {{"))?;
        let (mut line, mut index) = (String::new(), 0);
        values(&mut |value| {
            if index % C_VALUES_A_LINE == 0 {
                line.push('\n');
                self.out.write(line.as_bytes())?;
                line.clear();
            }
            index += 1;
            // Writing to a string does not fail.
            let _ = write!(line, "{value},");
            Ok(())
        })?;
        debug_assert_eq!(index, count, "{name}");
        line.push_str("\n};\n");
        self.out.write(line.as_bytes())
    }

    fn floats(&mut self, name: &str, tensor: &str, values: &[f32]) -> Result<()> {
        if let Some(found) = values.iter().find(|value| !value.is_finite()) {
            let expected = "a number";
            return Err(ExportError::Value { tensor: tensor.to_owned(), found: *found, expected });
        }
        self.array(("float", 4), name, values.len(), &mut |put| {
            values.iter().try_for_each(|value| put(&format_args!("{value:e}f")))
        })
    }

    /// The arrays of a matrix; its initialiser in C, without a bias.
    fn matrix(&mut self, name: &str, rows: Rows<'_>, asked: Option<BlockFormat>) -> Result<String> {
        let MatrixPart { rows: count, k, format, .. } = *rows.part;
        let format = match asked.unwrap_or(format) {
            _ if !k.is_multiple_of(BLOCK) => BlockFormat::F32,
            BlockFormat::Q4_0 => BlockFormat::Q4_0,
            BlockFormat::F32 if asked.is_some() => BlockFormat::F32,
            _ => BlockFormat::Q8_0,
        };
        let reader = rows.open()?;
        let blocks = |take: &mut dyn FnMut(u16, &[u8]) -> Result<()>| -> Result<()> {
            let mut bytes = Vec::new();
            (0..count).try_for_each(|row| {
                reader.stored(row, format, &mut bytes)?;
                bytes.chunks_exact(format.block_bytes()).try_for_each(|block| {
                    let (scale, quants) = block_parts(block);
                    take(scale, quants)
                })
            })
        };
        let mut pointers = ["NULL".to_owned(), "NULL".to_owned(), "NULL".to_owned(), "NULL".to_owned()];
        if format == BlockFormat::F32 {
            self.has[2] = true;
            pointers[3] = format!("{name}_f32");
            let mut values = vec![0.0; count * k];
            values.chunks_exact_mut(k).enumerate().try_for_each(|(row, out)| reader.values(row, out))?;
            self.floats(&pointers[3], &rows.part.tensor, &values)?;
        } else {
            pointers[2] = format!("{name}_scales");
            self.array(("uint16_t", 2), &pointers[2], count * k / BLOCK, &mut |put| {
                blocks(&mut |scale, _| put(&scale))
            })?;
            if format == BlockFormat::Q8_0 {
                self.has[0] = true;
                pointers[0] = format!("{name}_q8");
                self.array(("int8_t", 1), &pointers[0], count * k, &mut |put| {
                    blocks(&mut |_, quants| quants.iter().try_for_each(|q| put(&(*q as i8))))
                })?;
            } else {
                self.has[1] = true;
                pointers[1] = format!("{name}_q4");
                self.array(("uint8_t", 1), &pointers[1], count * k / 2, &mut |put| {
                    blocks(&mut |_, quants| quants.iter().try_for_each(|q| put(q)))
                })?;
            }
        }
        (self.progress)(Progress {
            done_bytes: self.flash_bytes,
            total_bytes: self.total_bytes.max(self.flash_bytes),
        });
        Ok(format!("{count}u, {k}u, {}", pointers.join(", ")))
    }

    /// A vector under a name, or NULL.
    fn vector(&mut self, name: &str, tensor: &str, values: Option<&[f32]>) -> Result<String> {
        match values {
            Some(values) => self.floats(name, tensor, values).map(|()| name.to_owned()),
            None => Ok("NULL".to_owned()),
        }
    }
}

/// The header's name follows from the C file's: nobody said that what has it may be replaced, unless it is such a header.
fn check_header(path: &Path) -> Result<()> {
    let begins = |text: &[u8]| HEADER.lines().next().is_some_and(|line| text.starts_with(line.as_bytes()));
    match std::fs::read(path) {
        Ok(text) if !begins(&text) => Err(ExportError::Occupied { path: path.to_owned() }),
        _ => Ok(()),
    }
}

fn weight(norm: &Option<Norm<Vec<f32>>>) -> Option<&[f32]> {
    match norm {
        Some(Norm::Rms { weight } | Norm::Layer { weight, .. }) => Some(weight),
        None => None,
    }
}

impl Source<'_> {
    pub(super) fn write(&self, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<CReport> {
        let header_path = path.with_extension("h");
        check_header(&header_path)?;
        let total_bytes = matrices(self.anatomy).map(|part| (part.rows * part.k) as u64).sum();
        let out = Output::create(path)?;
        let mut writer = Writer { out, flash_bytes: 0, has: [false; 3], total_bytes, progress };
        let header_name = header_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        writer.text(&format!(
            "/* A decoder of {} layers, made by ganglion {} from a GGUF file with SHA-256\n   {}.\n   {header_name} says how to use it. \
             C99; needs memcpy and memset, and nothing of <math.h>. */\n\n#include \"{header_name}\"\n\n#include <stddef.h>\n#include <string.h>\n\n\
             #if GANGLION_EXPORT != {}u\n#error \"{header_name} is of another export: the two files belong together\"\n#endif\n\
             {INSTRUCTIONS}\n{TYPES}\n",
            self.anatomy.config.layer_count,
            env!("CARGO_PKG_VERSION"),
            self.sha256,
            self.export_id(),
        ))?;
        self.weights(&mut writer)?;
        let ram_bytes = self.ram_bytes();
        let defines = self.defines(&writer)?;
        writer.text(&defines)?;
        writer.text(RUNTIME)?;
        let flash_bytes = writer.flash_bytes;
        let mut header = Output::create(&header_path)?;
        header.write(self.header(flash_bytes, ram_bytes).as_bytes())?;
        header.finish()?;
        writer.out.finish()?;
        let files = [path.to_owned(), header_path];
        Ok(CReport { flash_bytes, ram_bytes, context_tokens: self.context, files })
    }

    fn rows<'s>(&'s self, part: &'s MatrixPart) -> Rows<'s> {
        Rows::new(self.gguf, part, RowOrder::Same)
    }

    fn weights(&self, writer: &mut Writer<'_>) -> Result<()> {
        let (weights, config) = (&self.anatomy.weights, &self.anatomy.config);
        let asked = self.options.format;
        let embedding = writer.matrix("w_embedding", self.rows(&weights.embedding), asked)?;
        let head = match &weights.head {
            Some(head) => writer.matrix("w_head", self.rows(head), asked)?,
            None => embedding.clone(),
        };
        let bias = writer.vector("w_head_bias", "output.bias", weights.head_bias.as_deref())?;
        writer.text(&format!("static const matrix g_embedding = {{ {embedding}, NULL, NULL }};\n"))?;
        writer.text(&format!("static const matrix g_head = {{ {head}, {bias}, NULL }};\n"))?;
        let Norm::Rms { weight } = &weights.output_norm else { unreachable!("LayerNorm was refused") };
        writer.floats("g_output_norm", "output_norm.weight", weight)?;
        let mut layers = String::new();
        for index in 0..config.layer_count {
            self.layer(writer, index, &mut layers)?;
        }
        writer.text(&format!("static const layer g_layers[{}] = {{\n{layers}}};\n", config.layer_count))?;
        let mut names = Vec::new();
        for (index, table) in self.anatomy.rope_tables(self.context).iter().enumerate() {
            let angles = (0..self.context).flat_map(|position| table.angles(position));
            let values: Vec<f32> = angles.flat_map(|(cos, sin)| [*cos, *sin]).collect();
            names.push(format!("w_rope_{index}"));
            writer.floats(&names[index], "the rotary table", &values)?;
        }
        writer.text(&format!("static const float *const g_rope[] = {{ {} }};\n\n", names.join(", ")))
    }

    fn layer(&self, writer: &mut Writer<'_>, index: usize, out: &mut String) -> Result<()> {
        let layer = &self.anatomy.weights.layers[index];
        let spec = self.anatomy.config.layers[index];
        let mut fields = Vec::new();
        for (name, values) in [
            ("attention_norm", weight(&layer.attention_norm)),
            ("attention_post_norm", weight(&layer.attention_post_norm)),
            ("feed_forward_norm", weight(&layer.feed_forward_norm)),
            ("feed_forward_post_norm", weight(&layer.feed_forward_post_norm)),
            ("query_norm", layer.attention.query_norm.as_deref()),
            ("key_norm", layer.attention.key_norm.as_deref()),
        ] {
            fields.push(writer.vector(
                &format!("w_{index}_{name}"),
                &format!("blk.{index}, {name}"),
                values,
            )?);
        }
        for (name, linear) in linears(self.anatomy, index) {
            let name = format!("w_{index}_{name}");
            let matrix = writer.matrix(&name, self.rows(&linear.matrix), self.options.format)?;
            let bias =
                writer.vector(&format!("{name}_bias"), &linear.matrix.tensor, linear.bias.as_deref())?;
            let first = match &linear.first {
                Some(first) => {
                    let name = format!("{name}_first");
                    let matrix = writer.matrix(&name, self.rows(first), self.options.format)?;
                    writer.text(&format!("static const matrix {name} = {{ {matrix}, NULL, NULL }};\n"))?;
                    format!("&{name}")
                }
                None => "NULL".to_owned(),
            };
            fields.push(format!("{{ {matrix}, {bias}, {first} }}"));
        }
        fields.push(format!("{}u", spec.window.map_or(0, |window| window.min(u32::MAX as usize))));
        fields.push(format!("{}u", spec.rope.unwrap_or(0)));
        let _ = writeln!(out, "    {{ {} }},", fields.join(",\n      "));
        Ok(())
    }

    /// The longest row that a product reads.
    fn widest(&self) -> usize {
        let config = &self.anatomy.config;
        config
            .embedding_length
            .max(config.query_length())
            .max(config.feed_forward_length)
            .max(config.factor_rank)
    }

    /// `sizeof arena` of the runtime.
    fn ram_bytes(&self) -> u64 {
        let config = &self.anatomy.config;
        let (embedding, query, kv) = (config.embedding_length, config.query_length(), config.kv_length());
        let positions = config.layer_count * self.context;
        let floats = 3 * embedding
            + 2 * query
            + 2 * kv
            + 2 * config.feed_forward_length
            + self.widest() / 32
            + 1
            + config.factor_rank;
        let (kept_floats, kept_bytes) = match self.options.kv {
            KvType::Int8 => (2 * positions * config.head_count_kv, 2 * positions * kv),
            _ => (2 * positions * kv, 0),
        };
        let bytes = 4 * (floats + kept_floats) + kept_bytes + self.widest();
        bytes.next_multiple_of(4) as u64
    }

    fn defines(&self, writer: &Writer<'_>) -> Result<String> {
        let config = &self.anatomy.config;
        let design = config.design;
        let [q8, q4, f32] = writer.has.map(u32::from);
        let pairs = self.anatomy.rope_tables(1).first().map_or(0, |table| table.angles(0).len());
        let (norms, query_norm, key_norm) = match design.query_key_norm {
            QueryKeyNorm::None => (0, 0, 0),
            QueryKeyNorm::Head => (1, config.head_dim, config.head_dim),
            QueryKeyNorm::Whole => (1, config.query_length(), config.kv_length()),
        };
        let activation = match design.activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::GeluErf => 2,
        };
        let neighbours = design.positions == Positions::Rotary(RopeOrder::Interleaved);
        let caps = [config.attention_softcap, config.final_softcap];
        let mut text = String::new();
        for (name, value) in [
            ("G_EMBEDDING", config.embedding_length),
            ("G_QUERY", config.query_length()),
            ("G_KV", config.kv_length()),
            ("G_FEED_FORWARD", config.feed_forward_length),
            ("G_WIDEST", self.widest()),
            ("G_LAYERS", config.layer_count),
            ("G_HEADS", config.head_count),
            ("G_KV_HEADS", config.head_count_kv),
            ("G_HEAD_DIM", config.head_dim),
            ("G_PAIRS", pairs),
            ("G_RANK", config.factor_rank),
            ("G_QUERY_NORM_LENGTH", query_norm),
            ("G_KEY_NORM_LENGTH", key_norm),
        ] {
            let _ = writeln!(text, "#define {name} {value}u");
        }
        for (name, value) in [
            ("G_HAS_Q8", q8),
            ("G_HAS_Q4", q4),
            ("G_HAS_F32", f32),
            ("G_KV_INT8", u32::from(self.options.kv == KvType::Int8)),
            ("G_FACTORS", u32::from(config.factor_rank > 0)),
            ("G_NEIGHBOURS", u32::from(neighbours)),
            ("G_QUERY_KEY_NORM", norms),
            ("G_ACTIVATION", activation),
            ("G_SCALE_EMBEDDING", u32::from(config.embedding_scale != 1.0)),
            ("G_ATTENTION_SOFTCAP", u32::from(caps[0].is_some())),
            ("G_FINAL_SOFTCAP", u32::from(caps[1].is_some())),
            ("G_SOFTCAP", u32::from(caps.iter().any(Option::is_some))),
        ] {
            let _ = writeln!(text, "#define {name} {value}");
        }
        for (name, value) in [
            ("G_EPSILON", config.norm_epsilon),
            ("G_ATTENTION_SCALE", config.attention_scale),
            ("G_EMBEDDING_SCALE", config.embedding_scale),
            ("G_ATTENTION_CAP", caps[0].unwrap_or(0.0)),
            ("G_FINAL_CAP", caps[1].unwrap_or(0.0)),
        ] {
            let _ = writeln!(text, "#define {name} {}", float(value));
        }
        Ok(text)
    }

    /// A number for the model and the options: FNV-1a over what says both.
    fn export_id(&self) -> u32 {
        let said =
            format!("{} {} {:?} {}", env!("CARGO_PKG_VERSION"), self.sha256, self.options, self.context);
        said.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    fn header(&self, flash_bytes: u64, ram_bytes: u64) -> String {
        HEADER
            .replace("@SHA256@", &self.sha256)
            .replace("@EXPORT@", &self.export_id().to_string())
            .replace("@VOCABULARY@", &self.anatomy.config.vocab_size.to_string())
            .replace("@CONTEXT@", &self.context.to_string())
            .replace("@FLASH@", &flash_bytes.to_string())
            .replace("@ARENA@", &ram_bytes.to_string())
    }
}

/// Where Arm's compilers declare the instructions that `runtime.c` asks for by name.
const INSTRUCTIONS: &str = "\
#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#endif
";

/// What the constants are made of.
const TYPES: &str = "\
typedef struct matrix {
    uint32_t rows;
    uint32_t k;
    /* One of q8 (with scales), q4 (with scales) and f32 is there. */
    const int8_t *q8;
    const uint8_t *q4;
    const uint16_t *scales;
    const float *f32;
    const float *bias;
    /* Of a matrix in two factors the one that reads the input. */
    const struct matrix *first;
} matrix;

typedef struct {
    const float *attention_norm, *attention_post_norm, *feed_forward_norm, *feed_forward_post_norm;
    const float *query_norm, *key_norm;
    matrix query, key, value, output, gate, up, down;
    uint32_t window;
    uint32_t rope;
} layer;
";
