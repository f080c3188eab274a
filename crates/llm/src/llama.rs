//! The llama layer (Touvron et al. 2023): RMSNorm, grouped-query attention with rotary positions, SwiGLU, two residual
//! sums.

use ganglion_kernels::{AttentionBatch, Input, KvCache, RopeTable, add_rows, matmul, rms_norm, swiglu};

use crate::model::Model;
use crate::session::Buffers;

/// Evaluates one layer for the first `tokens` rows of `buffers.hidden`, which stand at `position` and after.
pub(crate) fn layer(
    model: &Model,
    index: usize,
    buffers: &mut Buffers,
    kv: &mut KvCache,
    rope: &RopeTable,
    position: usize,
    tokens: usize,
) {
    attention(model, index, buffers, kv, rope, position, tokens);
    feed_forward(model, index, buffers, tokens);
}

fn attention(
    model: &Model,
    index: usize,
    buffers: &mut Buffers,
    kv: &mut KvCache,
    rope: &RopeTable,
    position: usize,
    tokens: usize,
) {
    let (config, layer, isa, pool) = (model.config(), &model.layers[index], model.isa, &model.pool);
    let (embedding, query_length, kv_length) =
        (config.embedding_length, config.query_length(), config.kv_length());
    let hidden = &mut buffers.hidden[..tokens * embedding];
    let normed = &mut buffers.normed[..tokens * embedding];
    let query = &mut buffers.query[..tokens * query_length];
    let key = &mut buffers.key[..tokens * kv_length];
    let value = &mut buffers.value[..tokens * kv_length];
    let attended = &mut buffers.attended[..tokens * query_length];
    let projected = &mut buffers.projected[..tokens * embedding];

    rms_norm(isa, pool, hidden, &layer.attention_norm, config.rms_epsilon, normed);
    buffers.quantised.quantize(isa, pool, normed, tokens, embedding);
    let input = Input::new(normed, &buffers.quantised);
    matmul(isa, pool, &input, &mut [(&layer.query, query), (&layer.key, key), (&layer.value, value)]);
    rope.apply(isa, pool, query, query_length, config.head_dim, position);
    rope.apply(isa, pool, key, kv_length, config.head_dim, position);
    kv.write(index, position, key, value);
    let batch = AttentionBatch {
        queries: query,
        heads: config.head_count,
        position,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
        window: None,
        softcap: None,
    };
    kv.attend(isa, pool, index, &batch, attended);
    buffers.quantised.quantize(isa, pool, attended, tokens, query_length);
    let input = Input::new(attended, &buffers.quantised);
    matmul(isa, pool, &input, &mut [(&layer.attention_output, projected)]);
    add_rows(isa, hidden, projected);
}

fn feed_forward(model: &Model, index: usize, buffers: &mut Buffers, tokens: usize) {
    let (config, layer, isa, pool) = (model.config(), &model.layers[index], model.isa, &model.pool);
    let (embedding, length) = (config.embedding_length, config.feed_forward_length);
    let hidden = &mut buffers.hidden[..tokens * embedding];
    let normed = &mut buffers.normed[..tokens * embedding];
    let projected = &mut buffers.projected[..tokens * embedding];
    let gate = &mut buffers.gate[..tokens * length];
    let up = &mut buffers.up[..tokens * length];

    rms_norm(isa, pool, hidden, &layer.feed_forward_norm, config.rms_epsilon, normed);
    buffers.quantised.quantize(isa, pool, normed, tokens, embedding);
    let input = Input::new(normed, &buffers.quantised);
    matmul(isa, pool, &input, &mut [(&layer.gate, gate), (&layer.up, up)]);
    swiglu(isa, pool, gate, up, length);
    buffers.quantised.quantize(isa, pool, gate, tokens, length);
    let input = Input::new(gate, &buffers.quantised);
    matmul(isa, pool, &input, &mut [(&layer.down, projected)]);
    add_rows(isa, hidden, projected);
}
