//! One decoder layer: forward with everything kept that its gradients need, and back.

use ganglion_kernels::{Activation, Matrix, RopeTable, rms_norm, rms_norm_in_place};
use ganglion_llm::Config;

use super::arithmetic::{
    Arithmetic, add, gelu_tanh, pack, rms_norm_back, silu, soft_cap_back, softmax, transposed,
};
use super::weights::Values;
use crate::error::Result;

/// A matrix of a layer, and what is known of its gradient so far.
pub(super) struct Linear {
    /// The tensor that it is, or is a part of.
    pub(super) tensor: String,
    pub(super) columns: usize,
    /// (rows, columns)
    pub(super) weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    forward: Matrix,
    /// Transposed; made when it is first needed.
    backward: Option<Matrix>,
    /// (rows, columns); empty until the first pass back.
    pub(super) gradient: Vec<f32>,
    /// Mean square of the gradient of each token's outputs, in the order of the passes.
    pub(super) output_squares: Vec<f32>,
}

impl Linear {
    fn read(values: &Values<'_>, tensor: &str, columns: usize) -> Result<Self> {
        Self::new(tensor, values.matrix(tensor)?, values.bias(tensor)?, columns)
    }

    fn new(tensor: &str, weights: Vec<f32>, bias: Option<Vec<f32>>, columns: usize) -> Result<Self> {
        let (forward, tensor) = (pack(&weights, columns)?, tensor.to_owned());
        let (gradient, output_squares) = (Vec::new(), Vec::new());
        Ok(Self { tensor, columns, weights, bias, forward, backward: None, gradient, output_squares })
    }

    /// Several matrices of one tensor, one below the other.
    fn split<const N: usize>(
        values: &Values<'_>,
        tensor: &str,
        columns: usize,
        rows: [usize; N],
    ) -> Result<[Self; N]> {
        let (mut weights, bias) = (values.matrix(tensor)?, values.bias(tensor)?);
        let mut first = 0;
        let mut parts = Vec::new();
        for rows in rows {
            let rest = weights.split_off((rows * columns).min(weights.len()));
            let bias = bias.as_ref().map(|bias| bias[first..first + rows].to_vec());
            parts.push(Self::new(tensor, std::mem::replace(&mut weights, rest), bias, columns)?);
            first += rows;
        }
        Ok(parts.try_into().unwrap_or_else(|_| unreachable!("{N} parts")))
    }

    fn rows(&self) -> usize {
        self.forward.rows()
    }

    fn apply(&self, with: &Arithmetic, x: &[f32]) -> Vec<f32> {
        let mut y = with.times(x, &self.forward);
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
        y
    }

    /// Adds `dyᵀ·x` to the gradient; `dx = dy·W`.
    fn back(&mut self, with: &Arithmetic, x: &[f32], dy: &[f32]) -> Result<Vec<f32>> {
        let (rows, columns) = (self.rows(), self.columns);
        let gradient = with.product_of_columns(dy, x, dy.len() / rows)?;
        match self.gradient.is_empty() {
            true => self.gradient = gradient,
            false => add(&mut self.gradient, &gradient),
        }
        let square = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>() / rows as f32;
        self.output_squares.extend(dy.chunks_exact(rows).map(square));
        let backward = match self.backward.take() {
            Some(backward) => backward,
            None => pack(&transposed(&self.weights, columns), rows)?,
        };
        let dx = with.times(dy, &backward);
        self.backward = Some(backward);
        Ok(dx)
    }
}

/// The weights of one layer.
pub(super) struct Layer {
    index: usize,
    attention_norm: Option<Vec<f32>>,
    attention_post_norm: Option<Vec<f32>>,
    feed_forward_norm: Option<Vec<f32>>,
    feed_forward_post_norm: Option<Vec<f32>>,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What a forward pass leaves behind: arrays of (tokens, …).
pub(super) struct Trace {
    read: Vec<f32>,
    /// Before their norms.
    query_raw: Vec<f32>,
    key_raw: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// For each query head (tokens, tokens): softmax, and what it was made of if that was capped.
    shares: Vec<Vec<f32>>,
    scores: Vec<Vec<f32>>,
    attended: Vec<f32>,
    attention_out: Vec<f32>,
    middle: Vec<f32>,
    read_again: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    inner: Vec<f32>,
    feed_forward_out: Vec<f32>,
    /// The residual stream after the layer.
    pub(super) out: Vec<f32>,
}

/// What all layers share.
pub(super) struct Shared<'a> {
    pub(super) config: &'a Config,
    pub(super) ropes: &'a [RopeTable],
    pub(super) with: &'a Arithmetic,
}

impl Layer {
    pub(super) fn read(values: &Values<'_>, config: &Config, index: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (length, inner) = (config.embedding_length, config.feed_forward_length);
        let (query_rows, kv_rows) = (config.query_length(), config.kv_length());
        let [query, key, value] = if values.has(&name("attn_qkv")) {
            Linear::split(values, &name("attn_qkv"), length, [query_rows, kv_rows, kv_rows])?
        } else {
            let read = |part: &str| Linear::read(values, &name(part), length);
            [read("attn_q")?, read("attn_k")?, read("attn_v")?]
        };
        let [gate, up] = if values.has(&name("ffn_gate")) {
            [Linear::read(values, &name("ffn_gate"), length)?, Linear::read(values, &name("ffn_up"), length)?]
        } else {
            Linear::split(values, &name("ffn_up"), length, [inner, inner])?
        };
        Ok(Self {
            index,
            attention_norm: values.vector(&name("attn_norm"))?,
            attention_post_norm: values.vector(&name("post_attention_norm"))?,
            feed_forward_norm: values.vector(&name("ffn_norm"))?,
            feed_forward_post_norm: values.vector(&name("post_ffw_norm"))?,
            query_norm: values.vector(&name("attn_q_norm"))?,
            key_norm: values.vector(&name("attn_k_norm"))?,
            query,
            key,
            value,
            output: Linear::read(values, &name("attn_output"), query_rows)?,
            gate,
            up,
            down: Linear::read(values, &name("ffn_down"), inner)?,
        })
    }

    /// The matrices in the order of the file; those of one tensor follow each other.
    pub(super) fn matrices(self) -> [Linear; 7] {
        [self.query, self.key, self.value, self.output, self.gate, self.up, self.down]
    }

    pub(super) fn forward(&self, shared: &Shared<'_>, x: &[f32]) -> Result<Trace> {
        let Shared { config, with, .. } = shared;
        let tokens = x.len() / config.embedding_length;
        let read = norm(shared, self.attention_norm.as_deref(), x);
        let query_raw = self.query.apply(with, &read);
        let key_raw = self.key.apply(with, &read);
        let value = self.value.apply(with, &read);
        let turned = |raw: &[f32], weight: Option<&[f32]>, row: usize| {
            let mut turned = raw.to_vec();
            if let Some(weight) = weight {
                rms_norm_in_place(with.isa, &with.pool, &mut turned, row, weight, config.norm_epsilon);
            }
            if let Some(rope) = config.layers[self.index].rope {
                shared.ropes[rope].apply(with.isa, &with.pool, &mut turned, row, config.head_dim, 0);
            }
            turned
        };
        let query = turned(&query_raw, self.query_norm.as_deref(), config.query_length());
        let key = turned(&key_raw, self.key_norm.as_deref(), config.kv_length());
        let (mut shares, mut scores) = (Vec::new(), Vec::new());
        let mut attended = vec![0.0; tokens * config.query_length()];
        for head in 0..config.head_count {
            let (score, share, out) = self.attend(shared, head, [&query, &key, &value])?;
            put(&mut attended, config.query_length(), head * config.head_dim, &out, config.head_dim);
            shares.push(share);
            scores.push(score);
        }
        let attention_out = self.output.apply(with, &attended);
        let mut middle = x.to_vec();
        add(&mut middle, &norm(shared, self.attention_post_norm.as_deref(), &attention_out));
        let read_again = norm(shared, self.feed_forward_norm.as_deref(), &middle);
        let (gate, up) = (self.gate.apply(with, &read_again), self.up.apply(with, &read_again));
        let inner: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| activation(config)(*g).0 * u).collect();
        let feed_forward_out = self.down.apply(with, &inner);
        let mut out = middle.clone();
        add(&mut out, &norm(shared, self.feed_forward_post_norm.as_deref(), &feed_forward_out));
        Ok(Trace {
            read,
            query_raw,
            key_raw,
            query,
            key,
            value,
            shares,
            scores,
            attended,
            attention_out,
            middle,
            read_again,
            gate,
            up,
            inner,
            feed_forward_out,
            out,
        })
    }

    /// Scores (kept only if they are capped), their softmax, and the values of one head.
    fn attend(
        &self,
        shared: &Shared<'_>,
        head: usize,
        [query, key, value]: [&[f32]; 3],
    ) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>)> {
        let Shared { config, with, .. } = shared;
        let (dim, group) =
            (config.head_dim, head / (config.head_count / config.head_count_kv) * config.head_dim);
        let query = take(query, config.query_length(), head * dim, dim);
        let (key, value) =
            (take(key, config.kv_length(), group, dim), take(value, config.kv_length(), group, dim));
        let tokens = query.len() / dim;
        let mut scores = with.product(&query, &key, dim)?;
        scores.iter_mut().for_each(|s| *s *= config.attention_scale);
        let capped = config.attention_softcap.map(|cap| {
            scores.iter_mut().for_each(|s| *s = cap * (*s / cap).tanh());
            scores.clone()
        });
        let window = config.layers[self.index].window.unwrap_or(usize::MAX);
        for (token, row) in scores.chunks_exact_mut(tokens).enumerate() {
            let first = (token + 1).saturating_sub(window);
            softmax(&mut row[first..=token]);
            row[..first].fill(0.0);
            row[token + 1..].fill(0.0);
        }
        let out = with.product(&scores, &transposed(&value, dim), tokens)?;
        Ok((capped.unwrap_or_default(), scores, out))
    }

    /// Adds to the gradients; from the gradient of the stream after the layer to that of the one before, `x`.
    pub(super) fn back(
        &mut self,
        shared: &Shared<'_>,
        x: &[f32],
        trace: &Trace,
        dout: &[f32],
    ) -> Result<Vec<f32>> {
        let Shared { config, with, .. } = shared;
        let d = norm_back(shared, self.feed_forward_post_norm.as_deref(), &trace.feed_forward_out, dout);
        let dinner = self.down.back(with, &trace.inner, &d)?;
        let (mut dgate, mut dup) = (dinner.clone(), dinner);
        for (((dgate, dup), gate), up) in dgate.iter_mut().zip(&mut dup).zip(&trace.gate).zip(&trace.up) {
            let (value, slope) = activation(config)(*gate);
            (*dgate, *dup) = (*dgate * up * slope, *dup * value);
        }
        let mut dread = self.gate.back(with, &trace.read_again, &dgate)?;
        add(&mut dread, &self.up.back(with, &trace.read_again, &dup)?);
        let mut dmiddle = norm_back(shared, self.feed_forward_norm.as_deref(), &trace.middle, &dread);
        add(&mut dmiddle, dout);
        let d = norm_back(shared, self.attention_post_norm.as_deref(), &trace.attention_out, &dmiddle);
        let dattended = self.output.back(with, &trace.attended, &d)?;
        let [dquery, dkey, dvalue] = self.attention_back(shared, trace, &dattended)?;
        let mut dread = self.query.back(with, &trace.read, &dquery)?;
        add(&mut dread, &self.key.back(with, &trace.read, &dkey)?);
        add(&mut dread, &self.value.back(with, &trace.read, &dvalue)?);
        let mut dx = norm_back(shared, self.attention_norm.as_deref(), x, &dread);
        add(&mut dx, &dmiddle);
        Ok(dx)
    }

    /// Gradients of queries, keys and values as their products gave them.
    fn attention_back(&self, shared: &Shared<'_>, trace: &Trace, dattended: &[f32]) -> Result<[Vec<f32>; 3]> {
        let Shared { config, with, .. } = shared;
        let (dim, query_row, kv_row) = (config.head_dim, config.query_length(), config.kv_length());
        let tokens = dattended.len() / query_row;
        let mut dquery = vec![0.0; tokens * query_row];
        let (mut dkey, mut dvalue) = (vec![0.0; tokens * kv_row], vec![0.0; tokens * kv_row]);
        for head in 0..config.head_count {
            let group = head / (config.head_count / config.head_count_kv) * dim;
            let query = take(&trace.query, query_row, head * dim, dim);
            let (key, value) = (take(&trace.key, kv_row, group, dim), take(&trace.value, kv_row, group, dim));
            let (shares, dout) = (&trace.shares[head], take(dattended, query_row, head * dim, dim));
            // dS = P ∘ (dP − Σ P∘dP), row by row.
            let mut dscores = with.product(&dout, &value, dim)?;
            for (row, shares) in dscores.chunks_exact_mut(tokens).zip(shares.chunks_exact(tokens)) {
                let along: f32 = row.iter().zip(shares).map(|(d, p)| d * p).sum();
                row.iter_mut().zip(shares).for_each(|(d, p)| *d = p * (*d - along));
            }
            if let Some(cap) = config.attention_softcap {
                soft_cap_back(&trace.scores[head], cap, &mut dscores);
            }
            dscores.iter_mut().for_each(|d| *d *= config.attention_scale);
            let of_query = with.product(&dscores, &transposed(&key, dim), tokens)?;
            put(&mut dquery, query_row, head * dim, &of_query, dim);
            put(&mut dkey, kv_row, group, &with.product_of_columns(&dscores, &query, tokens)?, dim);
            put(&mut dvalue, kv_row, group, &with.product_of_columns(shares, &dout, tokens)?, dim);
        }
        let unturned = |mut d: Vec<f32>, raw: &[f32], weight: Option<&[f32]>, row: usize| {
            if let Some(rope) = config.layers[self.index].rope {
                shared.ropes[rope].apply_transposed(&mut d, row, dim, 0);
            }
            match weight {
                Some(weight) => rms_norm_back(raw, weight, config.norm_epsilon, &d),
                None => d,
            }
        };
        Ok([
            unturned(dquery, &trace.query_raw, self.query_norm.as_deref(), query_row),
            unturned(dkey, &trace.key_raw, self.key_norm.as_deref(), kv_row),
            dvalue,
        ])
    }
}

/// The activation's value and slope. [`super::check`] has refused all others.
fn activation(config: &Config) -> fn(f32) -> (f32, f32) {
    match config.design.activation {
        Activation::Silu => silu,
        Activation::GeluTanh | Activation::GeluErf => gelu_tanh,
    }
}

/// RMSNorm of rows, or a copy without a weight.
pub(super) fn norm(shared: &Shared<'_>, weight: Option<&[f32]>, x: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    if let Some(weight) = weight {
        let with = shared.with;
        rms_norm(with.isa, &with.pool, x, weight, shared.config.norm_epsilon, &mut out);
    }
    out
}

pub(super) fn norm_back(shared: &Shared<'_>, weight: Option<&[f32]>, x: &[f32], dy: &[f32]) -> Vec<f32> {
    match weight {
        Some(weight) => rms_norm_back(x, weight, shared.config.norm_epsilon, dy),
        None => dy.to_vec(),
    }
}

/// Columns `first..first + length` of rows of `row` values.
fn take(values: &[f32], row: usize, first: usize, length: usize) -> Vec<f32> {
    values.chunks_exact(row).flat_map(|row| row[first..first + length].iter().copied()).collect()
}

/// Adds rows of `length` to the columns from `first` on.
fn put(sum: &mut [f32], row: usize, first: usize, values: &[f32], length: usize) {
    for (sum, values) in sum.chunks_exact_mut(row).zip(values.chunks_exact(length)) {
        add(&mut sum[first..first + length], values);
    }
}
