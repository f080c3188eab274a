//! Every bound of the audit log, in one place.

/// Longest line of a log file.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Size after which a new file is begun.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Records waiting for the writer; more are counted as lost and leave a gap record.
pub const RING_RECORDS: usize = 1024;
/// Records of one commit.
pub const BATCH_RECORDS_MAX: usize = 256;
/// Pause between commits.
pub const COMMIT_MS: u64 = 50;
/// Pause after a failed commit.
pub const RETRY_MS: u64 = 500;
/// Files of one log.
pub const FILES_MAX: u32 = 999_999;
