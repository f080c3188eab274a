//! Recordings of a guard that meets everything, written, damaged, read and run again.

use crate::limits;
use crate::store::{Folder, Store};
use crate::*;
use ganglion_guard::*;
use ganglion_site::{Command, Decision, Event, Outcome, Reason, Sentence, Site, TagValues, Timings};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The example with time for an answer in the cycle after the question.
static SITE: LazyLock<String> = LazyLock::new(|| {
    include_str!("../../../examples/conveyor/site.toml").replace("deadline_ms = 15", "deadline_ms = 50")
});

fn site(text: &str) -> Site {
    Site::parse(text, Path::new("site.toml")).unwrap_or_else(|e| panic!("{e}"))
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ganglion-record-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        Folder::new(&self.0).unwrap().list().unwrap().into_iter().map(|(name, _)| name).collect()
    }

    fn bytes(&self) -> u64 {
        Folder::new(&self.0).unwrap().list().unwrap().into_iter().map(|(_, size)| size).sum()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(dir: &Dir) -> Options {
    Options {
        folder: dir.0.clone(),
        everything: true,
        keep_text: true,
        size_bytes_max: 64 << 20,
        flight_us: 60_000_000,
    }
}

fn about(text: &str) -> About {
    About {
        site_file: "site.toml".into(),
        site: (text.into(), fingerprint(text)),
        models: vec!["00".into()],
        dry_run: false,
    }
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// A guard with a tape, driven by random inputs.
struct Plant {
    site: Site,
    guard: Guard,
    tape: Tape,
    cycle: u64,
    epoch: u64,
    seed: u64,
    calm: bool,
}

impl Plant {
    fn new(guard: Guard, site: Site, tape: Tape, seed: u64) -> Self {
        Self { site, guard, tape, cycle: 0, epoch: 0, seed, calm: false }
    }

    fn command(&self, json: &str) -> Command {
        Command::from_json(&self.site, json).unwrap()
    }

    /// Returns how many records the cycle made.
    fn step(&mut self) -> usize {
        let now = 5_000_000 + self.cycle * 20_000 + mix(self.cycle) % 300;
        let r = mix(self.seed ^ self.cycle << 8);
        let pick = |shift: u32, n: u64| (r >> shift) % n;
        let torque = if pick(0, 60) == 0 && !self.calm { 95.0 } else { 30.0 + pick(1, 40) as f64 / 2.0 };
        let wear = if pick(5, 80) == 0 { f64::NAN } else { 100.0 + (self.cycle / 9 % 50) as f64 };
        let tags = [
            TagSample::good(torque, now - pick(9, 900)),
            TagSample::good(wear, now),
            TagSample { value: 1500.0, quality: Quality::Good, time_us: now },
            TagSample::good(298.0, now / 40_000 * 40_000),
        ];
        let answer = self.command(
            [r#"{"action":"accept"}"#, r#"{"action":"slow_down","percent":15}"#][pick(12, 2) as usize],
        );
        let answer = Decision {
            epoch: self.epoch,
            command: (pick(13, 8) > 0).then_some(answer),
            outcome: Outcome::Model,
            confidence: pick(16, 100) as f32 / 100.0,
            timings: Timings { decode_us: 700, ..Timings::default() },
            reason: Reason::EMPTY,
        };
        let decisions = [Decision::SIGN_OF_LIFE, answer];
        let mut given = TagValues::NONE;
        if pick(20, 3) == 0 {
            given.set(0, 55.0 + pick(22, 20) as f64);
        }
        let event = (pick(26, 4) == 0).then(|| Request {
            id: self.cycle,
            source: Source::Http,
            client: pick(28, 3),
            sentence: Sentence::cut(["", "a secret wish", "is this secret?"][pick(30, 3) as usize]),
            tags: given,
            deadline_ms: None,
            dry_run: pick(32, 9) == 0,
            stream: false,
            command: None,
            others: 0,
        });
        let operators =
            [OperatorCommand::Reset, OperatorCommand::Start, OperatorCommand::Clear, OperatorCommand::Abort];
        let operator = operators.get(pick(36, if self.calm { 3 } else { 20 }) as usize).copied();
        let input = Input {
            tags: &tags,
            link: Link {
                connected: pick(40, 90) > 0 || self.calm,
                watchdog: DeviceWatchdog::Armed,
                heartbeat_ack_us: now - 5,
            },
            sole_writer: pick(44, 99) > 0 || self.calm,
            event: event.as_ref(),
            decisions: decisions.get(..pick(48, 3) as usize).unwrap_or(&[]),
            progress: &[],
            brain: if pick(51, 99) == 0 && !self.calm {
                BrainProcess::Restarting
            } else {
                BrainProcess::Running { generation: 1 }
            },
            operator,
            estop: pick(55, 300) == 0 && !self.calm,
        };
        self.tape.begins(&self.guard, now, &input);
        let seen = self.guard.cycle(now, &input).seen();
        self.epoch = seen.event.map_or(self.epoch, |event| event.epoch);
        let records = seen.records.len();
        self.tape.ends(&seen);
        self.cycle += 1;
        records
    }

    /// No faster than the writer writes.
    fn run(&mut self, cycles: u64) {
        for _ in 0..cycles {
            while self.tape.room() < limits::RING_BYTES / 2 {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.step();
        }
    }
}

fn start(dir: &Dir, options: Options, text: &str, seed: u64) -> (Plant, Writer) {
    let guard = Guard::new(&site(text)).unwrap();
    let (tape, writer) = Writer::start(&guard, options, about(text), || 42).unwrap();
    assert!(dir.0.is_dir());
    (Plant::new(guard, site(text), tape, seed), writer)
}

fn read(dir: &Dir) -> Report {
    let files: Vec<_> = files(&dir.0).unwrap().iter().map(|file| Recording::open(file).unwrap()).collect();
    replay(&files, None).unwrap()
}

#[test]
fn invariant_28_a_recording_replays_bit_for_bit() {
    let dir = Dir::new("whole");
    let (mut plant, writer) = start(&dir, options(&dir), &SITE, 1);
    plant.run(3000);
    // Another policy in the middle of it, and a notice.
    let text = SITE.replace("hi = 60\nhihi = 90", "hi = 50\nhihi = 80");
    let mut policy =
        Policy::new((&plant.site, fingerprint(&SITE)), (&site(&text), fingerprint(&text))).unwrap();
    writer.health().announce(fingerprint(&text), text.as_str().into());
    plant.tape.adopted(policy.fingerprint());
    plant.guard.adopt(&mut policy);
    plant.run(500);
    let notice = Notice::refused("no");
    plant.tape.noted(&notice);
    plant.guard.note(notice);
    plant.run(1500);
    assert_eq!(writer.health().lost_cycles(), 0);
    drop(writer);
    let report = read(&dir);
    assert_eq!(report.difference, None);
    assert_eq!((report.cycles, report.policies, report.gaps, report.torn), (5000, 1, 0, 0));
    assert!(report.states >= 9 && report.events > 1000 && report.actuated > 100, "{report:?}");
    assert!(report.verdicts[0] > 100 && report.verdicts[2] > 100, "{report:?}");
    assert_eq!(plant.guard.status().counters.cycles, 5000);
}

#[test]
fn a_verdict_that_differs_is_reported_with_its_cycle() {
    let dir = Dir::new("differs");
    // What ran is not what the recording says ran: another limit.
    let other = SITE.replace("on = \"slow_down.percent\"\nlo = 20", "on = \"slow_down.percent\"\nlo = 12");
    assert_ne!(other, *SITE);
    let guard = Guard::new(&site(&other)).unwrap();
    let (tape, writer) = Writer::start(&guard, options(&dir), about(&SITE), || 42).unwrap();
    let mut plant = Plant::new(guard, site(&SITE), tape, 3);
    plant.calm = true;
    plant.run(600);
    drop(writer);
    let difference = read(&dir).difference.expect("found");
    assert!(difference.what.contains("verdict"), "{difference:?}");
    assert_eq!(difference.recorded, "Some(Approved)");
    assert_eq!(difference.replayed, "Some(Rejected)");
    // The very first one: all before it is the same, which the report of the files cut there shows.
    assert!((5..300).contains(&difference.cycle), "{difference:?}");
    assert!(difference.time_us >= 5_000_000 + (difference.cycle - 1) * 20_000, "{difference:?}");
}

#[test]
fn without_text_no_sentence_is_written_and_the_guard_is_replayed_all_the_same() {
    for keep_text in [true, false] {
        let dir = Dir::new(if keep_text { "text" } else { "no-text" });
        let (mut plant, writer) = start(&dir, Options { keep_text, ..options(&dir) }, &SITE, 5);
        plant.run(1200);
        drop(writer);
        let bytes = std::fs::read(dir.0.join("record-000001.grec")).unwrap();
        let found = bytes.windows(6).any(|window| window == b"secret");
        assert_eq!(found, keep_text);
        let report = read(&dir);
        assert_eq!((report.cycles, report.difference), (1200, None));
    }
}

#[test]
fn a_recording_stays_within_its_size_and_its_rest_replays() {
    let dir = Dir::new("size");
    let size_bytes_max = 600_000;
    let (mut plant, writer) = start(&dir, Options { size_bytes_max, ..options(&dir) }, &SITE, 7);
    plant.run(14_000);
    drop(writer);
    let names = dir.names();
    assert!(!names.contains(&"record-000001.grec".to_owned()), "the oldest are gone: {names:?}");
    let records: Vec<_> = names.iter().filter(|name| name.starts_with("record")).collect();
    assert!(records.len() >= 2, "{names:?}");
    // A state comes every ten seconds, and only there a file can end.
    assert!(dir.bytes() < size_bytes_max * 3 / 2 + 32 * 300_000, "{} bytes", dir.bytes());
    let report = read(&dir);
    assert_eq!((report.difference.as_ref(), report.gaps), (None, 0), "{report:?}");
    assert!(report.cycles > 1000 && report.cycles < 14_000, "{report:?}");
}

#[test]
fn what_the_ring_has_no_room_for_is_counted_and_the_replay_goes_on_after_it() {
    let dir = Dir::new("ring");
    let guard = Guard::new(&site(&SITE)).unwrap();
    let stuck = Arc::new(AtomicBool::new(false));
    let store =
        Stuck { folder: Folder::new(&dir.0).unwrap(), stuck: Arc::clone(&stuck), fails: false, cuts: true };
    let (tape, writer) = Writer::start_on(store, &guard, options(&dir), about(&SITE), || 1).unwrap();
    stuck.store(true, Ordering::Release);
    let mut plant = Plant::new(guard, site(&SITE), tape, 9);
    // However much the writer has taken before it waits.
    for _ in 0..limits::RING_BYTES {
        plant.step();
        if writer.health().lost_cycles() > 50 {
            break;
        }
    }
    stuck.store(false, Ordering::Release);
    while plant.tape.room() < limits::RING_BYTES / 2 {
        std::thread::sleep(Duration::from_millis(2));
    }
    plant.run(300);
    let lost = writer.health().lost_cycles();
    assert!(lost > 50);
    drop(writer);
    let report = read(&dir);
    assert_eq!(report.difference, None);
    // The cycle in which the room ended has no end of its own.
    assert!(report.gaps >= 1 && (lost..=lost + report.gaps).contains(&report.lost_cycles), "{report:?}");
    assert_eq!(report.lost_cycles + report.cycles, plant.cycle);
}

/// A disk that waits, or refuses.
struct Stuck {
    folder: Folder,
    stuck: Arc<AtomicBool>,
    fails: bool,
    cuts: bool,
}

impl Store for Stuck {
    fn create(&mut self, name: &str) -> io::Result<()> {
        self.folder.create(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.fails && self.stuck.load(Ordering::Acquire) {
            // Half arrives, as on a real disk.
            self.folder.append(name, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        while self.stuck.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.folder.append(name, bytes)
    }

    fn cut(&mut self, name: &str, size_bytes: u64) -> io::Result<()> {
        if self.cuts { self.folder.cut(name, size_bytes) } else { Err(io::ErrorKind::Other.into()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.folder.sync(name)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.folder.list()
    }
}

#[test]
fn invariant_28_a_full_disk_costs_what_did_not_fit_and_nothing_else() {
    // Half a block is left behind, or nothing: then only the states tell that cycles are missing.
    for cuts in [false, true] {
        a_full_disk(cuts);
    }
}

fn a_full_disk(cuts: bool) {
    let dir = Dir::new(if cuts { "full" } else { "full-torn" });
    let guard = Guard::new(&site(&SITE)).unwrap();
    let stuck = Arc::new(AtomicBool::new(false));
    let store = Stuck { folder: Folder::new(&dir.0).unwrap(), stuck: Arc::clone(&stuck), fails: true, cuts };
    let (tape, writer) = Writer::start_on(store, &guard, options(&dir), about(&SITE), || 1).unwrap();
    let mut plant = Plant::new(guard, site(&SITE), tape, 11);
    plant.run(700);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!writer.health().failing());
    stuck.store(true, Ordering::Release);
    plant.run(700);
    while !writer.health().failing() {
        std::thread::sleep(Duration::from_millis(5));
    }
    stuck.store(false, Ordering::Release);
    // The next file begins at the next state, ten seconds of the plant's time away.
    plant.run(1500);
    let health = writer.health().clone();
    drop(writer);
    assert!(!health.failing() && health.lost_bytes() > 0 && health.lost_cycles() == 0);
    let report = read(&dir);
    assert_eq!(report.difference, None);
    assert_eq!((report.files >= 2, report.torn), (true, u64::from(!cuts)), "{report:?}");
    assert!(report.cycles > 1000 && report.cycles < 2900, "{report:?}");
    assert_eq!((report.gaps, report.lost_cycles + report.cycles), (1, 2900), "{report:?}");
}

#[test]
fn a_file_that_begins_after_a_switch_knows_its_variant() {
    let dir = Dir::new("variant");
    let options = Options { size_bytes_max: 2 << 20, ..options(&dir) };
    let about = About { models: vec!["00".into(), "11".into()], ..about(&SITE) };
    let guard = Guard::new(&site(&SITE)).unwrap();
    let (tape, writer) = Writer::start(&guard, options, about, || 42).unwrap();
    let mut plant = Plant::new(guard, site(&SITE), tape, 27);
    plant.calm = true;
    plant.run(100);
    plant.tape.varied(1);
    plant.run(7000);
    drop(writer);
    let mut later = files(&dir.0).unwrap();
    later.retain(|file| !file.ends_with("record-000001.grec"));
    let later: Vec<_> = later.iter().map(|file| Recording::open(file).unwrap()).collect();
    let mut asked = 0;
    let mut decides = |_: &Arc<Site>, model: &str, _: &Event, then: &Decision| {
        assert_eq!(model, "11");
        asked += 1;
        Again::Decided(*then)
    };
    let report = replay(&later, Some(&mut decides)).unwrap();
    assert!(report.is_same() && asked > 5, "{report:?}");
}

#[test]
fn what_cannot_be_written_at_the_start_is_refused_there() {
    let dir = Dir::new("start-refused");
    let file = dir.0.join("file");
    std::fs::write(&file, "").unwrap();
    let guard = Guard::new(&site(&SITE)).unwrap();
    let start = |folder: &Path, everything| {
        let options = Options { folder: folder.into(), everything, ..options(&dir) };
        Writer::start(&guard, options, about(&SITE), || 1).map(drop)
    };
    for everything in [true, false] {
        let refused = start(&file, everything).unwrap_err().to_string();
        assert!(refused.contains("cannot record in ") && refused.contains("not a directory"), "{refused}");
        // Where nobody may write, not even root.
        assert!(matches!(start(Path::new("/proc/self"), everything), Err(RecordError::Unusable { .. })));
        // A run that ends before its first cycle leaves nothing behind.
        start(&dir.0, everything).unwrap();
        assert_eq!(dir.names(), ["file"]);
    }
    let stuck = Arc::new(AtomicBool::new(true));
    let store = Stuck { folder: Folder::new(&dir.0).unwrap(), stuck, fails: true, cuts: true };
    assert!(Writer::start_on(store, &guard, options(&dir), about(&SITE), || 1).is_err(), "no room");
    assert_eq!(dir.names(), ["file"]);
}

#[test]
fn several_runs_in_a_folder_are_the_same_one_by_one() {
    let dir = Dir::new("runs");
    for seed in [1, 2, 3] {
        let (mut plant, writer) = start(&dir, options(&dir), &SITE, seed);
        plant.run(150 * seed);
        drop(writer);
    }
    let report = read(&dir);
    assert_eq!(report.difference, None);
    assert_eq!((report.files, report.runs, report.cycles, report.gaps), (3, 3, 900, 0), "{report:?}");
}

#[test]
fn faults_that_overlap_begin_anew() {
    let dir = Dir::new("faults");
    let options = Options { everything: false, flight_us: 60_000_000, ..options(&dir) };
    let (mut plant, writer) = start(&dir, options, &SITE, 13);
    for _ in 0..2 {
        plant.calm = false;
        plant.run(600);
        plant.calm = true;
        // The aftermath of a fault passes by the clock.
        std::thread::sleep(Duration::from_micros(limits::AFTERMATH_US + 400_000));
        plant.run(20);
    }
    drop(writer);
    let report = read(&dir);
    assert_eq!((report.difference.as_ref(), report.gaps), (None, 0), "{report:?}");
    assert!(report.files == 2 && report.runs == 1 && report.cycles > 1500, "{report:?}");
}

#[test]
fn a_fault_writes_down_what_came_before_it() {
    let dir = Dir::new("flight");
    let options = Options { everything: false, flight_us: 400_000, ..options(&dir) };
    let (mut plant, writer) = start(&dir, options, &SITE, 13);
    plant.calm = true;
    plant.run(400);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(dir.names(), Vec::<String>::new(), "nothing has happened yet");
    plant.calm = false;
    plant.run(600);
    drop(writer);
    assert_eq!(dir.names(), ["fault-000001.grec"], "the aftermath had not passed: one file");
    let file = Recording::open(&dir.0.join("fault-000001.grec")).unwrap();
    assert!(file.header().fault.is_some(), "{:?}", file.header());
    let report = replay(&[file], None).unwrap();
    assert_eq!(report.difference, None);
    assert!(report.cycles > 300 && !report.faults.is_empty(), "{report:?}");
}

#[test]
fn a_brain_that_is_still_to_be_started_is_no_fault() {
    let dir = Dir::new("start");
    let (mut plant, writer) = start(&dir, Options { everything: false, ..options(&dir) }, &SITE, 13);
    let mut faults = Vec::new();
    for brain in [
        BrainProcess::Absent,
        BrainProcess::Restarting,
        BrainProcess::Running { generation: 1 },
        BrainProcess::Running { generation: 1 },
        BrainProcess::Restarting,
    ] {
        let tags = [TagSample::MISSING; 4];
        let input = Input {
            tags: &tags,
            link: Link::DOWN,
            sole_writer: true,
            event: None,
            decisions: &[],
            progress: &[],
            brain,
            operator: None,
            estop: false,
        };
        plant.cycle += 1;
        plant.tape.begins(&plant.guard, plant.cycle * 20_000, &input);
        let seen = plant.guard.cycle(plant.cycle * 20_000, &input).seen();
        faults.push(seen.status.brain);
        plant.tape.ends(&seen);
    }
    use BrainState::{Absent, Lost, Starting};
    assert_eq!(faults, [Absent, Lost, Starting, Starting, Lost]);
    drop(writer);
    let report = replay(&[Recording::open(&dir.0.join("fault-000001.grec")).unwrap()], None).unwrap();
    assert_eq!((report.faults, report.difference), (vec![(5, "brain lost")], None));
}

#[test]
fn damaged_files_are_refused_or_torn_and_never_a_panic() {
    let dir = Dir::new("damage");
    let (mut plant, writer) = start(&dir, options(&dir), &SITE, 17);
    plant.run(200);
    drop(writer);
    let file = dir.0.join("record-000001.grec");
    let whole = std::fs::read(&file).unwrap();
    let mut odd = 0;
    for seed in 0..1500 {
        let mut bytes = whole.clone();
        match seed % 3 {
            0 => bytes.truncate(mix(seed) as usize % whole.len()),
            _ => {
                let at = mix(seed) as usize % whole.len();
                bytes[at] ^= 1 << (mix(seed) >> 50 & 7);
            }
        }
        std::fs::write(&file, &bytes).unwrap();
        odd += match Recording::open(&file).map(|file| replay(&[file], None)) {
            Ok(Ok(report)) if seed % 3 == 0 => u32::from(report.cycles < 200 && report.damaged == 0),
            Ok(Ok(report)) => u32::from(report.damaged > 0 && !report.is_same()),
            // A header that is torn or changed.
            _ => 1,
        };
    }
    assert_eq!(odd, 1500, "damages that were seen");
    assert!(matches!(files(&dir.0.join("none")).map(|f| f.len()), Ok(1)));
    for name in dir.names() {
        std::fs::remove_file(dir.0.join(name)).unwrap();
    }
    assert!(matches!(files(&dir.0), Err(RecordError::Empty { .. })));
}

#[test]
fn one_changed_bit_costs_its_block_and_is_named() {
    let dir = Dir::new("bit");
    let (mut plant, writer) = start(&dir, options(&dir), &SITE, 21);
    // As the minutes go by: more than one block, and states to go on from.
    for _ in 0..6 {
        plant.run(400);
        std::thread::sleep(Duration::from_millis(250));
    }
    drop(writer);
    let file = dir.0.join("record-000001.grec");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let report = read(&dir);
    assert_eq!((report.difference.as_ref(), report.torn, report.damaged), (None, 0, 1), "{report:?}");
    assert!(report.damages[0].offset < middle as u64 && !report.is_same(), "{report:?}");
    assert!(report.cycles > 600 && report.cycles < 2400, "before and after it: {report:?}");
    assert_eq!(report.faults, read(&dir).faults);
}

#[test]
fn nothing_compared_is_not_the_same() {
    let dir = Dir::new("nothing");
    let (mut plant, writer) = start(&dir, options(&dir), &SITE, 23);
    plant.run(300);
    drop(writer);
    let file = dir.0.join("record-000001.grec");
    let bytes = std::fs::read(&file).unwrap();
    let opened = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        Recording::open(&file)
    };
    let size = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize + 16;
    for short in [size, size + 30] {
        let report = replay(&[opened(&bytes[..short]).unwrap()], None).unwrap();
        assert!(report.cycles == 0 && !report.is_same(), "{report:?}");
    }
    for short in [0, 5, 8, 13, size - 1] {
        assert!(matches!(opened(&bytes[..short]), Err(RecordError::Unbegun { .. })), "{short}");
    }
    assert!(replay(&[opened(&bytes).unwrap()], None).unwrap().is_same());
}

/// As version 1 wrote it: the header has kept its form, so that it can be told.
#[test]
fn another_version_is_refused_by_its_number() {
    let dir = Dir::new("version");
    let header = br#"{"format": 1, "program": "0.0.9"}"#;
    let mut bytes = b"GANGREC1".to_vec();
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend(ganglion_site::crc32(header).to_le_bytes());
    bytes.extend_from_slice(header);
    let file = dir.0.join("record-000001.grec");
    std::fs::write(&file, bytes).unwrap();
    let refused = Recording::open(&file).unwrap_err().to_string();
    assert!(
        refused.contains("version 1 of the format by Ganglion 0.0.9; this program reads version 2"),
        "{refused}"
    );
}

#[test]
fn a_state_that_unfolds_without_end_is_refused() {
    let dir = Dir::new("bomb");
    let (mut plant, writer) = start(&dir, options(&dir), &SITE, 19);
    plant.run(5);
    drop(writer);
    let file = dir.0.join("record-000001.grec");
    let mut bytes = std::fs::read(&file).unwrap();
    // 127 times as large as it looks: a state of 8 MiB in a frame of 64 KiB.
    let frame: Vec<u8> =
        std::iter::once(crate::frame::Kind::State as u8).chain([0, 255].repeat(33_000)).collect();
    let sized: Vec<u8> = (frame.len() as u32).to_le_bytes().into_iter().chain(frame).collect();
    bytes.extend(crate::writer::blocks(&sized));
    std::fs::write(&file, bytes).unwrap();
    let refused = replay(&[Recording::open(&file).unwrap()], None).unwrap_err();
    assert!(refused.to_string().contains("a frame that does not unfold"), "{refused}");
}

/// The reader's own checks, behind the checksum.
#[test]
fn frames_of_noise_are_refused_and_never_a_panic() {
    use crate::frame::{fold, unfold};
    for seed in 0..20_000u64 {
        let size = mix(seed) as usize % 200;
        let bytes: Vec<u8> = (0..size)
            .map(|i| if mix(seed + i as u64) & 3 == 0 { 0 } else { mix(i as u64 ^ seed << 9) as u8 })
            .collect();
        let mut folded = vec![0; size * 2 + 2];
        let used = fold(&bytes, &mut folded).unwrap();
        assert_eq!(unfold(&folded[..used], 400).unwrap(), bytes);
        assert!(fold(&bytes, &mut folded[..used.saturating_sub(1)]).is_none() || used == 0);
        let _ = unfold(&bytes, 400);
        let mut before = crate::frame::Before::NOTHING;
        if let Ok(begin) = postcard::from_bytes(&bytes) {
            let _ = crate::frame::read_begin(&mut before, begin);
        }
        let _ = postcard::from_bytes::<crate::frame::OwnedEnd>(&bytes);
        let _ = Replica::restore(&site(&SITE), &bytes).is_ok() && size > 0;
    }
}
