//! What every plant has in common: a register map, the comms watchdog, and the exceptions of a Modbus device.

use crate::conveyor::Conveyor;
use crate::hvac::Hvac;
use crate::inspection::Inspection;
use crate::limits::{STEP_MS, STEPS_PER_ADVANCE_MAX};

/// Holding register that the master counts up.
pub const HEARTBEAT: u16 = 100;
/// Holding register with the comms watchdog time in ms, 0 = off.
pub const WATCHDOG_MS: u16 = 101;
/// Input register with the watchdog's state, see [`WatchdogState`].
pub const WATCHDOG_STATE: u16 = 100;

/// Value of input register [`WATCHDOG_STATE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchdogState {
    /// Register 0: outputs hold their last value whatever happens to the master.
    Off,
    /// Register 1: a heartbeat that stops changing for the set time trips it.
    Armed,
    /// Register 2: the plant is in its safe state and refuses commands until [`WATCHDOG_MS`] is set to 0 and then
    /// to a time.
    Tripped,
}

/// A refused request (MODBUS Application Protocol V1.1b3, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// Code 1.
    IllegalFunction,
    /// Code 2.
    IllegalDataAddress,
    /// Code 3.
    IllegalDataValue,
    /// Code 4: the watchdog has tripped.
    DeviceFailure,
}

impl Exception {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::IllegalFunction => 1,
            Self::IllegalDataAddress => 2,
            Self::IllegalDataValue => 3,
            Self::DeviceFailure => 4,
        }
    }
}

/// A simulated process: its registers and how they move. Implementations own their state; nothing reads a clock.
pub(crate) trait Process: Send {
    /// Advances by one fixed step of model time.
    fn step(&mut self, dt_s: f64);
    /// What a holding register reads, `None` = no such register.
    fn holding(&self, address: u16) -> Option<u16>;
    /// Checks a write without doing it.
    fn check_holding(&self, address: u16, value: u16) -> Result<(), Exception>;
    /// Does a write that [`Process::check_holding`] passed.
    fn set_holding(&mut self, address: u16, value: u16);
    /// What an input register reads.
    fn input(&self, address: u16) -> Option<u16>;
    /// What a discrete input reads.
    fn discrete(&self, address: u16) -> Option<bool>;
    /// What a coil reads.
    fn coil(&self, address: u16) -> Option<bool>;
    /// Sets a coil that exists.
    fn set_coil(&mut self, address: u16, on: bool);
    /// Everything that could do harm off.
    fn make_safe(&mut self);
}

/// A plant: one process with heartbeat and watchdog around it. Time is an argument; see [`Plant::advance`].
pub struct Plant {
    process: Box<dyn Process>,
    heartbeat: u16,
    watchdog_ms: u16,
    watchdog: WatchdogState,
    silence_us: u64,
    model_us: u64,
}

impl Plant {
    /// Three rooms; `seed` fixes every disturbance.
    pub fn hvac(seed: u64) -> Self {
        Self::around(Box::new(Hvac::new(seed)))
    }

    /// A belt; parts come from `parts` in turn, over and over, or from a generator when there are none.
    pub fn conveyor(seed: u64, parts: Vec<crate::Part>) -> Self {
        Self::around(Box::new(Conveyor::new(seed, parts)))
    }

    /// A robot among valves; `seed` fixes its speeds and times.
    pub fn inspection(seed: u64) -> Self {
        Self::around(Box::new(Inspection::new(seed)))
    }

    fn around(process: Box<dyn Process>) -> Self {
        let watchdog = WatchdogState::Off;
        Self { process, heartbeat: 0, watchdog_ms: 0, watchdog, silence_us: 0, model_us: 0 }
    }

    /// Lets `real_us` microseconds pass for the watchdog and `model_us` for the process.
    pub fn advance(&mut self, real_us: u64, model_us: u64) {
        if self.watchdog == WatchdogState::Armed {
            self.silence_us = self.silence_us.saturating_add(real_us);
            if self.silence_us > u64::from(self.watchdog_ms) * 1000 {
                self.watchdog = WatchdogState::Tripped;
                self.process.make_safe();
            }
        }
        let step_us = u64::from(STEP_MS) * 1000;
        self.model_us =
            self.model_us.saturating_add(model_us).min(step_us.saturating_mul(STEPS_PER_ADVANCE_MAX.into()));
        while self.model_us >= step_us {
            self.model_us -= step_us;
            self.process.step(f64::from(STEP_MS) / 1000.0);
        }
    }

    /// State of the comms watchdog.
    pub fn watchdog(&self) -> WatchdogState {
        self.watchdog
    }

    /// Function 3 for one register.
    ///
    /// # Errors
    /// [`Exception::IllegalDataAddress`] when there is none.
    pub fn holding(&self, address: u16) -> Result<u16, Exception> {
        match address {
            HEARTBEAT => Ok(self.heartbeat),
            WATCHDOG_MS => Ok(self.watchdog_ms),
            _ => self.process.holding(address).ok_or(Exception::IllegalDataAddress),
        }
    }

    /// Function 4 for one register.
    ///
    /// # Errors
    /// [`Exception::IllegalDataAddress`] when there is none.
    pub fn input(&self, address: u16) -> Result<u16, Exception> {
        match address {
            WATCHDOG_STATE => Ok(match self.watchdog {
                WatchdogState::Off => 0,
                WatchdogState::Armed => 1,
                WatchdogState::Tripped => 2,
            }),
            _ => self.process.input(address).ok_or(Exception::IllegalDataAddress),
        }
    }

    /// Function 2 for one bit.
    ///
    /// # Errors
    /// [`Exception::IllegalDataAddress`] when there is none.
    pub fn discrete(&self, address: u16) -> Result<bool, Exception> {
        self.process.discrete(address).ok_or(Exception::IllegalDataAddress)
    }

    /// Function 1 for one bit.
    ///
    /// # Errors
    /// [`Exception::IllegalDataAddress`] when there is none.
    pub fn coil(&self, address: u16) -> Result<bool, Exception> {
        self.process.coil(address).ok_or(Exception::IllegalDataAddress)
    }

    /// Functions 6 and 16: all of `values` from `address` on, or none of them.
    ///
    /// # Errors
    /// The exception that the first unacceptable register meets.
    pub fn write_holding(&mut self, address: u16, values: &[u16]) -> Result<(), Exception> {
        for (place, value) in addressed(address, values)? {
            self.check_holding(place, *value)?;
        }
        for (place, value) in addressed(address, values)? {
            self.set_holding(place, *value);
        }
        Ok(())
    }

    /// Functions 5 and 15: all of `values` from `address` on, or none of them.
    ///
    /// # Errors
    /// The exception that the first unacceptable coil meets.
    pub fn write_coils(&mut self, address: u16, values: &[bool]) -> Result<(), Exception> {
        for (place, _) in addressed(address, values)? {
            self.coil(place)?;
        }
        if self.watchdog == WatchdogState::Tripped {
            return Err(Exception::DeviceFailure);
        }
        for (place, on) in addressed(address, values)? {
            self.process.set_coil(place, *on);
        }
        Ok(())
    }

    fn check_holding(&self, address: u16, value: u16) -> Result<(), Exception> {
        let tripped = self.watchdog == WatchdogState::Tripped;
        match address {
            HEARTBEAT => Ok(()),
            // Clearing a trip is its own, deliberate write of 0.
            WATCHDOG_MS if tripped && value != 0 => Err(Exception::IllegalDataValue),
            WATCHDOG_MS => Ok(()),
            _ => {
                self.process.check_holding(address, value)?;
                if tripped { Err(Exception::DeviceFailure) } else { Ok(()) }
            }
        }
    }

    fn set_holding(&mut self, address: u16, value: u16) {
        match address {
            HEARTBEAT => {
                if value != self.heartbeat {
                    self.silence_us = 0;
                }
                self.heartbeat = value;
            }
            WATCHDOG_MS => {
                self.watchdog_ms = value;
                self.silence_us = 0;
                self.watchdog = if value == 0 { WatchdogState::Off } else { WatchdogState::Armed };
            }
            _ => self.process.set_holding(address, value),
        }
    }
}

/// Pairs values with their addresses; running past the last address is illegal.
fn addressed<T>(address: u16, values: &[T]) -> Result<impl Iterator<Item = (u16, &T)>, Exception> {
    let count = u16::try_from(values.len()).map_err(|_| Exception::IllegalDataValue)?;
    if count > 0 && address.checked_add(count - 1).is_none() {
        return Err(Exception::IllegalDataAddress);
    }
    Ok((address..=u16::MAX).zip(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_MS: u64 = 1000;

    #[test]
    fn the_watchdog_trips_without_a_changing_heartbeat_and_needs_two_writes_to_rearm() {
        let mut plant = Plant::hvac(1);
        plant.write_holding(10, &[1]).unwrap();
        plant.advance(10_000 * ONE_MS, 0);
        assert_eq!(plant.watchdog(), WatchdogState::Off, "an unarmed device holds its outputs");
        assert_eq!(plant.holding(10), Ok(1));

        plant.write_holding(WATCHDOG_MS, &[500]).unwrap();
        for beat in 1..=20 {
            plant.write_holding(HEARTBEAT, &[beat]).unwrap();
            plant.advance(400 * ONE_MS, 0);
        }
        assert_eq!(plant.input(WATCHDOG_STATE), Ok(1));
        plant.write_holding(HEARTBEAT, &[20]).unwrap();
        plant.advance(101 * ONE_MS, 0);
        assert_eq!(plant.input(WATCHDOG_STATE), Ok(2), "the same number again is no heartbeat");
        assert_eq!(plant.holding(10), Ok(0), "the safe state switches off");

        plant.write_holding(HEARTBEAT, &[21]).unwrap();
        assert_eq!(plant.write_holding(10, &[1]), Err(Exception::DeviceFailure));
        assert_eq!(plant.write_holding(WATCHDOG_MS, &[500]), Err(Exception::IllegalDataValue));
        plant.write_holding(WATCHDOG_MS, &[0]).unwrap();
        plant.write_holding(WATCHDOG_MS, &[500]).unwrap();
        assert_eq!(plant.input(WATCHDOG_STATE), Ok(1));
        assert_eq!(plant.holding(10), Ok(0), "arming again starts nothing");
    }

    #[test]
    fn a_multiple_write_is_all_or_nothing() {
        let mut plant = Plant::hvac(1);
        let before = plant.holding(2).unwrap();
        assert_eq!(plant.write_holding(2, &[250, 1]), Err(Exception::IllegalDataAddress));
        assert_eq!(plant.holding(2), Ok(before));
        assert_eq!(plant.write_holding(u16::MAX, &[1, 2]), Err(Exception::IllegalDataAddress));
        assert_eq!(plant.write_holding(20, &[101]), Err(Exception::IllegalDataValue));
    }
}
