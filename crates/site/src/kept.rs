//! `[[model.variant]]`, `[model.switch]` and `[record]`: smaller models, when they take over, and what is kept of a run.

use crate::site::ModelSpec;
use std::path::PathBuf;

/// `[[model.variant]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Short name.
    pub name: String,
    /// GGUF file, resolved against the site's folder.
    pub path: PathBuf,
}

/// `[model.switch]`: when to leave a variant for the next one, and when to go back. Pairs are `(leave, return)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SwitchSpec {
    /// Of the hottest thermal zone.
    pub temperature_c: Option<(f64, f64)>,
    /// One-minute load average per core.
    pub load: Option<(f64, f64)>,
    /// Of a battery that is being discharged.
    pub battery_percent: Option<(f64, f64)>,
    /// Deadlines missed within the dwell time.
    pub misses: Option<u32>,
    /// Least time between two switches; also for how long all has to be well before one goes back.
    pub dwell_s: u32,
}

impl SwitchSpec {
    /// No reason is ever good enough.
    pub const NEVER: Self =
        Self { temperature_c: None, load: None, battery_percent: None, misses: None, dwell_s: 30 };
}

impl ModelSpec {
    /// The variant's file; 0 is the first choice.
    pub fn variant_path(&self, level: usize) -> Option<&std::path::Path> {
        match level.checked_sub(1) {
            None => Some(&self.path),
            Some(index) => self.variants.get(index).map(|variant| variant.path.as_path()),
        }
    }

    /// The variant's name; that of the first choice is `main`.
    pub fn variant_name(&self, level: usize) -> &str {
        match level.checked_sub(1) {
            None => "main",
            Some(index) => self.variants.get(index).map_or("?", |variant| variant.name.as_str()),
        }
    }
}

/// `[record]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSpec {
    /// Resolved against the site's folder.
    pub folder: PathBuf,
    /// What goes to disk.
    pub keep: RecordKeep,
    /// Sentences too. Without it the guard's part can be run again, the model's only for events without a sentence.
    pub keep_text: bool,
    /// Most that the recording may take.
    pub size_mib: u32,
    /// How far back the flight recorder goes.
    pub minutes: u32,
}

/// What of a run goes to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKeep {
    /// Every cycle.
    Everything,
    /// The minutes before a fault.
    Faults,
}
