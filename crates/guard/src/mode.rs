//! The mode machine: PackML states, every (state, event) pair defined.
//!
//! Numbers are those of ISA-TR88.00.02 (PackML `StateCurrent`), where Execute is 6 and Aborted is 9. Other numberings are
//! in use elsewhere; a PackML client expects these.

/// A PackML state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Mode {
    /// Faults are being cleared.
    Clearing = 1,
    /// At rest after start-up, stop or clear.
    Stopped = 2,
    /// Waiting for the plant link, the armed device watchdog and readable trip tags.
    Starting = 3,
    /// Reset and ready for Start.
    Idle = 4,
    /// Paused for an outside reason.
    Suspended = 5,
    /// The only mode in which a decision may reach the plant.
    Execute = 6,
    /// The safe command is on its way, by the operator's wish.
    Stopping = 7,
    /// The safe command is on its way, because of a trip or the emergency stop.
    Aborting = 8,
    /// Latched; left only by an explicit Clear.
    Aborted = 9,
    /// On the way to Held.
    Holding = 10,
    /// Paused by the operator or by a lost link; no decision reaches the plant.
    Held = 11,
    /// On the way back to Execute.
    Unholding = 12,
    /// On the way to Suspended.
    Suspending = 13,
    /// On the way back to Execute.
    Unsuspending = 14,
    /// On the way to Idle.
    Resetting = 15,
    /// On the way to Complete.
    Completing = 16,
    /// The job is done.
    Complete = 17,
}

/// What may move the mode machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModeEvent {
    /// Idle → Starting.
    Start,
    /// Execute → Holding.
    Hold,
    /// Held → Unholding.
    Unhold,
    /// Execute → Suspending.
    Suspend,
    /// Suspended → Unsuspending.
    Unsuspend,
    /// Anything that is not stopped or aborted → Stopping.
    Stop,
    /// Stopped or Complete → Resetting.
    Reset,
    /// Aborted → Clearing.
    Clear,
    /// Anything that is not aborted → Aborting.
    Abort,
    /// Execute → Completing.
    Complete,
    /// An acting state has done its work.
    StateComplete,
}

impl Mode {
    /// All states, by number.
    pub const ALL: [Self; 17] = [
        Self::Clearing,
        Self::Stopped,
        Self::Starting,
        Self::Idle,
        Self::Suspended,
        Self::Execute,
        Self::Stopping,
        Self::Aborting,
        Self::Aborted,
        Self::Holding,
        Self::Held,
        Self::Unholding,
        Self::Suspending,
        Self::Unsuspending,
        Self::Resetting,
        Self::Completing,
        Self::Complete,
    ];

    /// The PackML name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clearing => "Clearing",
            Self::Stopped => "Stopped",
            Self::Starting => "Starting",
            Self::Idle => "Idle",
            Self::Suspended => "Suspended",
            Self::Execute => "Execute",
            Self::Stopping => "Stopping",
            Self::Aborting => "Aborting",
            Self::Aborted => "Aborted",
            Self::Holding => "Holding",
            Self::Held => "Held",
            Self::Unholding => "Unholding",
            Self::Suspending => "Suspending",
            Self::Unsuspending => "Unsuspending",
            Self::Resetting => "Resetting",
            Self::Completing => "Completing",
            Self::Complete => "Complete",
        }
    }

    /// The PackML `StateCurrent` value.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The state after `event`; `None` when the event does not apply and the state stays.
    pub fn on(self, event: ModeEvent) -> Option<Self> {
        use Mode as M;
        match event {
            ModeEvent::Start => (self == M::Idle).then_some(M::Starting),
            ModeEvent::Hold => (self == M::Execute).then_some(M::Holding),
            ModeEvent::Unhold => (self == M::Held).then_some(M::Unholding),
            ModeEvent::Suspend => (self == M::Execute).then_some(M::Suspending),
            ModeEvent::Unsuspend => (self == M::Suspended).then_some(M::Unsuspending),
            ModeEvent::Complete => (self == M::Execute).then_some(M::Completing),
            ModeEvent::Clear => (self == M::Aborted).then_some(M::Clearing),
            ModeEvent::Reset => matches!(self, M::Stopped | M::Complete).then_some(M::Resetting),
            ModeEvent::Abort => (!matches!(self, M::Aborting | M::Aborted)).then_some(M::Aborting),
            ModeEvent::Stop => {
                let at_rest =
                    matches!(self, M::Stopping | M::Stopped | M::Aborting | M::Aborted | M::Clearing);
                (!at_rest).then_some(M::Stopping)
            }
            ModeEvent::StateComplete => self.after_work(),
        }
    }

    /// Where an acting state leads once its work is done; `None` for waiting states.
    fn after_work(self) -> Option<Self> {
        match self {
            Self::Clearing | Self::Stopping => Some(Self::Stopped),
            Self::Starting | Self::Unholding | Self::Unsuspending => Some(Self::Execute),
            Self::Aborting => Some(Self::Aborted),
            Self::Holding => Some(Self::Held),
            Self::Suspending => Some(Self::Suspended),
            Self::Resetting => Some(Self::Idle),
            Self::Completing => Some(Self::Complete),
            Self::Stopped
            | Self::Idle
            | Self::Suspended
            | Self::Execute
            | Self::Aborted
            | Self::Held
            | Self::Complete => None,
        }
    }
}

impl ModeEvent {
    /// All events.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Hold,
        Self::Unhold,
        Self::Suspend,
        Self::Unsuspend,
        Self::Stop,
        Self::Reset,
        Self::Clear,
        Self::Abort,
        Self::Complete,
        Self::StateComplete,
    ];

    /// The word used in reasons.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Hold => "Hold",
            Self::Unhold => "Unhold",
            Self::Suspend => "Suspend",
            Self::Unsuspend => "Unsuspend",
            Self::Stop => "Stop",
            Self::Reset => "Reset",
            Self::Clear => "Clear",
            Self::Abort => "Abort",
            Self::Complete => "Complete",
            Self::StateComplete => "StateComplete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, written down apart from the code: rows are states by number, columns `ModeEvent::ALL`.
    /// 0 = the event does not apply.
    const TABLE: [[u8; 11]; 17] = [
        // Start Hold Unhold Susp Unsusp Stop Reset Clear Abort Complete SC
        [0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 2],    // 1 Clearing
        [0, 0, 0, 0, 0, 0, 15, 0, 8, 0, 0],   // 2 Stopped
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 6],    // 3 Starting
        [3, 0, 0, 0, 0, 7, 0, 0, 8, 0, 0],    // 4 Idle
        [0, 0, 0, 0, 14, 7, 0, 0, 8, 0, 0],   // 5 Suspended
        [0, 10, 0, 13, 0, 7, 0, 0, 8, 16, 0], // 6 Execute
        [0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 2],    // 7 Stopping
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],    // 8 Aborting
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],    // 9 Aborted
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 11],   // 10 Holding
        [0, 0, 12, 0, 0, 7, 0, 0, 8, 0, 0],   // 11 Held
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 6],    // 12 Unholding
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 5],    // 13 Suspending
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 6],    // 14 Unsuspending
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 4],    // 15 Resetting
        [0, 0, 0, 0, 0, 7, 0, 0, 8, 0, 17],   // 16 Completing
        [0, 0, 0, 0, 0, 7, 15, 0, 8, 0, 0],   // 17 Complete
    ];

    #[test]
    fn every_state_and_event_is_defined() {
        for (row, mode) in TABLE.iter().zip(Mode::ALL) {
            for (expected, event) in row.iter().zip(ModeEvent::ALL) {
                assert_eq!(mode.on(event).map_or(0, Mode::number), *expected, "{mode:?} on {event:?}");
            }
        }
        for (index, mode) in Mode::ALL.iter().enumerate() {
            assert_eq!(usize::from(mode.number()), index + 1);
        }
    }

    #[test]
    fn aborted_is_left_only_by_clear_and_never_towards_execute() {
        for event in ModeEvent::ALL {
            assert_eq!(Mode::Aborted.on(event).is_some(), event == ModeEvent::Clear, "{event:?}");
        }
        // Clear → Clearing → Stopped; from there a Reset and a Start are needed.
        assert_eq!(Mode::Clearing.on(ModeEvent::StateComplete), Some(Mode::Stopped));
        assert_eq!(Mode::Stopped.on(ModeEvent::Start), None);
    }

    #[test]
    fn a_safe_stop_is_one_step_away_everywhere() {
        for mode in Mode::ALL {
            let aborted = matches!(mode, Mode::Aborting | Mode::Aborted);
            assert_eq!(mode.on(ModeEvent::Abort), (!aborted).then_some(Mode::Aborting), "{mode:?}");
        }
    }
}
