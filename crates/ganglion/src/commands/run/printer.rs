//! The thread that prints. What it cannot print in time is counted, never waited for.

use super::screen::Screen;
use super::world::News;
use crate::mission::Word;
use anyhow::{Context, Result};
use ganglion_guard::{LoopStats, Record, RtStatus, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that may wait for a slow terminal.
const LINES_MAX: usize = 1024;
/// How often the plant's readings are looked at when nothing else comes.
const TICK: Duration = Duration::from_millis(100);
/// Time that a terminal has to take the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Something to print.
pub enum Line {
    /// The run begins.
    Begin { memory: String, dry_run: bool },
    /// A decision or notice.
    Record(Box<Record>),
    /// A changed state.
    Status(Box<Status>),
    /// Word from the network.
    News(Box<News>),
    /// A mission goes on.
    Mission(Box<Word>),
    /// What the system granted the guard's thread.
    RealTime(RtStatus),
    /// The audit log stopped, or works again.
    Audit { failing: bool, lost: u64 },
    /// The file that keeps an abort cannot be written or removed.
    Latch(String),
    /// The recording stopped, or works again.
    Recording { failing: bool, lost_bytes: u64 },
    /// About a line that was typed.
    Input(String),
    /// What the run came to.
    End { stats: Box<LoopStats>, status: Box<Status> },
}

/// The printing thread.
pub struct Printer {
    lines: Lines,
    closed: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The way to it, for whoever has something to say and must not wait.
#[derive(Clone)]
pub struct Lines {
    waiting: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Prints a line when the terminal takes it.
    pub fn show(&self, line: Line) {
        if let Err(TrySendError::Full(_)) = self.waiting.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Printer {
    pub fn start(screen: Screen) -> Result<Self> {
        let (sender, waiting) = sync_channel(LINES_MAX);
        let closed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&closed);
        let thread = std::thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || {
                // The reader of our output has gone.
                if print(screen, &waiting).is_err() {
                    flag.store(true, Ordering::Release);
                }
            })
            .context("cannot start the printing thread")?;
        Ok(Self { lines: Lines { waiting: sender, lost: Arc::default() }, closed, thread })
    }

    /// Prints a line when the terminal takes it.
    pub fn show(&self, line: Line) {
        self.lines.show(line);
    }

    /// For other threads.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Prints the last line and waits for the terminal, a little.
    pub fn end(self, line: Line) {
        self.show(line);
        let lost = self.lines.lost.load(Ordering::Relaxed);
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < LAST_LINES {
            std::thread::sleep(Duration::from_millis(2));
        }
        if lost > 0 {
            eprintln!(
                "{lost} lines were not printed: the output was not read in time; the audit log has all records"
            );
        }
    }
}

fn print(mut screen: Screen, waiting: &Receiver<Line>) -> Result<()> {
    loop {
        match waiting.recv_timeout(TICK) {
            Ok(line) => {
                screen.print(&line)?;
                // Others may still hold a way here.
                if matches!(line, Line::End { .. }) {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        screen.plant()?;
    }
}
