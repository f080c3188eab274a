//! Activations of one batch.

use ganglion_kernels::{ActivationBuffer, Forms};

use crate::config::Config;
use crate::profile::Profiler;

macro_rules! buffers {
    ($($(#[$meta:meta])* $name:ident = $length:expr;)*) => {
        /// Activations of one batch; first dimension tokens.
        #[derive(Debug)]
        pub(crate) struct Buffers {
            $($(#[$meta])* pub(crate) $name: Vec<f32>,)*
            /// What the next product reads, as int8.
            pub(crate) quantised: ActivationBuffer,
            /// What a second factor reads, as int8.
            pub(crate) between_quantised: ActivationBuffer,
            /// (tokens, experts used): the experts of each token and their shares.
            pub(crate) choices: Vec<(u32, f32)>,
            /// Tokens of one expert and their shares.
            pub(crate) members: Vec<(u32, f32)>,
            /// Off, unless somebody measures.
            pub(crate) profiler: Profiler,
        }

        impl Buffers {
            /// `forms`: those that the model's matrices read.
            pub(crate) fn new(config: &Config, forms: Forms, batch: usize) -> Self {
                let choices = batch * config.experts.used;
                Self {
                    $($name: vec![0.0; batch * $length(config)],)*
                    quantised: ActivationBuffer::with_forms(batch, widest_input(config), forms),
                    between_quantised: ActivationBuffer::with_forms(batch, config.factor_rank, forms),
                    choices: vec![(0, 0.0); choices],
                    members: Vec::with_capacity(if choices == 0 { 0 } else { batch }),
                    profiler: Profiler::off(),
                }
            }

            /// Bytes that [`Buffers::new`] allocates.
            pub(crate) fn size_bytes(config: &Config, forms: Forms, batch: usize) -> usize {
                let values: usize = [$($length(config)),*].iter().sum();
                let members = config.experts.used + usize::from(config.experts.used > 0);
                batch * (values * size_of::<f32>() + members * size_of::<(u32, f32)>())
                    + ActivationBuffer::scratch_bytes(batch, widest_input(config), forms)
                    + ActivationBuffer::scratch_bytes(batch, config.factor_rank, forms)
            }
        }
    };
}

buffers! {
    /// (tokens, embedding): the residual stream.
    hidden = embedding;
    /// (tokens, embedding): what the next sub-layer reads.
    normed = embedding;
    /// (tokens, heads, head_dim)
    query = Config::query_length;
    /// (tokens, kv_heads, head_dim)
    key = Config::kv_length;
    value = Config::kv_length;
    attended = Config::query_length;
    /// (tokens, embedding): what a sub-layer adds to the stream.
    projected = embedding;
    /// (tokens, feed_forward)
    gate = widest_feed_forward;
    up = widest_feed_forward;
    /// (tokens, rank) for each of the products that read one input: what their second factors read.
    between = |config: &Config| PRODUCTS * config.factor_rank;
    /// (tokens, experts): the router's logits, then shares.
    router = |config: &Config| config.experts.count;
    /// (tokens, embedding): the inputs of one expert's tokens, side by side.
    gathered = expert_embedding;
    /// (tokens, embedding): its outputs.
    expert = expert_embedding;
}

/// Query, key and value.
const PRODUCTS: usize = 3;

fn embedding(config: &Config) -> usize {
    config.embedding_length
}

fn expert_embedding(config: &Config) -> usize {
    if config.experts.count == 0 { 0 } else { config.embedding_length }
}

/// The longest inner activation of a feed-forward part.
fn widest_feed_forward(config: &Config) -> usize {
    match config.experts.count {
        0 => config.feed_forward_length,
        _ => config.experts.feed_forward_length.max(config.experts.shared_length),
    }
}

/// The longest activation row that a matrix reads.
fn widest_input(config: &Config) -> usize {
    config.embedding_length.max(widest_feed_forward(config)).max(config.query_length())
}
