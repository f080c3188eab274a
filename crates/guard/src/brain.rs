//! Whether the brain lives: process state, sign of life, time to load.
//!
//! Every well-formed message is a sign of life. A brain with nothing to do sends a decision with epoch 0 at least every
//! quarter of `brain_timeout_ms`, from the same thread that decides, so that a hung decision cannot be covered by a
//! heartbeat; and one right after its model is loaded. While a question is out, the silence may last until that
//! question's deadline plus the timeout (the oldest unanswered one's, so that new questions do not prolong it).

use crate::limits::BRAIN_START_US_MAX;
use crate::status::{BrainProcess, BrainState};
use crate::text::reason;
use ganglion_site::{GuardSpec, Micros, Reason};

/// The guard's own record of the brain.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct BrainWatch {
    process: BrainProcess,
    state: BrainState,
    announced: bool,
    started_us: Micros,
    heard_us: Micros,
    due_us: Option<Micros>,
    kill: Option<u32>,
    timeout_us: Micros,
}

impl BrainWatch {
    pub fn new(spec: &GuardSpec) -> Self {
        Self {
            process: BrainProcess::Absent,
            state: BrainState::Absent,
            announced: false,
            started_us: 0,
            heard_us: 0,
            due_us: None,
            kill: None,
            timeout_us: Micros::from(spec.brain_timeout_ms) * 1000,
        }
    }

    /// Another policy's timeout. A longer one holds at once, a shorter one from the next run on: the brain that runs gives its
    /// signs of life at the pace of the text that it was started with.
    pub fn adopt(&mut self, spec: &GuardSpec) {
        self.timeout_us = self.timeout_us.max(Micros::from(spec.brain_timeout_ms) * 1000);
    }

    pub fn state(&self) -> BrainState {
        self.state
    }

    pub fn ready(&self) -> bool {
        self.state == BrainState::Ready
    }

    /// The generation to be killed.
    pub fn kill(&self) -> Option<u32> {
        self.kill
    }

    /// Takes over the supervisor's word. `Some` when the brain is lost by it. Comes before what the brain says is heard.
    pub fn follow(&mut self, now: Micros, process: BrainProcess) -> Option<Reason> {
        if process == self.process {
            return None;
        }
        let had_one = matches!(self.state, BrainState::Starting | BrainState::Ready);
        self.process = process;
        self.kill = None;
        self.due_us = None;
        self.announced = false;
        self.started_us = now;
        self.state = match process {
            BrainProcess::Absent => BrainState::Absent,
            BrainProcess::Restarting => BrainState::Lost,
            BrainProcess::Running { .. } => BrainState::Starting,
        };
        had_one.then(|| reason!("the brain's process ended"))
    }

    /// Compares with the clock. `Some` in the cycle in which the brain is lost by its silence. Comes after what it says is
    /// heard: the guard may have slept for longer than the brain may be silent.
    pub fn watch(&mut self, now: Micros) -> Option<Reason> {
        let BrainProcess::Running { generation } = self.process else { return None };
        match self.state {
            BrainState::Ready => {
                let silent_from = self.heard_us.max(self.due_us.unwrap_or(0));
                let silent_us = now.saturating_sub(silent_from);
                if silent_us <= self.timeout_us {
                    return None;
                }
                self.state = BrainState::Lost;
                self.kill = Some(generation);
                Some(reason!(
                    "the brain has been silent for {} ms; killed",
                    now.saturating_sub(self.heard_us) / 1000
                ))
            }
            BrainState::Starting if now.saturating_sub(self.started_us) > BRAIN_START_US_MAX => {
                self.state = BrainState::Lost;
                self.kill = Some(generation);
                Some(reason!("the brain did not come up in {} s; killed", BRAIN_START_US_MAX / 1_000_000))
            }
            _ => None,
        }
    }

    /// A message came; `next_due_us` is the first deadline of what is still asked. `false` when no brain that could have
    /// sent it is running.
    pub fn hear(&mut self, now: Micros, next_due_us: Option<Micros>) -> bool {
        if !matches!(self.state, BrainState::Starting | BrainState::Ready) {
            return false;
        }
        self.state = BrainState::Ready;
        self.heard_us = now;
        self.due_us = next_due_us;
        true
    }

    /// True once per generation, when it is first heard.
    pub fn became_ready(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    /// A question went out.
    pub fn asked(&mut self, deadline_us: Micros) {
        self.due_us = self.due_us.or(Some(deadline_us));
    }
}

#[cfg(test)]
impl BrainWatch {
    /// What the exhaustive search tells states apart by.
    pub fn shape(&self, age: impl Fn(Micros) -> u64) -> impl std::fmt::Debug {
        let heard = if self.state == BrainState::Ready { age(self.heard_us) } else { 0 };
        (self.process, self.state, self.announced, heard, self.due_us.map(age), self.kill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_timeout_holds_at_once_and_a_shorter_one_not_in_this_run() {
        let site = ganglion_site::Site::parse(
            include_str!("../../../examples/hvac/site.toml"),
            std::path::Path::new("site.toml"),
        );
        let mut spec = site.unwrap().guard;
        let lost_after_ms = |adopted: &[u32], spec: &mut GuardSpec| {
            spec.brain_timeout_ms = 100;
            let mut watch = BrainWatch::new(spec);
            for timeout_ms in adopted {
                spec.brain_timeout_ms = *timeout_ms;
                watch.adopt(spec);
            }
            watch.follow(0, BrainProcess::Running { generation: 1 });
            assert!(watch.hear(0, None));
            (1..).find(|ms| watch.watch(ms * 1000).is_some())
        };
        assert_eq!(lost_after_ms(&[], &mut spec), Some(101));
        assert_eq!(lost_after_ms(&[150], &mut spec), Some(151));
        assert_eq!(lost_after_ms(&[150, 50], &mut spec), Some(151));
    }
}
