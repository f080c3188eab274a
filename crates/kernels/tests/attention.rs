//! Attention: every instruction set, thread count, batch size and place of a block gives the same bits, and they agree with
//! a plain softmax in double precision over keys and values rounded as the cache stores them.

use ganglion_kernels::limits::KV_BLOCK;
use ganglion_kernels::*;
use proptest::prelude::*;

/// A small generator, so that sizes and seeds shrink while contents stay arbitrary.
struct Noise(u64);

impl Noise {
    fn floats(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }
}

/// Where two results differ first.
fn difference(a: &[f32], b: &[f32]) -> Option<(usize, f32, f32)> {
    assert_eq!(a.len(), b.len());
    (0..a.len()).find(|i| a[*i].to_bits() != b[*i].to_bits()).map(|i| (i, a[i], b[i]))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Spill memory for tests: aligned heap.
#[derive(Debug)]
struct Memory {
    bytes: Vec<u8>,
    first: usize,
    length: usize,
}

impl Memory {
    fn boxed(length: usize) -> Option<Box<dyn KvSpill>> {
        let bytes = vec![0; length + 64];
        let first = bytes.as_ptr().align_offset(64);
        Some(Box::new(Self { bytes, first, length }))
    }
}

impl KvSpill for Memory {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.first..self.first + self.length]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.first..self.first + self.length]
    }
}

/// What the cache gives back for one head's row.
fn stored(kind: KvType, row: &[f32]) -> Vec<f64> {
    let amax = row.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let scale = amax / 127.0;
    let round = |v: &f32| match kind {
        KvType::F32 => f64::from(*v),
        KvType::F16 => half::f16::from_f32(*v).to_f64(),
        KvType::Int8 if scale == 0.0 => 0.0,
        KvType::Int8 => f64::from((v * (1.0 / scale)).round_ties_even()) * f64::from(scale),
    };
    row.iter().map(round).collect()
}

#[derive(Debug, Clone, Copy)]
struct Case {
    kind: KvType,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    tokens: usize,
    scale: f32,
    window: Option<usize>,
    softcap: Option<f32>,
    /// Positions seen and sinks.
    ring: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Inputs {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn inputs(&self, seed: u64) -> Inputs {
        let mut noise = Noise(seed);
        let kv = self.tokens * self.kv_heads * self.head_dim;
        let queries = noise.floats(kv * self.group).iter().map(|v| v * 4.0).collect();
        Inputs { queries, keys: noise.floats(kv), values: noise.floats(kv) }
    }

    fn sees(&self, token: usize, position: usize) -> bool {
        let within = |length: usize| position + length > token;
        position <= token
            && self.window.is_none_or(within)
            && self.ring.is_none_or(|(seen, sinks)| position < sinks || within(seen - sinks))
    }

    fn run(&self, inputs: &Inputs, isa: Isa, threads: usize, batch: usize, heap: Option<usize>) -> Vec<f32> {
        let Self { kind, kv_heads, group, head_dim, tokens, scale, window, softcap, ring } = *self;
        let positions = ring.map_or(tokens, |(seen, _)| seen);
        let shape = KvShape { layers: 2, kv_heads, head_dim, positions };
        let plan = KvPlan {
            ring: ring.map(|(_, sinks)| KvRing { sinks, batch }),
            heap_bytes_max: heap,
            ..KvPlan::new(shape, kind)
        };
        let pool = Pool::new(threads).unwrap();
        let spill = (plan.spill_bytes() > 0).then(|| Memory::boxed(plan.spill_bytes())).flatten();
        let mut cache = KvCache::with_spill(plan, threads, spill);
        let (heads, q_row, kv_row) = (kv_heads * group, kv_heads * group * head_dim, kv_heads * head_dim);
        // Older content must not matter.
        let old = batch.min(positions);
        cache.write(isa, &pool, 1, 0, &vec![9.0; old * kv_row], &vec![f32::NAN; old * kv_row]);
        cache.truncate(0);
        let mut result = Vec::new();
        for first in (0..tokens).step_by(batch) {
            let last = tokens.min(first + batch);
            let kv = first * kv_row..last * kv_row;
            cache.write(isa, &pool, 1, first, &inputs.keys[kv.clone()], &inputs.values[kv]);
            let queries = &inputs.queries[first * q_row..last * q_row];
            let mut out = vec![f32::NAN; queries.len()];
            let attention = AttentionBatch { queries, heads, position: first, scale, window, softcap };
            cache.attend(isa, &pool, 1, &attention, &mut out);
            result.extend(out);
        }
        result
    }

    /// A plain softmax of one (token, head) in double precision.
    fn exact(&self, inputs: &Inputs, token: usize, head: usize) -> Vec<f64> {
        let dim = self.head_dim;
        let row = |rows: &[f32], position: usize| {
            let at = (position * self.kv_heads + head / self.group) * dim;
            stored(self.kind, &rows[at..at + dim])
        };
        let query = &inputs.queries[(token * self.kv_heads * self.group + head) * dim..][..dim];
        let seen: Vec<usize> = (0..=token).filter(|position| self.sees(token, *position)).collect();
        let weights: Vec<f64> = seen
            .iter()
            .map(|position| {
                let key = row(&inputs.keys, *position);
                let dot: f64 = query.iter().zip(&key).map(|(q, k)| f64::from(*q) * k).sum();
                let scaled = dot * f64::from(self.scale);
                self.softcap.map_or(scaled, |cap| (scaled / f64::from(cap)).tanh() * f64::from(cap)).exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        let mut out = vec![0.0; dim];
        for (position, weight) in seen.iter().zip(&weights) {
            for (o, v) in out.iter_mut().zip(row(&inputs.values, *position)) {
                *o += weight / total * v;
            }
        }
        out
    }

    fn check_exact(&self, inputs: &Inputs, found: &[f32], tokens: impl Iterator<Item = usize>) {
        let heads = self.kv_heads * self.group;
        for token in tokens {
            for head in 0..heads {
                let found = &found[(token * heads + head) * self.head_dim..];
                for (found, exact) in found.iter().zip(self.exact(inputs, token, head)) {
                    assert!(
                        (f64::from(*found) - exact).abs() < 2e-5,
                        "{self:?} {token} {head}: {found} {exact}"
                    );
                }
            }
        }
    }
}

/// 80 cases, or as many as `PROPTEST_CASES` says: under emulation fewer must do.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(80);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn attention_has_one_result(
        kind in prop::sample::select(&KvType::ALL[..]),
        kv_heads in 1usize..3,
        group in 1usize..9,
        head_dim in prop::sample::select(&[2usize, 8, 16, 20, 48, 64, 80][..]),
        tokens in 1usize..200,
        batch in 1usize..100,
        window in prop::option::of(1usize..150),
        softcap in prop::option::of(0.5f32..20.0),
        ring in prop::option::of((0usize..70, 1usize..90)),
        heap in prop::option::of(0usize..100_000),
        seed in 1u64..,
    ) {
        let ring = ring.map(|(sinks, recent)| (sinks + recent, sinks));
        let case = Case { kind, kv_heads, group, head_dim, tokens, scale: 0.3, window, softcap, ring };
        let inputs = case.inputs(seed);
        let reference = case.run(&inputs, Isa::Scalar, 1, 1, None);
        for isa in Isa::available() {
            for threads in 1..=3 {
                let found = case.run(&inputs, isa, threads, batch, heap);
                prop_assert_eq!(difference(&reference, &found), None, "{:?} {} threads", isa, threads);
            }
        }
        case.check_exact(&inputs, &reference, (0..tokens).step_by(7).chain([tokens - 1]));
    }
}

/// The shapes above mostly stay on one thread; this one is shared even for one token.
#[test]
fn shared_attention_has_one_result() {
    for kind in KvType::ALL {
        let case = Case {
            kind,
            kv_heads: 1,
            group: 5,
            head_dim: 64,
            tokens: 700,
            scale: 0.125,
            window: None,
            softcap: None,
            ring: None,
        };
        let inputs = case.inputs(7);
        let isa = Isa::detect();
        let reference = case.run(&inputs, isa, 1, 700, None);
        case.check_exact(&inputs, &reference, [0, 63, 64, 699].into_iter());
        for (threads, batch) in [(1, 1), (2, 1), (3, 1), (4, 1), (2, 64), (3, 256), (4, 700)] {
            assert_eq!(difference(&reference, &case.run(&inputs, isa, threads, batch, Some(0))), None);
        }
    }
}

#[test]
fn a_cut_cache_goes_on_where_it_was_cut() {
    let shape = KvShape { layers: 1, kv_heads: 2, head_dim: 24, positions: 300 };
    let (isa, pool) = (Isa::detect(), Pool::new(2).unwrap());
    for kind in KvType::ALL {
        let mut noise = Noise(3);
        let (k, v, q) = (noise.floats(300 * 48), noise.floats(300 * 48), noise.floats(96));
        let ask = |cache: &mut KvCache, position: usize| {
            let batch =
                AttentionBatch { queries: &q, heads: 4, position, scale: 0.2, window: None, softcap: None };
            let mut out = vec![0.0; 96];
            cache.attend(isa, &pool, 0, &batch, &mut out);
            bits(&out)
        };
        let plain = KvPlan::new(shape, kind);
        let one_block = plain.size_bytes() / 300usize.div_ceil(KV_BLOCK);
        let spilling = KvPlan { heap_bytes_max: Some(2 * one_block), ..plain };
        assert_eq!(spilling.spill_bytes(), 3 * one_block);
        let mut fresh = KvCache::new(plain, 2);
        fresh.write(isa, &pool, 0, 0, &k, &v);
        let mut cut = KvCache::with_spill(spilling, 2, Memory::boxed(spilling.spill_bytes()));
        for length in [0, 250, 70, 128, 1] {
            cut.truncate(length);
            let at = length * 48;
            // Something else first, then what the other cache holds.
            let wrong = vec![5.0; 299 * 48 - at];
            cut.write(isa, &pool, 0, length, &wrong, &wrong);
            assert_eq!(cut.spilled_bytes(), 3 * one_block);
            cut.truncate(length);
            cut.write(isa, &pool, 0, length, &k[at..], &v[at..]);
            for position in [0, 63, 64, 200, 299] {
                assert_eq!(
                    ask(&mut fresh, position),
                    ask(&mut cut, position),
                    "{kind:?} {length} {position}"
                );
            }
        }
        // And through its bytes, of which none may depend on what came later.
        let positions = 130;
        let mut restored = KvCache::new(plain, 2);
        let mut short = KvCache::new(plain, 2);
        short.write(isa, &pool, 0, 0, &k[..positions * 48], &v[..positions * 48]);
        let (mut chunk, mut other) = (vec![0; cut.chunk_bytes()], vec![0; cut.chunk_bytes()]);
        assert_eq!(cut.chunk_count(positions), 3 * 2);
        for index in 0..cut.chunk_count(positions) {
            cut.read_chunk(index, positions, &mut chunk);
            short.read_chunk(index, positions, &mut other);
            assert_eq!(chunk, other);
            restored.write_chunk(index, &chunk);
        }
        restored.write(isa, &pool, 0, positions, &k[positions * 48..], &v[positions * 48..]);
        assert_eq!(ask(&mut fresh, 299), ask(&mut restored, 299));
    }
}

#[test]
fn a_ring_knows_how_far_back_it_can_go() {
    let shape = KvShape { layers: 1, kv_heads: 1, head_dim: 16, positions: 100 };
    let plan = KvPlan { ring: Some(KvRing { sinks: 4, batch: 32 }), ..KvPlan::new(shape, KvType::F16) };
    let (isa, pool) = (Isa::detect(), Pool::new(1).unwrap());
    let mut cache = KvCache::new(plan, 1);
    let rows = vec![1.0; 32 * 16];
    for position in (0..960).step_by(32) {
        cache.write(isa, &pool, 0, position, &rows, &rows);
        assert!(cache.can_truncate(position + 32) && cache.can_truncate(position) && cache.can_truncate(0));
    }
    assert!(cache.can_truncate(930) && !cache.can_truncate(500));
    // Block 0 has a slot of its own and still holds the sinks and what came right after them.
    assert!(cache.can_truncate(64) && !cache.can_truncate(65));
    cache.truncate(40);
    cache.write(isa, &pool, 0, 40, &rows, &rows);
    assert!(cache.can_truncate(72));
}

#[test]
fn what_is_not_a_number_shows_in_every_type() {
    let shape = KvShape { layers: 1, kv_heads: 1, head_dim: 16, positions: 4 };
    let (isa, pool) = (Isa::detect(), Pool::new(1).unwrap());
    for kind in KvType::ALL {
        for bad in [f32::NAN, f32::INFINITY] {
            for in_keys in [true, false] {
                let mut cache = KvCache::new(KvPlan::new(shape, kind), 1);
                let (mut spoiled, fine) = (vec![1.0; 32], vec![1.0; 32]);
                spoiled[20] = bad;
                let (keys, values) = if in_keys { (&spoiled, &fine) } else { (&fine, &spoiled) };
                cache.write(isa, &pool, 0, 0, keys, values);
                let queries = [vec![1.0; 16], vec![-1.0; 16]].concat();
                let mut out = [0.0; 32];
                let batch = AttentionBatch {
                    queries: &queries,
                    heads: 2,
                    position: 1,
                    scale: 1.0,
                    window: Some(1),
                    softcap: None,
                };
                cache.attend(isa, &pool, 0, &batch, &mut out);
                assert!(out.iter().any(|v| !v.is_finite()), "{kind:?} {bad} {in_keys}");
            }
        }
    }
}
