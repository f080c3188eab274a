//! A PI loop for set-points, with anti-windup by conditional integration (Åström and Hägglund, *Advanced PID Control*,
//! section 3.5): the integral stands still while the output is at a bound and the error would drive it further out.

use crate::envelope::Window;
use crate::limits::PI_PERIODS_MAX;
use ganglion_site::{Micros, PiSpec};

/// State of one loop.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pi {
    integral: f64,
    output: f64,
    stepped_us: Option<Micros>,
}

impl Pi {
    /// Not started.
    pub const REST: Self = Self { integral: 0.0, output: 0.0, stepped_us: None };

    /// The output at `now`, inside `window`. The first step gives `start` as far as the window allows, whatever the
    /// error is, so that taking over makes no bump.
    pub fn step(&mut self, spec: &PiSpec, now: Micros, reading: f64, start: f64, window: Window) -> f64 {
        let every_us = Micros::from(spec.every_ms) * 1000;
        let proportional = spec.kp * (spec.setpoint - reading);
        let Some(stepped_us) = self.stepped_us else {
            self.output = window.clamp(start);
            self.integral = self.output - proportional;
            self.stepped_us = Some(now);
            return self.output;
        };
        let elapsed_us = now.saturating_sub(stepped_us);
        if elapsed_us < every_us {
            return window.clamp(self.output);
        }
        let dt_s = elapsed_us.min(every_us * PI_PERIODS_MAX) as f64 / 1e6;
        let gain = proportional * dt_s / spec.ti_s;
        let integrated = self.integral + gain;
        // Up to the bound and no further; what already lies beyond it stays.
        self.integral = if gain > 0.0 {
            integrated.min(window.hi - proportional).max(self.integral)
        } else {
            integrated.max(window.lo - proportional).min(self.integral)
        };
        self.output = window.clamp(proportional + self.integral);
        self.stepped_us = Some(now);
        self.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: PiSpec = PiSpec { argument: 0, tag: 0, setpoint: 50.0, kp: 2.0, ti_s: 4.0, every_ms: 100 };
    const WINDOW: Window = Window { lo: 0.0, hi: 100.0 };

    /// A first-order process, gain 1, time constant 4 s, with a disturbance.
    fn run(steps: usize, disturbance: impl Fn(usize) -> f64) -> (Vec<f64>, Vec<f64>) {
        let (mut pi, mut level) = (Pi::REST, 20.0);
        let (mut levels, mut outputs) = (Vec::new(), Vec::new());
        for step in 0..steps {
            let output = pi.step(&SPEC, step as u64 * 100_000, level, 20.0, WINDOW);
            level += (output + disturbance(step) - level) * 0.1 / 4.0;
            levels.push(level);
            outputs.push(output);
        }
        (levels, outputs)
    }

    #[test]
    fn it_starts_where_the_plant_is_and_reaches_the_set_point_without_offset() {
        let (levels, outputs) = run(600, |step| if step > 300 { -15.0 } else { 0.0 });
        assert_eq!(outputs[0], 20.0, "no bump");
        assert!((levels[299] - 50.0).abs() < 0.1, "{}", levels[299]);
        assert!((levels[599] - 50.0).abs() < 0.1, "also with a load: {}", levels[599]);
        assert!(outputs.iter().all(|output| (0.0..=100.0).contains(output)));
    }

    #[test]
    fn a_long_saturation_does_not_wind_up() {
        // For a minute the set-point is out of reach; when the load goes, the output leaves its bound at once.
        let (levels, outputs) = run(1200, |step| if step < 600 { -90.0 } else { 0.0 });
        assert_eq!(outputs[599], 100.0);
        let back = outputs[600..].iter().position(|output| *output < 100.0).unwrap();
        assert!(back < 100, "{back} steps at the bound after the load has gone");
        let highest = levels[600..].iter().fold(0.0f64, |high, level| high.max(*level));
        assert!(highest < 58.0, "overshoot to {highest}");
        assert!((levels[1199] - 50.0).abs() < 0.1);
    }

    /// By hand: u = P + I with P = kp (set-point - reading), and I grown by P dt / ti, dt at most four periods.
    #[test]
    fn every_step_is_the_formula() {
        let mut pi = Pi::REST;
        let bounds = Window { lo: 10.0, hi: 100.0 };
        let mut step = |ms: u64, reading: f64| pi.step(&SPEC, ms * 1000, reading, 30.0, bounds);
        assert_eq!(step(0, 30.0), 30.0, "I = 30 - 40");
        assert_eq!(step(100, 30.0), 31.0, "I = -10 + 40 * 0.1 / 4");
        assert_eq!(step(1100, 30.0), 35.0, "a second has passed, four periods of it count: I = -9 + 4");
        assert_eq!(step(1200, 45.0), 10.0, "10 - 5 + 0.25 is below the bound");
        assert_eq!(step(1300, 20.0), 56.75, "I = -4.75 + 1.5");
        // Too high: the integral falls until P + I is the lower bound, and no further.
        assert_eq!(step(1400, 20.0), 58.25);
        assert_eq!(step(1800, 60.0), 10.0, "I would be -1.75 - 2; what lies beyond the bound stays");
        assert_eq!(step(1900, 50.0), 10.0, "P = 0");
        assert_eq!(step(2000, 30.0), 39.25, "I = -1.75 + 1");
    }

    #[test]
    fn the_integral_stops_where_the_output_meets_its_lower_bound() {
        let mut pi = Pi::REST;
        let bounds = Window { lo: 10.0, hi: 100.0 };
        let mut step = |ms: u64, reading: f64| pi.step(&SPEC, ms * 1000, reading, 40.0, bounds);
        assert_eq!(step(0, 50.0), 40.0, "I = 40");
        for ms in 1..200 {
            step(ms * 400, 60.0);
        }
        assert_eq!(step(80_000, 50.0), 30.0, "I went down to 10 + 20");
    }

    #[test]
    fn between_its_steps_it_stands_still() {
        let mut pi = Pi::REST;
        pi.step(&SPEC, 0, 20.0, 30.0, WINDOW);
        assert_eq!(pi.step(&SPEC, 99_999, 0.0, 30.0, WINDOW), 30.0);
        assert!(pi.step(&SPEC, 100_000, 0.0, 30.0, WINDOW) > 30.0);
    }
}
