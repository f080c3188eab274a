//! Every bound of the guard, in one place.

use ganglion_site::Micros;

/// A PI loop that was not stepped for longer than this many of its periods integrates no further back.
pub const PI_PERIODS_MAX: u64 = 4;
/// Pause between two tries to become the plant's writer.
pub const LEASE_RETRY_US: Micros = 1_000_000;
/// Bytes of a pending event in a saved state: two sentences, two sets of readings, two commands, a reason.
pub const PENDING_BYTES_MAX: usize = 4 * 1024;
/// Bytes of what was last sent for an argument, of a condition's term or of an output in a saved state.
pub const HISTORY_BYTES_MAX: usize = 32;
/// Bytes of a saved state without those.
pub const STATE_BYTES_MIN: usize = 12 * 1024;
/// Buckets of 1 µs in a measurement of wake-up delays.
pub const WAKE_HISTOGRAM_US: usize = 100_000;
/// Events that the brain may be thinking about at once; one more is refused as busy.
pub const PENDING_MAX: usize = 8;
/// Those of them that triggers may have made, so that a person's sentence finds a place.
pub const TRIGGERS_PENDING_MAX: usize = PENDING_MAX / 2;
/// Records one cycle may produce; more are counted as dropped.
pub const RECORDS_PER_CYCLE_MAX: usize = 32;
/// Notices among them.
pub const NOTICES_PER_CYCLE_MAX: usize = 16;
/// Brain messages looked at in one cycle, answers and parts of answers each; a flood is left in the socket. No more parts of
/// answers are handed on.
pub const DECISIONS_PER_CYCLE_MAX: usize = 8;
/// The same, signs of life included, of which any number counts as one.
pub const MESSAGES_PER_CYCLE_MAX: usize = 64;
/// Parts of answers waiting for a reader.
pub const FIELD_QUEUE_MAX: usize = 256;
/// Values with a history (argument × choice of the selecting argument).
pub const RATE_SLOTS_MAX: usize = 128 * 64;
/// Time kept between the guard's last look for an answer and the deadline, for checks and hand-over.
pub const GUARD_MARGIN_US_MAX: Micros = 1_000;
/// Time before the deadline at which the brain is told to have answered.
pub const BRAIN_MARGIN_US_MAX: Micros = 5_000;
/// Longest time a started brain may take to load its model before it is given up.
pub const BRAIN_START_US_MAX: Micros = 120_000_000;
/// A reading from further in the future than this is a fault, not a race between two clocks' reads.
pub const TAG_FUTURE_US_MAX: Micros = 1_000_000;
/// Tries to read a tag that is being written before it counts as uncertain.
pub const TAG_READ_TRIES_MAX: usize = 8;
/// Extra cycles per period that begin as soon as the brain is heard; further ones are [`EARLY_WAKE_PAUSE_US`] apart.
pub const EARLY_WAKES_PER_PERIOD_MAX: u32 = 2;
/// Pause before each further extra cycle, so that a brain that floods the guard costs it a bounded share of its time.
pub const EARLY_WAKE_PAUSE_US: Micros = 1_000;
/// Buckets of the wake-up jitter histogram; bucket `i` counts delays below 2^i µs, the last one all others.
pub const JITTER_BUCKETS: usize = 24;
/// Requests waiting for the guard.
pub const REQUEST_QUEUE_MAX: usize = 64;
/// Operator mode commands waiting for the guard.
pub const OPERATOR_QUEUE_MAX: usize = 16;
/// Approved commands waiting for the driver.
pub const ACTUATION_QUEUE_MAX: usize = 16;
/// Policies and notices waiting for the guard, and policies waiting to be freed.
pub const NEWS_QUEUE_MAX: usize = 8;
/// Status changes and records waiting for a reader.
pub const STATUS_QUEUE_MAX: usize = 64;
/// Real-time priority asked for (SCHED_FIFO).
pub const FIFO_PRIORITY: i32 = 60;
/// First pause before a brain is started again.
pub const RESTART_PAUSE_MS_MIN: u64 = 100;
/// Longest pause before a brain is started again.
pub const RESTART_PAUSE_MS_MAX: u64 = 5_000;
/// A brain that lived this long starts again with the shortest pause.
pub const RESTART_PAUSE_RESET_MS: u64 = 10_000;
/// Time for which a brain that was followed by another is left alive.
pub const RETIRE_MS: u64 = 2_000;
/// How often the supervisor looks after its child.
pub const SUPERVISOR_POLL_MS: u64 = 2;

// One answer per pending event, and one record each of a new event, a trigger, an announcement, the rule controller, the
// safe command and a probe.
const _: () = assert!(NOTICES_PER_CYCLE_MAX + PENDING_MAX + 1 + 6 <= RECORDS_PER_CYCLE_MAX);
