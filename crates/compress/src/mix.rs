//! Which tensor is stored as what: llama.cpp's mixtures, by their usual names.
//!
//! A mixture keeps the tensors that suffer most at more bits: the output, values, the feed-forward part's last matrix in the first and
//! last layers. The choices are those of llama.cpp's `llama-quantize` for the same name, so that sizes can be compared.

use ganglion_gguf::TensorInfo;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Config, Reader};

/// A named mixture, or one type for all matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)] // llama.cpp's names
pub enum FileType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Iq4Nl,
    Mxfp4,
    Q2K,
    Q2KS,
    Q3KS,
    Q3KM,
    Q3KL,
    Q4KS,
    Q4KM,
    Q5KS,
    Q5KM,
    Q6K,
    /// Eight bits a row: the one type that takes fixed scales of activations.
    I8Row,
    F8E4M3,
    Nf4,
    T4,
    T4M,
    T3,
    T3M,
    T2,
    T2M,
    /// Eight bits for half of the weights: for what was pruned to 2:4 or 16:32.
    Sparse8,
    /// Four bits for half of the weights.
    Sparse4,
}

/// Name, other name, type of most matrices, llama.cpp's number.
const FILE_TYPES: [(FileType, &str, &str, BlockFormat, u32); 31] = [
    (FileType::F32, "f32", "", BlockFormat::F32, 0),
    (FileType::F16, "f16", "", BlockFormat::F16, 1),
    (FileType::Bf16, "bf16", "", BlockFormat::Bf16, 32),
    (FileType::Q8_0, "q8_0", "", BlockFormat::Q8_0, 7),
    (FileType::Q6K, "q6_k", "", BlockFormat::Q6_K, 18),
    (FileType::Q5KM, "q5_k_m", "q5_k", BlockFormat::Q5_K, 17),
    (FileType::Q5KS, "q5_k_s", "", BlockFormat::Q5_K, 16),
    (FileType::Q5_1, "q5_1", "", BlockFormat::Q5_1, 9),
    (FileType::Q5_0, "q5_0", "", BlockFormat::Q5_0, 8),
    (FileType::Q4KM, "q4_k_m", "q4_k", BlockFormat::Q4_K, 15),
    (FileType::Q4KS, "q4_k_s", "", BlockFormat::Q4_K, 14),
    (FileType::Q4_1, "q4_1", "", BlockFormat::Q4_1, 3),
    (FileType::Q4_0, "q4_0", "", BlockFormat::Q4_0, 2),
    (FileType::Iq4Nl, "iq4_nl", "", BlockFormat::IQ4_NL, 25),
    (FileType::Mxfp4, "mxfp4", "", BlockFormat::MXFP4, 38),
    (FileType::Q3KL, "q3_k_l", "", BlockFormat::Q3_K, 13),
    (FileType::Q3KM, "q3_k_m", "q3_k", BlockFormat::Q3_K, 12),
    (FileType::Q3KS, "q3_k_s", "", BlockFormat::Q3_K, 11),
    (FileType::Q2K, "q2_k", "", BlockFormat::Q2_K, 10),
    (FileType::Q2KS, "q2_k_s", "", BlockFormat::Q2_K, 21),
    (FileType::I8Row, "i8_row", "int8", BlockFormat::I8_ROW, OWN + 0x30),
    (FileType::F8E4M3, "f8_e4m3", "fp8", BlockFormat::F8_E4M3, OWN + 0x20),
    (FileType::Nf4, "nf4", "", BlockFormat::NF4, OWN + 0x10),
    (FileType::T4, "t4", "", BlockFormat::T4, OWN + 4),
    (FileType::T4M, "t4_m", "", BlockFormat::T4, OWN + 0x104),
    (FileType::T3, "t3", "", BlockFormat::T3, OWN + 3),
    (FileType::T3M, "t3_m", "", BlockFormat::T3, OWN + 0x103),
    (FileType::T2, "t2", "", BlockFormat::T2, OWN + 2),
    (FileType::T2M, "t2_m", "", BlockFormat::T2, OWN + 0x102),
    (FileType::Sparse8, "sparse8", "", BlockFormat::SPARSE8, OWN + 0x48),
    (FileType::Sparse4, "sparse4", "", BlockFormat::SPARSE4, OWN + 0x44),
];

/// Numbers of what llama.cpp does not have: those of the tensor types, and 0x100 more for mixtures.
const OWN: u32 = 0x474e_4700;

impl FileType {
    /// The type of this name, in upper or lower case. `q3_k`, `q4_k` and `q5_k` are the medium mixtures.
    pub fn from_name(name: &str) -> Option<Self> {
        let same = |known: &str| !known.is_empty() && known.eq_ignore_ascii_case(name);
        FILE_TYPES.into_iter().find(|(_, first, second, ..)| same(first) || same(second)).map(|row| row.0)
    }

    /// The plainest mixture of this base type.
    pub fn of_base(base: BlockFormat) -> Option<Self> {
        FILE_TYPES.into_iter().find(|row| row.3 == base).map(|row| row.0)
    }

    /// Every name, for messages: other names stand behind the first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILE_TYPES.into_iter().flat_map(|(_, name, other, ..)| [name, other]).filter(|name| !name.is_empty())
    }

    fn row(self) -> (FileType, &'static str, &'static str, BlockFormat, u32) {
        FILE_TYPES
            .into_iter()
            .find(|row| row.0 == self)
            .unwrap_or_else(|| unreachable!("the table is complete"))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type of most matrices.
    pub fn base(self) -> BlockFormat {
        self.row().3
    }

    /// `general.file_type`.
    pub fn number(self) -> u32 {
        self.row().4
    }
}

/// A mixture, and what the user wants otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// The mixture.
    pub file_type: FileType,
    /// Every matrix in the base type, embedding and output too.
    pub pure: bool,
    /// Types of tensors whose name contains a text; the last that fits counts.
    pub overrides: Vec<(String, BlockFormat)>,
}

impl Mix {
    /// The mixture of this name.
    pub fn new(file_type: FileType) -> Self {
        Self { file_type, pure: false, overrides: Vec::new() }
    }

    /// How a tensor is to be stored; `None`: as it is. `tied` says that there is no output matrix beside the embedding.
    pub fn choose(&self, info: &TensorInfo, config: &Config, tied: bool) -> Option<BlockFormat> {
        if !is_matrix(info) {
            return None;
        }
        let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
        let overridden = self.overrides.iter().rev().find(|(part, _)| info.name.contains(part.as_str()));
        let wanted = match overridden {
            Some((_, format)) => *format,
            None if self.pure || !self.file_type.base().is_quantized() => self.file_type.base(),
            // What pruning leaves dense.
            None if self.file_type.base().sparse_bits().is_some() && !is_prunable(info) => BlockFormat::Q8_0,
            None => self.mixed(&info.name, columns, config, tied),
        };
        // Parts of a tensor are rotated each by itself, but quantised together.
        let fused = info.name.ends_with("attn_qkv.weight")
            || config.is_gate_fused() && info.name.ends_with("ffn_up.weight");
        Some(fitting(wanted, rows, columns, fused))
    }

    fn mixed(&self, name: &str, columns: usize, config: &Config, tied: bool) -> BlockFormat {
        let base = self.file_type.base();
        if name == "output.weight" || name == "token_embd.weight" && tied {
            let own = [BlockFormat::MXFP4, BlockFormat::I8_ROW, BlockFormat::F8_E4M3].contains(&base);
            let plain = own || !columns.is_multiple_of(base.block());
            let high = base == BlockFormat::Q8_0 || plain;
            return if high { BlockFormat::Q8_0 } else { BlockFormat::Q6_K };
        }
        if name == "token_embd.weight" {
            // A row of a trellis format is as dear as all that it was rotated with.
            return match base {
                BlockFormat::MXFP4 | BlockFormat::I8_ROW | BlockFormat::F8_E4M3 => BlockFormat::Q8_0,
                BlockFormat::T4 => BlockFormat::Q4_K,
                BlockFormat::T3 => BlockFormat::Q3_K,
                BlockFormat::T2 => BlockFormat::Q2_K,
                _ => base,
            };
        }
        let Some((layer, part)) = layer_part(name) else { return base };
        let layers = config.layer_count;
        let grouped = config.head_count / config.head_count_kv.max(1) >= 4;
        let eighth = layer < layers / 8;
        let more = eighth || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        match (self.file_type, part) {
            (FileType::Q2K, "attn_v.weight") if grouped => BlockFormat::Q4_K,
            (FileType::Q2K, "attn_v.weight" | "attn_output.weight" | "ffn_down.weight") => BlockFormat::Q3_K,
            (FileType::Q2KS, "attn_v.weight") if grouped => BlockFormat::Q4_K,
            (FileType::Q2KS, "ffn_down.weight") if eighth => BlockFormat::Q4_K,
            (FileType::Q3KM, "attn_v.weight") if layer < 2 => BlockFormat::Q5_K,
            (FileType::Q3KM, "ffn_down.weight") if layer < layers / 16 => BlockFormat::Q5_K,
            (
                FileType::Q3KM,
                "attn_v.weight" | "attn_output.weight" | "attn_qkv.weight" | "ffn_down.weight",
            ) => BlockFormat::Q4_K,
            (FileType::Q3KL, "attn_v.weight" | "attn_output.weight" | "ffn_down.weight") => BlockFormat::Q5_K,
            (FileType::Q3KL, "attn_qkv.weight") => BlockFormat::Q4_K,
            (FileType::Q4KS, "attn_v.weight") if layer < 4 => BlockFormat::Q5_K,
            (FileType::Q4KS, "ffn_down.weight") if eighth => BlockFormat::Q5_K,
            (FileType::Q4KM | FileType::Q5KM, "attn_v.weight" | "ffn_down.weight") if more => {
                BlockFormat::Q6_K
            }
            (FileType::Q4KM, "attn_qkv.weight") => BlockFormat::Q5_K,
            (FileType::Q5KM, "attn_qkv.weight") => BlockFormat::Q6_K,
            (FileType::Iq4Nl, "attn_v.weight") if grouped => BlockFormat::Q5_K,
            (FileType::T4M, "attn_v.weight" | "ffn_down.weight") if more => BlockFormat::Q6_K,
            (FileType::T3M, "attn_v.weight" | "attn_output.weight" | "ffn_down.weight") => BlockFormat::T4,
            (FileType::T2M, "attn_v.weight" | "attn_output.weight" | "ffn_down.weight") => BlockFormat::T3,
            _ => base,
        }
    }
}

/// Whether a tensor is a matrix whose type is a matter of choice: no vector, no router, no table of positions.
pub(crate) fn is_matrix(info: &TensorInfo) -> bool {
    let exact = ["ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "position_embd.weight"];
    info.shape.len() >= 2
        && info.name.ends_with(".weight")
        && !exact.iter().any(|end| info.name.ends_with(end))
}

/// Whether pruning may put zeros into a tensor: a matrix of a layer whose inputs a calibration text shows.
pub(crate) fn is_prunable(info: &TensorInfo) -> bool {
    let part = layer_part(&info.name).map(|(_, part)| part);
    is_matrix(info) && info.shape.len() == 2 && part.and_then(Reader::of_tensor).is_some()
}

/// Layer and name within it.
pub(crate) fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// The type, or the nearest above it whose blocks fill a matrix of `rows` and `columns`. What is stored rotated cannot be read in
/// parts: not what several matrices are `fused` to.
fn fitting(format: BlockFormat, rows: usize, columns: usize, fused: bool) -> BlockFormat {
    let simpler = match format {
        BlockFormat::Q2_K | BlockFormat::Q3_K => BlockFormat::Q4_0,
        BlockFormat::Q4_K => BlockFormat::Q5_0,
        BlockFormat::Q5_K => BlockFormat::Q5_1,
        BlockFormat::Q6_K | BlockFormat::I8_ROW => BlockFormat::Q8_0,
        BlockFormat::NF4 => BlockFormat::IQ4_NL,
        BlockFormat::T2 => BlockFormat::Q2_K,
        BlockFormat::T3 => BlockFormat::Q3_K,
        BlockFormat::T4 => BlockFormat::Q4_K,
        other => other,
    };
    let rotated = format.trellis_bits().is_some();
    let fits = |format: &BlockFormat| {
        format.matrix_bytes(rows, columns).is_some() && !(fused && format.trellis_bits().is_some())
    };
    match [format, simpler].into_iter().find(fits) {
        Some(format) => format,
        None if rotated => fitting(simpler, rows, columns, fused),
        None => BlockFormat::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_short_ones_mean_the_medium_mixture() {
        for name in FileType::names() {
            let found = FileType::from_name(&name.to_uppercase()).unwrap().row();
            assert!([found.1, found.2].contains(&name), "{name}");
        }
        assert_eq!(FileType::from_name("Q4_K"), Some(FileType::Q4KM));
        assert_eq!(FileType::from_name("q4"), None);
        assert_eq!(FileType::from_name(""), None);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        for (format, rows, columns, fused, expected) in [
            (BlockFormat::Q4_K, 7, 512, false, BlockFormat::Q4_K),
            (BlockFormat::Q4_K, 7, 96, false, BlockFormat::Q5_0),
            (BlockFormat::Q2_K, 7, 96, false, BlockFormat::Q4_0),
            (BlockFormat::Q6_K, 7, 40, false, BlockFormat::F16),
            (BlockFormat::T3, 48, 96, false, BlockFormat::T3),
            (BlockFormat::T3, 48, 256, true, BlockFormat::Q3_K),
            (BlockFormat::T3, 40, 96, false, BlockFormat::Q4_0),
            (BlockFormat::I8_ROW, 5, 96, false, BlockFormat::I8_ROW),
            (BlockFormat::F8_E4M3, 5, 97, false, BlockFormat::F8_E4M3),
            (BlockFormat::NF4, 5, 96, false, BlockFormat::IQ4_NL),
        ] {
            assert_eq!(fitting(format, rows, columns, fused), expected, "{format} {rows} x {columns}");
        }
    }

    #[test]
    fn layers_are_read_from_names() {
        assert_eq!(layer_part("blk.12.attn_q.weight"), Some((12, "attn_q.weight")));
        assert_eq!(layer_part("output.weight"), None);
        assert_eq!(layer_part("blk.x.attn_q.weight"), None);
    }
}
