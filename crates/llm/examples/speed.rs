//! Tokens a second of a random Q8_0 model (256 hidden, 6 layers, FFN 768, vocabulary 2048):
//! `cargo run --release -p ganglion-llm --example speed`.

#[path = "../tests/common/mod.rs"]
mod common;
use common::*;
use ganglion_kernels::Isa;
use std::time::Instant;

fn main() -> ganglion_llm::Result<()> {
    let sizes = Sizes {
        embedding: 256,
        layers: 6,
        heads: 8,
        kv_heads: 4,
        head_dim: 32,
        feed_forward: 768,
        vocab: 2048,
        tied: true,
    };
    println!(
        "{:7} {:8} {:>7} {:>12} {:>12} {:>14}",
        "format", "isa", "threads", "prefill 256", "decode", "decode 8 rows"
    );
    for format in [FORMATS[3], FORMATS[4]] {
        let gguf = random_gguf(sizes, format);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let mut session = session(&gguf, threads, isa, 512, 64);
                let prompt = tokens(256, sizes.vocab);
                let mut logits = vec![0.0; sizes.vocab];
                let rounds = if isa == Isa::Scalar { 1 } else { 9 };
                let (mut prefill, mut decode, mut rows) = (f64::MAX, f64::MAX, f64::MAX);
                for _ in 0..rounds {
                    session.truncate(0)?;
                    let start = Instant::now();
                    session.prefill(&prompt, &mut || false)?;
                    prefill = prefill.min(start.elapsed().as_secs_f64() / 256.0);
                    let start = Instant::now();
                    for token in 0..64 {
                        session.step(token, &mut || false)?;
                        session.logits_all(&mut logits)?;
                    }
                    decode = decode.min(start.elapsed().as_secs_f64() / 64.0);
                    let start = Instant::now();
                    for token in 0..64 {
                        session.step(token, &mut || false)?;
                        session.logits_rows(&[1, 2, 3, 4, 5, 6, 7, 8], &mut logits[..8])?;
                    }
                    rows = rows.min(start.elapsed().as_secs_f64() / 64.0);
                }
                let [prefill, decode, rows] = [prefill, decode, rows].map(|seconds| 1.0 / seconds);
                println!(
                    "{:7} {:8} {threads:>7} {prefill:>12.0} {decode:>12.0} {rows:>14.0}",
                    format!("{:?}", format.0),
                    isa.name()
                );
            }
        }
    }
    Ok(())
}
