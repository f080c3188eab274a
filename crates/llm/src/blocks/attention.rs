//! Grouped-query attention (Ainslie et al. 2023) with rotary positions, over the KV cache.

use ganglion_kernels::{AttentionBatch, Input, rms_norm_in_place};

use super::linear::{Between, Product, products};
use super::{Buffers, Pass};
use crate::profile::Work;
use crate::sequence::Sequence;

/// `projected = attention(normed)`; the keys and values go into the sequences' caches.
pub(super) fn attention(pass: Pass<'_>, index: usize, buffers: &mut Buffers, sequences: &mut [Sequence]) {
    let Pass { model, tokens, .. } = pass;
    let (config, isa, pool) = (model.config(), model.isa, &model.pool);
    let (weights, spec) = (&model.weights.layers[index].attention, config.layers[index]);
    let (embedding, query_length, kv_length) =
        (config.embedding_length, config.query_length(), config.kv_length());
    let normed = &buffers.normed[..tokens * embedding];
    let query = &mut buffers.query[..tokens * query_length];
    let key = &mut buffers.key[..tokens * kv_length];
    let value = &mut buffers.value[..tokens * kv_length];
    let attended = &mut buffers.attended[..tokens * query_length];
    let projected = &mut buffers.projected[..tokens * embedding];
    let profiler = &mut buffers.profiler;
    let (values, quantised) = (&mut buffers.between[..], &mut buffers.between_quantised);
    let tap = pass.tap.map(|tap| (tap, index));

    let readers = [weights.query.reader(), weights.key.reader(), weights.value.reader()];
    buffers.quantised.prepare(isa, pool, normed, (tokens, embedding), &readers);
    profiler.lap("quantize", || Work::NONE);
    let input = Input::new(normed, &buffers.quantised);
    let three = [
        Product { name: "attn_q", linear: &weights.query, out: &mut *query },
        Product { name: "attn_k", linear: &weights.key, out: &mut *key },
        Product { name: "attn_v", linear: &weights.value, out: &mut *value },
    ];
    products(model, &input, tokens, three, Between { values: &mut *values, quantised: &mut *quantised, tap });
    profiler.lap("q k v", || Work::linear(&[&weights.query, &weights.key, &weights.value], tokens));
    if let Some(weight) = &weights.query_norm {
        rms_norm_in_place(isa, pool, query, query_length, weight, config.norm_epsilon);
    }
    if let Some(weight) = &weights.key_norm {
        rms_norm_in_place(isa, pool, key, kv_length, weight, config.norm_epsilon);
    }
    let mut first = 0;
    for part in pass.parts {
        let rows = first..first + part.tokens.len();
        first = rows.end;
        let query = &mut query[rows.start * query_length..rows.end * query_length];
        let key = &mut key[rows.start * kv_length..rows.end * kv_length];
        let value = &value[rows.start * kv_length..rows.end * kv_length];
        let Sequence { kv, position, .. } = &mut sequences[part.sequence];
        let position = *position;
        if let Some(rope) = spec.rope.map(|rope| &pass.ropes[rope]) {
            rope.apply(isa, pool, query, query_length, config.head_dim, position);
            rope.apply(isa, pool, key, kv_length, config.head_dim, position);
        }
        profiler.lap("rope", || Work::NONE);
        kv.write(isa, pool, index, position, key, value);
        profiler.lap("kv write", || Work::NONE);
        let batch = AttentionBatch {
            queries: query,
            heads: config.head_count,
            position,
            scale: config.attention_scale,
            window: spec.window,
            softcap: config.attention_softcap,
        };
        kv.attend(
            isa,
            pool,
            index,
            &batch,
            &mut attended[rows.start * query_length..rows.end * query_length],
        );
        profiler.lap("attention", || attention_work(query_length, spec.window, position, rows.len()));
    }
    buffers.quantised.prepare(isa, pool, attended, (tokens, query_length), &[weights.output.reader()]);
    profiler.lap("quantize", || Work::NONE);
    let input = Input::new(attended, &buffers.quantised);
    let one = [Product { name: "attn_output", linear: &weights.output, out: projected }];
    products(model, &input, tokens, one, Between { values, quantised, tap });
    profiler.lap("attention output", || Work::linear(&[&weights.output], tokens));
}

/// Scores and weighted values of tokens that each see all positions up to their own, or those inside the window.
fn attention_work(query_length: usize, window: Option<usize>, position: usize, tokens: usize) -> Work {
    let seen = |token: usize| (position + token + 1).min(window.unwrap_or(usize::MAX));
    let pairs: usize = (0..tokens).map(seen).sum();
    Work { macs: 2 * (query_length * pairs) as u64, ..Work::NONE }
}
