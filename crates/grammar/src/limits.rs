//! Bounds of the grammar work, in one place.

/// Nesting of a schema.
pub const SCHEMA_DEPTH_MAX: usize = 32;
/// Nodes of a schema.
pub const SCHEMA_NODES_MAX: usize = 20_000;
/// Lexer work for one mask (about 14 000 a millisecond): a site's bounded commands need a small share of it.
pub const MASK_LEXER_FUEL_MAX: u64 = 100_000;
/// Parser items for one mask (about 20 000 a millisecond).
pub const MASK_ITEMS_MAX: usize = 25_000;
/// Tokens that one forced run may hold.
pub const FORCED_RUN_TOKENS_MAX: usize = 256;
/// Nodes of the byte automaton that a bounded schema compiles to.
pub const BYTE_NODES_MAX: usize = 1 << 18;
/// Bytes of one output of a bounded schema.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// Digits of a bound or a step of a number.
pub const NUMBER_DIGITS_MAX: usize = 18;
/// What a number's step may have in front of its zeros: 25 in 0.025.
pub const STEP_LEAD_MAX: u32 = 1000;
/// States of a token automaton.
pub const AUTOMATON_STATES_MAX: usize = 1 << 17;
/// Memory of a token automaton's tables.
pub const AUTOMATON_BYTES_MAX: usize = 16 << 20;
