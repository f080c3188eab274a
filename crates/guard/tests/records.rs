//! What a record says, field by field: whoever reads the log was not there.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Decision, Event, Outcome, Progress, Reason, TagValues, Timings, Value};

const WARM: &str = r#"{"action":"set_temperature","celsius":21.5}"#;
const FAN: &str = r#"{"action":"set_fan","room":"office","percent":20}"#;

/// A record of this cycle that says nothing else yet.
fn blank(bench: &Bench, kind: RecordKind, reason: &str) -> Record {
    Record {
        kind,
        time_us: bench.now(),
        mode: bench.guard.status().mode.as_str(),
        breaker: bench.guard.status().breaker.as_str(),
        source: Source::Guard,
        request: 0,
        event: Event::new(0, 0),
        outcome: None,
        command: None,
        clamped: None,
        verdict: None,
        reason: Reason::cut(reason),
        confidence: 0.0,
        latency_us: 0,
        timings: Timings::default(),
        actuated: false,
    }
}

fn only(got: &Got, kind: RecordKind) -> &Record {
    let found: Vec<_> = got.records.iter().filter(|record| record.kind == kind).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// A request with everything in it that a record repeats.
fn full(id: u64) -> Request {
    let mut tags = TagValues::NONE;
    tags.set(1, 25.0);
    Request { source: Source::Http, client: 77, tags, ..request(id, "warm it") }
}

#[test]
fn of_an_answer_that_was_clamped() {
    let mut bench = Bench::running();
    bench.ask(FAN);
    let asked = bench.go(Some(full(5)), &[], None).event.unwrap();
    let due_us = bench.now() + 20_000;
    let (fast, slow) = (FAN.replace("20", "90"), FAN.replace("20", "21"));
    let timings = Timings { prompt_n: 7, ..Timings::default() };
    let proposed = command(&bench.site, &fast);
    let answer = Decision { confidence: 0.625, timings, ..decision(asked.epoch, Some(proposed)) };
    bench.ms += 5;
    let got = bench.go(None, &[answer], None);
    let reason =
        "set_fan.percent 90 % is too fast a change from 20 % 25 ms ago (limit 40 % per s); moved to 21 %";
    let expected = Record {
        source: Source::Http,
        request: 5,
        event: Event { deadline_us: due_us, ..asked },
        outcome: Some(Outcome::Model),
        command: Some(proposed),
        clamped: Some(command(&bench.site, &slow)),
        verdict: Some(Verdict::Clamped),
        confidence: 0.625,
        latency_us: 15_000,
        timings,
        actuated: true,
        ..blank(&bench, RecordKind::Decision, reason)
    };
    assert_eq!(only(&got, RecordKind::Decision), &expected);
    assert_eq!((asked.client, asked.tag(1), asked.sentence.as_str()), (77, Some(25.0), "warm it"));
    // What was approved as it stood was not clamped.
    let got = bench.ask(WARM);
    assert_eq!((only(&got, RecordKind::Decision).clamped, got.status.counters.clamped), (None, 1));
}

#[test]
fn verdicts_are_counted_one_by_one() {
    let mut bench = Bench::running();
    for count in 1..=3 {
        let got = bench.ask(r#"{"action":"set_temperature","celsius":35}"#);
        assert_eq!((got.status.counters.rejected, got.status.counters.approved), (count, count - 1));
        assert_eq!(bench.ask(WARM).status.counters.approved, count);
    }
}

#[test]
fn of_an_answer_that_is_no_command_of_the_site() {
    let mut bench = Bench::running();
    let asked = bench.go(Some(full(5)), &[], None).event.unwrap();
    let mut unknown = command(&bench.site, WARM);
    unknown.verb = 900;
    let got = bench.go(None, &[decision(asked.epoch, Some(unknown))], None);
    let record = only(&got, RecordKind::Decision);
    assert_eq!((record.command, record.verdict), (None, Some(Verdict::Rejected)));
    assert_eq!(record.reason.as_str(), "the brain's answer is malformed: command number 900 does not exist");
}

#[test]
fn of_a_rules_answer_to_what_the_brain_left_open() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    let plain = Request { tags: TagValues::NONE, ..full(5) };
    let asked = bench.go(Some(plain), &[], None).event.unwrap();
    let begun = bench.now();
    bench.idle();
    let got = bench.idle();
    let expected = Record {
        source: Source::Http,
        request: 5,
        event: asked,
        outcome: Some(Outcome::Rule),
        command: Some(command(&bench.site, FAN)),
        verdict: Some(Verdict::Approved),
        latency_us: bench.now() - begun,
        actuated: true,
        ..blank(&bench, RecordKind::Decision, "the brain gave no answer in 20 ms")
    };
    assert_eq!(only(&got, RecordKind::Decision), &expected);
    let counters = got.status.counters;
    assert_eq!((counters.by_rule, counters.by_safe, counters.approved, counters.actuated), (1, 0, 1, 1));
}

#[test]
fn of_a_rules_answer_that_was_clamped_and_of_the_safe_command() {
    let mut bench = Bench::running();
    bench.ask(&FAN.replace("20", "90"));
    bench.values[1] = 80.0;
    bench.brain = BrainProcess::Absent;
    let got = bench.go(None, &[], None);
    let record = only(&got, RecordKind::Decision);
    let sent = got.actuation.unwrap();
    assert_eq!(record.command, Some(command(&bench.site, FAN)), "what the rule wanted");
    assert_eq!((record.verdict, record.clamped), (Some(Verdict::Clamped), Some(*sent.approved.get())));
    assert_eq!((record.event.epoch, record.request, record.latency_us), (0, 0, 0));
    assert!(record.reason.as_str().starts_with("rule controller in control, brain absent; set_fan.percent"));
    assert_eq!((sent.epoch, sent.request, sent.time_us), (0, 0, bench.now()));
    bench.values[1] = 30.0;
    let got = bench.go(None, &[], None);
    let safe = command(&bench.site, r#"{"action":"all_off"}"#);
    let record = only(&got, RecordKind::Decision);
    assert_eq!((record.outcome, record.command, record.clamped), (Some(Outcome::Safe), Some(safe), None));
    let why = "rule controller in control, brain absent; no rule applies; safe command";
    assert_eq!(record.reason.as_str(), why);
    let counters = got.status.counters;
    assert_eq!((counters.by_rule, counters.by_safe, counters.clamped), (1, 1, 1));
}

#[test]
fn of_a_refused_event() {
    let mut bench = Bench::new();
    let got = bench.go(Some(full(5)), &[], None);
    let record = only(&got, RecordKind::Decision);
    let mut values = [0.0; ganglion_site::limits::TAGS_MAX];
    (values[0], values[1]) = (20.0, 25.0);
    let event = Event {
        client: 77,
        tags: values,
        tags_present: 3,
        sentence: full(5).sentence,
        ..Event::new(0, bench.now() + 20_000)
    };
    let expected = Record {
        source: Source::Http,
        request: 5,
        event,
        outcome: Some(Outcome::Safe),
        verdict: Some(Verdict::Rejected),
        ..blank(&bench, RecordKind::Decision, "the mode is Stopped; commands are taken in Execute only")
    };
    assert_eq!(record, &expected);
    let counters = got.status.counters;
    assert_eq!((counters.events, counters.rejected, counters.cycles), (1, 1, 1));
    let got = bench.go(Some(Request { dry_run: true, ..full(6) }), &[], None);
    assert!(only(&got, RecordKind::Decision).event.dry_run);
    assert_eq!(
        (got.status.counters.events, got.status.counters.rejected, got.status.counters.cycles),
        (2, 2, 2)
    );
}

#[test]
fn of_a_plans_step() {
    let mut bench = Bench::running();
    let step = Request { source: Source::Mission, command: Some(command(&bench.site, WARM)), ..full(5) };
    let got = bench.go(Some(step), &[], None);
    let record = only(&got, RecordKind::Decision);
    let expected = Record {
        source: Source::Mission,
        request: 5,
        event: record.event,
        outcome: Some(Outcome::Plan),
        command: step.command,
        verdict: Some(Verdict::Approved),
        actuated: true,
        ..blank(&bench, RecordKind::Decision, "")
    };
    assert_eq!(record, &expected);
    assert_eq!((record.event.client, record.event.sentence.as_str(), record.event.epoch), (77, "warm it", 0));
    // A step that is none of the site's commands is no command in the log either.
    let mut unknown = command(&bench.site, WARM);
    unknown.verb = 900;
    let got = bench.go(Some(Request { command: Some(unknown), ..step }), &[], None);
    assert_eq!(only(&got, RecordKind::Decision).command, None);
}

#[test]
fn of_a_shadow_probe_with_and_without_an_answer() {
    let mut bench = Bench::running();
    for _ in 0..3 {
        bench.go(Some(request(1, "x")), &[], None);
        bench.idle();
        bench.idle();
    }
    assert_eq!(bench.guard.status().breaker, BreakerState::Open);
    let mut asked = None;
    while asked.is_none() {
        asked = bench.idle().event;
    }
    let (asked, begun) = (asked.unwrap(), bench.now());
    assert!(asked.dry_run && !asked.stream, "in shadow");
    let verdicts = bench.guard.status().counters.approved;
    let got = bench.go(None, &[decision(asked.epoch, Some(command(&bench.site, WARM)))], None);
    let expected = Record {
        event: Event { deadline_us: begun + 20_000, ..asked },
        outcome: Some(Outcome::Model),
        command: Some(command(&bench.site, WARM)),
        verdict: Some(Verdict::Approved),
        confidence: 0.9,
        latency_us: 10_000,
        ..blank(&bench, RecordKind::Probe, "")
    };
    assert_eq!(only(&got, RecordKind::Probe), &expected);
    assert_eq!(got.status.counters.approved, verdicts, "a probe's verdict is none of the plant's");
    // The next one is an operator's event, or its own; it gets no answer.
    bench.go(Some(full(8)), &[decision(0, None)], None);
    let mut late = None;
    while late.is_none() {
        let got = bench.idle();
        late = got.records.iter().find(|record| record.kind == RecordKind::Probe).copied();
    }
    let late = late.unwrap();
    let expected = Record {
        event: late.event,
        verdict: Some(Verdict::Rejected),
        latency_us: 20_000,
        request: late.request,
        ..blank(&bench, RecordKind::Probe, "the brain gave no answer in 20 ms")
    };
    assert_eq!(late, Record { breaker: late.breaker, ..expected });
    assert!(late.event.epoch > asked.epoch && late.event.dry_run);
    assert_eq!(bench.guard.status().breaker, BreakerState::Open, "one failure reopens it");
}

#[test]
fn of_an_operators_event_that_a_half_open_breaker_used_as_a_probe() {
    let mut bench = Bench::running();
    bench.brain = BrainProcess::Restarting;
    bench.idle();
    bench.brain = BrainProcess::Running { generation: 2 };
    bench.frozen_tags = None;
    // Half-open in this very cycle at the earliest: the event comes first and is answered by the rules.
    bench.ms += 200;
    let mut got = bench.go(Some(full(9)), &[decision(0, None)], None);
    for _ in 0..5 {
        if got.event.is_some_and(|event| event.sentence.as_str() == "warm it") {
            break;
        }
        if let Some(own) = got.event {
            let none = command(&bench.site, r#"{"action":"none"}"#);
            got = bench.go(Some(full(9)), &[decision(own.epoch, Some(none))], None);
        } else {
            got = bench.go(Some(full(9)), &[decision(0, None)], None);
        }
    }
    let asked = got.event.expect("asked in shadow");
    assert_eq!(asked.sentence.as_str(), "warm it");
    bench.idle();
    let got = bench.idle();
    let probe = only(&got, RecordKind::Probe);
    assert_eq!((probe.request, probe.event, probe.verdict), (9, asked, Some(Verdict::Rejected)));
    assert_eq!(probe.latency_us, 20_000);
}

#[test]
fn of_an_announcement() {
    let text = SITE.replace(
        "[[command]]\nname = \"all_off\"",
        "announce = \"horn\"\n[[command]]\nname = \"horn\"\nwrites = [{ holding = 61, constant = 1 }]\n[[command]]\nname = \"all_off\"",
    );
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    let asked = bench.go(Some(full(5)), &[], None).event.unwrap();
    assert!(asked.stream, "the verb is wanted as soon as it is decided");
    bench.progress = vec![Progress { epoch: asked.epoch, verb: 1, argument: None, value: Value::Absent }];
    let got = bench.go(None, &[], None);
    let expected = Record {
        source: Source::Http,
        request: 5,
        event: asked,
        outcome: Some(Outcome::Model),
        command: Some(command(&bench.site, r#"{"action":"horn"}"#)),
        verdict: Some(Verdict::Approved),
        latency_us: 10_000,
        actuated: true,
        ..blank(&bench, RecordKind::Announcement, "")
    };
    assert_eq!(only(&got, RecordKind::Announcement), &expected);
    // Only where it may lead to something.
    let dry = bench.go(Some(Request { dry_run: true, ..full(6) }), &[], None).event.unwrap();
    assert!(!dry.stream);
    let watched =
        bench.go(Some(Request { dry_run: true, stream: true, ..full(7) }), &[], None).event.unwrap();
    assert!(watched.stream);
    let mut plain = Bench::running();
    assert!(!plain.go(Some(full(8)), &[], None).event.unwrap().stream, "nothing is announced here");
    let event = plain.go(Some(Request { stream: true, ..full(9) }), &[], None).event.unwrap();
    assert!(event.stream);
}

#[test]
fn of_a_dry_guard() {
    let site = site();
    let mut bench = Bench::of(site.clone(), &[20.0, 30.0]);
    bench.guard = Guard::new(&site).unwrap().with_dry_run(true);
    let mut bench = bench.started();
    let got = bench.ask(WARM);
    let record = only(&got, RecordKind::Decision);
    assert_eq!(
        (record.verdict, record.actuated, record.event.dry_run),
        (Some(Verdict::Approved), false, true)
    );
    assert!(got.actuation.is_none());
    let step = Request { command: Some(command(&bench.site, WARM)), ..request(4, "") };
    assert!(only(&bench.go(Some(step), &[], None), RecordKind::Decision).event.dry_run);
    let got = bench.go(None, &[], Some(OperatorCommand::Hold));
    assert!(only(&got, RecordKind::Mode).event.dry_run, "also of what answers no event");
    let got = bench.go(None, &[], Some(OperatorCommand::Stop));
    assert!(got.actuation.is_none(), "not even the safe command");
}

#[test]
fn more_than_a_cycle_may_say_is_counted_and_decisions_keep_their_place() {
    // Every tag alarms at once: more notices than there are places.
    let tags: String = (0..30)
        .map(|i| {
            format!(
                "[[tag]]\nname = \"t{i}\"\nrange = [0, 100]\nread = {{ input = {} }}\n[[limit]]\non = \"t{i}\"\nhi = 50\n",
                10 + i
            )
        })
        .collect();
    let mut bench = Bench::of(parse(&format!("{SITE}{tags}")), &[20.0; 32]).started();
    let epoch = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap().epoch;
    bench.values[2..].fill(60.0);
    let got = bench.go(None, &[decision(epoch, Some(command(&bench.site, WARM)))], None);
    let alarms = got.records.iter().filter(|record| record.kind == RecordKind::Alarm).count();
    assert_eq!(alarms, limits::NOTICES_PER_CYCLE_MAX);
    assert_eq!(got.status.counters.records_dropped, 30 - alarms as u64);
    assert!(only(&got, RecordKind::Decision).actuated);
}
