//! The writer's thread and the queue into it.

use crate::disk::{Disk, FsDisk};
use crate::error::AuditError;
use crate::limits::{BATCH_RECORDS_MAX, COMMIT_MS, FILE_BYTES_MAX, RETRY_MS, RING_RECORDS};
use crate::log::{Entry, Log};
use crate::record::Record;
use crate::render::{Header, Note};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sizes and pauses; the defaults are those of [`limits`](crate::limits).
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Size after which a new file is begun.
    pub file_bytes_max: u64,
    /// Records that may wait for the writer.
    pub ring_records: usize,
    /// Pause between commits.
    pub commit_ms: u64,
    /// Pause after a failed commit.
    pub retry_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_MAX,
            ring_records: RING_RECORDS,
            commit_ms: COMMIT_MS,
            retry_ms: RETRY_MS,
        }
    }
}

/// Where the guard puts records: never waits, never allocates.
#[derive(Debug)]
pub struct Sink {
    producer: rtrb::Producer<Record>,
    health: Health,
}

/// How the log is doing; readable from any thread.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    written: AtomicU64,
    failing: AtomicBool,
    stop: AtomicBool,
}

/// The writer's thread.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<u64>,
    health: Health,
    dir: PathBuf,
}

impl Sink {
    /// Queues a record; `false` when the queue is full. Then the record is lost and counted, and a `gap` record will say
    /// so: the newest are dropped, what is queued stays in order.
    pub fn push(&mut self, record: &Record) -> bool {
        let queued = self.producer.push(*record).is_ok();
        if !queued {
            self.health.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    /// How the log is doing.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Health {
    /// Records lost because the queue was full.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Lines durably written in this run.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// The last commit failed (disk full, folder gone); the writer keeps trying and keeps what it has.
    pub fn failing(&self) -> bool {
        self.0.failing.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Opens or continues the log in `dir` and starts its thread. `wall_ms` gives the wall-clock time in milliseconds
    /// since 1970; it is called on the writer's thread.
    ///
    /// # Errors
    /// [`AuditError`] when the folder cannot be used or its end is not the one its head vouches for.
    pub fn start(
        dir: &Path,
        header: Header,
        options: Options,
        wall_ms: impl FnMut() -> u64 + Send + 'static,
    ) -> Result<(Sink, Self), AuditError> {
        std::fs::create_dir_all(dir).map_err(|e| AuditError::io(dir, e))?;
        Self::start_on(dir, FsDisk::new(dir), header, options, wall_ms)
    }

    pub(crate) fn start_on<D: Disk + 'static>(
        dir: &Path,
        disk: D,
        header: Header,
        options: Options,
        wall_ms: impl FnMut() -> u64 + Send + 'static,
    ) -> Result<(Sink, Self), AuditError> {
        let (log, notes) = Log::open(dir, disk, header, options.file_bytes_max)?;
        let (producer, consumer) = rtrb::RingBuffer::new(options.ring_records.max(1));
        let health = Health::default();
        let work = Work {
            log,
            consumer,
            health: health.clone(),
            wall_ms,
            batch: notes.into_iter().map(Entry::Note).collect(),
            gaps_noted: 0,
            seal_owed: false,
        };
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || work.run(options))
            .map_err(|e| AuditError::io(dir, e))?;
        Ok((Sink { producer, health: health.clone() }, Self { thread, health, dir: dir.to_owned() }))
    }

    /// Writes what is queued and ends the thread.
    ///
    /// # Errors
    /// [`AuditError::Lost`] when records could not be written at last.
    pub fn close(self) -> Result<(), AuditError> {
        self.health.0.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(0) => Ok(()),
            Ok(lost) => Err(AuditError::Lost { dir: self.dir, lost }),
            Err(_) => Err(AuditError::Lost { dir: self.dir, lost: u64::MAX }),
        }
    }
}

/// The writer's own state.
struct Work<D, W> {
    log: Log<D>,
    consumer: rtrb::Consumer<Record>,
    health: Health,
    wall_ms: W,
    /// Taken from the queue, not yet durable.
    batch: Vec<Entry>,
    gaps_noted: u64,
    seal_owed: bool,
}

impl<D: Disk, W: FnMut() -> u64> Work<D, W> {
    /// Returns how many records could not be written.
    fn run(mut self, options: Options) -> u64 {
        // The header is written at once, so that even a run without a decision leaves its trace.
        let mut fine = self.commit(true);
        loop {
            let stopping = self.health.0.stop.load(Ordering::Acquire);
            let more = self.fill();
            if fine || !stopping {
                fine = self.commit(false);
            }
            if stopping && (!fine || self.consumer.is_empty()) {
                return self.batch.len() as u64 + self.consumer.slots() as u64;
            }
            if !(more && fine) {
                let pause_ms = if fine { options.commit_ms } else { options.retry_ms };
                std::thread::park_timeout(Duration::from_millis(pause_ms));
            }
        }
    }

    /// Takes from the queue what one batch holds; `true` when there is more.
    fn fill(&mut self) -> bool {
        while self.batch.len() < BATCH_RECORDS_MAX {
            match self.consumer.pop() {
                Ok(record) => self.batch.push(Entry::Record(Box::new(record))),
                Err(_) => break,
            }
        }
        let lost = self.health.lost();
        if lost > self.gaps_noted && self.batch.len() < BATCH_RECORDS_MAX {
            self.batch.push(Entry::Note(Note::Gap { lost: lost - self.gaps_noted }));
            self.gaps_noted = lost;
        }
        !self.consumer.is_empty()
    }

    /// Makes the batch durable; on failure it stays for the next try.
    fn commit(&mut self, even_empty: bool) -> bool {
        if self.batch.is_empty() && !even_empty {
            self.seal_owed = self.seal_owed && self.log.seal().is_err();
            self.health.0.failing.store(self.seal_owed, Ordering::Relaxed);
            return !self.seal_owed;
        }
        let before = self.log.count();
        match self.log.append(&self.batch, (self.wall_ms)()) {
            Ok(unsealed) => {
                self.batch.clear();
                self.seal_owed = unsealed.is_some();
                self.health.0.written.fetch_add(self.log.count() - before, Ordering::Relaxed);
            }
            Err(_) => {
                self.health.0.failing.store(true, Ordering::Relaxed);
                return false;
            }
        }
        self.health.0.failing.store(self.seal_owed, Ordering::Relaxed);
        !self.seal_owed
    }
}
