//! Three rooms of a small building.
//!
//! Each room is one thermal capacity: it loses heat to the outside and to its neighbours, gains from heating, cooling,
//! people and lights, and exchanges air with the outside in proportion to its fan. Explicit Euler with a step far
//! below the smallest time constant.
//!
//! | table | address | meaning |
//! |---|---|---|
//! | holding | 0..2 | set-point of kitchen, office, hall, 0.1 C |
//! | holding | 10 | mode: 0 off, 1 heat, 2 cool |
//! | holding | 20..22 | fan of kitchen, office, hall, % |
//! | holding | 30 | program: 0 workday, 1 weekend, 2 holiday (sets who is in the office and when) |
//! | holding | 31 | all-off latch: writing 1 switches mode and fans off; reads 1 until one of them is switched on again |
//! | input | 0..2 | temperature of kitchen, office, hall, 0.1 C |
//! | input | 3 | power price, 0.1 ct/kWh |
//! | input | 4 | outside temperature, 0.1 C |
//! | input | 5 | electric power, W |
//! | discrete | 0 | office occupied |
//! | coil | 0..2 | light of kitchen, office, hall |

use crate::device::{Exception, Process};
use crate::noise::Noise;

const ROOMS: usize = 3;
const OFFICE: usize = 1;
const HEAT_CAPACITY_J_PER_K: [f64; ROOMS] = [1.2e6, 1.6e6, 2.0e6];
const LOSS_W_PER_K: [f64; ROOMS] = [45.0, 60.0, 80.0];
const WALL_W_PER_K: f64 = 25.0;
const FAN_W_PER_K: f64 = 60.0;
const FAN_MOTOR_W: f64 = 80.0;
const HEATING_W_MAX: f64 = 3500.0;
const CONTROL_W_PER_K: f64 = 2500.0;
const LIGHT_W: f64 = 60.0;
const PEOPLE_W: f64 = 300.0;
/// Heat moved per electric watt, both ways.
const PUMP_EFFICIENCY: f64 = 3.0;
const FAN_PERCENT_MAX: u16 = 100;
const SET_POINT_RANGE: std::ops::RangeInclusive<i16> = 50..=600;
const DAY_S: f64 = 86_400.0;
const START_OF_DAY_S: f64 = 7.0 * 3600.0;
/// Degrees Celsius at each full hour.
const OUTSIDE_C: [f64; 24] = [
    3.5, 3.0, 2.6, 2.3, 2.1, 2.0, 2.4, 3.2, 4.4, 5.8, 7.2, 8.5, 9.5, 10.2, 10.5, 10.3, 9.7, 8.8, 7.7, 6.7,
    5.8, 5.1, 4.5, 4.0,
];
/// Cent per kilowatt-hour at each full hour: a morning and an evening peak.
const PRICE_CT: [f64; 24] = [
    18.0, 16.0, 15.0, 15.0, 17.0, 24.0, 38.0, 52.0, 55.0, 44.0, 34.0, 28.0, 25.0, 24.0, 26.0, 32.0, 44.0,
    60.0, 72.0, 70.0, 55.0, 40.0, 30.0, 22.0,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Heat,
    Cool,
}

pub(crate) struct Hvac {
    noise: Noise,
    time_of_day_s: f64,
    temperature_c: [f64; ROOMS],
    set_point_dc: [i16; ROOMS],
    fan_percent: [u16; ROOMS],
    light: [bool; ROOMS],
    mode: Mode,
    program: u16,
    all_off: bool,
    gust_c: f64,
    price_drift_ct: f64,
    power_w: f64,
    occupied: bool,
    minute_s: f64,
}

impl Hvac {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            noise: Noise::new(seed),
            time_of_day_s: START_OF_DAY_S,
            temperature_c: [19.5, 18.5, 17.5],
            set_point_dc: [200; ROOMS],
            fan_percent: [0; ROOMS],
            light: [false; ROOMS],
            mode: Mode::Off,
            program: 0,
            all_off: false,
            gust_c: 0.0,
            price_drift_ct: 0.0,
            power_w: 0.0,
            occupied: false,
            minute_s: 60.0,
        }
    }

    fn outside_c(&self) -> f64 {
        at_hour(&OUTSIDE_C, self.time_of_day_s) + self.gust_c
    }

    fn price_ct(&self) -> f64 {
        (at_hour(&PRICE_CT, self.time_of_day_s) + self.price_drift_ct).clamp(0.0, 200.0)
    }

    /// Disturbances move once a minute of model time.
    fn disturb(&mut self) {
        self.gust_c = 0.95 * self.gust_c + 0.15 * self.noise.normal();
        self.price_drift_ct = 0.97 * self.price_drift_ct + 0.6 * self.noise.normal();
        let hour = self.time_of_day_s / 3600.0;
        let at_work = self.program == 0 && (8.0..18.0).contains(&hour);
        // People leave and come back: on average 40 minutes in, 15 out.
        let odds = self.noise.uniform();
        self.occupied = at_work && if self.occupied { odds > 1.0 / 40.0 } else { odds < 1.0 / 15.0 };
    }

    fn switch_off(&mut self) {
        self.mode = Mode::Off;
        self.fan_percent = [0; ROOMS];
        self.all_off = true;
    }
}

/// Linear between full hours, around midnight too.
fn at_hour(table: &[f64; 24], time_of_day_s: f64) -> f64 {
    let hour = (time_of_day_s / 3600.0).clamp(0.0, 23.999_999);
    let index = hour as usize % 24;
    let part = hour - hour.floor();
    table[index] * (1.0 - part) + table[(index + 1) % 24] * part
}

/// A register count, kept inside what a register holds.
fn register(value: f64) -> u16 {
    (value.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16) as u16
}

impl Process for Hvac {
    fn step(&mut self, dt_s: f64) {
        self.minute_s += dt_s;
        if self.minute_s >= 60.0 {
            self.minute_s -= 60.0;
            self.disturb();
        }
        let outside_c = self.outside_c();
        let mean_c = self.temperature_c.iter().sum::<f64>() / ROOMS as f64;
        let mut power_w = 0.0;
        for room in 0..ROOMS {
            let here_c = self.temperature_c[room];
            let missing_k = f64::from(self.set_point_dc[room]) / 10.0 - here_c;
            let conditioning_w = match self.mode {
                Mode::Off => 0.0,
                Mode::Heat => (missing_k * CONTROL_W_PER_K).clamp(0.0, HEATING_W_MAX),
                Mode::Cool => (missing_k * CONTROL_W_PER_K).clamp(-HEATING_W_MAX, 0.0),
            };
            let fan = f64::from(self.fan_percent[room]) / 100.0;
            let light_w = if self.light[room] { LIGHT_W } else { 0.0 };
            let people_w = if room == OFFICE && self.occupied { PEOPLE_W } else { 0.0 };
            let flow_w = (LOSS_W_PER_K[room] + FAN_W_PER_K * fan) * (outside_c - here_c)
                + WALL_W_PER_K * (mean_c - here_c)
                + conditioning_w
                + light_w
                + people_w;
            self.temperature_c[room] = here_c + flow_w / HEAT_CAPACITY_J_PER_K[room] * dt_s;
            power_w += conditioning_w.abs() / PUMP_EFFICIENCY + FAN_MOTOR_W * fan * fan * fan + light_w;
        }
        self.power_w = power_w;
        self.time_of_day_s = (self.time_of_day_s + dt_s) % DAY_S;
    }

    fn holding(&self, address: u16) -> Option<u16> {
        match address {
            0..=2 => self.set_point_dc.get(usize::from(address)).map(|&v| v as u16),
            10 => Some(match self.mode {
                Mode::Off => 0,
                Mode::Heat => 1,
                Mode::Cool => 2,
            }),
            20..=22 => self.fan_percent.get(usize::from(address - 20)).copied(),
            30 => Some(self.program),
            31 => Some(u16::from(self.all_off)),
            _ => None,
        }
    }

    fn check_holding(&self, address: u16, value: u16) -> Result<(), Exception> {
        let good = match address {
            0..=2 => SET_POINT_RANGE.contains(&(value as i16)),
            10 | 30 => value <= 2,
            20..=22 => value <= FAN_PERCENT_MAX,
            31 => value <= 1,
            _ => return Err(Exception::IllegalDataAddress),
        };
        if good { Ok(()) } else { Err(Exception::IllegalDataValue) }
    }

    fn set_holding(&mut self, address: u16, value: u16) {
        match address {
            0..=2 => self.set_point_dc[usize::from(address)] = value as i16,
            10 => {
                self.mode = match value {
                    1 => Mode::Heat,
                    2 => Mode::Cool,
                    _ => Mode::Off,
                };
                self.all_off &= value == 0;
            }
            20..=22 => {
                self.fan_percent[usize::from(address - 20)] = value;
                self.all_off &= value == 0;
            }
            30 => self.program = value,
            31 if value == 1 => self.switch_off(),
            31 => self.all_off = false,
            _ => {}
        }
    }

    fn input(&self, address: u16) -> Option<u16> {
        match address {
            0..=2 => self.temperature_c.get(usize::from(address)).map(|&t| register(t * 10.0)),
            3 => Some(register(self.price_ct() * 10.0)),
            4 => Some(register(self.outside_c() * 10.0)),
            5 => Some(register(self.power_w)),
            _ => None,
        }
    }

    fn discrete(&self, address: u16) -> Option<bool> {
        (address == 0).then_some(self.occupied)
    }

    fn coil(&self, address: u16) -> Option<bool> {
        self.light.get(usize::from(address)).copied()
    }

    fn set_coil(&mut self, address: u16, on: bool) {
        if let Some(light) = self.light.get_mut(usize::from(address)) {
            *light = on;
        }
    }

    fn make_safe(&mut self) {
        self.switch_off();
        self.light = [false; ROOMS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(hours: f64, prepare: impl FnOnce(&mut Hvac)) -> Hvac {
        let mut plant = Hvac::new(3);
        prepare(&mut plant);
        for _ in 0..(hours * 36_000.0) as u32 {
            plant.step(0.1);
        }
        plant
    }

    #[test]
    fn heating_reaches_its_set_point_and_cooling_does_not_heat() {
        let heated = after(4.0, |p| {
            p.set_holding(0, 230);
            p.set_holding(10, 1);
        });
        assert!((heated.temperature_c[0] - 23.0).abs() < 0.6, "{:?}", heated.temperature_c);
        let cooled = after(4.0, |p| {
            p.set_holding(0, 230);
            p.set_holding(10, 2);
        });
        assert!(cooled.temperature_c[0] < 19.5, "{:?}", cooled.temperature_c);
        assert!(heated.input(5) > cooled.input(5));
    }

    #[test]
    fn a_fan_brings_the_room_closer_to_the_outside() {
        let still = after(2.0, |_| {});
        let blown = after(2.0, |p| p.set_holding(22, 100));
        assert!(blown.temperature_c[2] < still.temperature_c[2] - 0.5);
    }

    #[test]
    fn all_off_latches_until_something_is_switched_on() {
        let mut plant = Hvac::new(1);
        plant.set_holding(10, 1);
        plant.set_holding(20, 60);
        plant.set_holding(31, 1);
        assert_eq!((plant.holding(10), plant.holding(20), plant.holding(31)), (Some(0), Some(0), Some(1)));
        plant.set_holding(0, 210);
        assert_eq!(plant.holding(31), Some(1));
        plant.set_holding(21, 30);
        assert_eq!(plant.holding(31), Some(0));
    }

    #[test]
    fn the_office_is_occupied_on_workdays_only_and_prices_peak_in_the_evening() {
        let mut seen = [false; 2];
        for (program, seen) in seen.iter_mut().enumerate() {
            let mut plant = Hvac::new(5);
            plant.set_holding(30, program as u16);
            for _ in 0..8 * 3600 {
                plant.step(1.0);
                *seen |= plant.discrete(0) == Some(true);
            }
        }
        assert_eq!(seen, [true, false]);
        let evening = after(11.5, |_| {}).price_ct();
        assert!(evening > 55.0, "{evening}");
    }

    #[test]
    fn the_same_seed_gives_the_same_day() {
        let (a, b) = (after(3.0, |_| {}), after(3.0, |_| {}));
        assert_eq!(a.temperature_c, b.temperature_c);
        assert_eq!(a.price_ct().to_bits(), b.price_ct().to_bits());
    }
}
