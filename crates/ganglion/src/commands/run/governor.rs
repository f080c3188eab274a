//! The thread that looks after the machine: temperature, battery, load, missed deadlines; and has another variant of the
//! model answer when the site says so.

use super::SharedSignals;
use super::inbox::Inbox;
use super::worker::Worker;
use crate::answer::Identity;
use crate::load;
use anyhow::Result;
use ganglion_guard::{Governor, Host, News, Notice, RecordKind, Supervisor, SysHost, monotonic_us};
use ganglion_site::Reason;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the machine is looked at.
const LOOK_US: u64 = 1_000_000;
const TICK: Duration = Duration::from_millis(50);

/// What the thread works with.
pub struct Work {
    pub identity: Identity,
    pub supervisor: Arc<Supervisor>,
    pub signals: SharedSignals,
    pub inbox: Arc<Inbox>,
    /// Memory that each variant takes.
    pub bytes: Vec<u64>,
}

/// The governor's thread, or `None` for a site with one model only. `root` is where `/sys` and `/proc` are.
pub fn start(work: Work, root: &Path) -> Result<Option<Worker>> {
    let model = &work.identity.site.model;
    if model.variants.is_empty() {
        return Ok(None);
    }
    let (governor, host) = (Governor::new(model.switch, model.variants.len()), SysHost::new(root));
    Worker::start("governor", move |stop| work.run(governor, host, stop)).map(Some)
}

impl Work {
    fn run(self, mut governor: Governor, mut host: impl Host, stop: &AtomicBool) {
        let (mut look_us, mut failures) = (0, 0);
        while !stop.load(Ordering::Acquire) {
            let now = monotonic_us();
            self.identity.answers_with(self.supervisor.level());
            if self.supervisor.successor_failures() != failures {
                failures = self.supervisor.successor_failures();
                governor.stays(now, self.supervisor.level());
                self.say("the model's other variant did not start; the one that answers stays");
            }
            if now >= look_us {
                look_us = now + LOOK_US;
                let reading = host.read();
                if let Some(switch) = governor.step(now, &reading, self.signals.deadline_misses()) {
                    self.switch(&mut governor, switch.level, switch.reason.as_str());
                }
            }
            std::thread::sleep(TICK);
        }
    }

    fn switch(&self, governor: &mut Governor, level: u8, why: &str) {
        let name = self.identity.site.model.variant_name(level.into());
        let needed = self.bytes.get(usize::from(level)).copied().unwrap_or(0);
        // For a while there are two brains.
        if let Some(available) = load::available_bytes().filter(|available| *available < needed) {
            governor.stays(monotonic_us(), self.supervisor.level());
            let (needed, available) = (load::size(needed), load::size(available));
            self.say(&format!(
                "{why}; variant {name} takes {needed} beside this one, {available} are available"
            ));
            return;
        }
        // Said before it can answer.
        self.say(&format!("{why}; the model's variant {name} is being started"));
        self.supervisor.want(level);
    }

    fn say(&self, text: &str) {
        let notice = Notice { kind: RecordKind::Brain, reason: Reason::cut(text) };
        self.inbox.tell_guard(News::Note(notice));
    }
}
