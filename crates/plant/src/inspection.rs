//! A robot on wheels that looks after the valves of a small pipe network.
//!
//! It drives in straight lines, works with one arm, and stands still when its battery is empty. What it is told to do at a
//! valve where it is not, it refuses (exception 3).
//!
//! | table | address | meaning |
//! |---|---|---|
//! | holding | 0 | drive to this place: 0 dock, 1 gallery, 2..6 valve 1 to 5, 7 pump room |
//! | holding | 1 | 1 = charge; at the dock only |
//! | holding | 2 | 1 = halt: leave off whatever is going on; reads 0 |
//! | holding | 10..14 | measure at valve 1 to 5: 0 temperature, 1 pressure, 2 leak |
//! | holding | 20..24 | photograph valve 1 to 5 (any value) |
//! | holding | 30..34 | turn valve 1 to 5: 1 open, 2 closed |
//! | holding | 40 | heat of the boiler beside valve 3, 0.1 C, to be set by whoever plays the plant |
//! | input | 0 | battery, 0.1 % |
//! | input | 1 | last place reached; 255 after a halt on the way |
//! | input | 2, 3 | position x and y, 0.01 m |
//! | input | 4 | temperature beside valve 3, 0.1 C |
//! | input | 5 | pressure in the network, 0.01 bar |
//! | input | 6 | torque of the arm, 0.1 Nm |
//! | input | 7 | last value measured, in its own register's unit |
//! | input | 8 | commands finished, wraps at 65536 |
//! | discrete | 0 | busy |
//! | discrete | 10..14 | valve 1 to 5 is open |
//! | discrete | 20..24 | measured at valve 1 to 5 since the robot came there |
//! | discrete | 30..34 | photographed since the robot came there |

use crate::device::{Exception, Process};
use crate::noise::Noise;

/// Dock, gallery, valve 1 to 5, pump room: x and y in m.
const PLACES_M: [[f64; 2]; 8] =
    [[0.0, 0.0], [4.5, 0.0], [0.0, 3.0], [4.5, 3.0], [9.0, 0.0], [9.0, 3.0], [4.5, -3.0], [0.0, -3.0]];
const DOCK: u16 = 0;
const FIRST_VALVE: u16 = 2;
const VALVES: u16 = 5;
/// Place register of a robot that stands between two places.
const ON_THE_WAY: u16 = 255;
const SPEED_M_PER_MIN: std::ops::Range<f64> = 1.38..1.48;
const MEASURE_S: std::ops::Range<f64> = 35.0..55.0;
const PHOTO_S: std::ops::Range<f64> = 11.0..18.0;
const TURN_S: std::ops::Range<f64> = 22.0..40.0;
/// A battery of half an hour.
const DRIVE_PERCENT_PER_MIN: std::ops::Range<f64> = 3.15..3.35;
const WORK_PERCENT_PER_MIN: std::ops::Range<f64> = 1.6..2.2;
const IDLE_PERCENT_PER_MIN: f64 = 0.05;
const CHARGE_PERCENT_PER_MIN: f64 = 9.5;
const BATTERY_START_PERCENT: f64 = 90.0;
/// Valve 5 is stiff.
const TURN_NM: [f64; VALVES as usize] = [18.0, 22.0, 30.0, 25.0, 58.0];
const BOILER_START_C: f64 = 62.0;
/// Time in which the temperature beside valve 3 follows the boiler's.
const WARM_UP_S: f64 = 60.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Job {
    Idle,
    Drive { to: u16, m_per_min: f64 },
    Charge,
    Measure { quantity: u16, left_s: f64 },
    Photograph { left_s: f64 },
    Turn { open: bool, left_s: f64 },
}

pub(crate) struct Inspection {
    noise: Noise,
    job: Job,
    target: u16,
    place: u16,
    at_m: [f64; 2],
    battery_percent: f64,
    drain_percent_per_min: f64,
    boiler_c: f64,
    hot_c: f64,
    open: [bool; VALVES as usize],
    measured: [bool; VALVES as usize],
    photographed: [bool; VALVES as usize],
    last_measured: u16,
    finished: u16,
}

impl Inspection {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            noise: Noise::new(seed),
            job: Job::Idle,
            target: DOCK,
            place: DOCK,
            at_m: PLACES_M[0],
            battery_percent: BATTERY_START_PERCENT,
            drain_percent_per_min: 0.0,
            boiler_c: BOILER_START_C,
            hot_c: BOILER_START_C,
            open: [false; VALVES as usize],
            measured: [false; VALVES as usize],
            photographed: [false; VALVES as usize],
            last_measured: 0,
            finished: 0,
        }
    }

    fn between(&mut self, range: &std::ops::Range<f64>) -> f64 {
        range.start + (range.end - range.start) * self.noise.uniform()
    }

    /// The valve that an address between `first` and `first + 4` is about, when the robot stands there.
    fn valve_here(&self, address: u16, first: u16) -> Result<usize, Exception> {
        let valve = address - first;
        let there = self.place == FIRST_VALVE + valve && !matches!(self.job, Job::Drive { .. });
        if there { Ok(usize::from(valve)) } else { Err(Exception::IllegalDataValue) }
    }

    fn pressure_bar(&self) -> f64 {
        let open = self.open.iter().filter(|open| **open).count();
        6.0 - 0.7 * open as f64
    }

    fn torque_nm(&self) -> f64 {
        match self.job {
            Job::Turn { .. } => {
                TURN_NM[usize::from(self.place.saturating_sub(FIRST_VALVE)).min(TURN_NM.len() - 1)]
            }
            _ => 0.0,
        }
    }

    fn finish(&mut self) {
        self.job = Job::Idle;
        self.finished = self.finished.wrapping_add(1);
    }

    /// Leaves off; on the way the robot is nowhere in particular.
    fn halt(&mut self) {
        if matches!(self.job, Job::Drive { .. }) {
            self.place = ON_THE_WAY;
        }
        self.job = Job::Idle;
    }

    fn drive(&mut self, dt_s: f64, to: u16, m_per_min: f64) {
        let goal = PLACES_M[usize::from(to)];
        let (dx, dy) = (goal[0] - self.at_m[0], goal[1] - self.at_m[1]);
        let (left_m, step_m) = (dx.hypot(dy), m_per_min / 60.0 * dt_s);
        if left_m > step_m {
            self.at_m = [self.at_m[0] + dx / left_m * step_m, self.at_m[1] + dy / left_m * step_m];
            return;
        }
        self.at_m = goal;
        if self.place != to {
            self.place = to;
            if let Some(valve) = to.checked_sub(FIRST_VALVE).filter(|valve| *valve < VALVES).map(usize::from)
            {
                self.measured[valve] = false;
                self.photographed[valve] = false;
            }
        }
        self.finish();
    }

    fn work(&mut self, dt_s: f64) {
        let valve = usize::from(self.place.saturating_sub(FIRST_VALVE)).min(self.open.len() - 1);
        match self.job {
            Job::Measure { quantity, left_s } if left_s <= dt_s => {
                self.measured[valve] = true;
                self.last_measured = match quantity {
                    0 => register(self.hot_c / 0.1),
                    1 => register(self.pressure_bar() / 0.01),
                    _ => 0,
                };
                self.finish();
            }
            Job::Photograph { left_s } if left_s <= dt_s => {
                self.photographed[valve] = true;
                self.finish();
            }
            Job::Turn { open, left_s } if left_s <= dt_s => {
                self.open[valve] = open;
                self.finish();
            }
            Job::Measure { ref mut left_s, .. }
            | Job::Photograph { ref mut left_s }
            | Job::Turn { ref mut left_s, .. } => *left_s -= dt_s,
            Job::Idle | Job::Drive { .. } | Job::Charge => {}
        }
    }
}

/// A register count, kept inside what a register holds.
fn register(value: f64) -> u16 {
    (value.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16) as u16
}

fn valve_of(address: u16, first: u16) -> Option<usize> {
    address.checked_sub(first).filter(|valve| *valve < VALVES).map(usize::from)
}

impl Process for Inspection {
    fn step(&mut self, dt_s: f64) {
        self.hot_c += (self.boiler_c - self.hot_c) * (dt_s / WARM_UP_S).min(1.0);
        let rate = match self.job {
            Job::Idle => -IDLE_PERCENT_PER_MIN,
            Job::Charge => CHARGE_PERCENT_PER_MIN,
            _ => -self.drain_percent_per_min,
        };
        self.battery_percent = (self.battery_percent + rate / 60.0 * dt_s).clamp(0.0, 100.0);
        if self.battery_percent <= 0.0 {
            self.halt();
        }
        match self.job {
            Job::Drive { to, m_per_min } => self.drive(dt_s, to, m_per_min),
            Job::Charge if self.battery_percent >= 100.0 => self.finish(),
            _ => self.work(dt_s),
        }
    }

    fn holding(&self, address: u16) -> Option<u16> {
        match address {
            0 => Some(self.target),
            1 => Some(u16::from(self.job == Job::Charge)),
            2 | 10..=14 | 20..=24 => Some(0),
            30..=34 => self.open.get(usize::from(address - 30)).map(|open| if *open { 1 } else { 2 }),
            40 => Some(register(self.boiler_c / 0.1)),
            _ => None,
        }
    }

    fn check_holding(&self, address: u16, value: u16) -> Result<(), Exception> {
        let good = match address {
            0 => usize::from(value) < PLACES_M.len(),
            1 => value == 0 || (value == 1 && self.place == DOCK && !matches!(self.job, Job::Drive { .. })),
            2 => value <= 1,
            10..=14 => self.valve_here(address, 10).map(|_| value <= 2)?,
            20..=24 => self.valve_here(address, 20).map(|_| true)?,
            30..=34 => self.valve_here(address, 30).map(|_| (1..=2).contains(&value))?,
            40 => value <= 2000,
            _ => return Err(Exception::IllegalDataAddress),
        };
        if good { Ok(()) } else { Err(Exception::IllegalDataValue) }
    }

    fn set_holding(&mut self, address: u16, value: u16) {
        let drain = if address == 0 { DRIVE_PERCENT_PER_MIN } else { WORK_PERCENT_PER_MIN };
        match address {
            0 => {
                self.target = value;
                let m_per_min = self.between(&SPEED_M_PER_MIN);
                self.job = Job::Drive { to: value, m_per_min };
            }
            1 if value == 1 => self.job = Job::Charge,
            1 if self.job == Job::Charge => self.finish(),
            2 if value == 1 => self.halt(),
            10..=14 => self.job = Job::Measure { quantity: value, left_s: self.between(&MEASURE_S) },
            20..=24 => self.job = Job::Photograph { left_s: self.between(&PHOTO_S) },
            30..=34 => self.job = Job::Turn { open: value == 1, left_s: self.between(&TURN_S) },
            40 => self.boiler_c = f64::from(value) * 0.1,
            _ => {}
        }
        self.drain_percent_per_min = self.between(&drain);
        if let Some(valve) = valve_of(address, 10) {
            self.measured[valve] = false;
        }
        if let Some(valve) = valve_of(address, 20) {
            self.photographed[valve] = false;
        }
    }

    fn input(&self, address: u16) -> Option<u16> {
        match address {
            0 => Some(register(self.battery_percent / 0.1)),
            1 => Some(self.place),
            2 | 3 => Some(register(self.at_m[usize::from(address - 2)] / 0.01)),
            4 => Some(register(self.hot_c / 0.1)),
            5 => Some(register(self.pressure_bar() / 0.01)),
            6 => Some(register(self.torque_nm() / 0.1)),
            7 => Some(self.last_measured),
            8 => Some(self.finished),
            _ => None,
        }
    }

    fn discrete(&self, address: u16) -> Option<bool> {
        if address == 0 {
            return Some(self.job != Job::Idle);
        }
        let flags = [(10, &self.open), (20, &self.measured), (30, &self.photographed)];
        flags.iter().find_map(|(first, flags)| flags.get(valve_of(address, *first)?).copied())
    }

    fn coil(&self, _address: u16) -> Option<bool> {
        None
    }

    fn set_coil(&mut self, _address: u16, _on: bool) {}

    fn make_safe(&mut self) {
        self.halt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(robot: &mut Inspection, seconds: u32) {
        (0..seconds * 10).for_each(|_| robot.step(0.1));
    }

    #[test]
    fn it_drives_no_faster_than_one_and_a_half_metres_a_minute() {
        let mut robot = Inspection::new(3);
        robot.set_holding(0, 1);
        let mut minutes = 0.0;
        while robot.discrete(0) == Some(true) {
            let before = robot.at_m;
            robot.step(0.1);
            minutes += 0.1 / 60.0;
            let way = (robot.at_m[0] - before[0]).hypot(robot.at_m[1] - before[1]);
            assert!(way <= 1.5 / 600.0 + 0.0026, "{way} m in 0.1 s");
        }
        assert_eq!((robot.input(1), robot.input(2)), (Some(1), Some(450)));
        assert!((4.5 / 1.5..4.5 / 1.35).contains(&minutes), "{minutes} min");
        let used = BATTERY_START_PERCENT - robot.battery_percent;
        assert!((minutes * 3.15..minutes * 3.35 + 0.1).contains(&used), "{used} %");
    }

    #[test]
    fn it_works_only_where_it_stands() {
        let mut robot = Inspection::new(1);
        for address in [10, 14, 20, 30] {
            assert_eq!(robot.check_holding(address, 1), Err(Exception::IllegalDataValue), "{address}");
        }
        robot.set_holding(0, 2);
        assert_eq!(robot.check_holding(30, 1), Err(Exception::IllegalDataValue), "not there yet");
        assert_eq!(robot.check_holding(1, 1), Err(Exception::IllegalDataValue), "under way");
        run(&mut robot, 200);
        assert_eq!(robot.check_holding(30, 1), Ok(()));
        robot.set_holding(30, 1);
        robot.step(0.1);
        assert_eq!(
            (robot.discrete(0), robot.discrete(10), robot.input(6)),
            (Some(true), Some(false), Some(180))
        );
        run(&mut robot, 45);
        assert_eq!(
            (robot.discrete(0), robot.discrete(10), robot.input(6)),
            (Some(false), Some(true), Some(0))
        );
        robot.set_holding(10, 1);
        run(&mut robot, 60);
        assert_eq!((robot.discrete(20), robot.input(7)), (Some(true), Some(530)));
    }

    #[test]
    fn it_charges_at_the_dock_and_halts_on_the_way() {
        let mut robot = Inspection::new(1);
        robot.set_holding(1, 1);
        run(&mut robot, 64);
        assert_eq!((robot.input(0), robot.discrete(0)), (Some(1000), Some(false)), "done when full");
        robot.set_holding(0, 1);
        run(&mut robot, 30);
        robot.set_holding(2, 1);
        assert_eq!((robot.input(1), robot.discrete(0)), (Some(ON_THE_WAY), Some(false)));
        let stopped = robot.at_m;
        run(&mut robot, 30);
        assert_eq!(robot.at_m, stopped);
        robot.battery_percent = 0.05;
        robot.set_holding(0, 1);
        run(&mut robot, 60);
        assert_eq!(
            (robot.input(0), robot.discrete(0)),
            (Some(0), Some(false)),
            "an empty battery moves nothing"
        );
    }
}
