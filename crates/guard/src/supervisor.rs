//! The brain's process, looked after by a thread outside the cycle: start, kill, reap, start again with back-off.
//!
//! Each start gets a socket pair of its own; the child's end is its standard input. An answer of a killed brain therefore
//! dies with its socket and cannot reach the guard that asks the next one.

use crate::error::GuardError;
use crate::limits::*;
use crate::status::BrainProcess;
use ganglion_site::{BrainMessage, DECISION_FRAME_BYTES, EVENT_FRAME_BYTES, Event};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The guard's end of the brain: never waits, never allocates.
#[derive(Debug)]
pub struct BrainChannel {
    shared: Arc<Shared>,
    sockets: rtrb::Consumer<(u32, UnixDatagram)>,
    current: Option<(u32, UnixDatagram)>,
    out: [u8; EVENT_FRAME_BYTES],
    /// One byte more than a frame, so that a longer message is seen as such.
    frame: [u8; DECISION_FRAME_BYTES + 1],
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
    /// 0 = none is running.
    generation: AtomicU32,
    kill: AtomicU32,
    pid: AtomicU32,
    stop: AtomicBool,
    start_failures: AtomicU64,
    garbage: AtomicU64,
}

impl BrainChannel {
    /// The process, as of now; takes over the socket of a new one.
    pub fn process(&mut self) -> BrainProcess {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation == 0 {
            self.current = None;
            return BrainProcess::Restarting;
        }
        while self.current.as_ref().is_none_or(|(of, _)| *of != generation) {
            match self.sockets.pop() {
                Ok(next) => self.current = Some(next),
                Err(_) => return BrainProcess::Restarting,
            }
        }
        BrainProcess::Running { generation }
    }

    /// Sends an event; one that cannot be sent is simply not answered.
    pub fn send(&mut self, event: &Event) {
        event.encode(&mut self.out);
        if let Some((_, socket)) = &self.current {
            let _ = socket.send(&self.out);
        }
    }

    /// The next message. What is none is counted and skipped, a bounded number per call.
    pub fn receive(&mut self) -> Option<BrainMessage> {
        let (_, socket) = self.current.as_ref()?;
        for _ in 0..DECISIONS_PER_CYCLE_MAX {
            let size = socket.recv(&mut self.frame).ok()?;
            match self.frame.get(..size).map(BrainMessage::decode) {
                Some(Ok(message)) => return Some(message),
                _ => self.shared.garbage.fetch_add(1, Ordering::Relaxed),
            };
        }
        None
    }

    /// Has this generation killed; a later one is left alone.
    pub fn kill(&self, generation: u32) {
        self.shared.kill.store(generation, Ordering::Release);
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.current.as_ref().map(|(_, socket)| socket.as_fd())
    }
}

impl Supervisor {
    /// Starts the first brain. `build` gives the command for each start; its standard input becomes the socket.
    ///
    /// # Errors
    /// [`GuardError::Os`] when no thread can be made.
    pub fn start(
        build: impl FnMut() -> Command + Send + 'static,
    ) -> Result<(Self, BrainChannel), GuardError> {
        let shared = Arc::new(Shared::default());
        let (producer, sockets) = rtrb::RingBuffer::new(4);
        let work = Work { shared: Arc::clone(&shared), build, sockets: producer, generation: 0 };
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || work.run())
            .map_err(|source| GuardError::Os { what: "cannot start the brain's supervisor", source })?;
        let channel = BrainChannel {
            shared: Arc::clone(&shared),
            sockets,
            current: None,
            out: [0; EVENT_FRAME_BYTES],
            frame: [0; DECISION_FRAME_BYTES + 1],
        };
        Ok((Self { shared, thread: Some(thread) }, channel))
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
    /// Kills and reaps the brain.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work<B> {
    shared: Arc<Shared>,
    build: B,
    sockets: rtrb::Producer<(u32, UnixDatagram)>,
    generation: u32,
}

impl<B: FnMut() -> Command> Work<B> {
    fn run(mut self) {
        let mut pause_ms = RESTART_PAUSE_MS_MIN;
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.spawn() {
                Ok(child) => {
                    let lived_ms = self.mind(child);
                    if lived_ms >= RESTART_PAUSE_RESET_MS {
                        pause_ms = RESTART_PAUSE_MS_MIN;
                    }
                }
                Err(_) => {
                    self.shared.start_failures.fetch_add(1, Ordering::Relaxed);
                }
            }
            let mut slept_ms = 0;
            while slept_ms < pause_ms && !self.shared.stop.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(SUPERVISOR_POLL_MS));
                slept_ms += SUPERVISOR_POLL_MS;
            }
            pause_ms = (pause_ms * 2).min(RESTART_PAUSE_MS_MAX);
        }
    }

    fn spawn(&mut self) -> std::io::Result<Child> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_nonblocking(true)?;
        let child = (self.build)().stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        self.generation = self.generation.wrapping_add(1).max(1);
        let mut parcel = (self.generation, ours);
        // A guard that is not running takes no sockets; the oldest ones are of dead brains, so wait for it.
        while let Err(rtrb::PushError::Full(back)) = self.sockets.push(parcel) {
            if self.shared.stop.load(Ordering::Acquire) {
                break;
            }
            parcel = back;
            std::thread::sleep(Duration::from_millis(SUPERVISOR_POLL_MS));
        }
        self.shared.pid.store(child.id(), Ordering::Release);
        self.shared.generation.store(self.generation, Ordering::Release);
        Ok(child)
    }

    /// Waits for the child's end, or brings it about. Returns how long it lived, in ms.
    fn mind(&self, mut child: Child) -> u64 {
        let mut lived_ms = 0;
        loop {
            let stop = self.shared.stop.load(Ordering::Acquire);
            if stop || self.shared.kill.load(Ordering::Acquire) == self.generation {
                // Fails only when the child has ended already.
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(SUPERVISOR_POLL_MS));
            lived_ms += SUPERVISOR_POLL_MS;
        }
        self.shared.generation.store(0, Ordering::Release);
        self.shared.pid.store(0, Ordering::Release);
        lived_ms
    }
}
