//! Bounds of a decision, in one place.

/// Tokens kept free behind the event for the command.
pub const COMMAND_TOKENS_MAX: usize = 192;
/// Answers kept in memory; the oldest goes first.
pub const MEMO_ENTRIES_MAX: usize = 1024;
/// Bytes of the events' texts that they are kept by.
pub const MEMO_TEXT_BYTES_MAX: usize = 256 * 1024;
/// Cases of one evaluation suite file.
pub const SUITE_CASES_MAX: usize = 100_000;
/// Clients whose recent commands are remembered for guessing; the one away for longest is forgotten first.
pub const CLIENTS_MAX: usize = 4;
/// Recent commands of each.
pub const HISTORY_COMMANDS: usize = 64;
/// Choices remembered of each command, the first ones.
pub const HISTORY_CHOICES_MAX: usize = 32;
/// A choice among more tokens is not guessed from the event's words: looking would take longer than it saves.
pub const GUESS_ALLOWED_MAX: usize = 64;

/// Memory of an event in progress; `tests/memory_plan.rs` measures this and what follows.
pub const SLOT_BYTES: usize = 24 << 10;
/// Memory of a token of the vocabulary: its text, its merges, its place among the masks.
pub const VOCABULARY_BYTES: usize = 90;
/// Memory of a compiled schema and what checks it again.
pub const MASKS_BYTES: usize = 512 << 10;
/// A command that was decided behind its deadline is still given within this share of the time there was for it, and within
/// [`GRACE_US_MAX`]: the guard tells the brain an earlier deadline than its own.
pub const GRACE_SHARE: u64 = 5;
/// See [`GRACE_SHARE`].
pub const GRACE_US_MAX: u64 = 4_000;
/// Bytes of the smallest window of a longer text.
pub const WINDOW_BYTES_MIN: usize = 64;
/// Different commands kept of one text.
pub const JOIN_COMMANDS_MAX: usize = 64;
/// Windows named for one command.
pub const JOIN_RANGES_MAX: usize = 8;
