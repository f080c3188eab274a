//! Every bound of this crate.

/// Fewest tokens of a window: half of them are context only.
pub const WINDOW_TOKENS_MIN: usize = 8;
/// Tokens of a window if nobody says otherwise.
pub const WINDOW_TOKENS_DEFAULT: usize = 512;
/// Tokens of calibration text that are read if nobody says otherwise.
pub const CALIBRATION_TOKENS_DEFAULT: usize = 32 * WINDOW_TOKENS_DEFAULT;
/// Longest line of a journal that is looked at.
pub const JOURNAL_LINE_BYTES_MAX: usize = 128;
/// Widest input whose second moments are kept: 16,384² of them take 2 GiB.
pub const MOMENT_COLUMNS_MAX: usize = 1 << 14;

/// Most bytes of probabilities that an optimisation keeps of its source.
pub const REFERENCE_BYTES_MAX: usize = 1 << 28;
/// Exchanges of formats that are tried once a choice is made, if nobody says otherwise.
pub const SWAPS_DEFAULT: usize = 60;
/// Formats of a tensor whose divergence is measured, at most.
pub const SHORTLIST_MAX: usize = 7;

const _: () = assert!(CALIBRATION_TOKENS_DEFAULT >= WINDOW_TOKENS_DEFAULT);
const _: () = assert!(WINDOW_TOKENS_DEFAULT <= ganglion_llm::limits::BATCH_MAX);
