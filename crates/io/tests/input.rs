//! Operator lines, scripts and CSV files, as a user writes them.

use ganglion_io::limits::LINE_BYTES_MAX;
use ganglion_io::lines::{parse_line, read_lines, spawn_lines};
use ganglion_io::{Input, ModeWord, Script};
use ganglion_site::Site;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn example(name: &str) -> Site {
    Site::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)).unwrap()
}

fn sentence(text: &str) -> Input {
    Input::Sentence(text.to_owned())
}

/// A file that lasts as long as the value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ganglion-io-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn lines_are_sentences_tags_or_modes() {
    let site = example("hvac");
    let check =
        |line: &str, expected: Input| assert_eq!(parse_line(&site, 1, line.as_bytes()), expected, "{line}");
    check("  make the kitchen 21\r", sentence("make the kitchen 21"));
    check("is it a=b in there?", sentence("is it a=b in there?"));
    check("!estop", Input::Mode(ModeWord::Estop));
    for said in ["!E-Stop", "! ESTOP", "e-stop", "Emergency stop!"] {
        check(said, Input::Mode(ModeWord::Estop));
    }
    for said in ["!Stop", "STOP", "stop."] {
        check(said, Input::Mode(ModeWord::Stop));
    }
    check("stop the fan in the hall", sentence("stop the fan in the hall"));
    check("power_price=70 office_occupied=yes", Input::Tags(vec![(4, 70.0), (3, 1.0)], None));
    check("power_price=70; save power", Input::Tags(vec![(4, 70.0)], Some("save power".to_owned())));
}

#[test]
fn unusable_lines_say_why() {
    let site = example("hvac");
    let check = |line: &[u8], expected: &str| match parse_line(&site, 9, line) {
        Input::Rejected { line: 9, reason } => assert!(reason.contains(expected), "{reason}"),
        other => panic!("{other:?}"),
    };
    check(b"", "empty");
    check(b"   ", "empty");
    check(b"heat \xFF", "not UTF-8");
    check(&[b'a'; 513], "513 bytes: a sentence has at most 512");
    check(b"!fly", "unknown mode command `!fly`: expected one of start, hold");
    check(b"power_price=abc", "expected a number from 0 to 200");
    check(b"attic=1", "unknown tag");
    check(b"power-price=70", "unknown tag");
    check(b"office.occupied=yes", "unknown tag");
    check(b"power_price=1 power_price=2", "twice");
    check(b"power_price=1 and more", "expected NAME=VALUE");
    check(b"power_price=1;", "empty");
    check(b"bell \x07", "control character U+0007");
}

#[test]
fn a_reader_may_send_anything_of_any_length() {
    let site = example("hvac");
    let mut bytes = b"first\n\n".to_vec();
    bytes.extend(vec![b'x'; 5 * LINE_BYTES_MAX]);
    bytes.extend(b"\nlast without a line feed");
    let mut taken = Vec::new();
    read_lines(&site, std::io::BufReader::with_capacity(7, bytes.as_slice()), |input| {
        taken.push(input);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(taken.len(), 4);
    assert_eq!((&taken[0], &taken[3]), (&sentence("first"), &sentence("last without a line feed")));
    assert!(matches!(&taken[1], Input::Rejected { line: 2, reason } if reason.contains("empty")));
    assert!(matches!(&taken[2], Input::Rejected { line: 3, reason } if reason.starts_with("10240 bytes")));

    let received: Vec<_> =
        spawn_lines(Arc::new(site), std::io::Cursor::new(b"a\nb\n".to_vec())).iter().collect();
    assert_eq!(received, [sentence("a"), sentence("b")]);
}

#[test]
fn a_script_plays_on_its_time_line() {
    let site = example("hvac");
    let text = "\u{FEFF}# a morning\n\n!start\n@500ms heat the office\nthen this\n@2s power_price=70; less wind\n@2s \n";
    let file = TempFile::new("a.script", text.as_bytes());
    let mut script = Script::load(&site, &file.0, 0).unwrap();
    assert_eq!((script.count(), script.next_at_ms()), (5, Some(0)));
    assert_eq!(script.due(499).unwrap().input, Input::Mode(ModeWord::Start));
    assert_eq!(script.due(499), None);
    let item = script.due(500).unwrap();
    assert_eq!((item.input, item.line, item.at_ms), (sentence("heat the office"), 4, 500));
    assert_eq!(script.due(500).unwrap().input, sentence("then this"));
    assert_eq!(script.due(1999), None);
    assert_eq!(script.due(9000).unwrap().input, Input::Tags(vec![(4, 70.0)], Some("less wind".to_owned())));
    assert!(matches!(script.due(9000).unwrap().input, Input::Rejected { line: 7, .. }));
    assert_eq!((script.due(u64::MAX), script.next_at_ms()), (None, None));
}

#[test]
fn a_slip_in_a_script_names_file_and_line() {
    let site = example("hvac");
    let check = |text: &str, expected: &str| {
        let file = TempFile::new("slip.script", text.as_bytes());
        let error = Script::load(&site, &file.0, 0).unwrap_err().to_string();
        assert!(error.contains("slip.script:2: ") && error.contains(expected), "{error}");
    };
    check("ok\n@5 x\n", "expected a whole number of ms or s");
    check("@2s ok\n@1s x\n", "before the line above");
    check("ok\n@99999999999999999999s x\n", "at most");
    check("ok\n!fly\n", "unknown mode command");
    check("ok\nattic=3\n", "unknown tag `attic`");
    let error = Script::load(&site, Path::new("/nowhere.script"), 0).unwrap_err().to_string();
    assert!(error.contains("cannot read /nowhere.script"), "{error}");
}

#[test]
fn unusable_sentences_in_a_script_are_rejected_when_their_time_comes() {
    let site = example("hvac");
    let mut text = b"fine\n\xFF\xFE\n".to_vec();
    text.extend([b'y'; 600]);
    let file = TempFile::new("bytes.script", &text);
    let mut script = Script::load(&site, &file.0, 0).unwrap();
    assert_eq!(script.due(0).unwrap().input, sentence("fine"));
    assert!(matches!(script.due(0).unwrap().input, Input::Rejected { line: 2, .. }));
    assert!(matches!(script.due(0).unwrap().input, Input::Rejected { line: 3, .. }));
}

#[test]
fn a_csv_file_is_played_row_by_row() {
    let site = example("conveyor");
    let text = "\u{FEFF}UDI,Air temperature [K],Rotational speed [rpm],Torque [Nm],Tool wear [min],OSF\r\n\
                1,298.1,1551,42.8,0,0\r\n2,298.2,1408,46.3,3,0\r\n";
    let file = TempFile::new("parts.csv", text.as_bytes());
    let mut script = Script::load(&site, &file.0, 40).unwrap();
    let first = Input::Tags(vec![(0, 42.8), (1, 0.0), (2, 1551.0), (3, 298.1)], None);
    assert_eq!(script.due(0).unwrap().input, first);
    assert_eq!((script.due(39), script.next_at_ms()), (None, Some(40)));
    assert_eq!(script.due(40).unwrap().line, 3);
}

#[test]
fn a_bad_csv_file_names_line_and_column() {
    let site = example("conveyor");
    let check = |text: &str, expected: &str| {
        let file = TempFile::new("bad.csv", text.as_bytes());
        let error = Script::load(&site, &file.0, 0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("Torque [Nm]\n1\nx\n", "bad.csv:3: column `torque`: found `x`, expected a number");
    check(
        "Torque [Nm]\n101\n",
        "bad.csv:2: tag `torque`: found `101`, expected a number from 0 to 100 in Nm",
    );
    check("Torque [lbf]\n1\n", "bad.csv:1: tag `torque`: the column is in `lbf`, expected `Nm`");
    check("Tool wear,Belt wear\n1,2\n", "bad.csv:1: 2 columns fit tag `wear`");
    check("a,b\n1,2\n", "bad.csv:1: no column fits a tag");
    check("torque,wear\n1\n", "bad.csv:2: 1 cells, expected 2");
}

#[test]
fn the_whole_ai4i_data_set_plays() {
    let Some(shared) = shared_folder() else {
        println!("skipped: no shared folder with data/industrial/ai4i2020");
        return;
    };
    let site = example("conveyor");
    let file = shared.join("data/industrial/ai4i2020/ai4i2020.csv");
    let mut script = Script::load(&site, &file, 20).unwrap();
    assert_eq!(script.count(), 10_000);
    let first = Input::Tags(vec![(0, 42.8), (1, 0.0), (2, 1551.0), (3, 298.1)], None);
    assert_eq!(script.due(0).unwrap().input, first);
}

fn shared_folder() -> Option<PathBuf> {
    let named = std::env::var_os("GANGLION_SHARED").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let candidates = named.into_iter().chain(above.flat_map(|a| [a.join("shared"), a.join("../shared")]));
    candidates.into_iter().find(|folder| folder.join("design.md").is_file())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Any bytes give an item; a sentence or text that comes through keeps to its limits.
    #[test]
    fn any_line_gives_an_item(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let site = example_once();
        match parse_line(site, 1, &bytes) {
            Input::Sentence(text) => prop_assert!(!text.is_empty() && text.len() <= 512),
            Input::Tags(tags, _) => prop_assert!(tags.iter().all(|(_, value)| value.is_finite())),
            Input::Mode(_) => {}
            Input::Rejected { reason, .. } => prop_assert!(!reason.is_empty()),
        }
    }
}

fn example_once() -> &'static Site {
    static SITE: std::sync::OnceLock<Site> = std::sync::OnceLock::new();
    SITE.get_or_init(|| example("hvac"))
}
