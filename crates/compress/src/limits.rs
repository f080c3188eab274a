//! Every bound of this crate.

/// Fewest tokens of a window: half of them are context only.
pub const WINDOW_TOKENS_MIN: usize = 8;
/// Tokens of a window if nobody says otherwise.
pub const WINDOW_TOKENS_DEFAULT: usize = 512;
