//! What can go wrong between a schema and its masks.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A keyword this version does not enforce; ignoring it would let wrong output through.
    #[error(
        "schema keyword \"{keyword}\" at {path} is not supported; supported: {}",
        crate::schema::supported()
    )]
    UnsupportedKeyword {
        /// The keyword.
        keyword: String,
        /// JSON pointer to the object that holds it.
        path: String,
    },
    /// A string or array without an upper bound.
    #[error("{kind} at {path} has no upper bound; add {bound}")]
    Unbounded {
        /// `string` or `array`.
        kind: &'static str,
        /// JSON pointer.
        path: String,
        /// The keyword that would bound it.
        bound: &'static str,
    },
    /// Deeper or larger than the limits allow.
    #[error("schema is too {what} at {path} (limit {limit})")]
    TooLarge {
        /// `deep` or `large`.
        what: &'static str,
        /// JSON pointer.
        path: String,
        /// The limit met.
        limit: usize,
    },
    /// The schema does not describe anything that can be generated.
    #[error("schema cannot be compiled: {0}")]
    Schema(String),
    /// The model's vocabulary lacks what masks need.
    #[error("vocabulary cannot be used for masks: {0}")]
    Vocabulary(String),
    /// The mask computation stopped.
    #[error("mask computation failed: {0}")]
    Mask(String),
    /// A token that the grammar does not allow here.
    #[error("token {token} is not allowed here")]
    NotAllowed {
        /// Its id.
        token: u32,
    },
    /// Finished output that is not valid against the schema.
    #[error("output is not valid against the schema: {0}")]
    Invalid(String),
}

/// Result with [`GrammarError`].
pub type Result<T> = std::result::Result<T, GrammarError>;
