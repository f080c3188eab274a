//! Tensor types of files and block formats of the kernels: the same formats under two crates' names.

use ganglion_gguf::{Header, TensorInfo, TensorType};
use ganglion_kernels::{BlockFormat, Forms};

use crate::error::{LlmError, Result};

/// What a matrix may be stored as.
const FORMATS: [(TensorType, BlockFormat); 23] = [
    (TensorType::F32, BlockFormat::F32),
    (TensorType::F16, BlockFormat::F16),
    (TensorType::BF16, BlockFormat::Bf16),
    (TensorType::Q8_0, BlockFormat::Q8_0),
    (TensorType::Q4_0, BlockFormat::Q4_0),
    (TensorType::Q4_1, BlockFormat::Q4_1),
    (TensorType::Q5_0, BlockFormat::Q5_0),
    (TensorType::Q5_1, BlockFormat::Q5_1),
    (TensorType::Q2_K, BlockFormat::Q2_K),
    (TensorType::Q3_K, BlockFormat::Q3_K),
    (TensorType::Q4_K, BlockFormat::Q4_K),
    (TensorType::Q5_K, BlockFormat::Q5_K),
    (TensorType::Q6_K, BlockFormat::Q6_K),
    (TensorType::IQ4_NL, BlockFormat::IQ4_NL),
    (TensorType::MXFP4, BlockFormat::MXFP4),
    (TensorType::NF4, BlockFormat::NF4),
    (TensorType::I8_ROW, BlockFormat::I8_ROW),
    (TensorType::F8_E4M3, BlockFormat::F8_E4M3),
    (TensorType::T2, BlockFormat::T2),
    (TensorType::T3, BlockFormat::T3),
    (TensorType::T4, BlockFormat::T4),
    (TensorType::SPARSE8, BlockFormat::SPARSE8),
    (TensorType::SPARSE4, BlockFormat::SPARSE4),
];

/// Why a type is refused, for matrices and for vectors (norms), which only come as plain floats.
const EXPECTED_MATRIX: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, MXFP4, NF4, I8_ROW, F8_E4M3, T2 to T4, SPARSE8 or SPARSE4";
const EXPECTED_VECTOR: &str = "F32, F16 or BF16";

/// The kernels' name of a stored type.
///
/// # Errors
/// [`LlmError::TensorType`] for a type that the kernels do not have, or quantised vectors.
pub fn block_format(info: &TensorInfo) -> Result<BlockFormat> {
    let vector = info.shape.len() == 1;
    FORMATS
        .into_iter()
        .find(|(dtype, format)| {
            *dtype == info.dtype && (!vector || format.block() == 1 && format.is_blockwise())
        })
        .map(|(_, format)| format)
        .ok_or_else(|| LlmError::TensorType {
            tensor: info.name.clone(),
            found: info.dtype.name(),
            expected: if vector { EXPECTED_VECTOR } else { EXPECTED_MATRIX },
        })
}

/// The file's name of a block format.
///
/// # Panics
/// Never: every format has one.
pub fn tensor_type(format: BlockFormat) -> TensorType {
    let (dtype, _) = FORMATS.into_iter().find(|(_, known)| *known == format).expect("the table is complete");
    dtype
}

/// The forms of activations that the matrices of a file read.
pub(crate) fn forms(header: &Header) -> Forms {
    let formats = header.tensors().iter().filter_map(|info| block_format(info).ok());
    formats.fold(Forms::default(), Forms::with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_mean_the_same_bytes() {
        for format in BlockFormat::ALL {
            let dtype = tensor_type(format);
            assert_eq!(dtype.name(), format.name());
            assert_eq!((dtype.block_size(), dtype.block_bytes()), (format.block(), format.block_bytes()));
            assert_eq!((dtype.block_rows(), dtype.row_bytes()), (format.block_rows(), format.row_bytes()));
            let size = dtype.size_bytes(&[512, 48]).map(|bytes| bytes as usize);
            assert_eq!(size, format.matrix_bytes(48, 512));
            assert_eq!(dtype.is_own(), BlockFormat::OWN.contains(&format));
        }
    }
}
