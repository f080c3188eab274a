//! Every bound of this crate.

/// Weights of more bytes lie in a file beside the graph: one protocol buffer ends at 2 GiB.
pub const ONNX_INLINE_BYTES_MAX: u64 = 1_900_000_000;
/// Initialisers of fewer bytes stay in the graph in any case.
pub const ONNX_EXTERNAL_BYTES_MIN: u64 = 1 << 10;
/// Where an initialiser may begin in the file beside the graph: a page, so that it can be mapped.
pub const ONNX_EXTERNAL_ALIGNMENT: u64 = 1 << 12;
/// Most positions of the rotary tables in a graph.
pub const ONNX_POSITIONS_MAX: usize = 1 << 17;
/// Tokens that a C export has room for if nobody says otherwise.
pub const C_CONTEXT_DEFAULT: usize = 256;
/// Most weights of a C export: as text, each takes up to five bytes.
pub const C_WEIGHTS_MAX: u64 = 1 << 26;
/// Values on a line of C.
pub const C_VALUES_A_LINE: usize = 24;

const _: () = assert!(ONNX_INLINE_BYTES_MAX < 1 << 31);
