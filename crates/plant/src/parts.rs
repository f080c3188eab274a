//! Parts for the conveyor: generated, or played from a file with the columns of the AI4I 2020 data set.

use crate::error::Error;
use crate::limits::PARTS_MAX;
use crate::noise::Noise;
use ganglion_io::csv::Table;
use std::path::Path;

/// What is measured on one part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Newton metres.
    pub torque_nm: f64,
    /// Minutes of tool use.
    pub wear_min: f64,
    /// Revolutions per minute.
    pub speed_rpm: f64,
    /// Kelvin.
    pub air_temperature_k: f64,
}

impl Part {
    pub(crate) fn torque_raw(&self) -> u16 {
        raw(self.torque_nm, 0.1)
    }

    pub(crate) fn wear_raw(&self) -> u16 {
        raw(self.wear_min, 1.0)
    }

    pub(crate) fn speed_raw(&self) -> u16 {
        raw(self.speed_rpm, 1.0)
    }

    pub(crate) fn air_temperature_raw(&self) -> u16 {
        raw(self.air_temperature_k, 0.02)
    }
}

/// Sensors saturate: a reading beyond the register stays at its end.
fn raw(value: f64, scale: f64) -> u16 {
    (value / scale).round().clamp(0.0, f64::from(i16::MAX)) as u16
}

/// Reads parts from a CSV file with the columns `Torque [Nm]`, `Tool wear [min]`, `Rotational speed [rpm]` and
/// `Air temperature [K]` (or `torque`, `wear`, `speed`, `air_temperature`); other columns are passed over.
///
/// # Errors
/// An unreadable file, a missing column, a cell that is no number, no rows, or more than [`PARTS_MAX`].
pub fn load_parts(file: &Path) -> Result<Vec<Part>, Error> {
    let table = Table::load(file)?;
    let torque = table.column(&["torque"])?;
    let wear = table.column(&["tool_wear", "wear"])?;
    let speed = table.column(&["rotational_speed", "speed"])?;
    let air = table.column(&["air_temperature"])?;
    let mut parts = Vec::new();
    for row in table.rows().take(PARTS_MAX) {
        let row = row?;
        parts.push(Part {
            torque_nm: row.number(torque)?,
            wear_min: row.number(wear)?,
            speed_rpm: row.number(speed)?,
            air_temperature_k: row.number(air)?,
        });
    }
    if parts.is_empty() {
        return Err(Error::NoParts { file: file.to_owned() });
    }
    Ok(parts)
}

/// An endless row of parts.
pub(crate) struct PartSource {
    noise: Noise,
    parts: Vec<Part>,
    next: usize,
    wear_min: f64,
    tool_life_min: f64,
    drift_k: f64,
}

const TORQUE_MEAN_NM: f64 = 40.0;
const TORQUE_DEVIATION_NM: f64 = 10.0;
const TORQUE_NM: (f64, f64) = (3.8, 76.6);
const SPEED_RPM: (f64, f64) = (1168.0, 2886.0);
const SPEED_AT_MEAN_TORQUE_RPM: f64 = 1500.0;
const AIR_MEAN_K: f64 = 300.0;

impl PartSource {
    pub(crate) fn new(seed: u64, parts: Vec<Part>) -> Self {
        Self { noise: Noise::new(seed), parts, next: 0, wear_min: 0.0, tool_life_min: 220.0, drift_k: 0.0 }
    }

    pub(crate) fn next_part(&mut self) -> Part {
        match self.parts.get(self.next) {
            Some(&part) => {
                self.next = (self.next + 1) % self.parts.len();
                part
            }
            None => self.generate(),
        }
    }

    /// Distributions as the AI4I 2020 data set (Matzka 2020, UCI 601) has them: normal torque, speed falling with
    /// torque, air temperature as a slow walk around 300 K, wear growing by 2, 3 or 5 minutes with the product's
    /// quality until the tool is changed.
    fn generate(&mut self) -> Part {
        let torque_nm =
            (TORQUE_MEAN_NM + TORQUE_DEVIATION_NM * self.noise.normal()).clamp(TORQUE_NM.0, TORQUE_NM.1);
        let speed_rpm = SPEED_AT_MEAN_TORQUE_RPM
            * (TORQUE_MEAN_NM / torque_nm).sqrt()
            * (1.0 + 0.04 * self.noise.normal());
        self.drift_k = 0.99 * self.drift_k + 0.28 * self.noise.normal();
        let part = Part {
            torque_nm,
            wear_min: self.wear_min,
            speed_rpm: speed_rpm.clamp(SPEED_RPM.0, SPEED_RPM.1),
            air_temperature_k: AIR_MEAN_K + self.drift_k,
        };
        let quality = self.noise.uniform();
        self.wear_min += if quality < 0.6 {
            2.0
        } else if quality < 0.9 {
            3.0
        } else {
            5.0
        };
        if self.wear_min > self.tool_life_min {
            self.wear_min = 0.0;
            self.tool_life_min = 200.0 + 40.0 * self.noise.uniform();
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_parts_look_like_the_data_set() {
        let mut source = PartSource::new(1, Vec::new());
        let parts: Vec<Part> = (0..10_000).map(|_| source.next_part()).collect();
        let mean = |f: fn(&Part) -> f64| parts.iter().map(f).sum::<f64>() / parts.len() as f64;
        // The data set's own means: 39.99 Nm, 107.95 min, 1538.8 rpm, 300.0 K.
        assert!((mean(|p| p.torque_nm) - 40.0).abs() < 1.0);
        assert!((mean(|p| p.wear_min) - 108.0).abs() < 6.0);
        assert!((mean(|p| p.speed_rpm) - 1539.0).abs() < 40.0);
        assert!((mean(|p| p.air_temperature_k) - 300.0).abs() < 1.0);
        assert!(parts.iter().any(|p| p.torque_nm > 60.0) && parts.iter().any(|p| p.wear_min > 200.0));
    }

    #[test]
    fn a_given_list_is_played_over_and_over() {
        let part = |torque_nm| Part { torque_nm, wear_min: 0.0, speed_rpm: 1500.0, air_temperature_k: 298.1 };
        let mut source = PartSource::new(1, vec![part(1.0), part(2.0)]);
        let torques: Vec<f64> = (0..5).map(|_| source.next_part().torque_nm).collect();
        assert_eq!(torques, [1.0, 2.0, 1.0, 2.0, 1.0]);
        assert_eq!(part(42.8).torque_raw(), 428);
        assert_eq!(part(0.0).air_temperature_raw(), 14905);
    }
}
