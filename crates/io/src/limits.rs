//! Every bound of the ways in and out, in one place.

use ganglion_site::limits::SENTENCE_BYTES_MAX;

/// First pause before connecting again; it doubles up to [`BACKOFF_MS_MAX`].
pub const BACKOFF_MS_MIN: u64 = 100;
/// Longest pause before connecting again.
pub const BACKOFF_MS_MAX: u64 = 5_000;
/// Time that connecting may take.
pub const CONNECT_MS_MAX: u64 = 2_000;
/// Time that one Modbus request may take; past it the connection is given up.
pub const REQUEST_MS_MAX: u64 = 500;
/// How often the driver looks for commands and completed guard cycles; bounds the delay they meet.
pub const DRIVER_TICK_MS: u64 = 2;
/// Heartbeats per comms watchdog time, at most: faster guard cycles are thinned out to it.
pub const HEARTBEATS_PER_WATCHDOG: u64 = 8;
/// How often the watchdog's state is looked at, per watchdog time.
pub const WATCHDOG_CHECKS_PER_WATCHDOG: u64 = 4;
/// Pause between two attempts to arm.
pub const ARM_RETRY_MS: u64 = 500;
/// Tries to write the safe command to a device that refuses it, and the pause between them.
pub const SAFE_TRIES_MAX: u32 = 3;
/// See [`SAFE_TRIES_MAX`].
pub const SAFE_RETRY_MS: u64 = 20;
/// Commands written between two looks at the rest of the driver's duties.
pub const COMMANDS_PER_TICK_MAX: usize = 8;
/// Registers of one read (functions 3 and 4; MODBUS Application Protocol V1.1b3).
pub const READ_REGISTERS_MAX: u16 = 125;
/// Bits of one read (functions 1 and 2).
pub const READ_BITS_MAX: u16 = 2_000;
/// Bytes of the last error's text.
pub const ERROR_TEXT_BYTES_MAX: usize = 256;
/// Bytes of an input line: a sentence, or tags with a sentence behind them.
pub const LINE_BYTES_MAX: usize = 4 * SENTENCE_BYTES_MAX;
/// Bytes of a script or CSV file.
pub const SCRIPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Items of a script, rows of a CSV file.
pub const SCRIPT_ITEMS_MAX: usize = 1_000_000;
/// Columns of a CSV file.
pub const COLUMNS_MAX: usize = 256;
/// Latest time a script line may ask for.
pub const SCRIPT_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Input items that wait for the guard.
pub const INPUT_QUEUE_MAX: usize = 64;

const _: () = assert!(BACKOFF_MS_MIN > 0 && BACKOFF_MS_MIN <= BACKOFF_MS_MAX);
const _: () = assert!(LINE_BYTES_MAX >= SENTENCE_BYTES_MAX);
