//! The real port: what goes in at one end comes out at the other, in order, once, and never by waiting.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{BrainMessage, DECISION_FRAME_BYTES, Decision, EVENT_FRAME_BYTES, Event, Reason, Site};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Like the test site, but with a plant of this test's own: leases are the machine's.
fn site_of(name: &str) -> Site {
    let plant = format!("modbus = \"{name}-{}.invalid:502\"", std::process::id());
    parse(&SITE.replace("modbus = \"127.0.0.1:1502\"", &plant))
}

fn channels(name: &str) -> (Channels, Outside) {
    Channels::new(&site_of(name), None, None)
}

/// Commands as only a guard can make them.
fn actuations(count: usize) -> Vec<Actuation> {
    let mut bench = Bench::running();
    let celsius = (0..count).map(|i| 15.0 + 0.5 * (i % 20) as f64);
    celsius
        .map(|celsius| {
            let got = bench.ask(&format!(r#"{{"action":"set_temperature","celsius":{celsius}}}"#));
            got.actuation.unwrap_or_else(|| panic!("{:?}", got.decisions()))
        })
        .collect()
}

#[test]
fn signals_carry_the_link_the_stops_and_the_counts() {
    let (mut port, outside) = channels("signals");
    let signals = &outside.signals;
    assert_eq!((signals.link(), port.link()), (Link::DOWN, Link::DOWN));
    for connected in [true, false] {
        for watchdog in [DeviceWatchdog::Off, DeviceWatchdog::Armed, DeviceWatchdog::Tripped] {
            let link = Link { connected, watchdog, heartbeat_ack_us: 77 };
            signals.set_link(link);
            assert_eq!((signals.link(), port.link()), (link, link));
        }
    }
    assert!(!port.estop() && !port.stopping());
    signals.set_estop(true);
    assert!(port.estop());
    signals.set_estop(false);
    assert!(!port.estop());
    signals.stop();
    assert!(port.stopping());
    assert_eq!(signals.heartbeats(), 0);
    for beats in 1..=3 {
        port.heartbeat();
        assert_eq!(signals.heartbeats(), beats);
    }
    let status = Bench::running().guard.status().to_owned();
    assert_eq!(signals.deadline_misses(), 0);
    let counters = Counters { deadline_misses: 5, ..status.counters };
    port.show(&Status { counters, ..status });
    assert_eq!(signals.deadline_misses(), 5);
    signals.tags.write(1, TagSample::good(4.5, 9));
    let mut tags = [TagSample::MISSING; 2];
    port.tags(&mut tags);
    assert_eq!(tags, [TagSample::MISSING, TagSample::good(4.5, 9)]);
}

#[test]
fn requests_and_operator_commands_come_out_in_their_order() {
    let (mut port, mut outside) = channels("requests");
    assert!(port.event().is_none() && port.operator().is_none());
    for id in [1, 2] {
        outside.requests.push(request(id, "x")).unwrap();
    }
    outside.operator.send(OperatorCommand::Hold).unwrap();
    outside.operator.send(OperatorCommand::Unhold).unwrap();
    assert_eq!([port.event(), port.event(), port.event()].map(|r| r.map(|r| r.id)), [Some(1), Some(2), None]);
    let operators = [port.operator(), port.operator(), port.operator()];
    assert_eq!(operators, [Some(OperatorCommand::Hold), Some(OperatorCommand::Unhold), None]);
    assert_eq!((port.brain(), port.message().is_none()), (BrainProcess::Absent, true), "none is configured");
}

#[test]
fn a_driver_that_takes_no_commands_is_a_lost_link_until_it_has_taken_all() {
    let (mut port, mut outside) = channels("driver");
    let link = Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: 5 };
    outside.signals.set_link(link);
    let all = actuations(limits::ACTUATION_QUEUE_MAX + 1);
    for actuation in &all[..limits::ACTUATION_QUEUE_MAX] {
        port.actuate(*actuation);
        assert_eq!(port.link(), link, "a full queue is none that lost something");
    }
    port.actuate(all[limits::ACTUATION_QUEUE_MAX]);
    assert_eq!(port.link(), Link::DOWN);
    for (place, actuation) in all[..limits::ACTUATION_QUEUE_MAX].iter().enumerate() {
        assert_eq!(port.link(), Link::DOWN, "{place} are taken");
        assert_eq!(outside.actuations.pop().unwrap(), *actuation, "in order");
    }
    assert_eq!(port.link(), link);
    // A later command goes out, and does not bring the state back.
    port.actuate(all[0]);
    assert_eq!((port.link(), outside.actuations.pop()), (link, Ok(all[0])));
}

#[test]
fn records_and_fields_reach_their_reader_or_are_counted() {
    let (mut port, mut outside) = channels("records");
    let got = Bench::running().ask(r#"{"action":"set_temperature","celsius":20}"#);
    let record = *got.decisions()[0];
    let room = outside.records.buffer().capacity();
    for number in 1..=room as u64 + 3 {
        port.record(&Record { request: number, ..record });
    }
    assert_eq!(outside.signals.records_lost(), 3);
    let numbers: Vec<u64> = std::iter::from_fn(|| outside.records.pop().ok()).map(|r| r.request).collect();
    assert_eq!(numbers, (1..=room as u64).collect::<Vec<_>>(), "the first ones, in order");
    let progress =
        ganglion_site::Progress { epoch: 1, verb: 0, argument: None, value: ganglion_site::Value::Absent };
    let field = Field { request: 4, progress };
    port.field(&field);
    assert_eq!((outside.fields.pop(), outside.fields.pop().is_err()), (Ok(field), true));
}

#[test]
fn a_status_is_shown_when_more_than_time_and_counts_of_cycles_have_changed() {
    let (mut port, mut outside) = channels("status");
    let first = *Bench::running().guard.status();
    let mut shown = |port: &mut Channels, status: Status| {
        port.show(&status);
        let found = outside.statuses.pop().ok();
        assert!(found.is_none_or(|found| found == status) && outside.statuses.pop().is_err());
        found.is_some()
    };
    assert!(shown(&mut port, first));
    assert!(!shown(&mut port, first));
    let beat = Link { heartbeat_ack_us: 1, ..first.link };
    let counters = Counters { cycles: first.counters.cycles + 9, ..first.counters };
    assert!(!shown(&mut port, Status { time_us: first.time_us + 1, link: beat, counters, ..first }));
    let counters = Counters { events: first.counters.events + 1, ..first.counters };
    assert!(shown(&mut port, Status { counters, ..first }));
    assert!(shown(&mut port, Status { mode: Mode::Held, ..first }));
    assert!(shown(&mut port, first), "and back");
    // What found no room is shown later.
    let modes = |place: usize| if place.is_multiple_of(2) { Mode::Held } else { Mode::Execute };
    for place in 0..=limits::STATUS_QUEUE_MAX {
        port.show(&Status { mode: modes(place), ..first });
    }
    let waiting = std::iter::from_fn(|| outside.statuses.pop().ok()).count();
    assert_eq!(waiting, limits::STATUS_QUEUE_MAX);
    port.show(&Status { mode: modes(limits::STATUS_QUEUE_MAX), ..first });
    assert_eq!(outside.statuses.pop().unwrap().mode, Mode::Held);
}

#[test]
fn a_missions_word_becomes_a_record_of_the_cycle_that_takes_it_up() {
    let (mut port, mut outside) = channels("notes");
    let status = Status { time_us: 123, mode: Mode::Held, ..*Bench::running().guard.status() };
    outside.notes.push(Reason::cut("Parse: 2 clauses")).unwrap();
    outside.notes.push(Reason::cut("Execute: step 1")).unwrap();
    for text in ["Parse: 2 clauses", "Execute: step 1"] {
        port.show(&status);
        let record = outside.records.pop().unwrap();
        assert!(outside.records.pop().is_err(), "one a cycle");
        assert_eq!((record.kind, record.source), (RecordKind::Mission, Source::Mission));
        assert_eq!((record.time_us, record.mode, record.breaker), (123, "Held", "closed"));
        assert_eq!((record.reason.as_str(), record.verdict, record.actuated), (text, None, false));
    }
    port.show(&status);
    assert!(outside.records.pop().is_err());
}

#[test]
fn news_come_in_order_and_only_while_old_policies_can_be_handed_back() {
    let (mut port, mut outside) = channels("news");
    let site = site();
    let policy = || Box::new(Policy::new((&site, [1; 32]), (&site, [2; 32])).unwrap());
    let note = |text| Notice { kind: RecordKind::Policy, reason: Reason::cut(text) };
    assert!(port.news().is_none());
    outside.news.push(News::Note(note("first"))).unwrap();
    outside.news.push(News::Adopt(policy())).unwrap();
    assert!(matches!(port.news(), Some(News::Note(found)) if found == note("first")));
    let Some(News::Adopt(adopted)) = port.news() else { panic!("a policy") };
    port.retire(adopted);
    assert_eq!(outside.retired.pop().unwrap().fingerprint(), [2; 32]);
    for _ in 0..limits::NEWS_QUEUE_MAX {
        port.retire(policy());
    }
    outside.news.push(News::Note(note("second"))).unwrap();
    assert!(port.news().is_none(), "there would be no place for another old one");
    outside.retired.pop().unwrap();
    assert!(matches!(port.news(), Some(News::Note(found)) if found == note("second")));
}

#[test]
fn one_process_writes_and_another_tries_again_a_second_later() {
    let (mut first, _) = channels("lease");
    let (mut second, _) = channels("lease");
    let (mut other, _) = channels("lease-of-another-plant");
    assert!(first.sole_writer(1_000));
    assert!(first.sole_writer(1_000) && first.sole_writer(9_000_000), "and goes on");
    assert!(!second.sole_writer(5_000));
    assert!(other.sole_writer(5_000));
    drop(first);
    assert!(!second.sole_writer(5_000 + limits::LEASE_RETRY_US - 1));
    assert!(second.sole_writer(5_000 + limits::LEASE_RETRY_US));
    // Plants whose names differ only far behind are two.
    let long = "a-plant-with-a-name-that-is-longer-than-what-a-name-of-the-system-shows-of-it";
    let (mut one, _) = channels(&format!("{long}-1"));
    let (mut two, _) = channels(&format!("{long}-2"));
    assert!(one.sole_writer(0) && two.sole_writer(0));
    let without = SITE.replace("[plant]\nmodbus = \"127.0.0.1:1502\"\nheartbeat = 100\nwatchdog = 101\nwatchdog_ms = 500\nwatchdog_state = 100\n", "");
    let text = without
        .lines()
        .filter(|l| !l.starts_with("read =") && !l.starts_with("writes ="))
        .collect::<Vec<_>>()
        .join("\n");
    let (mut free, _) = Channels::new(&parse(&text), None, None);
    assert!(free.sole_writer(0), "a site without a plant has nothing to share");
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn sleep_ends_at_its_time_or_when_the_brain_says_something() {
    let (mut port, _outside) = channels("sleep");
    let begun = port.now();
    let instant = Instant::now();
    assert!(!port.sleep_until(begun + 20_000, true), "no brain, nothing to wait for");
    let woke = port.now();
    assert!(woke >= begun + 20_000 && instant.elapsed() >= Duration::from_millis(19), "{begun} {woke}");
    assert!(!port.sleep_until(begun, true), "what is over needs no sleep");
    // At any point of a second.
    for _ in 0..12 {
        let at = port.now() + 17_000;
        port.sleep_until(at, false);
        assert!((at..at + 5_000_000).contains(&port.now()));
    }
    // The clock is the one that everybody else has.
    assert!(port.now() - begun <= instant.elapsed().as_micros() as u64 + 1_000);
}

/// A brain in a few lines of shell: it says that it lives after a while, then waits for one event and keeps it.
struct Brain(PathBuf);

impl Brain {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ganglion-channels-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut bytes = [0; DECISION_FRAME_BYTES];
        Decision::SIGN_OF_LIFE.encode(&mut bytes);
        std::fs::write(folder.join("life"), bytes).unwrap();
        Self(folder)
    }

    fn command(&self) -> Command {
        let folder = self.0.display();
        let script = format!(
            "exec 2>/dev/null; sleep 1.3; dd if={folder}/life bs={DECISION_FRAME_BYTES} count=1 >&0\n\
             timeout 30 dd bs={EVENT_FRAME_BYTES} count=1 <&0 of={folder}/part && mv {folder}/part {folder}/event\n\
             exec sleep 60"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    }
}

impl Drop for Brain {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_brain_is_heard_at_any_point_of_a_sleep() {
    let life = Brain::new("chatter");
    let file = life.0.join("life");
    let (_supervisor, channel) = Supervisor::start(move || {
        let mut command = Command::new("sh");
        let says = format!("dd if={} bs={DECISION_FRAME_BYTES} count=1 >&0", file.display());
        command.args(["-c", &format!("exec 2>/dev/null; while {says}; do sleep 0.3; done")]);
        command
    })
    .unwrap();
    let (mut port, _outside) = Channels::new(&site_of("chatter"), Some(channel), None);
    wait_for("it runs", || port.brain() == BrainProcess::Running { generation: 1 });
    let mut early = 0;
    for _ in 0..4 {
        while port.message().is_some() {}
        let at = port.now() + 950_000;
        early += u32::from(port.sleep_until(at, true) && port.now() < at);
    }
    assert!(early >= 3, "{early} of 4");
}

#[test]
fn the_brain_is_heard_asked_and_replaced_through_the_port() {
    let brain = Brain::new("port");
    let command = brain.command();
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let (_supervisor, channel) = Supervisor::start(move || {
        let mut command = Command::new(&program);
        command.args(&arguments);
        command
    })
    .unwrap();
    let (mut port, _outside) = Channels::new(&site_of("brain"), Some(channel), None);
    wait_for("it runs", || port.brain() == BrainProcess::Running { generation: 1 });
    let near = port.now() + 20_000;
    assert!(!port.sleep_until(near, true), "it has said nothing yet");
    assert!((near..near + 10_000_000).contains(&port.now()));
    // Heard after more than a second of sleep, and long before its end.
    let far = port.now() + 20_500_000;
    assert!(port.sleep_until(far, true), "its sign of life ends the sleep");
    assert!(port.now() < far - 5_000_000);
    let soon = port.now() + 1_000;
    assert!(!port.sleep_until(soon, false), "unless nobody wants to hear it");
    assert!(matches!(port.message(), Some(BrainMessage::Decision(d)) if d == Decision::SIGN_OF_LIFE));
    assert!(port.message().is_none());
    let event = Event { client: 5, ..Event::new(7, 900) };
    port.ask(&event);
    let mut bytes = Vec::new();
    wait_for("it is asked", || {
        bytes = std::fs::read(brain.0.join("event")).unwrap_or_default();
        bytes.len() == EVENT_FRAME_BYTES
    });
    let mut expected = [0; EVENT_FRAME_BYTES];
    event.encode(&mut expected);
    assert!(bytes == expected);
    port.replace_brain(1);
    wait_for("another one", || port.brain() == BrainProcess::Running { generation: 2 });
}
