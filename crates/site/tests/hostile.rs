//! Bytes nobody meant: every parser answers with a value or an error, never a panic.

use ganglion_site::{
    ArgumentKind, BrainMessage, Command, DECISION_FRAME_BYTES, Decision, EVENT_FRAME_BYTES, Event,
    FrameError, InlineText, Outcome, PROGRESS_FRAME_BYTES, Progress, Reason, Sentence, ShortText, Site,
    Timings, Value,
};
use proptest::prelude::*;
use std::path::Path;

const ROUNDS: u64 = 10_000;
const HVAC: &str = include_str!("../../../examples/hvac/site.toml");
const CONVEYOR: &str = include_str!("../../../examples/conveyor/site.toml");
const KINDS: &str = r#"
name = "kinds"
[model]
path = "m.gguf"
[[command]]
name = "do_it"
arguments = [
  { name = "way", choices = ["left", "right"] },
  { name = "count", integer = [-3, 12] },
  { name = "speed", number = [-2.5, 1000], step = 0.1, unit = "mm/s" },
  { name = "now", bool = true },
  { name = "label", text = 16 },
]
"#;

fn site(text: &str) -> Site {
    Site::parse(text, Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// xorshift64: the same bytes on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn random_bytes() {
    let mut random = Random(0x5eed);
    let site = site(KINDS);
    for round in 0..ROUNDS {
        let count = if round % 4 == 0 { EVENT_FRAME_BYTES } else { random.below(1200) };
        let bytes = random.bytes(count);
        assert!(Event::decode(&bytes).is_err());
        assert!(Decision::decode(bytes.get(..DECISION_FRAME_BYTES).unwrap_or(&bytes)).is_err());
        let text = String::from_utf8_lossy(&bytes);
        assert!(Command::from_json(&site, &text).is_err());
        let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(200)).unwrap_or(&bytes));
        assert!(Site::parse(&text, Path::new("site.toml")).is_err());
    }
}

#[test]
fn mutated_site_files() {
    const PIECES: [&str; 22] = [
        "",
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        "-",
        "0",
        "9999999999999999999",
        "1e999",
        "nan",
        "inf",
        "'''",
        "#",
        "\u{0}",
        "é",
        ".",
        "true",
        "action",
        "0x",
    ];
    let mut random = Random(0xfeed);
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let mut text = if round % 2 == 0 { HVAC } else { CONVEYOR }.to_string();
        for _ in 0..1 + random.below(3) {
            let at = random.below(text.len());
            let end = at + random.below(6);
            if text.is_char_boundary(at) && text.is_char_boundary(end.min(text.len())) {
                text.replace_range(at..end.min(text.len()), PIECES[random.below(PIECES.len())]);
            }
        }
        match Site::parse(&text, Path::new("site.toml")) {
            Ok(site) => {
                accepted += 1;
                // Whatever is accepted keeps its promises.
                assert!(site.safe.check(&site).is_ok());
                assert!(site.rules.iter().all(|rule| rule.command.check(&site).is_ok()));
                let _ = (site.prompt_prefix(), site.schema(), site.limit_table(), site.register_table());
                let _ = (site.tag_table(), site.system_text());
            }
            Err(error) => assert!(!error.problems().is_empty() && !error.to_string().is_empty()),
        }
    }
    assert!(accepted > 0, "comments and spaces can be changed without harm");
}

#[test]
fn deep_nesting_is_an_error() {
    for open in ["[", "{a=", "a.", "{\"a\":"] {
        let text = format!("name = {}", open.repeat(20_000));
        assert!(Site::parse(&text, Path::new("site.toml")).is_err());
        assert!(Command::from_json(&site(KINDS), &open.repeat(20_000)).is_err());
    }
}

#[test]
fn large_inputs_take_no_more_than_their_reading() {
    // A quadratic step anywhere would take minutes here.
    let many: String = (0..200_000).map(|i| format!("\"k{i}\":0,")).collect();
    assert!(Command::from_json(&site(KINDS), &format!("{{{many}\"action\":\"do_it\"}}")).is_err());
    for piece in ["[", "a=\n", "[[tag]]\n", "\n\n", "\"", "[a]\n", "x={", "#\n", "[[tag]]\nname=\"a\"\n", "é"]
    {
        let text = piece.repeat(250_000 / piece.len());
        assert!(Site::parse(&text, Path::new("site.toml")).is_err());
    }
}

fn event() -> Event {
    let mut event = Event::new(7, 1_000);
    event.set_tag(0, -1.5);
    event.set_tag(63, 3e300);
    event.sentence = Sentence::new("mach die Küche wärmer").unwrap();
    event.dry_run = true;
    event.client = 0x0123_4567_89AB_CDEF;
    event.stream = true;
    event
}

fn decision() -> Decision {
    let text = Value::Text(ShortText::new("größe").unwrap());
    let values = [
        Value::Choice(1),
        Value::Integer(i64::MIN),
        Value::Number(21.5),
        Value::Bool(true),
        text,
        Value::Absent,
        Value::Absent,
        Value::Absent,
    ];
    Decision {
        epoch: u64::MAX,
        command: Some(Command { verb: 3, values }),
        outcome: Outcome::Completion,
        confidence: 0.75,
        timings: Timings {
            prefill_us: 1,
            decode_us: 2,
            mask_us: 3,
            cache_n: 4,
            prompt_n: 5,
            predicted_n: 6,
            forced_n: 7,
            draft_n: 8,
            accepted_n: 9,
            passes_n: 10,
        },
        reason: Reason::new("because").unwrap(),
    }
}

#[test]
fn frames_come_back() {
    let mut frame = [0xAA; EVENT_FRAME_BYTES];
    event().encode(&mut frame);
    assert_eq!(Event::decode(&frame), Ok(event()));
    let mut frame = [0xAA; DECISION_FRAME_BYTES];
    decision().encode(&mut frame);
    assert_eq!(Decision::decode(&frame), Ok(decision()));
    let nothing = Decision { command: None, reason: Reason::EMPTY, outcome: Outcome::Safe, ..decision() };
    nothing.encode(&mut frame);
    assert_eq!(Decision::decode(&frame), Ok(nothing));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut frame = [0; EVENT_FRAME_BYTES];
    event().encode(&mut frame);
    for bit in 0..8 * EVENT_FRAME_BYTES {
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(Event::decode(&frame).is_err(), "bit {bit}");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    let mut frame = [0; DECISION_FRAME_BYTES];
    decision().encode(&mut frame);
    for bit in 0..8 * DECISION_FRAME_BYTES {
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(Decision::decode(&frame).is_err(), "bit {bit}");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Bitwise CRC-32, so that frames with a right checksum and wrong fields can be made.
fn seal(frame: &mut [u8]) {
    let (body, end) = frame.split_at_mut(frame.len() - 4);
    let mut crc = u32::MAX;
    for byte in body.iter() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    end.copy_from_slice(&(!crc).to_le_bytes());
}

fn check_event_field(at: usize, bytes: &[u8], field: &'static str) {
    let mut frame = [0; EVENT_FRAME_BYTES];
    event().encode(&mut frame);
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut frame);
    let found = Event::decode(&frame);
    assert!(matches!(found, Err(FrameError::Field { field: name, .. }) if name == field), "{at}: {found:?}");
}

fn check_decision_field(at: usize, bytes: &[u8], field: &'static str) {
    let mut frame = [0; DECISION_FRAME_BYTES];
    decision().encode(&mut frame);
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut frame);
    let found = Decision::decode(&frame);
    assert!(matches!(found, Err(FrameError::Field { field: name, .. }) if name == field), "{at}: {found:?}");
}

#[test]
fn fields_with_values_they_cannot_have() {
    check_event_field(6, &[4, 0], "flags");
    check_event_field(40, &f64::NAN.to_le_bytes(), "tags");
    check_event_field(40 + 63 * 8, &f64::INFINITY.to_le_bytes(), "tags");
    check_event_field(552, &513u16.to_le_bytes(), "sentence");
    check_event_field(552, &1u16.to_le_bytes(), "sentence");
    check_event_field(554, &[0xff], "sentence");
    check_event_field(1065, &[1], "sentence");
    check_decision_field(6, &[2], "command");
    check_decision_field(6, &[0], "verb");
    check_decision_field(7, &[5], "outcome");
    check_decision_field(16, &f32::NAN.to_le_bytes(), "confidence");
    check_decision_field(16, &1.01f32.to_le_bytes(), "confidence");
    check_decision_field(62, &[9], "values");
    check_decision_field(62, &[1, 3], "values");
    check_decision_field(63, &[65], "values");
    check_decision_field(62 + 2 * 66 + 2, &f64::NAN.to_le_bytes(), "values");
    check_decision_field(62 + 3 * 66 + 2, &[2], "values");
    check_decision_field(62 + 4 * 66 + 2, &[0xff], "values");
    check_decision_field(62 + 65, &[1], "values");
    check_decision_field(590, &161u16.to_le_bytes(), "reason");
}

fn progress() -> Progress {
    let value = Value::Text(ShortText::new("left a bit").unwrap());
    Progress { epoch: 9, verb: 3, argument: Some(7), value }
}

#[test]
fn parts_of_answers_come_back_and_nothing_else_passes_for_one() {
    let values = [
        Value::Choice(3),
        Value::Integer(-4),
        Value::Number(2.5),
        Value::Bool(true),
        Value::Text(ShortText::new("küche").unwrap()),
    ];
    let parts = values.map(|value| Progress { epoch: 77, verb: 2, argument: Some(1), value });
    let verb = Progress { epoch: 78, verb: 63, argument: None, value: Value::Absent };
    for part in parts.into_iter().chain([verb, progress()]) {
        let mut frame = [0; PROGRESS_FRAME_BYTES];
        part.encode(&mut frame);
        assert_eq!(Progress::decode(&frame), Ok(part));
        assert_eq!(BrainMessage::decode(&frame), Ok(BrainMessage::Progress(part)));
        for bit in 0..8 * PROGRESS_FRAME_BYTES {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(Progress::decode(&frame).is_err(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(Progress::decode(&frame[..PROGRESS_FRAME_BYTES - 1]).is_err());
    }
    let mut frame = [0; DECISION_FRAME_BYTES];
    decision().encode(&mut frame);
    assert_eq!(BrainMessage::decode(&frame), Ok(BrainMessage::Decision(decision())));
    let wrong = |at: usize, bytes: &[u8], field: &'static str| {
        let mut frame = [0; PROGRESS_FRAME_BYTES];
        progress().encode(&mut frame);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut frame);
        let found = Progress::decode(&frame);
        assert!(
            matches!(found, Err(FrameError::Field { field: name, .. }) if name == field),
            "{at}: {found:?}"
        );
    };
    wrong(6, &[9, 0], "argument");
    wrong(6, &[0, 0], "value");
    wrong(18, &[0, 0], "values");
    wrong(18, &[9], "values");
    wrong(19, &[65], "values");
    let mut frame = [0; PROGRESS_FRAME_BYTES];
    Progress { argument: Some(1), value: Value::Absent, ..progress() }.encode(&mut frame);
    assert!(matches!(Progress::decode(&frame), Err(FrameError::Field { field: "value", .. })));
}

#[test]
fn an_absent_tag_may_hold_anything() {
    let mut event = event();
    event.tags[5] = f64::NAN;
    let mut frame = [0; EVENT_FRAME_BYTES];
    event.encode(&mut frame);
    assert_eq!(Event::decode(&frame).map(|event| event.tag(5)), Ok(None));
}

#[test]
fn mutated_frames_and_sealed_again() {
    let mut random = Random(0xbeef);
    for _ in 0..ROUNDS {
        let mut frame = [0; EVENT_FRAME_BYTES];
        event().encode(&mut frame);
        let mut answer = [0; DECISION_FRAME_BYTES];
        decision().encode(&mut answer);
        for _ in 0..1 + random.below(4) {
            frame[6 + random.below(EVENT_FRAME_BYTES - 10)] = random.next() as u8;
            answer[6 + random.below(DECISION_FRAME_BYTES - 10)] = random.next() as u8;
        }
        seal(&mut frame);
        seal(&mut answer);
        if let Ok(event) = Event::decode(&frame) {
            assert!((0..64).all(|tag| event.tag(tag).is_none_or(f64::is_finite)));
        }
        if let Ok(decision) = Decision::decode(&answer) {
            let _ = decision.command.map(|command| command.check(site_once()).is_ok());
            assert!((0.0..=1.0).contains(&decision.confidence));
        }
    }
}

fn site_once() -> &'static Site {
    static SITE: std::sync::OnceLock<Site> = std::sync::OnceLock::new();
    SITE.get_or_init(|| site(KINDS))
}

/// Any command of [`KINDS`].
fn command() -> impl Strategy<Value = Command> {
    (0u16..2, -3i64..=12, -25i64..=10_000, any::<bool>(), "\\PC{0,4}|[\"\\\\\n\t\u{1}]{0,16}").prop_map(
        |(way, count, tenths, now, label)| {
            let mut command = Command::none(site_once());
            command.verb = 0;
            let label = ShortText::new(&label).unwrap_or(InlineText::EMPTY);
            let speed = Value::Number(tenths as f64 / 10.0);
            let values =
                [Value::Choice(way), Value::Integer(count), speed, Value::Bool(now), Value::Text(label)];
            command.values[..5].copy_from_slice(&values);
            command
        },
    )
}

proptest! {
    #[test]
    fn commands_come_back_from_json(command in command()) {
        let site = site_once();
        prop_assert_eq!(command.check(site), Ok(()));
        let text = command.to_json(site);
        prop_assert_eq!(Command::from_json(site, &text), Ok(command));
        // The canonical form is what serde_json writes for the same object.
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(Command::from_json(site, &parsed.to_string()), Ok(command));
        prop_assert_eq!(Command::from_json(site, &text).unwrap().to_json(site), text);
    }

    #[test]
    fn nearly_json(command in command(), at in 0usize..100, byte in any::<u8>()) {
        let site = site_once();
        let mut bytes = command.to_json(site).into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(command) = Command::from_json(site, &String::from_utf8_lossy(&bytes)) {
            prop_assert_eq!(command.check(site), Ok(()));
        }
    }

    #[test]
    fn check_and_json_agree_on_numbers(value in prop_oneof![-10.0f64..1100.0, any::<f64>()]) {
        let site = site_once();
        let mut command = Command::from_json(
            site, r#"{"action":"do_it","way":"left","count":1,"speed":2,"now":true,"label":""}"#).unwrap();
        command.values[2] = Value::Number(value);
        let allowed = command.check(site).is_ok();
        prop_assert_eq!(allowed, Command::from_json(site, &command.to_json(site)).is_ok() && near_step(value));
    }
}

/// In range and on a step of 0.1, by another way than the crate's: through the decimal text.
fn near_step(value: f64) -> bool {
    let ArgumentKind::Number { lo, hi, .. } = site_once().commands[0].arguments[2].kind else { return false };
    let rounded: f64 = format!("{value:.1}").parse().unwrap();
    (rounded - value).abs() <= 1e-7 && (lo..=hi).contains(&rounded)
}
