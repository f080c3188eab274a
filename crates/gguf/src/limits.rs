//! Every bound of the crate. A file that exceeds one is refused with [`crate::GgufError::LimitExceeded`].

/// Longest metadata key, in bytes (GGUF specification).
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest tensor name read, in bytes (GGUF specification).
pub const TENSOR_NAME_BYTES_MAX: usize = 64;
/// Longest tensor name written, in bytes: ggml keeps names in 64 bytes with a terminating zero.
pub const TENSOR_NAME_WRITTEN_BYTES_MAX: usize = TENSOR_NAME_BYTES_MAX - 1;
/// Longest string value, in bytes; chat templates and licences are the long ones.
pub const STRING_BYTES_MAX: usize = 16 << 20;
/// Most metadata entries.
pub const METADATA_COUNT_MAX: usize = 1 << 16;
/// Most tensors.
pub const TENSOR_COUNT_MAX: usize = 1 << 17;
/// Most elements of one array value.
pub const ARRAY_COUNT_MAX: usize = 1 << 24;
/// Most elements of an array of arrays; each costs far more memory than the bytes it takes in the file.
pub const NESTED_ARRAY_COUNT_MAX: usize = 1 << 16;
/// Deepest nesting of array values: an array of arrays has depth 2.
pub const ARRAY_DEPTH_MAX: usize = 4;
/// Most dimensions of a tensor (ggml's `GGML_MAX_DIMS`).
pub const DIMENSION_COUNT_MAX: usize = 4;
/// Largest header (everything in front of the tensor data), in bytes.
pub const HEADER_BYTES_MAX: usize = 512 << 20;
/// Alignment of tensor data when `general.alignment` is absent, in bytes (GGUF specification).
pub const ALIGNMENT_DEFAULT_BYTES: usize = 32;
/// Smallest accepted `general.alignment`, in bytes (GGUF specification: a multiple of 8).
pub const ALIGNMENT_BYTES_MIN: usize = 8;
/// Largest accepted `general.alignment`, in bytes: one large page of common Arm systems.
pub const ALIGNMENT_BYTES_MAX: usize = 65_536;
/// Attempts to find a free name for the writer's temporary file.
pub const TEMPORARY_NAME_ATTEMPTS_MAX: usize = 16;

const _: () = assert!(ALIGNMENT_DEFAULT_BYTES.is_power_of_two());
const _: () = assert!(ALIGNMENT_BYTES_MIN <= ALIGNMENT_DEFAULT_BYTES);
const _: () = assert!(ALIGNMENT_DEFAULT_BYTES <= ALIGNMENT_BYTES_MAX);
const _: () = assert!(STRING_BYTES_MAX < HEADER_BYTES_MAX);
// `StringArray` keeps the ends of its strings as u32.
const _: () = assert!(HEADER_BYTES_MAX < u32::MAX as usize);
