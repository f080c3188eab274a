//! Attention of a prefill, and of one token, as a share of a core's peak of fused multiply-adds:
//! `cargo run --release -p ganglion-kernels --example attention -- PEAK`, in 10^9 f32 multiply-adds a second. With 512-bit
//! registers that is 32 times the clock in GHz where two operations begin in a cycle, 16 times where one does.

use ganglion_kernels::{AttentionBatch, Isa, KvCache, KvPlan, KvShape, KvType, Pool};
use std::time::Instant;

fn main() {
    let peak: f64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(96.0);
    let (isa, pool, positions) = (Isa::detect(), Pool::new(1).expect("one thread"), 256);
    println!(
        "{:5} {:>5} {:>5} {:>4} {:>14} {:>12}",
        "type", "heads", "group", "dim", "256 tokens", "one token"
    );
    for (kv_heads, group, head_dim) in [(6, 1, 48), (3, 3, 64), (4, 8, 64), (8, 4, 128)] {
        for kind in KvType::ALL {
            let heads = kv_heads * group;
            let shape = KvShape { layers: 1, kv_heads, head_dim, positions };
            let mut cache = KvCache::new(KvPlan::new(shape, kind), 1);
            let row = vec![0.25; positions * kv_heads * head_dim];
            cache.write(isa, &pool, 0, 0, &row, &row);
            let queries = vec![0.5; positions * heads * head_dim];
            let mut out = vec![0.0; queries.len()];
            let mut run = |tokens: usize, rounds: usize| {
                let length = tokens * heads * head_dim;
                let batch = AttentionBatch {
                    queries: &queries[..length],
                    heads,
                    position: positions - tokens,
                    scale: 0.125,
                    window: None,
                    softcap: None,
                };
                let best = (0..rounds).fold(f64::MAX, |best, _| {
                    let start = Instant::now();
                    cache.attend(isa, &pool, 0, &batch, &mut out[..length]);
                    best.min(start.elapsed().as_secs_f64())
                });
                let seen: usize = (positions - tokens..positions).map(|position| position + 1).sum();
                (2 * seen * heads * head_dim) as f64 / (peak * 1e9) / best
            };
            let (many, one) = (run(positions, 200), run(1, 5000));
            println!(
                "{:5} {kv_heads:>5} {group:>5} {head_dim:>4} {:>13.0}% {:>11.0}%",
                kind.name(),
                many * 100.0,
                one * 100.0
            );
        }
    }
}
