//! Every bound of this crate. A model beyond one of them is refused before memory is taken.

/// Most decoder layers.
pub const LAYERS_MAX: usize = 512;
/// Most values of a hidden state.
pub const EMBEDDING_MAX: usize = 1 << 16;
/// Most values of a feed-forward layer.
pub const FEED_FORWARD_MAX: usize = 1 << 19;
/// Most attention heads.
pub const HEADS_MAX: usize = 1 << 10;
/// Most values of one head.
pub const HEAD_DIM_MAX: usize = 1 << 10;
/// Most routed experts of a layer.
pub const EXPERTS_MAX: usize = 1 << 10;
/// Most experts that one token is given to.
pub const EXPERTS_USED_MAX: usize = 1 << 6;
/// Most tokens of a vocabulary.
pub const VOCAB_MAX: usize = 1 << 20;
/// Most tokens of a context.
pub const CONTEXT_MAX: usize = ganglion_kernels::limits::POSITIONS_MAX;
/// Most tokens that one pass over the weights evaluates.
pub const BATCH_MAX: usize = 1 << 12;
/// Tokens of one pass if nobody says otherwise: enough to be bound by arithmetic, short enough to check a deadline often.
pub const BATCH_DEFAULT: usize = 64;
/// Most sequences of one session.
pub const SEQUENCES_MAX: usize = 64;
/// Longest token text of a llama2.c vocabulary, in bytes.
pub const LLAMA2C_TOKEN_BYTES_MAX: usize = 1 << 10;
/// Packed weights of fewer bytes are not kept on disk: packing them takes less than a tenth of a second.
pub const PACKED_FILE_BYTES_MIN: usize = 64 << 20;
/// Most tokens that a session with a ring evaluates: angles of rotary positions are exact to f32 up to here.
pub const RING_POSITIONS_MAX: usize = 1 << 30;
/// Longest name of a model in a saved KV cache, in bytes: a SHA-256 in hexadecimal.
pub const MODEL_ID_BYTES_MAX: usize = 64;
/// Most tokens that a repetition penalty looks back on.
pub const REPEAT_LAST_MAX: usize = 1 << 16;
/// Longest JSON file of a Hugging Face folder besides the tokenizer, in bytes; indices of many shards are the long ones.
pub const SOURCE_JSON_BYTES_MAX: usize = 16 << 20;
/// Longest tokenizer.json, in bytes; a vocabulary of 262,144 tokens takes 33 MB.
pub const SOURCE_TOKENIZER_BYTES_MAX: usize = 256 << 20;
/// Most files that the tensors of a folder are spread over.
pub const SOURCE_SHARDS_MAX: usize = 1 << 10;
/// Values that the converter holds at once, unless a single row has more.
pub const CONVERT_VALUES_AT_ONCE: usize = 1 << 18;
