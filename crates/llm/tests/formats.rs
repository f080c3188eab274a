//! Every block format through a whole model.

mod common;
use common::*;
use ganglion_gguf::{Gguf, GgufWriter, TensorInfo, TensorType};
use ganglion_kernels::{BlockFormat, Isa, dequantize, quantize};

/// All rows are whole super-blocks.
const WIDE: Sizes = Sizes {
    embedding: 256,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 512,
    vocab: 90,
    tied: false,
};

/// A copy of a model with other tensors: `change` gives the type and the bytes.
fn rewrite(gguf: &Gguf, change: impl Fn(&TensorInfo, &[u8]) -> (TensorType, Vec<u8>)) -> Gguf {
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.header().metadata() {
        writer.metadata(key, value.clone()).unwrap();
    }
    for info in gguf.tensors() {
        let (dtype, bytes) = change(info, gguf.tensor_bytes(&info.name).unwrap());
        writer.tensor(info.name.clone(), &info.shape, dtype, bytes).unwrap();
    }
    finish(writer)
}

fn stored(format: BlockFormat, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; format.size_bytes(values.len()).unwrap()];
    quantize(format, values, &mut bytes).unwrap();
    bytes
}

fn restored(format: BlockFormat, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / format.block_bytes() * format.block()];
    dequantize(format, bytes, &mut values).unwrap();
    values
}

fn dtype(format: BlockFormat) -> TensorType {
    *TensorType::ALL.iter().find(|dtype| dtype.name() == format.name()).unwrap()
}

fn final_logits(gguf: &Gguf, threads: usize, isa: Isa, batch: usize) -> Vec<f32> {
    let mut session = session(gguf, threads, isa, 32, batch);
    session.prefill(&tokens(20, WIDE.vocab), &mut || false).unwrap();
    logits(&mut session)
}

#[test]
fn every_format_computes_what_its_weights_say() {
    let original = random_gguf(WIDE, FORMATS[0]);
    for format in BlockFormat::ALL {
        let quantised = rewrite(&original, |info, bytes| match info.shape.len() {
            1 => (info.dtype, bytes.to_vec()),
            _ => (dtype(format), stored(format, &restored(BlockFormat::F32, bytes))),
        });
        let reference = final_logits(&quantised, 1, Isa::Scalar, 1);
        for isa in Isa::available() {
            for (threads, batch) in [(1, 20), (2, 7)] {
                assert_eq!(
                    bits(&reference),
                    bits(&final_logits(&quantised, threads, isa, batch)),
                    "{format} {isa:?}"
                );
            }
        }
        // The same weights as plain floats: what is left is the rounding of activations to int8, 2 to 5 percent here.
        let plain = rewrite(&quantised, |info, bytes| match info.shape.len() {
            1 => (info.dtype, bytes.to_vec()),
            _ => (TensorType::F32, stored(BlockFormat::F32, &restored(format, bytes))),
        });
        let plain = final_logits(&plain, 1, Isa::detect(), 20);
        let size = plain.iter().map(|v| v * v).sum::<f32>().sqrt();
        let error = reference.iter().zip(&plain).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt() / size;
        println!("{format}: {error}");
        assert!(error < if format.block() == 1 { 1e-5 } else { 0.1 }, "{format}: {error}");
    }
}

#[test]
fn vectors_may_be_stored_as_halves() {
    let original = random_gguf(SMALL, FORMATS[3]);
    for format in [BlockFormat::F16, BlockFormat::Bf16] {
        let vectors = |to: BlockFormat| {
            rewrite(&original, |info, bytes| match info.shape.len() {
                1 => {
                    let rounded = restored(format, &stored(format, &restored(BlockFormat::F32, bytes)));
                    (dtype(to), stored(to, &rounded))
                }
                _ => (info.dtype, bytes.to_vec()),
            })
        };
        assert_eq!(
            bits(&final_logits(&vectors(format), 1, Isa::detect(), 20)),
            bits(&final_logits(&vectors(BlockFormat::F32), 1, Isa::detect(), 20))
        );
    }
}
