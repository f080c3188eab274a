//! The state of the connection, shared between driver, guard and status page.

use crate::limits::ERROR_TEXT_BYTES_MAX;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Written by the driver. The `is_` and `_count` methods take no lock, so the guard's cycle may call them.
#[derive(Debug, Default)]
pub struct Link {
    connected: AtomicBool,
    armed: AtomicBool,
    tripped: AtomicBool,
    connections: AtomicU64,
    trips: AtomicU64,
    exceptions: AtomicU64,
    heartbeat_ack_us: AtomicU64,
    last_error: Mutex<String>,
}

/// A [`Link`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStatus {
    /// There is a connection.
    pub connected: bool,
    /// The device's comms watchdog runs.
    pub armed: bool,
    /// The device's comms watchdog has tripped and was not armed again since.
    pub tripped: bool,
    /// Connections made after the first.
    pub reconnect_count: u64,
    /// Trips seen.
    pub trip_count: u64,
    /// Requests that the device refused.
    pub exception_count: u64,
    /// What last went wrong, empty if nothing did.
    pub last_error: String,
}

impl Link {
    /// There is a connection.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// The device's comms watchdog runs.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// The device's comms watchdog has tripped and was not armed again since.
    pub fn is_tripped(&self) -> bool {
        self.tripped.load(Ordering::Acquire)
    }

    /// Trips seen; a trip that came and went between two looks still shows here.
    pub fn trip_count(&self) -> u64 {
        self.trips.load(Ordering::Acquire)
    }

    /// When the last heartbeat that the device confirmed was sent, in microseconds of the driver's clock; 0 = none yet.
    pub fn heartbeat_ack_us(&self) -> u64 {
        self.heartbeat_ack_us.load(Ordering::Acquire)
    }

    /// Everything, for people. Takes a lock: not for the guard's cycle.
    pub fn status(&self) -> LinkStatus {
        LinkStatus {
            connected: self.is_connected(),
            armed: self.is_armed(),
            tripped: self.is_tripped(),
            reconnect_count: self.connections.load(Ordering::Acquire).saturating_sub(1),
            trip_count: self.trip_count(),
            exception_count: self.exceptions.load(Ordering::Acquire),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn set_connected(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
        self.connected.store(true, Ordering::Release);
    }

    pub(super) fn set_disconnected(&self, why: &str) {
        self.armed.store(false, Ordering::Release);
        self.connected.store(false, Ordering::Release);
        self.report(why);
    }

    pub(super) fn set_armed(&self) {
        self.tripped.store(false, Ordering::Release);
        self.armed.store(true, Ordering::Release);
    }

    pub(super) fn set_disarmed(&self, why: &str) {
        self.armed.store(false, Ordering::Release);
        self.report(why);
    }

    pub(super) fn set_tripped(&self) {
        self.armed.store(false, Ordering::Release);
        if !self.tripped.swap(true, Ordering::AcqRel) {
            self.trips.fetch_add(1, Ordering::AcqRel);
            self.report("the plant's comms watchdog tripped: it went to its own safe state");
        }
    }

    pub(super) fn set_heartbeat_ack(&self, sent_us: u64) {
        self.heartbeat_ack_us.store(sent_us, Ordering::Release);
    }

    pub(super) fn count_exception(&self) {
        self.exceptions.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn report(&self, error: &str) {
        let end = (0..=error.len().min(ERROR_TEXT_BYTES_MAX)).rev().find(|&i| error.is_char_boundary(i));
        let mut text = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        text.clear();
        text.push_str(error.get(..end.unwrap_or(0)).unwrap_or(""));
    }
}
