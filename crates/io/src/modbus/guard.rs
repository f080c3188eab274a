//! The guard's ends, as the driver sees them.

use crate::modbus::{CommandSource, CycleWatch, Link, Quality, TagSink, WriteFailure};
use ganglion_guard::{Actuation, DeviceWatchdog, Signals, TagSample};
use ganglion_site::{Command, Micros};

impl TagSink for Signals {
    fn publish(&self, tag: usize, value: f64, quality: Quality, time_us: Micros) {
        if quality.is_good() {
            self.tags.write(tag, TagSample::good(value, time_us));
        } else {
            self.tags.mark_bad(tag);
        }
    }

    fn link_changed(&self, link: &Link) {
        let watchdog = if link.is_tripped() {
            DeviceWatchdog::Tripped
        } else if link.is_armed() {
            DeviceWatchdog::Armed
        } else {
            DeviceWatchdog::Off
        };
        self.set_link(ganglion_guard::Link {
            connected: link.is_connected(),
            watchdog,
            heartbeat_ack_us: link.heartbeat_ack_us(),
        });
    }
}

impl CycleWatch for Signals {
    fn cycles(&self) -> u64 {
        self.heartbeats()
    }

    /// Arming moves nothing, and the guard itself decides whether it acts again.
    fn may_arm(&self) -> bool {
        true
    }
}

impl CommandSource for rtrb::Consumer<Actuation> {
    fn next_command(&mut self) -> Option<Actuation> {
        self.pop().ok()
    }

    /// The link's status has the failure; a source of one's own can do more.
    fn written(&mut self, _: &Command, _: Result<(), WriteFailure>) {}
}
