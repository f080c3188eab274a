//! The brain's process, looked after by a thread outside the cycle: start, kill, reap, start again with back-off; and its
//! successor, when another variant of the model is to answer.
//!
//! Each start gets a socket pair of its own; the child's end is its standard input. An answer of a killed brain therefore
//! dies with its socket and cannot reach the guard that asks the next one.
//!
//! A successor is started while the brain before it goes on answering. Once it has reported for duty, the channel asks it
//! instead, without a word to the guard: what the old one was asked it still answers, and then it is ended. If the old one
//! dies before, the successor takes its place as any restarted brain does.

use crate::error::GuardError;
use crate::limits::*;
use crate::status::BrainProcess;
use ganglion_site::{BrainMessage, DECISION_FRAME_BYTES, Decision, EVENT_FRAME_BYTES, Event};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The guard's end of the brain: never waits, never allocates.
#[derive(Debug)]
pub struct BrainChannel {
    shared: Arc<Shared>,
    parcels: rtrb::Consumer<Parcel>,
    current: Option<Parcel>,
    successor: Option<Parcel>,
    /// Was current until a successor came; may still owe answers.
    retired: Option<Parcel>,
    /// The generation that the guard knows the current one by: a successor goes by its predecessor's.
    known_as: (u32, u32),
    /// Of the current one, or of the one before.
    level: u8,
    out: [u8; EVENT_FRAME_BYTES],
    /// One byte more than a frame, so that a longer message is seen as such.
    frame: [u8; DECISION_FRAME_BYTES + 1],
}

/// A brain's socket.
#[derive(Debug)]
struct Parcel {
    generation: u32,
    level: u8,
    socket: UnixDatagram,
}

/// Starts brains until told to stop.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// `generation` is published with `Release` after its socket was queued, so that a guard that sees it finds the socket.
#[derive(Debug, Default)]
struct Shared {
    /// 0 = none is running. Moved on by the supervisor, and by the channel from a brain to its successor.
    generation: AtomicU32,
    kill: AtomicU32,
    pid: AtomicU32,
    level: AtomicU8,
    wanted_level: AtomicU8,
    stop: AtomicBool,
    start_failures: AtomicU64,
    successor_failures: AtomicU64,
    garbage: AtomicU64,
}

impl BrainChannel {
    /// The process, as of now; takes over the socket of a new one.
    pub fn process(&mut self) -> BrainProcess {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let is_asked = |parcel: &mut Parcel| parcel.generation == generation;
        while let Ok(parcel) = self.parcels.pop() {
            if parcel.generation == generation {
                self.current = Some(parcel);
            } else {
                // In the order of their starts: whatever waits already is dead or about to be.
                self.successor = Some(parcel);
            }
        }
        if self.current.as_ref().is_none_or(|current| current.generation != generation) {
            self.current = self.successor.take_if(is_asked).or_else(|| self.retired.take_if(is_asked));
        }
        self.level = self.current.as_ref().map_or(self.level, |current| current.level);
        match &self.current {
            None => BrainProcess::Restarting,
            Some(current) if current.generation == self.known_as.0 => {
                BrainProcess::Running { generation: self.known_as.1 }
            }
            Some(current) => BrainProcess::Running { generation: current.generation },
        }
    }

    /// The variant of the model that is asked, however it came to that: as a successor, or started after another's death.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Has the successor asked from now on, if there is one that is ready. Returns its level.
    pub fn switch(&mut self) -> Option<u8> {
        let BrainProcess::Running { generation: known_as } = self.process() else { return None };
        let size = self.successor.as_ref()?.socket.recv(&mut self.frame).ok()?;
        // Its first message says that its model is loaded.
        Decision::decode(self.frame.get(..size)?).ok()?;
        let (old, new) = (self.current.as_ref()?.generation, self.successor.as_ref()?.generation);
        let order = Ordering::AcqRel;
        // Fails when the old one has just died: then the supervisor has its own say.
        self.shared.generation.compare_exchange(old, new, order, Ordering::Acquire).ok()?;
        self.retired = std::mem::replace(&mut self.current, self.successor.take());
        self.known_as = (new, known_as);
        self.level = self.current.as_ref()?.level;
        Some(self.level)
    }

    /// Sends an event; one that cannot be sent is simply not answered.
    pub fn send(&mut self, event: &Event) {
        event.encode(&mut self.out);
        if let Some(current) = &self.current {
            let _ = current.socket.send(&self.out);
        }
    }

    /// The next message. What is none is counted and skipped, a bounded number per call.
    pub fn receive(&mut self) -> Option<BrainMessage> {
        if let Some(late) = self.receive_late() {
            return Some(late);
        }
        let current = self.current.as_ref()?;
        for _ in 0..DECISIONS_PER_CYCLE_MAX {
            let size = current.socket.recv(&mut self.frame).ok()?;
            match self.frame.get(..size).map(BrainMessage::decode) {
                Some(Ok(message)) => return Some(message),
                _ => self.shared.garbage.fetch_add(1, Ordering::Relaxed),
            };
        }
        None
    }

    /// What a retired brain still answers. Its signs of life say nothing about the one that is asked now.
    fn receive_late(&mut self) -> Option<BrainMessage> {
        for _ in 0..DECISIONS_PER_CYCLE_MAX {
            let size = self.retired.as_ref()?.socket.recv(&mut self.frame).ok()?;
            match self.frame.get(..size).map(BrainMessage::decode) {
                Some(Ok(BrainMessage::Decision(decision))) if decision.epoch == 0 => {}
                Some(Ok(message)) => return Some(message),
                _ => {
                    self.shared.garbage.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        None
    }

    /// Has this generation killed; a later one is left alone.
    pub fn kill(&self, generation: u32) {
        let (own, known) = self.known_as;
        let meant = if generation == known { own } else { generation };
        self.shared.kill.store(meant, Ordering::Release);
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.current.as_ref().map(|current| current.socket.as_fd())
    }
}

impl Supervisor {
    /// Starts the first brain. `build` gives the command for each start; its standard input becomes the socket.
    ///
    /// # Errors
    /// [`GuardError::Os`] when no thread can be made.
    pub fn start(
        mut build: impl FnMut() -> Command + Send + 'static,
    ) -> Result<(Self, BrainChannel), GuardError> {
        Self::start_variants(move |_| build(), RETIRE_MS)
    }

    /// As [`Supervisor::start`], with variants: `build` is given the level. A brain that was followed by another is left
    /// alive for `retire_ms`, so that it answers what it was asked.
    ///
    /// # Errors
    /// [`GuardError::Os`] when no thread can be made.
    pub fn start_variants(
        build: impl FnMut(u8) -> Command + Send + 'static,
        retire_ms: u64,
    ) -> Result<(Self, BrainChannel), GuardError> {
        let shared = Arc::new(Shared::default());
        let (producer, parcels) = rtrb::RingBuffer::new(4);
        let work = Work {
            shared: Arc::clone(&shared),
            build,
            parcels: producer,
            generation: 0,
            main: None,
            successor: None,
            retired: Vec::new(),
            pause_ms: RESTART_PAUSE_MS_MIN,
            wait_ms: 0,
            retire_ms,
        };
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || work.run())
            .map_err(|source| GuardError::Os { what: "cannot start the brain's supervisor", source })?;
        let channel = BrainChannel {
            shared: Arc::clone(&shared),
            parcels,
            current: None,
            successor: None,
            retired: None,
            known_as: (0, 0),
            level: 0,
            out: [0; EVENT_FRAME_BYTES],
            frame: [0; DECISION_FRAME_BYTES + 1],
        };
        Ok((Self { shared, thread: Some(thread) }, channel))
    }

    /// Has another variant answer, as soon as it can.
    pub fn want(&self, level: u8) {
        self.shared.wanted_level.store(level, Ordering::Release);
    }

    /// The variant that answers, or did last.
    pub fn level(&self) -> u8 {
        self.shared.level.load(Ordering::Acquire)
    }

    /// Successors that ended before they could answer; what was wanted is then no longer wanted.
    pub fn successor_failures(&self) -> u64 {
        self.shared.successor_failures.load(Ordering::Acquire)
    }

    /// Process id of the running brain.
    pub fn pid(&self) -> Option<u32> {
        Some(self.shared.pid.load(Ordering::Acquire)).filter(|&pid| pid != 0)
    }

    /// Number of the current start; 0 while none runs.
    pub fn generation(&self) -> u32 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Starts that failed.
    pub fn start_failures(&self) -> u64 {
        self.shared.start_failures.load(Ordering::Relaxed)
    }

    /// Messages of the brain that were none of its kinds.
    pub fn garbage(&self) -> u64 {
        self.shared.garbage.load(Ordering::Relaxed)
    }
}

impl Drop for Supervisor {
    /// Kills and reaps every brain.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A started brain.
struct Brain {
    child: Child,
    generation: u32,
    level: u8,
    /// Since its start, or since it was followed by another.
    age_ms: u64,
}

impl Brain {
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn end(mut self) {
        // Fails only when the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Work<B> {
    shared: Arc<Shared>,
    build: B,
    parcels: rtrb::Producer<Parcel>,
    generation: u32,
    main: Option<Brain>,
    successor: Option<Brain>,
    retired: Vec<Brain>,
    /// Before a dead brain is started again, and how much of that is left.
    pause_ms: u64,
    wait_ms: u64,
    retire_ms: u64,
}

impl<B: FnMut(u8) -> Command> Work<B> {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.follow();
            self.mind_main();
            self.mind_successor();
            self.mind_retired();
            std::thread::sleep(Duration::from_millis(SUPERVISOR_POLL_MS));
            let all = self.main.iter_mut().chain(&mut self.successor).chain(&mut self.retired);
            all.for_each(|brain| brain.age_ms += SUPERVISOR_POLL_MS);
            self.wait_ms = self.wait_ms.saturating_sub(SUPERVISOR_POLL_MS);
        }
        self.main.into_iter().chain(self.successor).chain(self.retired).for_each(Brain::end);
    }

    fn spawn(&mut self, level: u8) -> Option<Brain> {
        let parcel = self.try_spawn(level);
        if parcel.is_err() {
            self.shared.start_failures.fetch_add(1, Ordering::Relaxed);
        }
        let (brain, mut parcel) = parcel.ok()?;
        // A guard that is not running takes no sockets; the oldest ones are of dead brains, so wait for it.
        while let Err(rtrb::PushError::Full(back)) = self.parcels.push(parcel) {
            if self.shared.stop.load(Ordering::Acquire) {
                break;
            }
            parcel = back;
            std::thread::sleep(Duration::from_millis(SUPERVISOR_POLL_MS));
        }
        Some(brain)
    }

    fn try_spawn(&mut self, level: u8) -> std::io::Result<(Brain, Parcel)> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_nonblocking(true)?;
        let child = (self.build)(level).stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        self.generation = self.generation.wrapping_add(1).max(1);
        let generation = self.generation;
        Ok((Brain { child, generation, level, age_ms: 0 }, Parcel { generation, level, socket: ours }))
    }

    /// This one is asked from now on.
    fn install(&mut self, brain: Brain) {
        self.shared.pid.store(brain.child.id(), Ordering::Release);
        self.shared.level.store(brain.level, Ordering::Release);
        self.shared.generation.store(brain.generation, Ordering::Release);
        self.main = Some(brain);
    }

    /// The channel has gone over to the successor. To one that was ended in that very moment it has not: back to the one
    /// that runs.
    fn follow(&mut self) {
        let asked = self.shared.generation.load(Ordering::Acquire);
        let has_it = |brain: &Option<Brain>| brain.as_ref().is_some_and(|brain| brain.generation == asked);
        if let Some(main) = self.main.as_ref().filter(|_| !has_it(&self.main) && !has_it(&self.successor)) {
            self.shared.generation.store(main.generation, Ordering::Release);
            return;
        }
        if let Some(successor) = self.successor.take_if(|brain| brain.generation == asked) {
            if let Some(mut old) = self.main.take() {
                old.age_ms = 0;
                self.retired.push(old);
            }
            self.install(successor);
        }
    }

    /// Starts the brain when there is none; ends it when the guard says so.
    fn mind_main(&mut self) {
        let Some(main) = &mut self.main else {
            if self.wait_ms == 0 {
                let level = self.shared.wanted_level.load(Ordering::Acquire);
                match self.spawn(level) {
                    Some(brain) => self.install(brain),
                    None => self.rest(0),
                }
            }
            return;
        };
        let killed = self.shared.kill.load(Ordering::Acquire) == main.generation;
        if !killed && !main.has_ended() {
            return;
        }
        let (generation, lived_ms) = (main.generation, main.age_ms);
        let next = self.successor.as_ref().map_or(0, |successor| successor.generation);
        let order = Ordering::AcqRel;
        // Fails when the channel has gone over just now; `follow` sees to that.
        if self.shared.generation.compare_exchange(generation, next, order, Ordering::Acquire).is_err() {
            return;
        }
        if let Some(dead) = self.main.take() {
            dead.end();
        }
        self.shared.pid.store(0, Ordering::Release);
        match self.successor.take() {
            Some(successor) => self.install(successor),
            None => self.rest(lived_ms),
        }
    }

    /// A pause before the next start, longer each time unless the last one lived long enough.
    fn rest(&mut self, lived_ms: u64) {
        if lived_ms >= RESTART_PAUSE_RESET_MS {
            self.pause_ms = RESTART_PAUSE_MS_MIN;
        }
        self.wait_ms = self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).min(RESTART_PAUSE_MS_MAX);
    }

    /// Starts a successor when another variant is wanted; gives it up when it ends, or is wanted no more.
    fn mind_successor(&mut self) {
        let wanted = self.shared.wanted_level.load(Ordering::Acquire);
        let Some(level) = self.main.as_ref().map(|main| main.level) else { return };
        let Some(successor) = &mut self.successor else {
            if wanted != level && self.retired.is_empty() {
                self.successor = self.spawn(wanted);
                if self.successor.is_none() {
                    self.give_up(wanted, level);
                }
            }
            return;
        };
        let never_came = u128::from(successor.age_ms) * 1000 > u128::from(BRAIN_START_US_MAX);
        if successor.has_ended() || never_came {
            self.give_up(wanted, level);
        } else if successor.level == wanted {
            return;
        }
        if let Some(unwanted) = self.successor.take() {
            // Not while the channel goes over to it: then it is the one that is asked.
            if self.shared.generation.load(Ordering::Acquire) == unwanted.generation {
                self.successor = Some(unwanted);
            } else {
                unwanted.end();
            }
        }
    }

    /// What could not be started is wanted no more, unless something else is by now.
    fn give_up(&mut self, wanted: u8, level: u8) {
        let order = Ordering::AcqRel;
        let _ = self.shared.wanted_level.compare_exchange(wanted, level, order, Ordering::Acquire);
        self.shared.successor_failures.fetch_add(1, Ordering::Release);
    }

    fn mind_retired(&mut self) {
        let retire_ms = self.retire_ms;
        for mut brain in std::mem::take(&mut self.retired) {
            if brain.age_ms >= retire_ms || brain.has_ended() {
                brain.end();
            } else {
                self.retired.push(brain);
            }
        }
    }
}
