//! Which tensor is stored as what: llama.cpp's mixtures, by their usual names.
//!
//! A mixture keeps the tensors that suffer most at more bits: the output, values, the feed-forward part's last matrix in the first and
//! last layers. The choices are those of llama.cpp's `llama-quantize` for the same name, so that sizes can be compared.

use ganglion_gguf::TensorInfo;
use ganglion_kernels::BlockFormat;
use ganglion_llm::Config;

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
}

/// Name, other name, type of most matrices, llama.cpp's number.
const FILE_TYPES: [(FileType, &str, &str, BlockFormat, u32); 20] = [
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
];

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

    /// Every name, for messages.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILE_TYPES.into_iter().map(|(_, name, ..)| name)
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
        let columns = info.shape[0] as usize;
        let overridden = self.overrides.iter().rev().find(|(part, _)| info.name.contains(part.as_str()));
        let wanted = match overridden {
            Some((_, format)) => *format,
            None if self.pure || !self.file_type.base().is_quantized() => self.file_type.base(),
            None => self.mixed(&info.name, columns, config, tied),
        };
        Some(fitting(wanted, columns))
    }

    fn mixed(&self, name: &str, columns: usize, config: &Config, tied: bool) -> BlockFormat {
        let base = self.file_type.base();
        if name == "output.weight" || name == "token_embd.weight" && tied {
            let plain = base == BlockFormat::MXFP4 || !columns.is_multiple_of(base.block());
            let high = base == BlockFormat::Q8_0 || plain;
            return if high { BlockFormat::Q8_0 } else { BlockFormat::Q6_K };
        }
        if name == "token_embd.weight" {
            return if base == BlockFormat::MXFP4 { BlockFormat::Q8_0 } else { base };
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

/// Layer and name within it.
pub(crate) fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// The type, or the nearest above it whose blocks fill rows of `columns`.
fn fitting(format: BlockFormat, columns: usize) -> BlockFormat {
    let simpler = match format {
        BlockFormat::Q2_K | BlockFormat::Q3_K => BlockFormat::Q4_0,
        BlockFormat::Q4_K => BlockFormat::Q5_0,
        BlockFormat::Q5_K => BlockFormat::Q5_1,
        BlockFormat::Q6_K => BlockFormat::Q8_0,
        other => other,
    };
    let fits = |format: &BlockFormat| columns.is_multiple_of(format.block());
    [format, simpler].into_iter().find(fits).unwrap_or(BlockFormat::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_short_ones_mean_the_medium_mixture() {
        for name in FileType::names() {
            assert_eq!(FileType::from_name(&name.to_uppercase()).unwrap().name(), name);
        }
        assert_eq!(FileType::from_name("Q4_K"), Some(FileType::Q4KM));
        assert_eq!(FileType::from_name("q4"), None);
        assert_eq!(FileType::from_name(""), None);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        assert_eq!(fitting(BlockFormat::Q4_K, 512), BlockFormat::Q4_K);
        assert_eq!(fitting(BlockFormat::Q4_K, 96), BlockFormat::Q5_0);
        assert_eq!(fitting(BlockFormat::Q2_K, 96), BlockFormat::Q4_0);
        assert_eq!(fitting(BlockFormat::Q6_K, 40), BlockFormat::F16);
    }

    #[test]
    fn layers_are_read_from_names() {
        assert_eq!(layer_part("blk.12.attn_q.weight"), Some((12, "attn_q.weight")));
        assert_eq!(layer_part("output.weight"), None);
        assert_eq!(layer_part("blk.x.attn_q.weight"), None);
    }
}
