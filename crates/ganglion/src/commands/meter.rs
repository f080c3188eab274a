//! Progress of long work on a terminal's one line.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two changes of the line.
const PAUSE: Duration = Duration::from_millis(50);

/// How far work has come, and the time left if it goes on like that. Where standard error is no terminal, only stages are told.
pub struct Meter {
    start: Instant,
    stage: String,
    stage_start: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Meter {
    pub fn new() -> Self {
        let start = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { start, stage: String::new(), stage_start: start, told: None, terminal }
    }

    /// A part of the work whose time is counted by itself.
    pub fn stage(&mut self, name: &str) {
        if name != self.stage {
            (self.stage, self.stage_start, self.told) = (name.to_owned(), Instant::now(), None);
            if !self.terminal {
                eprintln!("{name}");
            }
        }
    }

    /// `done` of `total`, at `what`.
    pub fn tell(&mut self, done: u64, total: u64, what: &str) {
        if !self.terminal || done < total && self.told.is_some_and(|told| told.elapsed() < PAUSE) {
            return;
        }
        self.told = Some(Instant::now());
        let share = done.min(total) as f64 / total.max(1) as f64;
        let spent = self.stage_start.elapsed().as_secs_f64();
        let left = if share > 0.0 { format!("{:.0} s left", spent / share - spent) } else { String::new() };
        let parts = [self.stage.as_str(), &left, what];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        eprint!("\r\x1b[K{:5.1} %  {}", share * 100.0, parts.join("  "));
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }

    /// Leaves what all of it took.
    pub fn end(&self) {
        if self.terminal {
            eprintln!("\r\x1b[Kdone in {:.1} s", self.start.elapsed().as_secs_f64());
        }
    }
}
