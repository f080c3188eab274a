//! Why no command came out.

use ganglion_grammar::GrammarError;
use ganglion_llm::LlmError;
use ganglion_site::{Decision, Event, Micros, Outcome, Reason, Timings};
use std::fmt::Write;

/// Whether a decision has no command because time ran out, rather than because of what was asked.
pub fn ran_out_of_time(decision: &Decision) -> bool {
    decision.ran_out_of_time()
}

pub(crate) enum Declined {
    /// The deadline is over.
    Expired,
    /// The next pass would end behind the deadline.
    TooLate { needed_us: Micros, left_us: Micros },
    /// The event or the command.
    Because(String),
}

impl Declined {
    /// Whether time is what is missing.
    pub(crate) fn is_time(&self) -> bool {
        !matches!(self, Self::Because(_))
    }

    pub(crate) fn decision(&self, event: &Event, timings: Timings) -> Decision {
        let reason = match self {
            Self::Expired => Reason::cut(Decision::EXPIRED),
            Self::Because(reason) => Reason::cut(reason),
            Self::TooLate { needed_us, left_us } => {
                let ms = |us: Micros| us as f64 / 1000.0;
                let mut reason = Reason::EMPTY;
                // An error only says that the text was cut.
                let _ = write!(
                    reason,
                    "{}: a pass takes about {:.1} ms, {:.1} ms are left",
                    Decision::TOO_LATE,
                    ms(*needed_us),
                    ms(*left_us)
                );
                reason
            }
        };
        Decision {
            epoch: event.epoch,
            command: None,
            outcome: Outcome::Model,
            confidence: 0.0,
            timings,
            reason,
        }
    }
}

impl From<GrammarError> for Declined {
    fn from(error: GrammarError) -> Self {
        Self::Because(error.to_string())
    }
}

impl From<LlmError> for Declined {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Expired { .. } => Self::Expired,
            other => Self::Because(other.to_string()),
        }
    }
}
