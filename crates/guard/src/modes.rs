//! How the guard moves its mode machine: severity first, then finished work, then the link, then the operator.

use crate::breaker::BreakerState;
use crate::guard::Guard;
use crate::mode::{Mode, ModeEvent};
use crate::status::{DeviceWatchdog, Input, Link, OperatorCommand, Severity};
use crate::text::reason;
use ganglion_audit::RecordKind;
use ganglion_site::{Micros, Reason};

impl Guard {
    /// One cycle of the mode machine.
    pub(crate) fn run_modes(&mut self, input: &Input<'_>) {
        let link_ok = self.link_fault().is_none();
        self.owe_safe_after_reconnect();
        if input.estop || input.operator == Some(OperatorCommand::Abort) {
            self.latch = Severity::EmergencyStop;
        } else if self.sense.trips != 0 {
            self.latch = self.latch.max(Severity::Trip);
        }
        // While Aborted and not cleared, the latch keeps it there; the event does not apply again.
        if self.latch >= Severity::Trip {
            self.fire(ModeEvent::Abort, reason!("{}", self.latch.as_str()));
        }
        if self.work_is_done(link_ok) {
            self.fire(ModeEvent::StateComplete, Reason::EMPTY);
        }
        if self.mode == Mode::Execute && !link_ok {
            self.held_by_link = true;
            let why = self.link_fault().unwrap_or(Reason::EMPTY);
            self.fire(ModeEvent::Hold, why);
        } else if self.mode == Mode::Held && self.held_by_link && link_ok {
            self.held_by_link = false;
            self.fire(ModeEvent::Unhold, reason!("the plant is connected and its watchdog armed again"));
        }
        if let Some(command) = input.operator {
            self.obey(command, input.estop);
        }
    }

    fn obey(&mut self, command: OperatorCommand, estop: bool) {
        match command {
            // Fired by the latch above.
            OperatorCommand::Abort => return,
            OperatorCommand::Clear if self.mode == Mode::Aborted => {
                if estop {
                    return self.refuse_operator(command, reason!("the emergency stop is still pressed"));
                }
                if let Some(why) = self.sense.first_trip(&self.site) {
                    return self.refuse_operator(command, why);
                }
                self.latch = Severity::Nominal;
            }
            // The operator's pause outlasts the link's.
            OperatorCommand::Hold if matches!(self.mode, Mode::Held | Mode::Holding) && self.held_by_link => {
                self.held_by_link = false;
                return self.notice(RecordKind::Mode, reason!("Held by the operator; Unhold to resume"));
            }
            _ => {}
        }
        if !self.fire(command.event(), reason!("operator")) {
            let why = reason!("it does not apply in {}", self.mode.as_str());
            self.refuse_operator(command, why);
        }
    }

    fn refuse_operator(&mut self, command: OperatorCommand, why: Reason) {
        self.counters.refused_commands += 1;
        self.notice(RecordKind::Mode, reason!("{} refused: {}", command.event().as_str(), why.as_str()));
    }

    /// Applies one event; `false` when it does not apply.
    fn fire(&mut self, event: ModeEvent, why: Reason) -> bool {
        let Some(next) = self.mode.on(event) else { return false };
        let from = self.mode;
        self.mode = next;
        match next {
            Mode::Stopping | Mode::Aborting => {
                self.safe_owed = true;
                self.safe_latched = true;
                self.held_by_link = false;
            }
            Mode::Starting => self.safe_latched = false,
            _ => {}
        }
        let text = match why.as_str() {
            "" => reason!("{} → {}", from.as_str(), next.as_str()),
            why => reason!("{} → {}: {why}", from.as_str(), next.as_str()),
        };
        self.notice(RecordKind::Mode, text);
        true
    }

    /// Whether an acting state has done what it is for.
    fn work_is_done(&self, link_ok: bool) -> bool {
        match self.mode {
            Mode::Clearing | Mode::Resetting | Mode::Holding | Mode::Suspending | Mode::Completing => true,
            // Without an armed link the device's own watchdog stops it; the safe command stays owed until it is armed.
            Mode::Stopping | Mode::Aborting => !self.safe_owed || !self.can_write(),
            Mode::Starting | Mode::Unholding | Mode::Unsuspending => {
                link_ok && self.times.trip_mask & !self.sense.usable == 0
            }
            Mode::Stopped
            | Mode::Idle
            | Mode::Suspended
            | Mode::Execute
            | Mode::Aborted
            | Mode::Held
            | Mode::Complete => false,
        }
    }

    /// A stop or abort whose write may have died with the connection is sent again once the next one is armed.
    fn owe_safe_after_reconnect(&mut self) {
        let up = self.link_is_up();
        if up != self.link_was_up {
            let word = if up { "connected" } else { "not connected" };
            self.notice(RecordKind::Link, reason!("the plant is {word}"));
        }
        self.link_was_up = up;
        let can_write = self.can_write();
        if can_write && !self.could_write && self.safe_latched {
            self.safe_owed = true;
        }
        self.could_write = can_write;
    }

    /// Whether the transport is up.
    fn link_is_up(&self) -> bool {
        self.site.plant.is_none() || self.link.connected
    }

    /// Whether the driver takes a write: it refuses every command until the device's watchdog is armed.
    pub(crate) fn can_write(&self) -> bool {
        self.link_is_up()
            && self.sole_writer
            && (self.site.plant.is_none() || self.link.watchdog == DeviceWatchdog::Armed)
    }

    /// Why no command may go to the plant now; a site without a plant has nothing to lose.
    pub(crate) fn link_fault(&self) -> Option<Reason> {
        let plant = self.site.plant.as_ref()?;
        if !self.sole_writer {
            return Some(reason!("another process of this machine writes to the plant at {}", plant.modbus));
        }
        let Link { connected, watchdog, heartbeat_ack_us } = self.link;
        if !connected {
            return Some(reason!("the plant at {} is not connected", plant.modbus));
        }
        match watchdog {
            DeviceWatchdog::Off => return Some(reason!("the plant's watchdog is not armed")),
            DeviceWatchdog::Tripped => {
                return Some(reason!("the plant's watchdog has tripped; it must be armed again"));
            }
            DeviceWatchdog::Armed => {}
        }
        let age_us = self.now.saturating_sub(heartbeat_ack_us);
        if age_us > Micros::from(plant.watchdog_ms) * 1000 {
            return Some(reason!("the plant has acknowledged no heartbeat for {} ms", age_us / 1000));
        }
        None
    }

    /// The worst condition and its sentence.
    pub(crate) fn severity(&self) -> (Severity, Reason) {
        if self.latch >= Severity::Trip {
            let text = match (self.latch, self.sense.first_trip(&self.site)) {
                (Severity::EmergencyStop, _) => reason!("emergency stop latched; Clear to leave Aborted"),
                (_, Some(trip)) => trip,
                (_, None) => reason!("a trip is latched though its cause is gone; Clear to leave Aborted"),
            };
            return (self.latch, text);
        }
        if let Some(text) = self.link_fault() {
            return (Severity::LinkLost, text);
        }
        if let Some(text) = self.sense.first_unusable(&self.site, self.times.trip_mask) {
            return (Severity::Fault, text);
        }
        if self.breaker.state() != BreakerState::Closed || !self.brain.ready() {
            let (breaker, brain) = (self.breaker.state().as_str(), self.brain.state().as_str());
            return (
                Severity::Degraded,
                reason!("rule controller answers: breaker {breaker}, brain {brain}"),
            );
        }
        let alarm = self.sense.first_alarm(&self.site);
        match alarm.or_else(|| self.sense.first_unusable(&self.site, self.prompt_needed())) {
            Some(text) => (Severity::Alarm, text),
            None => (Severity::Nominal, Reason::EMPTY),
        }
    }
}
