//! Hyperparameters of a model, read from GGUF metadata and bounded.

mod keys;
mod rope;

use ganglion_gguf::{Header, OptionalExt};

pub(crate) use keys::{Keys, refuse};
pub(crate) use rope::Ropes;

use crate::arch::{self, Design, Mixture, NormKind, NormPlace, Positions, Residual};
use crate::blocks::Reader;
use crate::error::{LlmError, Result};
use crate::limits;
use crate::tensors::FIRST;

/// Hyperparameters of a decoder; lengths in values, counts as said. Names are those of the GGUF keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// `block_count`: decoder layers.
    pub layer_count: usize,
    /// `embedding_length`: values of a hidden state.
    pub embedding_length: usize,
    /// `feed_forward_length`.
    pub feed_forward_length: usize,
    /// `attention.head_count`.
    pub head_count: usize,
    /// `attention.head_count_kv`.
    pub head_count_kv: usize,
    /// `attention.key_length`: values of one head.
    pub head_dim: usize,
    /// `attention.layer_norm_rms_epsilon` or `attention.layer_norm_epsilon`.
    pub norm_epsilon: f32,
    /// `context_length`: tokens the model was trained for.
    pub context_length: usize,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Factor on attention scores: `attention.scale`, usually `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// `attn_logit_softcapping`.
    pub attention_softcap: Option<f32>,
    /// `final_logit_softcapping`.
    pub final_softcap: Option<f32>,
    /// Factor on embeddings; 1 for most.
    pub embedding_scale: f32,
    /// Routed experts; all zero in a dense model.
    pub experts: ExpertConfig,
    /// What differs from layer to layer: (layer_count).
    pub layers: Vec<LayerSpec>,
    /// [`Config::ACTIVATION_SCALES`]: fixed scales of what I8_ROW matrices read, by layer and [`Reader`]; 0: one for each token.
    pub activation_scales: Vec<[f32; Reader::ALL.len()]>,
    /// Highest rank of the matrices that the file holds in two factors; 0: it holds none.
    pub factor_rank: usize,
    /// Which parts a layer has, and how they are joined.
    pub design: Design,
    pub(crate) ropes: Ropes,
}

/// Sizes of a sparse mixture.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ExpertConfig {
    /// `expert_count`.
    pub count: usize,
    /// `expert_used_count`: experts that a token is given to.
    pub used: usize,
    /// `expert_feed_forward_length`: of one routed expert.
    pub feed_forward_length: usize,
    /// `expert_shared_feed_forward_length`; 0: no shared expert.
    pub shared_length: usize,
    /// `expert_weights_norm`: the shares of the chosen experts are scaled to sum to 1.
    pub normalise_shares: bool,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSpec {
    /// Positions that a token sees, its own included; `None`: all before it.
    pub window: Option<usize>,
    /// Which of the model's rotations queries and keys take; `None`: positions were added to the embedding.
    pub rope: Option<usize>,
}

/// Keys that would change the result and for which there is no code.
const WITHOUT_CODE: [&str; 6] = [
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "embedding_scale",
    "logit_scale",
    "residual_scale",
    "rope.dimension_sections",
];

impl Config {
    /// Key of an f32 array, four values a layer, in the order of [`Reader::ALL`].
    pub const ACTIVATION_SCALES: &str = "ganglion.activation_scales";

    /// The fixed scale of what a tensor reads.
    pub(crate) fn activation_scale(&self, tensor: &str) -> Option<f32> {
        let (layer, part) = tensor.strip_prefix("blk.")?.split_once('.')?;
        let scales = self.activation_scales.get(layer.parse::<usize>().ok()?)?;
        let reader = Reader::of_tensor(part)?;
        let index = Reader::ALL.iter().position(|known| *known == reader)?;
        Some(scales[index]).filter(|scale| *scale > 0.0)
    }

    /// Reads and checks the hyperparameters of a file.
    ///
    /// # Errors
    /// A missing or impossible value, an unknown architecture, or a feature without code, each by its key.
    pub fn from_header(header: &Header) -> Result<Self> {
        let architecture = arch::find(header.get_str("general.architecture")?)?;
        let (keys, design) = (Keys::new(header, architecture.name), architecture.design);
        let embedding_length = keys.count("embedding_length", limits::EMBEDDING_MAX)?;
        let (head_count, head_count_kv, head_dim) = heads(&keys, embedding_length)?;
        let layer_count = keys.count("block_count", limits::LAYERS_MAX)?;
        let feed_forward_length = keys.count("feed_forward_length", limits::FEED_FORWARD_MAX)?;
        if let Some(key) = WITHOUT_CODE.iter().find(|key| keys.value(key).is_some()) {
            return Err(refuse(&keys.name(key), "set", "no such key; there is no code for it"));
        }
        let ropes = match design.positions {
            Positions::Rotary(order) => Ropes::read(&keys, order, head_dim, design.local_rope)?,
            Positions::Learned => Ropes::none(),
        };
        let scale = keys.positive("attention.scale")?;
        let mut config = Self {
            architecture: architecture.name,
            layer_count,
            embedding_length,
            feed_forward_length,
            head_count,
            head_count_kv,
            head_dim,
            norm_epsilon: keys.norm_epsilon(design.norm)?,
            context_length: keys.count("context_length", limits::CONTEXT_MAX)?,
            vocab_size: vocab_size(header, embedding_length)?,
            attention_scale: scale.unwrap_or(1.0 / (head_dim as f32).sqrt()),
            attention_softcap: None,
            final_softcap: None,
            embedding_scale: if design.scale_embedding { (embedding_length as f32).sqrt() } else { 1.0 },
            experts: experts(&keys, design.mixture, feed_forward_length)?,
            layers: layers(&keys, &design, &ropes, layer_count)?,
            activation_scales: activation_scales(header, layer_count)?,
            factor_rank: factor_rank(header),
            design,
            ropes,
        };
        (architecture.adjust)(&keys, &mut config)?;
        Ok(config)
    }

    /// Whether `ffn_up` holds the gate's matrix too, above its own.
    pub fn is_gate_fused(&self) -> bool {
        self.design.gate == arch::Gate::Fused
    }

    /// Values of all query heads of a token.
    pub fn query_length(&self) -> usize {
        self.head_count * self.head_dim
    }

    /// Values of all key (or value) heads of a token.
    pub fn kv_length(&self) -> usize {
        self.head_count_kv * self.head_dim
    }

    /// Whether a dense layer is `x += attention(norm x)`, then `x += feed_forward(norm x)`: nothing else touches the stream.
    pub fn has_plain_stream(&self) -> bool {
        let Design { residual, norm_place, mixture, .. } = self.design;
        residual == Residual::Sequential && norm_place == NormPlace::Before && mixture == Mixture::None
    }

    /// Whether the stream could be rotated and nothing would change but the matrices around it: it is plain, no norm takes a mean
    /// from it, and no positions are added to it.
    pub fn has_rotatable_stream(&self) -> bool {
        let rotary = matches!(self.design.positions, Positions::Rotary(_));
        self.has_plain_stream() && self.design.norm == NormKind::Rms && rotary
    }

    /// Positions beyond which the model has no code or data: its learned position embeddings, or the crate's bound.
    pub fn positions_max(&self) -> usize {
        match self.design.positions {
            Positions::Learned => self.context_length,
            Positions::Rotary(_) => limits::CONTEXT_MAX,
        }
    }

    /// Positions beyond which no token can stand, even if earlier ones are forgotten.
    pub fn ring_positions_max(&self) -> usize {
        match self.design.positions {
            Positions::Learned => self.context_length,
            Positions::Rotary(_) => limits::RING_POSITIONS_MAX,
        }
    }
}

/// `head_count`, `head_count_kv` and the length of a head.
fn heads(keys: &Keys<'_>, embedding_length: usize) -> Result<(usize, usize, usize)> {
    let head_count = keys.count("attention.head_count", limits::HEADS_MAX)?;
    let head_count_kv = keys.count_or("attention.head_count_kv", limits::HEADS_MAX, head_count)?;
    if !head_count.is_multiple_of(head_count_kv) {
        let expected = format!("a divisor of head_count {head_count}");
        return Err(refuse(&keys.name("attention.head_count_kv"), head_count_kv, expected));
    }
    if keys.value("attention.key_length").is_none() && !embedding_length.is_multiple_of(head_count) {
        let expected = format!("a divisor of embedding_length {embedding_length}");
        return Err(refuse(&keys.name("attention.head_count"), head_count, expected));
    }
    let default = embedding_length / head_count;
    let head_dim = keys.count_or("attention.key_length", limits::HEAD_DIM_MAX, default)?;
    let value_length = keys.count_or("attention.value_length", limits::HEAD_DIM_MAX, head_dim)?;
    if value_length != head_dim {
        let expected = format!("the key length {head_dim}");
        return Err(refuse(&keys.name("attention.value_length"), value_length, expected));
    }
    Ok((head_count, head_count_kv, head_dim))
}

fn experts(keys: &Keys<'_>, mixture: Mixture, feed_forward_length: usize) -> Result<ExpertConfig> {
    if mixture == Mixture::None {
        return match keys.integer("expert_count")?.filter(|count| *count > 0) {
            Some(count) => Err(refuse(&keys.name("expert_count"), count, "no experts")),
            None => Ok(ExpertConfig::default()),
        };
    }
    let count = keys.count("expert_count", limits::EXPERTS_MAX)?;
    Ok(ExpertConfig {
        count,
        used: keys.count("expert_used_count", count.min(limits::EXPERTS_USED_MAX))?,
        feed_forward_length,
        shared_length: 0,
        normalise_shares: keys.flag("expert_weights_norm")?.unwrap_or(false),
    })
}

fn layers(keys: &Keys<'_>, design: &Design, ropes: &Ropes, layer_count: usize) -> Result<Vec<LayerSpec>> {
    let window = match keys.integer("attention.sliding_window")? {
        Some(0) => None,
        Some(size) => Some(size as usize),
        None => design.windows.size,
    };
    let has_window = keys.window_pattern(layer_count, design.windows.full_every)?;
    let spec = |local: bool| LayerSpec {
        window: window.filter(|_| local),
        rope: ropes.index(local && window.is_some()),
    };
    Ok(has_window.into_iter().map(spec).collect())
}

/// `tensors.rs` checks each rank against its matrix.
fn factor_rank(header: &Header) -> usize {
    let first = header.tensors().iter().filter(|info| info.name.ends_with(FIRST));
    let rank = first.filter_map(|info| info.shape.get(1).copied()).max().unwrap_or(0);
    rank.min(limits::FEED_FORWARD_MAX as u64) as usize
}

fn vocab_size(header: &Header, embedding_length: usize) -> Result<usize> {
    let tensor = "token_embd.weight";
    let shape = &header.tensor(tensor)?.shape;
    match shape.as_slice() {
        [_, rows] if (1..=limits::VOCAB_MAX as u64).contains(rows) => Ok(*rows as usize),
        _ => Err(LlmError::TensorShape {
            tensor: tensor.to_owned(),
            found: shape.clone(),
            expected: vec![embedding_length as u64, limits::VOCAB_MAX as u64],
        }),
    }
}

fn activation_scales(header: &Header, layers: usize) -> Result<Vec<[f32; Reader::ALL.len()]>> {
    let key = Config::ACTIVATION_SCALES;
    let Some(found) = header.get_f32_array(key).optional()? else { return Ok(Vec::new()) };
    let (scales, rest) = found.as_chunks();
    if scales.len() != layers || !rest.is_empty() {
        return Err(refuse(key, format!("{} values", found.len()), format!("{} a layer", Reader::ALL.len())));
    }
    match found.iter().find(|scale| !scale.is_finite() || **scale < 0.0) {
        Some(scale) => Err(refuse(key, scale, "positive numbers, or 0 for a scale of each token's own")),
        None => Ok(scales.to_vec()),
    }
}
