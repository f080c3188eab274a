//! stub docs
pub mod record;
pub use record::{Record, RecordKind, Source, Verdict};
