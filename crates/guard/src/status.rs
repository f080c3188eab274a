//! What goes into a cycle and what comes out of it.

use crate::approved::Approved;
use crate::breaker::BreakerState;
use crate::mode::{Mode, ModeEvent};
use crate::tags::TagSample;
use ganglion_audit::{Record, Source};
use ganglion_site::limits::TRIGGERS_MAX;
use ganglion_site::{
    Command, Decision, Epoch, Event, Micros, Outcome, Progress, Reason, Sentence, TagValues,
};

/// Everything one cycle may know. The guard asks nobody.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Latest sample per tag, by tag index; missing ones count as never read.
    pub tags: &'a [TagSample],
    /// The plant's connection.
    pub link: Link,
    /// Whether this process is the plant's only writer. Without that nothing goes out, not even the safe command.
    pub sole_writer: bool,
    /// At most one new event. One that comes while [`Guard::can_take_event`](crate::Guard::can_take_event) is false is
    /// refused with a reason.
    pub event: Option<&'a Request>,
    /// Answers and signs of life of the brain since the last cycle, oldest first.
    pub decisions: &'a [Decision],
    /// Parts of answers since the last cycle, oldest first.
    pub progress: &'a [Progress],
    /// The brain's process.
    pub brain: BrainProcess,
    /// At most one operator command.
    pub operator: Option<OperatorCommand>,
    /// Level of the emergency-stop input. An input to us; we are never the emergency stop.
    pub estop: bool,
}

/// An event as it comes from outside.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// The asker's own number, repeated in the record.
    pub id: u64,
    /// Who asks.
    pub source: Source,
    /// [`Event::client`](ganglion_site::Event::client).
    pub client: u64,
    /// The sentence; empty for a pure sensor event.
    pub sentence: Sentence,
    /// Readings that come with the event, such as a part's measurements. The model and the rules see them instead of the
    /// plant's; trip limits are judged on both.
    pub tags: TagValues,
    /// Time for this event, at most the brain's timeout; `None` = the site's deadline.
    pub deadline_ms: Option<u32>,
    /// Decide, check and record, never actuate.
    pub dry_run: bool,
    /// Each field of the answer is handed on as soon as it is decided and checked.
    pub stream: bool,
    /// What is to be done, where that is known already: the step of a verified plan. It is judged like a decision of the
    /// brain's, which is not asked.
    pub command: Option<Command>,
    /// With a `command`: how many [`others`](Counters::others) its sender knows of. One that was made before somebody else had
    /// a command sent is refused.
    pub others: u64,
}

impl Request {
    /// An event of the guard itself.
    pub(crate) const fn own(dry_run: bool) -> Self {
        Self {
            id: 0,
            source: Source::Guard,
            client: 0,
            sentence: Sentence::EMPTY,
            tags: TagValues::NONE,
            deadline_ms: None,
            dry_run,
            stream: false,
            command: None,
            others: 0,
        }
    }
}

/// The plant's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Link {
    /// The transport is up.
    pub connected: bool,
    /// The device's own comms watchdog.
    pub watchdog: DeviceWatchdog,
    /// Monotonic time of the last acknowledged heartbeat; 0 = never.
    pub heartbeat_ack_us: Micros,
}

impl Link {
    /// Not connected.
    pub const DOWN: Self = Self { connected: false, watchdog: DeviceWatchdog::Off, heartbeat_ack_us: 0 };
}

/// State of the device's comms watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeviceWatchdog {
    /// The device would hold its last outputs for ever.
    Off,
    /// The device goes to its safe state when heartbeats stop.
    Armed,
    /// It has done so.
    Tripped,
}

/// The brain's process as its supervisor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BrainProcess {
    /// None is configured; the rule controller decides everything.
    Absent,
    /// Dead, waiting to be started.
    Restarting,
    /// Running; each start has its own generation.
    Running {
        /// Number of the start.
        generation: u32,
    },
}

/// What an operator may ask of the mode machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OperatorCommand {
    /// Idle → Execute, once the plant is ready.
    Start,
    /// Pause.
    Hold,
    /// Resume after Hold.
    Unhold,
    /// Safe command, then Stopped.
    Stop,
    /// Stopped → Idle.
    Reset,
    /// Aborted → Stopped, once the cause is gone.
    Clear,
    /// Safe command, then Aborted, latched.
    Abort,
    /// Execute → Complete: the job is done, nothing is sent.
    Complete,
}

impl OperatorCommand {
    /// The mode machine's event.
    pub fn event(self) -> ModeEvent {
        match self {
            Self::Start => ModeEvent::Start,
            Self::Hold => ModeEvent::Hold,
            Self::Unhold => ModeEvent::Unhold,
            Self::Stop => ModeEvent::Stop,
            Self::Reset => ModeEvent::Reset,
            Self::Clear => ModeEvent::Clear,
            Self::Abort => ModeEvent::Abort,
            Self::Complete => ModeEvent::Complete,
        }
    }
}

/// What one cycle wants done. Borrows the guard's own buffers.
#[derive(Debug)]
pub struct Output<'g> {
    /// To be sent to the brain now.
    pub event: Option<&'g Event>,
    /// To be given to the driver now.
    pub actuation: Option<Actuation>,
    /// Keep the brain or replace it.
    pub brain: BrainAction,
    /// Count up the plant's heartbeat register: the cycle was completed.
    pub heartbeat: bool,
    /// To be logged.
    pub records: &'g [Record],
    /// To be handed on to whoever asked for them.
    pub fields: &'g [Field],
    /// The state after this cycle.
    pub status: &'g Status,
}

/// A field of an answer that is still being decided: of its type and in its range, and not yet judged by limits.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    /// The asker's number.
    pub request: u64,
    /// The field.
    pub progress: Progress,
}

/// A command for the plant with the proof that it may go there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Actuation {
    /// The command; drivers take nothing else.
    pub approved: Approved<Command>,
    /// Where it came from.
    pub outcome: Outcome,
    /// The event it answers; 0 = none.
    pub epoch: Epoch,
    /// The asker's number; 0 = nobody asked.
    pub request: u64,
    /// Time of the cycle that approved it.
    pub time_us: Micros,
}

/// What to do with the brain's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BrainAction {
    /// Nothing.
    Keep,
    /// Kill this generation and start another; repeated until the supervisor reports a change.
    KillAndRestart {
        /// The generation that is meant, so that its successor is not hit.
        generation: u32,
    },
}

/// The brain as the guard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BrainState {
    /// None configured.
    Absent,
    /// Started, not heard from yet (loading its model).
    Starting,
    /// Answers.
    Ready,
    /// Dead or silent.
    Lost,
}

impl BrainState {
    /// The word used in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Lost => "lost",
        }
    }
}

/// How bad it is; the highest wins and decides what the guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Severity {
    /// All well.
    Nominal,
    /// A tag is beyond its alarm limit, or a prompt tag cannot be used: reported.
    Alarm,
    /// The brain does not count: the rule controller is in control.
    Degraded,
    /// A trip-guarded tag cannot be read: the safe command.
    Fault,
    /// The plant cannot be reached or its watchdog is not armed: hold.
    LinkLost,
    /// A trip limit was passed: abort; latched until Clear.
    Trip,
    /// Abort; latched until Clear.
    EmergencyStop,
}

impl Severity {
    /// The word used in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nominal => "nominal",
            Self::Alarm => "alarm",
            Self::Degraded => "degraded",
            Self::Fault => "fault",
            Self::LinkLost => "link lost",
            Self::Trip => "trip",
            Self::EmergencyStop => "emergency stop",
        }
    }
}

/// The guard's state after a cycle.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Time of the cycle.
    pub time_us: Micros,
    /// PackML mode.
    pub mode: Mode,
    /// Circuit breaker.
    pub breaker: BreakerState,
    /// The worst condition that holds or is latched.
    pub severity: Severity,
    /// The brain.
    pub brain: BrainState,
    /// The plant's connection as given.
    pub link: Link,
    /// Events that wait for the brain.
    pub pending: u8,
    /// The rule controller is the sole writer.
    pub rule_in_control: bool,
    /// Tags beyond `lo`/`hi` or their rate; bit = tag index.
    pub alarms: u64,
    /// Tags beyond `lolo`/`hihi`.
    pub trips: u64,
    /// Tags that may not be used.
    pub unusable: u64,
    /// Running counts since start.
    pub counters: Counters,
    /// Why the severity is what it is; empty when nominal.
    pub reason: Reason,
}

/// Running counts since start. All wrap never in practice and saturate by type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Cycles run.
    pub cycles: u64,
    /// Events accepted or refused.
    pub events: u64,
    /// Commands handed to the driver.
    pub actuated: u64,
    /// Those of them that no mission asked for.
    pub others: u64,
    /// Verdicts: approved.
    pub approved: u64,
    /// Verdicts: clamped.
    pub clamped: u64,
    /// Verdicts: rejected.
    pub rejected: u64,
    /// Answers by the rule controller.
    pub by_rule: u64,
    /// Answers by the safe command.
    pub by_safe: u64,
    /// Events without an answer at the deadline.
    pub deadline_misses: u64,
    /// Answers to an old epoch, discarded.
    pub late_answers: u64,
    /// Answers to an epoch never asked, or from no running brain, discarded.
    pub unexpected_answers: u64,
    /// Answers whose content is not a decision.
    pub malformed_answers: u64,
    /// Times the brain was lost.
    pub brain_losses: u64,
    /// Events refused because too many were pending.
    pub busy: u64,
    /// Answers that were not sent because a younger event's command, or the safe command, had gone out before them.
    pub superseded: u64,
    /// Commands that went out ahead of the one that they announce.
    pub announced: u64,
    /// Events made by each trigger.
    pub triggers: [u32; TRIGGERS_MAX],
    /// Operator commands that did not apply.
    pub refused_commands: u64,
    /// Records beyond the cycle's capacity.
    pub records_dropped: u64,
}
