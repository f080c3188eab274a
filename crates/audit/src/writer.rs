//! The writer's thread and the queue into it.

use crate::disk::{Disk, FsDisk};
use crate::error::AuditError;
use crate::limits::{BATCH_RECORDS_MAX, COMMIT_MS, FILE_BYTES_MAX, RETRY_MS, RING_RECORDS};
use crate::lock::Lock;
use crate::log::{Entry, Log};
use crate::record::Record;
use crate::render::{Header, NOT_STORED, Note, QUEUE_FULL};
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
    /// [`AuditError::InUse`] while another writer has the folder; otherwise when the folder cannot be used or its end is not the one its head vouches for.
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
        let lock = Lock::take(dir)?;
        let (log, mut notes) = Log::open(dir, disk, header, options.file_bytes_max)?;
        let unstored = lock.unstored();
        if unstored > 0 {
            notes.push(Note::Gap { lost: unstored, reason: NOT_STORED });
        }
        let (producer, consumer) = rtrb::RingBuffer::new(options.ring_records.max(1));
        let health = Health::default();
        let work = Work {
            log,
            lock,
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
    lock: Lock,
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
        let mut begun = self.commit(true);
        let mut noted = false;
        loop {
            let stopping = self.health.0.stop.load(Ordering::Acquire);
            let more = self.fill();
            let fine = self.commit(!begun);
            begun |= fine;
            if begun && !noted {
                // The last writer's loss is in the chain now. If this fails it is noted twice, never hidden.
                noted = self.lock.unstored() == 0 || self.lock.set_unstored(0).is_ok();
            }
            let all_noted = self.consumer.is_empty() && self.health.lost() <= self.gaps_noted;
            if stopping && (!fine || all_noted) {
                let lost = self.unstored();
                if lost > 0 {
                    // The disk that refused them may refuse this too; then only the caller hears of it.
                    let _ = self.lock.set_unstored(lost);
                }
                return lost;
            }
            if !(more && fine) {
                let pause_ms = if fine { options.commit_ms } else { options.retry_ms };
                std::thread::park_timeout(Duration::from_millis(pause_ms));
            }
        }
    }

    /// Records that are in no durable line and named by no durable gap.
    fn unstored(&self) -> u64 {
        let waiting = self.batch.iter().map(|entry| match entry {
            Entry::Record(_) => 1,
            Entry::Note(Note::Gap { lost, .. }) => *lost,
            Entry::Note(_) => 0,
        });
        let dropped = self.health.lost().saturating_sub(self.gaps_noted);
        waiting.sum::<u64>() + self.consumer.slots() as u64 + dropped
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
            self.batch.push(Entry::Note(Note::Gap { lost: lost - self.gaps_noted, reason: QUEUE_FULL }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;
    use ganglion_site::{Event, Reason, Site, Timings};
    use std::io;

    /// A disk that is full for a while: half of the bytes arrive, then nothing.
    struct Full {
        disk: FsDisk,
        failures: u32,
        cuts: u32,
    }

    impl Disk for Full {
        fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            if self.failures == 0 {
                return self.disk.append(name, bytes);
            }
            self.failures -= 1;
            self.disk.append(name, &bytes[..bytes.len() / 2])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }

        fn cut(&mut self, name: &str, size_bytes: u64) -> io::Result<()> {
            // Every other one fails, so that leftovers must be removed later.
            self.cuts += 1;
            if self.cuts.is_multiple_of(2) {
                return self.disk.cut(name, size_bytes);
            }
            Err(io::Error::other("busy"))
        }

        fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.disk.replace(name, bytes)
        }
    }

    /// A disk that takes not one more byte of the log.
    struct NoRoom(FsDisk);

    impl Disk for NoRoom {
        fn append(&mut self, _: &str, _: &[u8]) -> io::Result<()> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }

        fn cut(&mut self, name: &str, size_bytes: u64) -> io::Result<()> {
            self.0.cut(name, size_bytes)
        }

        fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.replace(name, bytes)
        }
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ganglion-audit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn header() -> Header {
        let text = "name = \"t\"\n[model]\npath = \"n.gguf\"\n[guard]\nsafe = { action = \"none\" }\n";
        let site = Site::parse(text, Path::new("t.toml")).unwrap_or_else(|e| panic!("{e}"));
        Header { site: Arc::new(site), model_sha256: String::new(), schema_sha256: String::new() }
    }

    fn record(time_us: u64) -> Record {
        Record {
            kind: RecordKind::Mode,
            time_us,
            mode: "Held",
            breaker: "open",
            source: crate::Source::Guard,
            request: 0,
            event: Event::new(0, 0),
            outcome: None,
            command: None,
            clamped: None,
            verdict: None,
            reason: Reason::cut("Execute → Held"),
            confidence: 0.0,
            latency_us: 0,
            timings: Timings::default(),
            actuated: false,
        }
    }

    #[test]
    fn records_lost_to_a_full_disk_at_the_end_leave_a_gap_record_in_the_next_run() {
        let dir = folder("no-room");
        let options = Options { commit_ms: 1, retry_ms: 1, ring_records: 8, ..Options::default() };
        Writer::start(&dir, header(), options, || 0).unwrap().1.close().unwrap();
        // Two runs without room: the second passes the first one's loss on.
        for expected in [10, 20] {
            let disk = NoRoom(FsDisk::new(&dir));
            let (mut sink, writer) = Writer::start_on(&dir, disk, header(), options, || 0).unwrap();
            for i in 0..10 {
                sink.push(&record(i));
            }
            let error = writer.close().unwrap_err();
            assert!(matches!(error, AuditError::Lost { lost, .. } if lost == expected), "{error}");
            assert_eq!(crate::verify(&dir).unwrap().lost_at_end, expected);
        }
        Writer::start(&dir, header(), options, || 0).unwrap().1.close().unwrap();
        let lines: Vec<_> = crate::show(&dir).unwrap().map(|l| l.unwrap().text).collect();
        let gap = lines.iter().find(|l| l.contains("\"gap\"")).expect("a gap record");
        assert!(gap.contains("\"lost\":20") && gap.contains("ended before it could store"), "{gap}");
        assert_eq!(crate::verify(&dir).unwrap().lost_at_end, 0);
        Writer::start(&dir, header(), options, || 0).unwrap().1.close().unwrap();
        let gaps = crate::show(&dir).unwrap().filter(|l| l.as_ref().unwrap().text.contains("\"gap\""));
        assert_eq!(gaps.count(), 1, "noted once");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_full_disk_is_reported_kept_and_made_good() {
        let dir = folder("full");
        let disk = Full { disk: FsDisk::new(&dir), failures: 6, cuts: 0 };
        let options = Options { commit_ms: 1, retry_ms: 20, ..Options::default() };
        let (mut sink, writer) = Writer::start_on(&dir, disk, header(), options, || 0).unwrap();
        for i in 0..10 {
            assert!(sink.push(&record(i)));
        }
        let (mut seen_failing, mut tries) = (false, 0);
        while sink.health().written() < 11 {
            seen_failing |= sink.health().failing();
            std::thread::sleep(Duration::from_millis(1));
            tries += 1;
            assert!(tries < 20_000, "never recovered");
        }
        assert!(seen_failing);
        writer.close().unwrap();
        let report = crate::verify(&dir).unwrap();
        assert_eq!((report.records, report.unsealed), (11, 0), "every record once");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
