//! Every block format through a whole model.

mod common;
use std::fmt::Write;

use common::stored::*;
use common::*;
use expect_test::expect;
use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, Isa};
use ganglion_llm::tensor_type;

/// All rows are whole super-blocks.
const WIDE: Sizes = Sizes {
    embedding: 256,
    layers: 1,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 256,
    vocab: 90,
    tied: false,
};

const TOKENS: usize = 9;

fn final_logits(gguf: &Gguf, threads: usize, isa: Isa, batch: usize) -> Vec<f32> {
    let mut session = session(gguf, threads, isa, 32, batch);
    session.prefill(&tokens(TOKENS, WIDE.vocab), &mut || false).unwrap();
    logits(&mut session)
}

/// One number for all bits of some logits (FNV-1a).
fn fingerprint(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The fingerprints are the same on x86-64 and Arm, whatever the instruction set. A change that means to alter logits renews them
/// with `UPDATE_EXPECT=1`.
#[test]
fn every_format_computes_what_its_weights_say() {
    let mut fingerprints = String::new();
    let original = random_gguf(WIDE, FORMATS[0]);
    for format in BlockFormat::ALL {
        let quantised = with_matrices(&original, format);
        let reference = final_logits(&quantised, 1, Isa::Scalar, 1);
        for isa in Isa::available() {
            for batch in [TOKENS, 4] {
                let found = final_logits(&quantised, 1, isa, batch);
                assert_eq!(bits(&reference), bits(&found), "{format} {isa:?}");
            }
        }
        writeln!(fingerprints, "{format:7} {:016x}", fingerprint(&reference)).unwrap();
        // The same weights as plain floats: what is left is the rounding of activations to int8, 2 to 5 percent here.
        let plain = with_matrices(&quantised, BlockFormat::F32);
        let plain = final_logits(&plain, 1, Isa::detect(), TOKENS);
        let size = plain.iter().map(|v| v * v).sum::<f32>().sqrt();
        let error = reference.iter().zip(&plain).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt() / size;
        println!("{format}: {error}");
        assert!(
            error
                < if format == BlockFormat::F8_E4M3 {
                    1e-4
                } else if format.block() == 1 {
                    1e-5
                } else {
                    0.1
                },
            "{format}: {error}"
        );
    }
    expect![[r#"
        F32     a999ac2f9cbfddff
        F16     e8e523159c606614
        BF16    bc738f4f1385e120
        Q8_0    5507f00abd64e494
        Q4_0    9b382f0d34a20b90
        Q4_1    bc18bbf8d793d995
        Q5_0    6655e9394a666c73
        Q5_1    9e535fcd8f03b716
        Q2_K    5c42470b622ddb19
        Q3_K    00c78ebfac2c86c4
        Q4_K    595ee99466d75845
        Q5_K    4cef32f503c1beb5
        Q6_K    e0019129dfdb4fa4
        IQ4_NL  4e2dfdf59bd62ea5
        MXFP4   5e2f4012f8421336
        NF4     6111f4e95b178d9e
        I8_ROW  d26f304cd30dec97
        F8_E4M3 119c2fa2bbd5a91b
        T2      fb38a72f9c445820
        T3      d6fa962e5b00e81c
        T4      72bd03573c84a3c1
        SPARSE8 cfdc717d71cf0752
        SPARSE4 fb519ec8bd1d7ef1
    "#]]
    .assert_eq(&fingerprints);
}

#[test]
fn vectors_may_be_stored_as_halves() {
    let original = random_gguf(SMALL, FORMATS[3]);
    for format in [BlockFormat::F16, BlockFormat::Bf16] {
        let vectors = |to: BlockFormat| {
            rewrite(&original, |info, bytes| match info.shape.len() {
                1 => {
                    let length = info.shape[0] as usize;
                    let values = restored(BlockFormat::F32, info, bytes);
                    let rounded = restored(format, info, &stored(format, length, &values));
                    (tensor_type(to), stored(to, length, &rounded))
                }
                _ => (info.dtype, bytes.to_vec()),
            })
        };
        assert_eq!(
            bits(&final_logits(&vectors(format), 1, Isa::detect(), TOKENS)),
            bits(&final_logits(&vectors(BlockFormat::F32), 1, Isa::detect(), TOKENS))
        );
    }
}
