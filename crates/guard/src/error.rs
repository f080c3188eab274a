//! Why a guard could not be made.

/// Errors at start; a running guard has none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The command that must always be possible is not.
    #[error("the safe command breaks the site's own limits: {reason}; change [guard] safe or the limit")]
    SafeCommand {
        /// What the check said.
        reason: String,
    },
    /// More values with a rate, a dwell, a ramp or a loop than the table holds.
    #[error(
        "more than {allowed} values with a history (rate, dwell, ramp, loop); limit fewer arguments or give them fewer choices"
    )]
    TooManyRateSlots {
        /// The bound.
        allowed: usize,
    },
    /// Bytes that are no state of this site's guard.
    #[error("a recorded state cannot be taken up: {what}; it belongs to another site or another version")]
    State {
        /// What is wrong with it.
        what: String,
    },
    /// A policy that is more than a policy.
    #[error("{what} differs from what runs, and that is more than a policy: restart to take it over")]
    NeedsRestart {
        /// What differs.
        what: &'static str,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// The system's word for it.
        source: std::io::Error,
    },
}
