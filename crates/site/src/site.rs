//! The site as the rest of Ganglion sees it, after parsing and validation.

use crate::command::{Command, CommandSpec};
use crate::kept::{RecordSpec, SwitchSpec, Variant};
use crate::plan::PlanSpec;
use std::path::PathBuf;

/// Everything a site file says, checked. Fields are public and plain; only [`Site::load`] and [`Site::parse`] make one,
/// so a `Site` in hand is consistent: names unique, references resolved, bounds kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Short name.
    pub name: String,
    /// The file it came from; relative paths in it are relative to its folder.
    pub file: PathBuf,
    /// Which model answers.
    pub model: ModelSpec,
    /// The guard's clocks and counters.
    pub guard: GuardSpec,
    /// What the model is told beyond commands and tags.
    pub prompt: PromptSpec,
    /// The plant's connection; a site without one can still be asked.
    pub plant: Option<PlantSpec>,
    /// Where HTTP listens, loopback only in this version.
    pub http: Option<std::net::SocketAddr>,
    /// What is kept of a run; `None` = nothing but the audit log.
    pub record: Option<RecordSpec>,
    /// Signals, in file order; index = tag index everywhere.
    pub tags: Vec<Tag>,
    /// Commands; the last one is always `none`.
    pub commands: Vec<CommandSpec>,
    /// Limits on tags and arguments.
    pub limits: Vec<Limit>,
    /// The fallback controller, first match wins.
    pub rules: Vec<Rule>,
    /// What asks the model without anybody asking.
    pub triggers: Vec<Trigger>,
    /// What to do when nothing else may act.
    pub safe: Command,
    /// What plans have to know and to keep; a site without one runs no missions.
    pub plan: Option<PlanSpec>,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// GGUF file, resolved against the site's folder.
    pub path: PathBuf,
    /// KV cache length: prefix + event + command.
    pub context_tokens: usize,
    /// Worker threads of the brain; 0 = as many as the machine gives.
    pub threads: usize,
    /// Whether the brain keeps all its memory resident, weights included.
    pub lock_memory: bool,
    /// Whether an event seen before is answered from memory, in microseconds.
    pub memo: bool,
    /// How keys and values are stored.
    pub kv: KvStorage,
    /// Other models for the same site, each less demanding than the one before.
    pub variants: Vec<Variant>,
    /// When they take over.
    pub switch: SwitchSpec,
    /// Events that the brain may think about in the same forward passes; each takes room for its event and command.
    pub parallel: usize,
    /// How sure the model must be for its command to count.
    pub confidence: ConfidenceSpec,
}

/// The least that each score of a command must have, from 0 to 1; below any of them the answer is `none`. 0 asks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ConfidenceSpec {
    /// Probability of the best allowed token less that of the second, at the least sure of the command's tokens.
    pub margin: f64,
    /// 1 less the entropy over the allowed tokens, as a share of the largest there can be, at the least sure token.
    pub certainty: f64,
    /// Probability that the model gave to all allowed tokens together where the action is chosen. Costs one product with
    /// the whole head a decision.
    pub feasible_mass: f64,
}

/// How the model's keys and values are stored: what a token of context takes, and how finely its past is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvStorage {
    /// 4 bytes a value, exact.
    F32,
    /// 2 bytes, 11 bits.
    #[default]
    F16,
    /// 1 byte, 8 bits of the largest value of a head.
    Int8,
}

impl KvStorage {
    /// Every way, and its name in the file.
    pub const NAMES: [(&'static str, Self); 3] =
        [("f32", Self::F32), ("f16", Self::F16), ("int8", Self::Int8)];
}

/// `[guard]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardSpec {
    /// Cycle period.
    pub period_ms: u32,
    /// Time from event to command after which the answer no longer counts.
    pub deadline_ms: u32,
    /// Silence of the brain after which it is killed and restarted.
    pub brain_timeout_ms: u32,
    /// Consecutive failures that open the breaker.
    pub breaker_failures: u32,
    /// Time the breaker stays open before shadow probes.
    pub breaker_open_ms: u32,
    /// Consecutive good probes that close it.
    pub breaker_probes: u32,
    /// How many commands may go to the plant; `None` = one per cycle. The safe command is never counted.
    pub commands: Option<CommandBudget>,
}

impl GuardSpec {
    /// `brain_timeout_ms` where the file says nothing.
    pub fn brain_timeout_default_ms(deadline_ms: u32) -> u32 {
        deadline_ms.saturating_mul(5).min(crate::limits::TIME_MS.1)
    }
}

/// A token bucket for commands: `burst` at once, `per_minute` in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CommandBudget {
    /// Size of the bucket; it starts full.
    pub burst: u32,
    /// Tokens that come in per minute.
    pub per_minute: u32,
}

/// `[prompt]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptSpec {
    /// Indices of tags whose values are shown with every event.
    pub tags: Vec<usize>,
    /// Policy sentences.
    pub notes: Vec<String>,
}

/// `[plant]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlantSpec {
    /// `host:port` of the Modbus TCP device.
    pub modbus: String,
    /// Unit id.
    pub unit: u8,
    /// Name of the simulated plant that `ganglion run` starts on that address, if any.
    pub simulator: Option<String>,
    /// Model seconds per real second of that simulated plant.
    pub simulator_speed: f64,
    /// How often tags are polled.
    pub poll_ms: u32,
    /// Holding register that the guard's side increments.
    pub heartbeat: u16,
    /// Holding register that takes the device's comms watchdog time in ms (0 = off).
    pub watchdog: u16,
    /// Value written there: without a heartbeat for so long the device goes to its safe state by itself.
    pub watchdog_ms: u16,
    /// Input register with the watchdog's state: 0 off, 1 armed, 2 tripped.
    pub watchdog_state: u16,
}

/// A signal from the plant.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// Unique name.
    pub name: String,
    /// Unit symbol, or empty.
    pub unit: String,
    /// Bool tags are 0 or 1 and printed `yes`/`no`.
    pub kind: TagKind,
    /// Smallest believable value; below is bad quality, not a low reading.
    pub range_lo: f64,
    /// Largest believable value.
    pub range_hi: f64,
    /// Decimals shown in prompts and tables.
    pub decimals: u8,
    /// Age after which the value may no longer be used.
    pub stale_ms: u32,
    /// Time after which a value that is read anew without ever changing counts as that of a dead sensor.
    pub frozen_ms: Option<u32>,
    /// Where it is read from; `None` for tags that only `--tag` or a script sets.
    pub read: Option<RegisterRead>,
}

/// Type of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKind {
    /// A real number in the tag's unit.
    Number,
    /// 0 or 1.
    Bool,
}

/// Where a tag is read from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegisterRead {
    /// Modbus table.
    pub table: ReadTable,
    /// Zero-based protocol address.
    pub address: u16,
    /// Engineering units per register count (i16 two's complement).
    pub scale: f64,
}

/// Modbus table that a tag is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadTable {
    /// Function 4.
    Input,
    /// Function 3.
    Holding,
    /// Function 2.
    Discrete,
    /// Function 1.
    Coil,
}

/// A bound on a tag or an argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// What is bounded.
    pub on: LimitTarget,
    /// Trip: tag at or below it stops the plant (tags only).
    pub lolo: Option<f64>,
    /// Lowest allowed (argument) or warning (tag) value.
    pub lo: Option<f64>,
    /// Highest allowed (argument) or warning (tag) value.
    pub hi: Option<f64>,
    /// Trip: tag at or above it stops the plant (tags only).
    pub hihi: Option<f64>,
    /// Largest change per second against the last approved value (arguments) or reading (tags).
    pub rate_per_s: Option<f64>,
    /// Time for which a value that was sent has to stay before another one may follow (arguments only).
    pub dwell_ms: Option<u32>,
    /// The limit holds while all of these do. Empty: always. On arguments only.
    pub when: Vec<Term>,
    /// Modes in which a tag's limit holds: bit = PackML number. `None`: in all.
    pub modes: Option<u32>,
    /// What an argument beyond `lo`/`hi`/rate meets.
    pub action: LimitAction,
}

/// What a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitTarget {
    /// Index into [`Site::tags`].
    Tag(usize),
    /// Command index and argument index.
    Argument {
        /// Index into [`Site::commands`].
        command: usize,
        /// Index into its arguments.
        argument: usize,
    },
}

/// What happens to a command beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAction {
    /// The command is refused.
    Reject,
    /// The value is moved to the bound.
    Clamp,
}

/// A rule of the fallback controller.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// All terms must hold. Empty: always.
    pub when: Vec<Term>,
    /// What is then done; `none` holds the outputs as they are.
    pub command: Command,
    /// How it is done.
    pub how: How,
}

/// How a rule's command goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    /// As written.
    Send,
    /// One argument moves from its last value to the rule's.
    Ramp {
        /// Index of the argument.
        argument: usize,
        /// In the argument's unit per second.
        per_s: f64,
    },
    /// One argument is the output of a PI loop.
    Pi(PiSpec),
}

/// A PI loop: `output = kp * error + integral of kp * error / ti_s`, `error = setpoint - tag`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PiSpec {
    /// Index of the argument that is the output. The rule's value for it is where the loop starts when nothing was
    /// sent before.
    pub argument: usize,
    /// Index of the tag that is controlled.
    pub tag: usize,
    /// In the tag's unit.
    pub setpoint: f64,
    /// Gain in the argument's unit per unit of the tag; negative where more output means less of the tag.
    pub kp: f64,
    /// Integral time.
    pub ti_s: f64,
    /// Time between two steps of the loop.
    pub every_ms: u32,
}

/// A reason to ask the model of which nobody has to think: it makes an event while the plant is in Execute.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Unique name.
    pub name: String,
    /// When it makes an event.
    pub on: TriggerOn,
    /// What the event says; empty: readings only.
    pub say: String,
    /// Least time between two events of this trigger.
    pub pause_ms: u32,
}

/// When a [`Trigger`] makes an event.
#[derive(Debug, Clone, PartialEq)]
pub enum TriggerOn {
    /// A tag has moved this far since the last event (or since Execute began).
    Change {
        /// Index into [`Site::tags`].
        tag: usize,
        /// In the tag's unit, above 0; for a bool tag 1.
        by: f64,
    },
    /// A condition begins to hold.
    When {
        /// All terms must hold.
        when: Vec<Term>,
        /// What has to have held before the next event. Empty: `when` has to have been false.
        until: Vec<Term>,
    },
    /// Time.
    Every {
        /// Between two events.
        ms: u32,
    },
}

/// One term of a condition: a comparison, now or over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// What is compared.
    pub compare: Compare,
    /// How the comparison has to have gone.
    pub over: Over,
}

/// How a comparison of a [`Term`] has to have gone. A tag that cannot be used makes the term unknown, starts `For` anew
/// and ends `Since`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Over {
    /// It holds now.
    Now,
    /// It has held at every cycle of this many ms.
    For(u32),
    /// It has held at some cycle of the last ms, this one included.
    Within(u32),
    /// The other comparison has held, and from then on this one at every cycle.
    Since(Compare),
}

/// One comparison: `tag op value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compare {
    /// Index into [`Site::tags`].
    pub tag: usize,
    /// Comparison.
    pub op: Comparison,
    /// Right-hand side in the tag's unit.
    pub value: f64,
}

/// Comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Compare {
    /// Whether it holds for a reading of its tag; never for NaN, except `!=`.
    pub fn holds(&self, reading: f64) -> bool {
        match self.op {
            Comparison::Less => reading < self.value,
            Comparison::LessOrEqual => reading <= self.value,
            Comparison::Greater => reading > self.value,
            Comparison::GreaterOrEqual => reading >= self.value,
            Comparison::Equal => reading == self.value,
            Comparison::NotEqual => reading != self.value,
        }
    }
}

/// Names and numbers of the PackML states (ISA-TR88.00.02), as `modes` in a site file has them.
pub const PACKML_STATES: [(&str, u8); 17] = [
    ("Clearing", 1),
    ("Stopped", 2),
    ("Starting", 3),
    ("Idle", 4),
    ("Suspended", 5),
    ("Execute", 6),
    ("Stopping", 7),
    ("Aborting", 8),
    ("Aborted", 9),
    ("Holding", 10),
    ("Held", 11),
    ("Unholding", 12),
    ("Suspending", 13),
    ("Unsuspending", 14),
    ("Resetting", 15),
    ("Completing", 16),
    ("Complete", 17),
];
