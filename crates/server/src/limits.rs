//! Every bound of the HTTP server, in one place.

/// Bytes of a request body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Connections at once; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 64;
/// Requests under way at once; one more is answered 503.
pub const REQUESTS_MAX: usize = 16;
/// Time from a request's head to its answer, reading the body included.
pub const REQUEST_MS_MAX: u64 = 15_000;
/// A connection on which nothing moves for so long, either way, is closed.
pub const IDLE_MS_MAX: u64 = 30_000;
/// Largest deadline that a request may ask for.
pub const DEADLINE_MS_MAX: u32 = 10_000;
/// Sentences of one request.
pub const PARTS_MAX: usize = 8;
/// Bytes of a `cache_salt`.
pub const SALT_BYTES_MAX: usize = 256;
/// Fields of a streamed answer that wait for the client; later ones are left out.
pub const FIELDS_WAITING_MAX: usize = 32;
/// Events of a mission that wait for the client; later ones are left out, but for the answer.
pub const MISSION_EVENTS_WAITING_MAX: usize = 256;
/// Pause between two signs of life while a mission says nothing.
pub const KEEP_ALIVE_MS: u64 = 10_000;
/// Time that open connections get to finish after shutdown was asked for.
pub const SHUTDOWN_MS_MAX: u64 = 2_000;

const _: () =
    assert!(REQUEST_MS_MAX > DEADLINE_MS_MAX as u64, "an answer at its deadline must still get out");
const _: () = assert!(IDLE_MS_MAX > REQUEST_MS_MAX, "waiting for an answer is not idling");
const _: () = assert!(IDLE_MS_MAX > KEEP_ALIVE_MS, "nor is waiting for a mission's next step");
