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
