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
pub const HISTORY_COMMANDS: usize = 16;
/// Choices remembered of each command, the first ones.
pub const HISTORY_CHOICES_MAX: usize = 32;
/// A choice among more tokens is not guessed from the event's words: looking would take longer than it saves.
pub const GUESS_ALLOWED_MAX: usize = 64;
