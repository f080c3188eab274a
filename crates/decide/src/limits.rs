//! Bounds of a decision, in one place.

/// Tokens kept free behind the event for the command.
pub const COMMAND_TOKENS_MAX: usize = 192;
/// Answers kept in memory; the oldest goes first.
pub const MEMO_ENTRIES_MAX: usize = 1024;
/// Bytes of the events' texts that they are kept by.
pub const MEMO_TEXT_BYTES_MAX: usize = 256 * 1024;
/// Cases of one evaluation suite file.
pub const SUITE_CASES_MAX: usize = 100_000;
