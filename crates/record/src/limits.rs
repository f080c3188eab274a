//! Every bound of a recording, in one place.

use ganglion_guard::limits::{PENDING_BYTES_MAX, PENDING_MAX, RATE_SLOTS_MAX, STATE_BYTES_MIN};
use ganglion_site::limits::{CONDITION_TERMS_MAX, LIMITS_MAX, RULES_MAX, TRIGGERS_MAX};

/// Bytes between the cycle and the writer.
pub const RING_BYTES: usize = 1 << 20;
/// Bytes of one cycle beside a saved state: sixteen records of about 3 KiB, an event, eight decisions, all tags.
pub const CYCLE_BYTES_MAX: usize = 96 * 1024;
/// Bytes of a saved state, unfolded: more is no state of any guard.
pub const STATE_BYTES_MAX: usize = 4 << 20;
/// Time between two saved states; a replay can begin at each of them.
pub const STATE_EVERY_US: u64 = 10_000_000;
/// Pause of the writer between two looks at the ring.
pub const COMMIT_MS: u64 = 100;
/// Pause after a failed write.
pub const RETRY_MS: u64 = 1_000;
/// Largest and smallest file of a recording; an eighth of the whole in between.
pub const FILE_BYTES: (u64, u64) = (64 * 1024, 16 << 20);
/// Largest block of a file.
pub const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Size from which on the writer begins another block, so that damage costs no more than this.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// Largest header of a file.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Bytes that the flight recorder keeps at most, however few minutes that is.
pub const FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Time that a fault's file goes on after the fault.
pub const AFTERMATH_US: u64 = 2_000_000;
/// Files of faults that are kept; the oldest go first.
pub const FAULT_FILES_MAX: usize = 32;
/// Frames, and differences, that a report lists.
pub const LISTED_MAX: usize = 16;

// As `Guard::state_bytes_max` has it, for the largest site there can be.
const HISTORIES_MAX: usize = RATE_SLOTS_MAX + (LIMITS_MAX + RULES_MAX + TRIGGERS_MAX) * CONDITION_TERMS_MAX;
const _: () =
    assert!(STATE_BYTES_MIN + HISTORIES_MAX * 48 + PENDING_MAX * PENDING_BYTES_MAX < STATE_BYTES_MAX);
