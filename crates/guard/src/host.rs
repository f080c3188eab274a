//! How the machine is: temperature, load, battery, as Linux tells in `/sys` and `/proc`.

use std::fs;
use std::path::{Path, PathBuf};

/// One look at the machine. `None`: it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HostReading {
    /// Of the hottest thermal zone.
    pub temperature_c: Option<f64>,
    /// One-minute load average per core.
    pub load: Option<f64>,
    /// The emptiest battery that is being discharged; `None` on mains too.
    pub battery_percent: Option<f64>,
}

/// Where readings of the machine come from.
pub trait Host {
    /// One look. May wait for files; not for the guard's thread.
    fn read(&mut self) -> HostReading;
}

/// The kernel's files under a root, `/` on a real machine.
#[derive(Debug)]
pub struct SysHost {
    root: PathBuf,
}

impl SysHost {
    /// Files are looked for anew at each reading: zones and batteries come and go.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Folders below a class of devices.
    fn devices(&self, class: &str) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.root.join("sys/class").join(class));
        entries.into_iter().flatten().flatten().map(|entry| entry.path())
    }

    /// Cores in use, from a list such as `0-3,8`.
    fn cores(&self) -> Option<f64> {
        let list = text(&self.root.join("sys/devices/system/cpu/online"))?;
        let mut cores = 0u32;
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            cores = cores.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
        }
        Some(f64::from(cores))
    }
}

impl Host for SysHost {
    fn read(&mut self) -> HostReading {
        let zones = self.devices("thermal").filter(|path| name_starts(path, "thermal_zone"));
        // Thousandths of a degree. A broken zone reads absurdly; no processor runs beyond these.
        let celsius = zones.filter_map(|zone| Some(number(&zone.join("temp"))? / 1000.0));
        let temperature_c = celsius.filter(|c| (-60.0..=250.0).contains(c)).reduce(f64::max);
        let average = text(&self.root.join("proc/loadavg"));
        let average = average.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        let load =
            average.filter(|load| load.is_finite() && *load >= 0.0).zip(self.cores()).map(|(l, c)| l / c);
        let batteries = self.devices("power_supply").filter(|supply| {
            text(&supply.join("type")).as_deref() == Some("Battery")
                && text(&supply.join("status")).as_deref() == Some("Discharging")
        });
        let percent = batteries.filter_map(|supply| number(&supply.join("capacity")));
        let battery_percent = percent.filter(|p| (0.0..=100.0).contains(p)).reduce(f64::min);
        HostReading { temperature_c, load, battery_percent }
    }
}

fn name_starts(path: &Path, start: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &Path) -> Option<f64> {
    text(path)?.parse().ok().filter(|value: &f64| value.is_finite())
}
