//! What the guard hands over for one decision or notice: fixed size, no heap, so that it can cross a ring buffer.

use ganglion_site::{Command, Event, Micros, Outcome, Reason, Site, Timings};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RecordKind {
    /// One event was answered (or refused).
    Decision,
    /// A shadow probe of a half-open breaker: evaluated, never actuated.
    Probe,
    /// A command that goes out ahead of the one that it announces; the event's own record follows.
    Announcement,
    /// The mode machine moved or refused to.
    Mode,
    /// A tag went beyond `lolo`/`hihi`, or the emergency stop was seen.
    Trip,
    /// A tag went beyond `lo`/`hi`, or came back.
    Alarm,
    /// The plant's connection or its comms watchdog changed.
    Link,
    /// The brain became ready or was lost.
    Brain,
    /// The breaker changed state.
    Breaker,
    /// A policy was taken over or refused while running.
    Policy,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Source {
    /// A person at the terminal.
    Operator,
    /// A script file.
    Script,
    /// `POST /v1/decide`.
    Http,
    /// A sensor event without a sentence.
    Sensor,
    /// A trigger of the site, by its index.
    Trigger(u16),
    /// The guard itself (takeover, safe command, probe).
    Guard,
}

/// What the checks said about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Verdict {
    /// Within every limit as proposed.
    Approved,
    /// Moved to a bound, because the site says so.
    Clamped,
    /// Refused; nothing of it reaches the plant.
    Rejected,
}

/// One entry of the audit log before it is rendered. About 3 KiB, `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// What it is about.
    pub kind: RecordKind,
    /// Monotonic time of the guard's cycle.
    pub time_us: Micros,
    /// PackML name of the mode at that time.
    #[serde(deserialize_with = "known_word")]
    pub mode: Word,
    /// Breaker state at that time.
    #[serde(deserialize_with = "known_word")]
    pub breaker: Word,
    /// Who asked.
    pub source: Source,
    /// The asker's own number for the request; 0 when nobody asked.
    pub request: u64,
    /// Epoch, deadline, tags as shown, the sentence (stored only as HMAC), dry run.
    pub event: Event,
    /// Where the answer came from; `None` for notices.
    pub outcome: Option<Outcome>,
    /// The command as proposed.
    pub command: Option<Command>,
    /// The command as approved, when clamping changed it.
    pub clamped: Option<Command>,
    /// What the checks said; `None` for notices.
    pub verdict: Option<Verdict>,
    /// Why, in words.
    pub reason: Reason,
    /// The brain's confidence, 0 when it has none.
    pub confidence: f32,
    /// Event accepted → answer handed to the driver.
    pub latency_us: Micros,
    /// The brain's timings.
    pub timings: Timings,
    /// Whether a driver was given the command.
    pub actuated: bool,
}

/// One of a closed list of words.
pub type Word = &'static str;

const BREAKER_STATES: [Word; 3] = ["closed", "open", "half-open"];

/// A mode's or breaker state's name, as the constant that it is.
fn known_word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
    let found = <&str as serde::Deserialize>::deserialize(deserializer)?;
    let modes = ganglion_site::PACKML_STATES.iter().map(|(name, _)| *name);
    modes
        .chain(BREAKER_STATES)
        .find(|word| *word == found)
        .ok_or_else(|| serde::de::Error::custom(format!("{found:?} names no mode and no breaker state")))
}

impl RecordKind {
    /// The word used in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Probe => "probe",
            Self::Announcement => "announcement",
            Self::Mode => "mode",
            Self::Trip => "trip",
            Self::Alarm => "alarm",
            Self::Link => "link",
            Self::Brain => "brain",
            Self::Breaker => "breaker",
            Self::Policy => "policy",
        }
    }
}

impl Source {
    /// The name of the trigger that asked, if one did.
    pub fn trigger(self, site: &Site) -> Option<&str> {
        let Self::Trigger(index) = self else { return None };
        site.triggers.get(usize::from(index)).map(|trigger| trigger.name.as_str())
    }

    /// The word used in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Script => "script",
            Self::Http => "http",
            Self::Sensor => "sensor",
            Self::Trigger(_) => "trigger",
            Self::Guard => "guard",
        }
    }
}

impl Verdict {
    /// The word used in the log and in `ask`'s JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Clamped => "clamped",
            Self::Rejected => "rejected",
        }
    }
}
