//! Grammar: what a model may write next.
//!
//! ```text
//! JSON Schema ──check─┬─► Automaton (bounded) ─┬─► Constraint: forced run | allowed token ids ──► output ──jsonschema──► value
//!                     └─► llguidance (any) ────┘
//! ```
//!
//! A schema that allows finitely many outputs (objects of constants, enums, booleans and numbers with range and step, as a
//! site's commands are) becomes an [`Automaton`] over the model's own vocabulary: a table, looked up without allocation. Everything else, free strings above all, is served by `llguidance`, which also is the
//! oracle that the automaton is tested against, state by state.
//!
//! A schema keyword that is not enforced is refused by name, never ignored. Finished output is validated a second time by
//! an implementation that shares nothing with the first.
//!
//! ```no_run
//! # use ganglion_grammar::Engine;
//! # fn f(tokenizer: std::sync::Arc<ganglion_tokenizer::Tokenizer>) -> ganglion_grammar::Result<()> {
//! let engine = Engine::new(tokenizer)?;
//! let grammar = engine.compile(&serde_json::json!({"type": "object", "properties": {"on": {"type": "boolean"}},
//!     "required": ["on"], "additionalProperties": false}))?;
//! let mut constraint = grammar.start();
//! let mut tokens = Vec::new();
//! constraint.take_forced(&mut tokens)?; // {"on":
//! # Ok(()) }
//! ```
//!
//! It knows nothing of models, sites or limits: a number inside the schema's range may still be refused by the guard.

mod automaton;
mod bytes;
mod decimal;
mod engine;
mod error;
pub mod limits;
mod schema;
mod words;

pub use automaton::{Automaton, Completion, StateId};
pub use bytes::NotBounded;
pub use engine::{Constraint, Engine, Grammar};
pub use error::{GrammarError, Result};
