//! A belt that brings parts, one at a time, to an inspection point.
//!
//! | table | address | meaning |
//! |---|---|---|
//! | holding | 0 | verdict on the part that waits: 1 accept, 2 reject, 3 stop the belt; reads 0, taken at once |
//! | holding | 1 | belt speed, % (0 stops, more than 0 starts) |
//! | input | 0 | torque, 0.1 Nm |
//! | input | 1 | tool wear, min |
//! | input | 2 | rotational speed, rpm |
//! | input | 3 | air temperature, 0.02 K |
//! | input | 4 | number of the part, counted from 1, wraps at 65536 |
//! | input | 10..13 | parts accepted, rejected, stops, parts that left without a verdict (all wrap at 65536) |
//! | discrete | 0 | belt runs |
//! | discrete | 1 | a part waits for its verdict |
//! | coil | 0 | signal lamp |

use crate::device::{Exception, Process};
use crate::parts::{Part, PartSource};

const VERDICT_ACCEPT: u16 = 1;
const VERDICT_REJECT: u16 = 2;
const VERDICT_STOP: u16 = 3;
const BELT_PERCENT_MAX: u16 = 100;
/// Between two parts at full speed.
const PART_S: f64 = 2.0;

pub(crate) struct Conveyor {
    source: PartSource,
    part: Part,
    number: u16,
    waiting: bool,
    belt_percent: u16,
    /// Share of the way to the next part, 0 to 1.
    progress: f64,
    accepted: u16,
    rejected: u16,
    stops: u16,
    unjudged: u16,
    lamp: bool,
}

impl Conveyor {
    pub(crate) fn new(seed: u64, parts: Vec<Part>) -> Self {
        let mut source = PartSource::new(seed, parts);
        let part = source.next_part();
        Self {
            source,
            part,
            number: 1,
            waiting: true,
            belt_percent: BELT_PERCENT_MAX,
            progress: 0.0,
            accepted: 0,
            rejected: 0,
            stops: 0,
            unjudged: 0,
            lamp: false,
        }
    }

    fn judge(&mut self, verdict: u16) {
        match verdict {
            VERDICT_ACCEPT if self.waiting => {
                self.accepted = self.accepted.wrapping_add(1);
                self.waiting = false;
            }
            VERDICT_REJECT if self.waiting => {
                self.rejected = self.rejected.wrapping_add(1);
                self.waiting = false;
            }
            VERDICT_STOP => {
                self.stops = self.stops.wrapping_add(1);
                self.belt_percent = 0;
            }
            // A verdict with no part waiting has nothing to act on.
            _ => {}
        }
    }
}

impl Process for Conveyor {
    fn step(&mut self, dt_s: f64) {
        self.progress += dt_s / PART_S * f64::from(self.belt_percent) / f64::from(BELT_PERCENT_MAX);
        if self.progress < 1.0 {
            return;
        }
        self.progress -= 1.0;
        if self.waiting {
            self.unjudged = self.unjudged.wrapping_add(1);
        }
        self.part = self.source.next_part();
        self.number = self.number.wrapping_add(1);
        self.waiting = true;
    }

    fn holding(&self, address: u16) -> Option<u16> {
        match address {
            0 => Some(0),
            1 => Some(self.belt_percent),
            _ => None,
        }
    }

    fn check_holding(&self, address: u16, value: u16) -> Result<(), Exception> {
        let good = match address {
            0 => value <= VERDICT_STOP,
            1 => value <= BELT_PERCENT_MAX,
            _ => return Err(Exception::IllegalDataAddress),
        };
        if good { Ok(()) } else { Err(Exception::IllegalDataValue) }
    }

    fn set_holding(&mut self, address: u16, value: u16) {
        match address {
            0 => self.judge(value),
            1 => self.belt_percent = value,
            _ => {}
        }
    }

    fn input(&self, address: u16) -> Option<u16> {
        match address {
            0 => Some(self.part.torque_raw()),
            1 => Some(self.part.wear_raw()),
            2 => Some(self.part.speed_raw()),
            3 => Some(self.part.air_temperature_raw()),
            4 => Some(self.number),
            10 => Some(self.accepted),
            11 => Some(self.rejected),
            12 => Some(self.stops),
            13 => Some(self.unjudged),
            _ => None,
        }
    }

    fn discrete(&self, address: u16) -> Option<bool> {
        match address {
            0 => Some(self.belt_percent > 0),
            1 => Some(self.waiting),
            _ => None,
        }
    }

    fn coil(&self, address: u16) -> Option<bool> {
        (address == 0).then_some(self.lamp)
    }

    fn set_coil(&mut self, address: u16, on: bool) {
        if address == 0 {
            self.lamp = on;
        }
    }

    fn make_safe(&mut self) {
        self.belt_percent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_once_whatever_is_written() {
        let mut belt = Conveyor::new(1, Vec::new());
        belt.set_holding(0, VERDICT_ACCEPT);
        belt.set_holding(0, VERDICT_ACCEPT);
        belt.set_holding(0, VERDICT_REJECT);
        assert_eq!((belt.input(10), belt.input(11)), (Some(1), Some(0)));
        for _ in 0..61 {
            belt.step(0.1);
        }
        assert_eq!((belt.input(4), belt.input(13)), (Some(4), Some(2)));
        belt.set_holding(0, VERDICT_REJECT);
        assert_eq!(belt.input(11), Some(1));
    }

    #[test]
    fn a_slow_belt_brings_fewer_parts_and_a_stopped_one_none() {
        let parts_after = |percent: u16| {
            let mut belt = Conveyor::new(1, Vec::new());
            belt.set_holding(1, percent);
            (0..1000).for_each(|_| belt.step(0.1));
            belt.number
        };
        assert!((50..=51).contains(&parts_after(100)));
        assert!((20..=21).contains(&parts_after(40)));
        assert_eq!(parts_after(0), 1);
    }

    #[test]
    fn stop_is_taken_and_a_new_belt_speed_starts_again() {
        let mut belt = Conveyor::new(1, Vec::new());
        belt.set_holding(0, VERDICT_STOP);
        assert_eq!((belt.discrete(0), belt.input(12), belt.holding(0)), (Some(false), Some(1), Some(0)));
        belt.set_holding(1, 50);
        assert_eq!(belt.discrete(0), Some(true));
    }
}
