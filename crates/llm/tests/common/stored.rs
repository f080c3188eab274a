//! Models with their matrices in any format.
#![allow(dead_code)]

use ganglion_gguf::{Gguf, GgufWriter, TensorInfo, TensorType};
use ganglion_kernels::{BlockFormat, dequantize_matrix, quantize, quantize_rows};
use ganglion_llm::{block_format, tensor_type};

/// A copy of a model with other tensors: `change` gives the type and the bytes.
pub fn rewrite(gguf: &Gguf, change: impl Fn(&TensorInfo, &[u8]) -> (TensorType, Vec<u8>)) -> Gguf {
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.header().metadata() {
        writer.metadata(key, value.clone()).unwrap();
    }
    for info in gguf.tensors() {
        let (dtype, bytes) = change(info, gguf.tensor_bytes(&info.name).unwrap());
        writer.tensor(info.name.clone(), &info.shape, dtype, bytes).unwrap();
    }
    super::finish(writer)
}

/// Rows of `columns` values. The symbols of a trellis are any, with scales that lead to values as large as those given.
pub fn stored(format: BlockFormat, columns: usize, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; format.matrix_bytes(values.len() / columns, columns).unwrap()];
    if format.trellis_bits().is_some() {
        let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        let mut state = 1u32;
        bytes.fill_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            quantize(BlockFormat::F16, &[square.sqrt() / 37.0], &mut block[..2]).unwrap();
        }
    } else if format.row_bytes() > 0 {
        quantize_rows(format, columns, values, &mut bytes).unwrap();
    } else if format.sparse_bits().is_some() {
        let kept = |i: usize| (i * 5 + i / 32) % 32 < 16;
        let half: Vec<f32> = values.iter().enumerate().map(|(i, v)| if kept(i) { *v } else { 0.0 }).collect();
        quantize(format, &half, &mut bytes).unwrap();
    } else {
        quantize(format, values, &mut bytes).unwrap();
    }
    bytes
}

/// The values of a tensor. Of a stack each matrix is one of its own.
pub fn restored(format: BlockFormat, info: &TensorInfo, bytes: &[u8]) -> Vec<f32> {
    let columns = info.shape[0] as usize;
    let rows = info.shape.get(1).map_or(1, |rows| *rows as usize);
    let mut values = vec![0.0; info.element_count() as usize];
    let matrices = bytes.chunks_exact(format.matrix_bytes(rows, columns).unwrap());
    for (bytes, values) in matrices.zip(values.chunks_exact_mut(rows * columns)) {
        dequantize_matrix(format, columns, bytes, values).unwrap();
    }
    values
}

/// The format, or Q8_0 for a matrix whose rows are not whole blocks of it.
pub fn fitting(format: BlockFormat, info: &TensorInfo) -> BlockFormat {
    let fits = format.matrix_bytes(info.shape[1] as usize, info.shape[0] as usize).is_some();
    if fits { format } else { BlockFormat::Q8_0 }
}

/// The same values with all matrices in `format`, where their rows are whole blocks of it; elsewhere as Q8_0.
pub fn with_matrices(gguf: &Gguf, format: BlockFormat) -> Gguf {
    rewrite(gguf, |info, bytes| match info.shape.len() {
        1 => (info.dtype, bytes.to_vec()),
        _ => {
            let values = restored(block_format(info).unwrap(), info, bytes);
            let format = fitting(format, info);
            (tensor_type(format), stored(format, info.shape[0] as usize, &values))
        }
    })
}
