//! Real logs on disk, and what `verify` says after each way of tampering.

use ganglion_audit::*;
use ganglion_site::{Command, Event, Outcome, Reason, Sentence, Site, Timings, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SITE: &str = r#"
name = "t"
[model]
path = "none.gguf"
[guard]
safe = { action = "none" }
[[tag]]
name = "temperature"
unit = "C"
range = [-20, 60]
[[command]]
name = "set"
about = "target"
arguments = [{ name = "celsius", number = [5, 60], step = 0.5, unit = "C" }]
"#;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ganglion-audit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn header() -> Header {
    let site = Site::parse(SITE, Path::new("t.toml")).unwrap_or_else(|e| panic!("{e}"));
    Header { site: Arc::new(site), model_sha256: "ab".repeat(32), schema_sha256: "cd".repeat(32) }
}

fn record(i: u64) -> Record {
    let mut event = Event::new(i, i * 1000 + 80_000);
    event.set_tag(0, 20.0 + i as f64);
    event.sentence = Sentence::cut("make it warmer, please");
    let mut command = Command { verb: 0, values: [Value::Absent; 8] };
    command.values[0] = Value::Number(21.5);
    Record {
        kind: RecordKind::Decision,
        time_us: i * 1000,
        mode: "Execute",
        breaker: "closed",
        source: Source::Operator,
        request: i,
        event,
        outcome: Some(Outcome::Model),
        command: Some(command),
        clamped: None,
        verdict: Some(Verdict::Approved),
        reason: Reason::EMPTY,
        confidence: 0.9,
        latency_us: 12_000,
        timings: Timings::default(),
        actuated: true,
    }
}

fn write(dir: &Path, count: u64, options: Options) {
    let (mut sink, writer) = Writer::start(dir, header(), options, || 1_700_000_000_000).unwrap();
    for i in 0..count {
        assert!(sink.push(&record(i)));
        if i % 5 == 4 {
            let want = sink.health().written();
            let start = std::time::Instant::now();
            while sink.health().written() == want && start.elapsed().as_millis() < 200 {
                std::thread::yield_now();
            }
        }
    }
    writer.close().unwrap();
}

fn quick() -> Options {
    Options { commit_ms: 1, ..Options::default() }
}

/// Small files, so that there are several.
fn small() -> Options {
    Options { file_bytes_max: 3_000, ..quick() }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn put(path: &Path, lines: &[String]) {
    fs::write(path, lines.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
}

#[test]
fn a_log_verifies_continues_and_holds_no_sentence() {
    let folder = Folder::new("good");
    write(&folder.0, 20, small());
    let first = verify(&folder.0).unwrap();
    assert!(first.files > 1, "{first:?}");
    assert_eq!(first.unsealed, 0);
    write(&folder.0, 5, small());
    let second = verify(&folder.0).unwrap();
    assert!(second.records >= first.records + 6 && second.files > first.files);
    let all: Vec<_> = show(&folder.0).unwrap().map(|l| l.unwrap().text).collect();
    assert_eq!(all.len() as u64, second.records);
    assert!(all.iter().all(|l| !l.contains("warmer")));
    let line = all.iter().find(|l| l.contains("\"decision\"")).unwrap();
    for part in [
        "\"action\":\"set\"",
        "\"temperature\":20",
        "\"sentence_hmac\":\"",
        "\"actuated\":true",
        "\"outcome\":\"model\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(folder.0.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn each_tampering_is_found_and_located() {
    let folder = Folder::new("tamper");
    write(&folder.0, 8, quick());
    let file = folder.0.join("audit-000001.jsonl");
    let good = lines(&file);
    let problem = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut changed = good.clone();
        edit(&mut changed);
        put(&file, &changed);
        verify(&folder.0).unwrap_err()
    };
    let edited = problem(&|l| l[3] = l[3].replace("21.5", "29.5"));
    assert!(matches!(edited, AuditError::Tampered { line: 4, sequence: 4, .. }), "{edited}");
    let deleted = problem(&|l| drop(l.remove(3)));
    assert!(matches!(deleted, AuditError::Tampered { line: 4, sequence: 4, .. }), "{deleted}");
    let inserted = problem(&|l| l.insert(3, l[2].clone()));
    assert!(matches!(inserted, AuditError::Tampered { line: 4, .. }), "{inserted}");
    let swapped = problem(&|l| l.swap(3, 4));
    assert!(matches!(swapped, AuditError::Tampered { line: 4, .. }), "{swapped}");
    let cut = problem(&|l| l.truncate(6));
    assert!(matches!(cut, AuditError::Truncated { found: 6, expected: 9, .. }), "{cut}");
    fs::write(&file, good.join("\n")).unwrap();
    let torn = verify(&folder.0).unwrap_err();
    assert!(matches!(torn, AuditError::Torn { line: 9, .. }), "{torn}");
    put(&file, &good);
    verify(&folder.0).unwrap();
    for name in ["head", "key"] {
        let bytes = fs::read(folder.0.join(name)).unwrap();
        fs::remove_file(folder.0.join(name)).unwrap();
        assert!(verify(&folder.0).is_err(), "{name} removed");
        fs::write(folder.0.join(name), &bytes).unwrap();
    }
    verify(&folder.0).unwrap();
}

#[test]
fn a_missing_file_and_a_tail_of_another_log_are_found() {
    let folder = Folder::new("files");
    write(&folder.0, 20, small());
    let second = folder.0.join("audit-000002.jsonl");
    let bytes = fs::read(&second).unwrap();
    fs::remove_file(&second).unwrap();
    assert!(matches!(verify(&folder.0).unwrap_err(), AuditError::FileMissing { missing: 2, .. }));
    fs::write(&second, bytes).unwrap();
    verify(&folder.0).unwrap();
    let other = Folder::new("other");
    write(&other.0, 8, quick());
    write(&folder.0, 1, quick());
    let files = verify(&folder.0).unwrap().files;
    let last = folder.0.join(format!("audit-{files:06}.jsonl"));
    fs::copy(other.0.join("audit-000001.jsonl"), last).unwrap();
    assert!(verify(&folder.0).is_err());
}

#[test]
fn a_torn_last_line_is_set_aside_and_reported() {
    let folder = Folder::new("torn");
    write(&folder.0, 4, quick());
    let file = folder.0.join("audit-000001.jsonl");
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(b"{\"seq\":6,\"kind\":\"decis");
    fs::write(&file, bytes).unwrap();
    assert!(matches!(verify(&folder.0).unwrap_err(), AuditError::Torn { .. }));
    write(&folder.0, 1, quick());
    verify(&folder.0).unwrap();
    let notes: Vec<_> =
        show(&folder.0).unwrap().filter(|l| l.as_ref().unwrap().text.contains("\"torn\"")).collect();
    assert_eq!(notes.len(), 1);
    let aside = fs::read_dir(&folder.0)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("torn-"));
    assert_eq!(aside.count(), 1);
}

#[test]
fn a_log_cut_before_it_is_opened_again_is_refused() {
    let folder = Folder::new("refused");
    write(&folder.0, 6, quick());
    let file = folder.0.join("audit-000001.jsonl");
    let mut kept = lines(&file);
    kept.truncate(4);
    put(&file, &kept);
    let error = Writer::start(&folder.0, header(), quick(), || 0).map(|_| ()).unwrap_err();
    assert!(matches!(error, AuditError::Truncated { .. }), "{error}");
}

#[test]
fn a_full_queue_loses_the_newest_and_leaves_a_gap_record() {
    let folder = Folder::new("gap");
    let options = Options { ring_records: 2, commit_ms: 50, ..Options::default() };
    let (mut sink, writer) = Writer::start(&folder.0, header(), options, || 0).unwrap();
    let queued = (0..200).filter(|i| sink.push(&record(*i))).count() as u64;
    let lost = sink.health().lost();
    assert!(lost > 0);
    assert_eq!(queued + lost, 200);
    // The note is written with the next commit.
    std::thread::sleep(std::time::Duration::from_millis(200));
    writer.close().unwrap();
    verify(&folder.0).unwrap();
    let text: String = show(&folder.0).unwrap().map(|l| l.unwrap().text).collect();
    assert!(text.contains("\"kind\":\"gap\"") && text.contains("\"lost\":"));
}

#[test]
fn a_folder_has_one_writer_and_any_number_of_readers() {
    let folder = Folder::new("lock");
    let (mut sink, first) = Writer::start(&folder.0, header(), quick(), || 0).unwrap();
    assert!(sink.push(&record(1)));
    for _ in 0..3 {
        let error = Writer::start(&folder.0, header(), quick(), || 0).map(|_| ()).unwrap_err();
        assert!(matches!(error, AuditError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("is in use by another process"), "{error}");
    }
    let start = std::time::Instant::now();
    while sink.health().written() < 2 && start.elapsed().as_secs() < 10 {
        std::thread::yield_now();
    }
    assert!(show(&folder.0).unwrap().count() >= 1, "reading takes no lock");
    first.close().unwrap();
    assert_eq!(verify(&folder.0).unwrap().records, 2, "the refused ones left nothing");
    write(&folder.0, 1, quick());
    assert_eq!(verify(&folder.0).unwrap().records, 4);
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[test]
fn ten_thousand_mutations_are_found_or_change_nothing() {
    let folder = Folder::new("mutations");
    write(&folder.0, 6, small());
    let report = verify(&folder.0).unwrap();
    let mut names = vec!["head".to_owned(), "key".to_owned()];
    names.extend((1..=report.files).map(|i| format!("audit-{i:06}.jsonl")));
    let originals: Vec<_> = names.iter().map(|n| fs::read(folder.0.join(n)).unwrap()).collect();
    let mut state = 1;
    for _ in 0..10_000 {
        let which = next(&mut state) as usize % names.len();
        let mut bytes = originals[which].clone();
        let at = next(&mut state) as usize % bytes.len();
        match next(&mut state) % 6 {
            0 => bytes[at] ^= 1 << (next(&mut state) % 8),
            1 => bytes[at] = next(&mut state) as u8,
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, next(&mut state) as u8),
            4 => bytes.truncate(at),
            _ => {
                let end = (at + next(&mut state) as usize % 300).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = next(&mut state) as usize % bytes.len();
                bytes.splice(to..to, piece);
            }
        }
        fs::write(folder.0.join(&names[which]), &bytes).unwrap();
        match verify(&folder.0) {
            Ok(_) => assert_eq!(bytes, originals[which], "{} was changed unseen", names[which]),
            Err(_) => assert_ne!(bytes, originals[which]),
        }
        fs::write(folder.0.join(&names[which]), &originals[which]).unwrap();
    }
}

#[test]
fn random_bytes_as_a_log_are_errors() {
    let folder = Folder::new("random");
    write(&folder.0, 2, quick());
    let file = folder.0.join("audit-000001.jsonl");
    let mut state = 3;
    for _ in 0..2_000 {
        let size = next(&mut state) % 400;
        let bytes: Vec<u8> = (0..size).map(|_| next(&mut state) as u8).collect();
        fs::write(&file, bytes).unwrap();
        verify(&folder.0).unwrap_err();
        let _ = show(&folder.0).unwrap().count();
    }
    assert!(matches!(verify(Path::new("/nonexistent/log")), Err(AuditError::NotALog { .. })));
}
