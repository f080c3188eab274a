//! What crosses between guard and brain: an [`Event`] out, a [`Decision`] back, each one fixed-size message.
//!
//! Times are microseconds of the host's monotonic clock, which both processes share. Wall-clock time never appears.

use crate::command::{Command, Value};
use crate::limits::{REASON_BYTES_MAX, SENTENCE_BYTES_MAX, TAGS_MAX};

/// Identifies one request to the brain; answers to an older one are discarded. Never reused within a run.
pub type Epoch = u64;

/// Microseconds of the monotonic clock.
pub type Micros = u64;

/// A sentence or a sensor event, with the tag values it is to be judged by. `Copy`, no heap.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// Which request this is.
    pub epoch: Epoch,
    /// Monotonic time by which the answer must be back.
    pub deadline_us: Micros,
    /// Whose event this is: nothing that is kept of one client's events is of use to another's, so that nobody learns from
    /// an answer's time what others asked. 0 is the site itself.
    pub client: u64,
    /// Tag values shown to the model; only those whose bit is set in `tags_present`.
    #[serde(with = "serde_big_array::BigArray")]
    pub tags: [f64; TAGS_MAX],
    /// Bit `i` = tag `i` has a usable value.
    pub tags_present: u64,
    /// The operator's sentence, empty for a pure sensor event.
    pub sentence: Sentence,
    /// Decide, check and record, but never actuate.
    pub dry_run: bool,
    /// Whoever asked wants each field as soon as it is decided: a [`Progress`] per field, before the [`Decision`].
    pub stream: bool,
}

/// Inline UTF-8 text of at most [`SENTENCE_BYTES_MAX`] bytes.
pub type Sentence = InlineText<SENTENCE_BYTES_MAX>;
/// Inline UTF-8 text of at most [`REASON_BYTES_MAX`] bytes.
pub type Reason = InlineText<REASON_BYTES_MAX>;

/// UTF-8 text stored inline, `N` bytes at most.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InlineText<const N: usize> {
    bytes: [u8; N],
    size_bytes: u16,
}

/// Readings by tag index; those without a value are absent. `Copy`, no heap.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TagValues {
    #[serde(with = "serde_big_array::BigArray")]
    values: [f64; TAGS_MAX],
    present: u64,
}

impl TagValues {
    /// No reading.
    pub const NONE: Self = Self { values: [0.0; TAGS_MAX], present: 0 };

    /// Sets one; a value that is not finite, or a tag beyond the table, stays absent.
    pub fn set(&mut self, tag: usize, value: f64) {
        if let Some(place) = self.values.get_mut(tag).filter(|_| value.is_finite()) {
            *place = value;
            self.present |= 1 << tag;
        }
    }

    /// The reading of a tag.
    pub fn get(&self, tag: usize) -> Option<f64> {
        self.values.get(tag).copied().filter(|_| self.present >> tag & 1 == 1)
    }

    /// Bit `i` = tag `i` has a value.
    pub fn present(&self) -> u64 {
        self.present
    }
}

/// How the brain's answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// The model decided every field.
    Model,
    /// Same input, same model, answered from memory.
    Cache,
    /// The deadline came after the critical fields; the rest are the site's defaults.
    Completion,
    /// The rule controller's answer.
    Rule,
    /// The safe command.
    Safe,
}

/// The brain's answer to one event. `command` is `None` when it has none; `reason` then says why.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// The event it answers.
    pub epoch: Epoch,
    /// What was decided.
    pub command: Option<Command>,
    /// Model, cache or completion.
    pub outcome: Outcome,
    /// 0 to 1: the smallest top-2 probability margin over the decided tokens.
    pub confidence: f32,
    /// Where the time and the tokens went.
    pub timings: Timings,
    /// Why there is no command, or why it is `none` although the model chose another; else empty.
    pub reason: Reason,
}

/// One field of a command that is still being decided. The action comes first, then the arguments in the site's order;
/// what is decided does not change any more.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// The event it belongs to.
    pub epoch: Epoch,
    /// The command's verb.
    pub verb: u16,
    /// `None`: the verb itself has just been decided. Else the index of the argument that has.
    pub argument: Option<usize>,
    /// The argument's value; [`Value::Absent`] with the verb.
    pub value: Value,
}

/// Everything that a brain may say.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "fixed size, no heap")]
pub enum BrainMessage {
    /// An answer, or a sign of life.
    Decision(Decision),
    /// A part of an answer.
    Progress(Progress),
}

impl Decision {
    /// The reason of a decision that its deadline cut off.
    pub const EXPIRED: &'static str = "the deadline passed before the command was decided";
    /// How the reason of a decision that was not begun, or not gone on with, for want of time begins.
    pub const TOO_LATE: &'static str = "too late to decide";

    /// Whether there is no command because time ran out, rather than because of what was asked.
    pub fn ran_out_of_time(&self) -> bool {
        let reason = self.reason.as_str();
        self.command.is_none() && (reason == Self::EXPIRED || reason.starts_with(Self::TOO_LATE))
    }

    /// What a brain sends when it is ready and, from then on, while it has nothing to do: epoch 0 answers no event.
    pub const SIGN_OF_LIFE: Self = Self {
        epoch: 0,
        command: None,
        outcome: Outcome::Model,
        confidence: 0.0,
        timings: Timings {
            prefill_us: 0,
            decode_us: 0,
            mask_us: 0,
            cache_n: 0,
            prompt_n: 0,
            predicted_n: 0,
            forced_n: 0,
            draft_n: 0,
            accepted_n: 0,
            passes_n: 0,
        },
        reason: Reason::EMPTY,
    };
}

/// Where a decision's time and tokens went; names as in llama-server's `timings`.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Timings {
    /// Event tokens through the model.
    pub prefill_us: u32,
    /// Command tokens through the model.
    pub decode_us: u32,
    /// Grammar work.
    pub mask_us: u32,
    /// Tokens whose KV state was already there: the pinned prefix, and what the client's last event began with too.
    pub cache_n: u32,
    /// Prompt tokens evaluated.
    pub prompt_n: u32,
    /// Tokens of the command.
    pub predicted_n: u32,
    /// Those of them the grammar left no choice for.
    pub forced_n: u32,
    /// Tokens that were guessed and evaluated ahead of being chosen.
    pub draft_n: u32,
    /// Those of them that the model then chose.
    pub accepted_n: u32,
    /// Passes through the model.
    pub passes_n: u32,
}

impl<const N: usize> InlineText<N> {
    /// No text.
    pub const EMPTY: Self = Self { bytes: [0; N], size_bytes: 0 };

    /// Stores `text`; `None` when it is longer than `N` bytes.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= N).then(|| Self::cut(text))
    }

    /// Stores as much of `text` as fits, cut at a character boundary.
    pub fn cut(text: &str) -> Self {
        let mut out = Self::EMPTY;
        let end = (0..=text.len().min(N)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        for (to, from) in out.bytes.iter_mut().zip(text.as_bytes().iter().take(end)) {
            *to = *from;
        }
        out.size_bytes = u16::try_from(end).unwrap_or(0);
        out
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.size_bytes)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl<const N: usize> serde::Serialize for InlineText<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, const N: usize> serde::Deserialize<'de> for InlineText<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inline<const N: usize>;
        impl<const N: usize> serde::de::Visitor<'_> for Inline<N> {
            type Value = InlineText<N>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "text of at most {N} bytes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                InlineText::new(text).ok_or_else(|| E::invalid_length(text.len(), &self))
            }
        }
        deserializer.deserialize_str(Inline)
    }
}

/// Appends; an error says that the text was cut, at a character boundary.
impl<const N: usize> std::fmt::Write for InlineText<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let start = usize::from(self.size_bytes);
        let room = N.saturating_sub(start);
        let end = (0..=text.len().min(room)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        for (to, from) in self.bytes.iter_mut().skip(start).zip(text.as_bytes().iter().take(end)) {
            *to = *from;
        }
        self.size_bytes = u16::try_from(start + end).unwrap_or(self.size_bytes);
        if end == text.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}

impl<const N: usize> std::fmt::Debug for InlineText<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Event {
    /// An event without tags and words.
    pub fn new(epoch: Epoch, deadline_us: Micros) -> Self {
        let (tags, sentence) = ([0.0; TAGS_MAX], Sentence::EMPTY);
        Self { epoch, deadline_us, client: 0, tags, tags_present: 0, sentence, dry_run: false, stream: false }
    }

    /// The value of tag `index`, if the event has one.
    pub fn tag(&self, index: usize) -> Option<f64> {
        let value = self.tags.get(index).copied()?;
        (self.tags_present >> index & 1 == 1).then_some(value)
    }

    /// Sets tag `index`. A value that is not finite is no value: the tag is then absent. An index beyond the last tag
    /// changes nothing.
    pub fn set_tag(&mut self, index: usize, value: f64) {
        let Some(place) = self.tags.get_mut(index) else { return };
        let bit = 1 << index;
        if value.is_finite() {
            *place = value;
            self.tags_present |= bit;
        } else {
            *place = 0.0;
            self.tags_present &= !bit;
        }
    }
}

impl Outcome {
    /// The name used in records and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Cache => "cache",
            Self::Completion => "completion",
            Self::Rule => "rule",
            Self::Safe => "safe",
        }
    }
}
