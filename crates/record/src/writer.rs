//! The writer's thread: from the ring to files, and to the flight recorder's memory.
//!
//! A file is the eight bytes `GANGREC1`, the header and then blocks. The header is size (u32, little-endian), CRC-32 of the
//! content, and content, a JSON object, whatever the format's version. A block is size, CRC-32 of the content, CRC-32 of these
//! eight bytes, and content: frames, each preceded by its size (u32) and kind (one byte).
//! Every file begins with the site's text and a saved state, so that each can be replayed by itself.

use crate::error::RecordError;
use crate::frame::{Adopt, Kind, fold, unfold};
use crate::limits::*;
use crate::reader::{first_frame, head_checksum};
use crate::store::{Folder, Store};
use crate::tape::{Fault, Tape};
use ganglion_guard::{Fingerprint, Guard};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const MAGIC: &[u8; 8] = b"GANGREC1";
/// Of frames and states; another one is refused by a reader.
pub(crate) const FORMAT: u16 = 2;
pub(crate) const EXTENSION: &str = "grec";

/// What to keep of a run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Made if missing.
    pub folder: PathBuf,
    /// Every cycle goes to disk, not only what surrounds a fault.
    pub everything: bool,
    /// Sentences too; otherwise stand-ins for them.
    pub keep_text: bool,
    /// Most that the files of one run's recording may take together; the oldest go first.
    pub size_bytes_max: u64,
    /// How far back the flight recorder goes.
    pub flight_us: u64,
}

/// What a recording says about itself.
#[derive(Debug, Clone)]
pub struct About {
    /// The site file's path, for messages.
    pub site_file: PathBuf,
    /// Its text and the text's SHA-256.
    pub site: (Arc<str>, Fingerprint),
    /// SHA-256 of the model files, hexadecimal, by variant; the first choice first.
    pub models: Vec<String>,
    /// Nothing was actuated.
    pub dry_run: bool,
}

/// How a recording is doing; readable from any thread.
#[derive(Debug, Clone)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub lost_cycles: AtomicU64,
    lost_bytes: AtomicU64,
    written_bytes: AtomicU64,
    faults: AtomicU64,
    failing: AtomicBool,
    stop: AtomicBool,
    /// Texts of the policies that may be taken over. Never touched by the guard's thread.
    texts: Mutex<BTreeMap<Fingerprint, Arc<str>>>,
}

impl Health {
    /// Cycles that found no room in the ring. A replay goes on after them.
    pub fn lost_cycles(&self) -> u64 {
        self.0.lost_cycles.load(Ordering::Relaxed)
    }

    /// Bytes that no disk took.
    pub fn lost_bytes(&self) -> u64 {
        self.0.lost_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are in files.
    pub fn written_bytes(&self) -> u64 {
        self.0.written_bytes.load(Ordering::Relaxed)
    }

    /// Files of faults that were written.
    pub fn faults(&self) -> u64 {
        self.0.faults.load(Ordering::Relaxed)
    }

    /// The last write failed: disk full, folder gone. It is tried again; what comes meanwhile is lost.
    pub fn failing(&self) -> bool {
        self.0.failing.load(Ordering::Relaxed)
    }

    /// Makes a policy's text known, before the guard is given the policy.
    pub fn announce(&self, fingerprint: Fingerprint, text: Arc<str>) {
        self.0.texts.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint, text);
    }
}

/// The writer's thread.
#[derive(Debug)]
pub struct Writer {
    thread: Option<JoinHandle<()>>,
    health: Health,
}

impl Writer {
    /// Starts the thread; the tape is for the guard's. `wall_ms` gives the wall-clock time in milliseconds since 1970.
    ///
    /// # Errors
    /// [`RecordError::Unusable`] when there is no such folder to be had, or no file can be written in it.
    pub fn start(
        guard: &Guard,
        options: Options,
        about: About,
        wall_ms: impl FnMut() -> u64 + Send + 'static,
    ) -> Result<(Tape, Self), RecordError> {
        let unusable = |source| RecordError::Unusable { path: options.folder.clone(), source };
        let folder = Folder::new(&options.folder).map_err(unusable)?;
        Self::start_on(folder, guard, options.clone(), about, wall_ms).map_err(unusable)
    }

    pub(crate) fn start_on(
        store: impl Store + 'static,
        guard: &Guard,
        options: Options,
        about: About,
        wall_ms: impl FnMut() -> u64 + Send + 'static,
    ) -> std::io::Result<(Tape, Self)> {
        let next = |prefix: &str| -> std::io::Result<u32> {
            let numbers = store.list()?.into_iter().filter_map(|(name, _)| number_of(&name, prefix));
            Ok(numbers.max().unwrap_or(0) + 1)
        };
        let (next_record, next_fault) = (next("record")?, next("fault")?);
        let (producer, ring) = rtrb::RingBuffer::new(RING_BYTES);
        let shared = Arc::new(Shared::default());
        let health = Health(Arc::clone(&shared));
        health.announce(about.site.1, Arc::clone(&about.site.0));
        let tape = Tape::new(guard, producer, Arc::clone(&shared), options.keep_text, about.site.1);
        let mut work = Work {
            store,
            ring,
            shared,
            options,
            about,
            wall_ms,
            run: run_id(),
            file: None,
            block: Vec::new(),
            site: None,
            flight: VecDeque::new(),
            flight_bytes: 0,
            fault: None,
            next_record,
            next_fault,
        };
        work.try_out()?;
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || work.run())?;
        Ok((tape, Self { thread: Some(thread), health }))
    }

    /// How the recording is doing.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Drop for Writer {
    /// Writes what is in the ring, and a fault whose aftermath is still being waited for.
    fn drop(&mut self) {
        self.health.0.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct OpenFile {
    name: String,
    size_bytes: u64,
    /// There is nothing behind its header.
    is_empty: bool,
}

/// Frames from one saved state to the next.
struct Segment {
    site: Fingerprint,
    from_us: u64,
    bytes: Vec<u8>,
}

struct Work<S, W> {
    store: S,
    ring: rtrb::Consumer<u8>,
    shared: Arc<Shared>,
    options: Options,
    about: About,
    wall_ms: W,
    /// Tells this run from every other one whose files lie in the same folder.
    run: String,
    /// `None` until the next saved state.
    file: Option<OpenFile>,
    block: Vec<u8>,
    /// The site whose text the open file has last.
    site: Option<Fingerprint>,
    flight: VecDeque<Segment>,
    flight_bytes: usize,
    /// The first fault that no file tells of yet, and when its file is due.
    fault: Option<(Fault, u64)>,
    next_record: u32,
    next_fault: u32,
}

impl<S: Store, W: FnMut() -> u64> Work<S, W> {
    fn run(mut self) {
        loop {
            let stopping = self.shared.stop.load(Ordering::Acquire);
            while let Some(frame) = self.next_frame() {
                self.take(&frame);
            }
            let fine = self.commit();
            let now_us = ganglion_guard::monotonic_us();
            if let Some((fault, due_us)) = self.fault
                && (stopping || now_us >= due_us)
            {
                let written = self.write_fault(fault);
                self.fault = if written { None } else { Some((fault, now_us + RETRY_MS * 1000)) };
            }
            if stopping {
                if let Some(file) = &self.file {
                    let _ = if file.is_empty {
                        self.store.remove(&file.name)
                    } else {
                        self.store.sync(&file.name)
                    };
                }
                return;
            }
            let pause_ms = if fine { COMMIT_MS } else { RETRY_MS };
            std::thread::park_timeout(Duration::from_millis(pause_ms));
        }
    }

    /// The next frame with its size before it.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let head: Vec<u8> = self.ring.read_chunk(4).ok()?.into_iter().collect();
        let size = u32::from_le_bytes(head.as_slice().try_into().ok()?) as usize;
        let mut frame = head;
        // Pushed in one piece, so that it is there.
        frame.extend(self.ring.read_chunk(size).ok()?);
        Some(frame)
    }

    fn take(&mut self, frame: &[u8]) {
        let Some((kind, body)) = frame.get(4..).and_then(|f| Some((Kind::of(*f.first()?)?, f.get(1..)?)))
        else {
            return;
        };
        match kind {
            Kind::State => self.at_state(body),
            Kind::Adopt => {
                let adopt =
                    unfold(body, CYCLE_BYTES_MAX).and_then(|b| postcard::from_bytes::<Adopt>(&b).ok());
                if let Some(adopt) = adopt {
                    self.write_site(adopt.after);
                }
            }
            Kind::Fault => {
                let fault = unfold(body, 64).and_then(|b| postcard::from_bytes(&b).ok());
                if let (Some(fault), None) = (fault, self.fault) {
                    self.fault = Some((fault, ganglion_guard::monotonic_us() + AFTERMATH_US));
                }
            }
            _ => {}
        }
        self.append(frame);
    }

    /// For the open file and for the flight recorder.
    fn append(&mut self, frame: &[u8]) {
        if self.file.is_some() {
            self.block.extend_from_slice(frame);
        }
        if let Some(segment) = self.flight.back_mut() {
            segment.bytes.extend_from_slice(frame);
            self.flight_bytes += frame.len();
        }
    }

    /// A replay can begin here: so can a file, and a piece of the flight recorder's memory.
    fn at_state(&mut self, body: &[u8]) {
        let site = unfold(body, STATE_BYTES_MAX).and_then(|b| Fingerprint::try_from(b.get(..32)?).ok());
        let Some(site) = site else { return };
        let now_us = ganglion_guard::monotonic_us();
        let (file_max, _) = self.file_sizes();
        let full = self.file.as_ref().is_some_and(|f| f.size_bytes + self.block.len() as u64 >= file_max);
        if full {
            self.commit();
            if let Some(file) = self.file.take() {
                let _ = self.store.sync(&file.name);
            }
        }
        self.flight.push_back(Segment { site, from_us: now_us, bytes: Vec::new() });
        self.forget(now_us);
        if self.options.everything && self.file.is_none() {
            // Told by `tell`, and tried again at the next state.
            let _ = self.begin_file();
        }
        if self.site != Some(site) {
            self.write_site(site);
        }
        if let Some(file) = &self.file {
            let _ = self.store.sync(&file.name);
        }
    }

    /// Drops what the flight recorder need not remember: a segment goes when the one after it reaches far enough back.
    fn forget(&mut self, now_us: u64) {
        let from_us = now_us.saturating_sub(self.options.flight_us);
        while self.flight.get(1).is_some_and(|next| next.from_us <= from_us)
            || (self.flight.len() > 1 && self.flight_bytes > FLIGHT_BYTES_MAX)
        {
            let Some(gone) = self.flight.pop_front() else { return };
            self.flight_bytes -= gone.bytes.len();
        }
    }

    fn file_sizes(&self) -> (u64, u64) {
        let (least, most) = FILE_BYTES;
        let file_max = (self.options.size_bytes_max / 8).clamp(least, most);
        (file_max, self.options.size_bytes_max)
    }

    /// What cannot be written at the start is an error, not something to wait for.
    fn try_out(&mut self) -> std::io::Result<()> {
        if self.options.everything {
            return self.begin_file();
        }
        let name = format!("fault-{:06}.{EXTENSION}", self.next_fault);
        self.store.create(&name)?;
        self.store.remove(&name)
    }

    fn begin_file(&mut self) -> std::io::Result<()> {
        let name = format!("record-{:06}.{EXTENSION}", self.next_record);
        self.next_record += 1;
        self.make_room();
        let header = self.header(json!({"kind": "recording"}));
        let begun = self.store.create(&name).and_then(|()| self.store.append(&name, &header));
        self.tell(begun.is_ok());
        match &begun {
            Ok(()) => {
                self.file = Some(OpenFile { name, size_bytes: header.len() as u64, is_empty: true });
                self.site = None;
            }
            Err(_) => {
                // What is there of it is no recording.
                let _ = self.store.remove(&name);
            }
        }
        begun
    }

    /// Removes the oldest files of the recording, so that one more stays within its size.
    fn make_room(&mut self) {
        let (file_max, all_max) = self.file_sizes();
        let Ok(files) = self.store.list() else { return };
        let files: Vec<_> =
            files.into_iter().filter(|(name, _)| number_of(name, "record").is_some()).collect();
        let mut total: u64 = files.iter().map(|(_, size)| size).sum();
        for (name, size) in files {
            if total + file_max <= all_max {
                return;
            }
            if self.store.remove(&name).is_ok() {
                total -= size;
            }
        }
    }

    /// The text that a fingerprint stands for, once per file.
    fn write_site(&mut self, site: Fingerprint) {
        self.site = Some(site);
        if let Some(frame) = self.site_frame(site)
            && self.file.is_some()
        {
            self.block.extend_from_slice(&frame);
        }
    }

    fn site_frame(&self, site: Fingerprint) -> Option<Vec<u8>> {
        let texts = self.shared.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let text = Arc::clone(texts.get(&site)?);
        drop(texts);
        let body: Vec<u8> = site.iter().copied().chain(text.bytes()).collect();
        let mut folded = vec![0; body.len() * 2 + 2];
        let size = fold(&body, &mut folded)?;
        let total = u32::try_from(size + 1).ok()?;
        let bytes =
            total.to_le_bytes().into_iter().chain([Kind::Site as u8]).chain(folded.into_iter().take(size));
        Some(bytes.collect())
    }

    fn header(&mut self, more: serde_json::Value) -> Vec<u8> {
        let mut header = json!({
            "format": FORMAT, "program": env!("CARGO_PKG_VERSION"), "site_file": self.about.site_file,
            "models": self.about.models, "run": self.run, "dry_run": self.about.dry_run, "keep_text": self.options.keep_text,
            "wall_ms": (self.wall_ms)(), "monotonic_us": ganglion_guard::monotonic_us(),
        });
        if let (Some(header), serde_json::Value::Object(more)) = (header.as_object_mut(), more) {
            header.extend(more);
        }
        let header = header.to_string();
        let size = u32::try_from(header.len()).unwrap_or(u32::MAX);
        let crc = ganglion_site::crc32(header.as_bytes());
        let words = [size, crc].into_iter().flat_map(u32::to_le_bytes);
        MAGIC.iter().copied().chain(words).chain(header.bytes()).collect()
    }

    /// What has come since the last time. On failure it is lost, and so is what follows up to the next saved
    /// state, where a new file begins.
    fn commit(&mut self) -> bool {
        let Some(file) = self.file.as_mut().filter(|_| !self.block.is_empty()) else { return true };
        let bytes = blocks(&self.block);
        let fine = self.store.append(&file.name, &bytes).is_ok();
        if fine {
            file.size_bytes += bytes.len() as u64;
            file.is_empty = false;
            self.shared.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        } else {
            // Half a block is one that its checksum gives away, if this fails too.
            let _ = self.store.cut(&file.name, file.size_bytes);
            self.shared.lost_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.file = None;
        }
        self.block.clear();
        self.tell(fine);
        fine
    }

    /// The flight recorder's memory as a file of its own.
    fn write_fault(&mut self, fault: Fault) -> bool {
        let Some(first) = self.flight.front() else { return true };
        let name = format!("fault-{:06}.{EXTENSION}", self.next_fault);
        let (mut site, mut frames) = (first.site, self.site_frame(first.site).unwrap_or_default());
        for segment in &self.flight {
            // A policy that came within a segment is told there.
            if segment.site != site {
                frames.extend(self.site_frame(segment.site).unwrap_or_default());
                site = segment.site;
            }
            frames.extend_from_slice(&with_sites(&segment.bytes, |site| self.site_frame(site)));
        }
        let mut bytes = self.header(json!({"kind": "fault", "fault": fault.as_str()}));
        bytes.extend(blocks(&frames));
        let fine = self.store.create(&name).and_then(|()| self.store.append(&name, &bytes));
        let fine = fine.and_then(|()| self.store.sync(&name)).is_ok();
        self.tell(fine);
        if !fine {
            let _ = self.store.remove(&name);
            return false;
        }
        self.next_fault += 1;
        self.shared.faults.fetch_add(1, Ordering::Relaxed);
        let files = self.store.list().unwrap_or_default();
        let faults: Vec<_> =
            files.into_iter().filter(|(name, _)| number_of(name, "fault").is_some()).collect();
        for (name, _) in faults.iter().take(faults.len().saturating_sub(FAULT_FILES_MAX)) {
            let _ = self.store.remove(name);
        }
        true
    }

    fn tell(&self, fine: bool) {
        self.shared.failing.store(!fine, Ordering::Relaxed);
    }
}

/// Frames with the text of each policy before the frame that takes it over.
fn with_sites(frames: &[u8], text: impl Fn(Fingerprint) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len());
    let mut rest = frames;
    while let Some((size, body)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size) as usize;
        let Some((body, after)) = body.split_at_checked(size) else { break };
        if let Some((kind, body)) = body.split_first()
            && *kind == Kind::Adopt as u8
            && let Some(adopt) = unfold(body, 1024).and_then(|b| postcard::from_bytes::<Adopt>(&b).ok())
        {
            out.extend(text(adopt.after).unwrap_or_default());
        }
        out.extend_from_slice(&rest[..size + 4]);
        rest = after;
    }
    out
}

/// Frames as blocks.
pub(crate) fn blocks(frames: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frames.len() + 64);
    let mut rest = frames;
    while !rest.is_empty() {
        let mut end = 0;
        while end < BLOCK_BYTES
            && let Some((_, after)) = first_frame(rest.get(end..).unwrap_or(&[]))
        {
            end = rest.len() - after.len();
        }
        let (content, after) = rest.split_at(if end == 0 { rest.len() } else { end });
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let crc = ganglion_site::crc32(content);
        bytes.extend([size, crc, head_checksum(size, crc)].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend_from_slice(content);
        rest = after;
    }
    bytes
}

/// No two runs of a machine have the same.
fn run_id() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{}-{}-{}", boot.trim(), std::process::id(), ganglion_guard::monotonic_us())
}

/// The number in a file's name, when it is one of a recording's.
pub(crate) fn number_of(name: &str, prefix: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('-')?;
    rest.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()
}

/// SHA-256 of a site file's text.
pub fn fingerprint(text: &str) -> Fingerprint {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes()).into()
}

/// Whether a path looks like a file of a recording.
pub(crate) fn is_recording(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}
