//! Parts of answers: fields handed on, and commands that go out ahead of their own.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Decision, Outcome, Progress, Reason, Value};

const MOVE: &str = r#"{"action":"move","mm":30}"#;
const ENABLE: &str = r#"{"action":"enable_drive"}"#;

fn site_text() -> String {
    SITE.replace(
        "[[command]]\nname = \"all_off\"",
        "[[command]]\nname = \"move\"\narguments = [{ name = \"mm\", integer = [0, 100] }]\nwrites = [{ holding = 60, value = \"mm\" }]\nannounce = \"enable_drive\"\n\
         [[command]]\nname = \"enable_drive\"\nwrites = [{ holding = 61, constant = 1 }]\n\
         [[limit]]\non = \"move.mm\"\nhi = 50\n\
         [[command]]\nname = \"all_off\"",
    )
}

fn running(text: &str) -> Bench {
    Bench::of(parse(text), &[20.0, 30.0]).started()
}

fn verb_of(bench: &Bench, name: &str) -> u16 {
    u16::try_from(bench.site.commands.iter().position(|c| c.name == name).unwrap()).unwrap()
}

fn verb(bench: &Bench, epoch: u64, name: &str) -> Progress {
    Progress { epoch, verb: verb_of(bench, name), argument: None, value: Value::Absent }
}

fn asked(bench: &mut Bench, request: Request) -> u64 {
    let request = Request { deadline_ms: Some(50), ..request };
    bench.go(Some(request), &[], None).event.expect("asked").epoch
}

/// The next cycle, in which the brain says that it has decided to move.
fn decided(bench: &mut Bench, epoch: u64) -> Got {
    bench.progress = vec![verb(bench, epoch, "move")];
    bench.go(None, &[], None)
}

fn sent(bench: &Bench, got: &Got) -> String {
    bench.json(got).unwrap_or_default().replace(' ', "")
}

fn announcement(got: &Got) -> Option<&Record> {
    got.records.iter().find(|record| record.kind == RecordKind::Announcement)
}

#[test]
fn the_announced_command_goes_out_before_the_arguments_are_decided() {
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, request(5, "move 30"));
    let got = decided(&mut bench, epoch);
    assert_eq!(sent(&bench, &got), ENABLE);
    let record = announcement(&got).expect("recorded");
    assert_eq!((record.request, record.verdict, record.actuated), (5, Some(Verdict::Approved), true));
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Model);
    assert!(got.decisions().is_empty(), "the event is not answered by it");
    let answer = decision(epoch, Some(command(&bench.site, MOVE)));
    let got = bench.go(None, &[answer], None);
    assert_eq!(sent(&bench, &got), MOVE);
    assert_eq!(got.decisions()[0].request, 5);
    assert_eq!(got.status.counters.announced, 1);
}

#[test]
fn an_answer_that_is_there_already_needs_no_announcement() {
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, request(5, "move 30"));
    bench.progress = vec![verb(&bench, epoch, "move")];
    let answer = decision(epoch, Some(command(&bench.site, MOVE)));
    let got = bench.go(None, &[answer], None);
    assert_eq!(sent(&bench, &got), MOVE);
    assert!(announcement(&got).is_none());
}

#[test]
fn after_an_announcement_somebody_always_has_the_last_word() {
    // No answer, a refused one, none at all, one that declines, one of another verb: the rule.
    type Ending<'a> = &'a dyn Fn(&Bench, u64) -> Vec<Decision>;
    let endings: [Ending<'_>; 5] = [
        &|_, _| Vec::new(),
        &|bench, epoch| {
            let far = command(&bench.site, &MOVE.replace("30", "90"));
            vec![decision(epoch, Some(far))]
        },
        &|_, epoch| vec![Decision { reason: Reason::cut("too hard"), ..decision(epoch, None) }],
        &|_, epoch| vec![Decision { reason: Reason::cut(Decision::EXPIRED), ..decision(epoch, None) }],
        &|bench, epoch| {
            let warm = command(&bench.site, r#"{"action":"set_temperature","celsius":21.5}"#);
            vec![decision(epoch, Some(warm))]
        },
    ];
    for (index, ending) in endings.iter().enumerate() {
        let mut bench = running(&site_text());
        bench.values[1] = 80.0;
        let epoch = asked(&mut bench, request(5, "move 30"));
        let got = decided(&mut bench, epoch);
        assert_eq!(sent(&bench, &got), ENABLE);
        let answers = ending(&bench, epoch);
        if answers.is_empty() {
            bench.idle();
            bench.idle();
            bench.idle();
        }
        let got = bench.go(None, &answers, None);
        assert_eq!(got.actuation.map(|a| a.outcome), Some(Outcome::Rule), "{index}");
        assert_eq!(got.decisions().len(), 1, "{index}");
    }
}

#[test]
fn questions_and_dry_runs_announce_nothing() {
    let questions = [request(1, "shall we move?"), Request { dry_run: true, ..request(1, "move 30") }];
    for request in questions {
        let mut bench = running(&site_text());
        let epoch = asked(&mut bench, request);
        let got = decided(&mut bench, epoch);
        assert!(got.actuation.is_none() && announcement(&got).is_none());
    }
}

#[test]
fn what_a_limit_a_budget_or_the_mode_forbids_is_not_announced() {
    // A budget has to leave one token for the command itself.
    let text = site_text().replace("safe = {", "commands = { burst = 2, per_minute = 6 }\nsafe = {");
    let mut bench = running(&text);
    bench.ask(r#"{"action":"set_temperature","celsius":21.5}"#);
    let epoch = asked(&mut bench, request(5, "move 30"));
    let got = decided(&mut bench, epoch);
    assert!(got.actuation.is_none());
    let record = announcement(&got).unwrap();
    assert_eq!(record.verdict, Some(Verdict::Rejected));
    assert!(record.reason.as_str().starts_with("too many commands"), "{}", record.reason.as_str());
    let answer = decision(epoch, Some(command(&bench.site, MOVE)));
    let got = bench.go(None, &[answer], None);
    assert_eq!(sent(&bench, &got), MOVE, "the command itself has its token");
    // Held.
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, request(5, "move 30"));
    bench.progress = vec![verb(&bench, epoch, "move")];
    let got = bench.go(None, &[], Some(OperatorCommand::Hold));
    assert!(got.actuation.is_none() && announcement(&got).is_none());
    // Another event's command has this cycle: the announcement is next.
    let mut bench = running(&site_text());
    let first = asked(&mut bench, request(4, "warm"));
    let epoch = asked(&mut bench, request(5, "move 30"));
    bench.progress = vec![verb(&bench, epoch, "move")];
    let warm = command(&bench.site, r#"{"action":"set_temperature","celsius":21.5}"#);
    let got = bench.go(None, &[decision(first, Some(warm))], None);
    assert!(sent(&bench, &got).contains("set_temperature") && bench.guard.has_backlog());
    let got = bench.idle();
    assert_eq!(sent(&bench, &got), ENABLE);
}

#[test]
fn shadow_probes_announce_nothing() {
    let mut bench = running(&site_text());
    bench.values[1] = 80.0;
    for i in 0..3 {
        bench.go(Some(request(i, "x")), &[], None);
        bench.idle();
        bench.idle();
    }
    assert_eq!(bench.guard.status().breaker, BreakerState::Open);
    let probe = (0..30).find_map(|_| bench.idle().event).expect("a probe");
    let got = decided(&mut bench, probe.epoch);
    assert_eq!(got.status.breaker, BreakerState::HalfOpen);
    assert!(got.actuation.is_none() && announcement(&got).is_none());
}

#[test]
fn parts_that_fit_nothing_change_nothing() {
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, Request { stream: true, ..request(5, "move 30") });
    let part = |verb, argument, value| Progress { epoch, verb, argument, value };
    let moving = verb_of(&bench, "move");
    bench.progress = vec![
        part(99, None, Value::Absent),
        part(moving, Some(0), Value::Integer(3)), // before its verb
        part(moving, None, Value::Absent),
        part(moving, None, Value::Absent),              // twice
        part(moving, Some(0), Value::Integer(300)),     // out of range
        part(moving, Some(0), Value::Number(f64::NAN)), // of another type
        part(moving, Some(5), Value::Integer(3)),       // no such argument
        part(verb_of(&bench, "set_fan"), Some(0), Value::Choice(0)),
    ];
    let got = bench.go(None, &[], None);
    assert_eq!(got.status.counters.malformed_answers, 7);
    assert_eq!(got.fields.len(), 1, "{:?}", got.fields);
    assert_eq!(got.status.breaker, BreakerState::Closed, "the answer itself is what counts");
    bench.progress = vec![Progress { epoch: epoch + 7, ..part(moving, None, Value::Absent) }];
    assert_eq!(bench.go(None, &[], None).status.counters.unexpected_answers, 1);
}

#[test]
fn fields_reach_whoever_asked_for_them() {
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, Request { stream: true, ..request(5, "fan") });
    let quiet = asked(&mut bench, request(6, "fan"));
    let fan = verb_of(&bench, "set_fan");
    let verb = |epoch| Progress { epoch, verb: fan, argument: None, value: Value::Absent };
    bench.progress = vec![verb(epoch), verb(quiet)];
    let got = bench.go(None, &[], None);
    assert_eq!(got.fields, [Field { request: 5, progress: verb(epoch) }]);
    // Also those that come together with the answer.
    let room = Progress { argument: Some(0), value: Value::Choice(1), ..verb(epoch) };
    let percent = Progress { argument: Some(1), value: Value::Integer(20), ..verb(epoch) };
    bench.progress = vec![room, percent];
    let answer = command(&bench.site, r#"{"action":"set_fan","room":"office","percent":20}"#);
    let got = bench.go(None, &[decision(epoch, Some(answer))], None);
    assert_eq!(got.fields.iter().map(|f| f.progress).collect::<Vec<_>>(), [room, percent]);
    assert!(got.actuation.is_some());
}

#[test]
fn what_a_brain_says_before_it_is_ready_counts_for_nothing() {
    let mut bench = Bench::of(parse(&site_text()), &[20.0, 30.0]);
    bench.go(None, &[], Some(OperatorCommand::Reset));
    bench.progress = vec![verb(&bench, 0, "move")];
    let got = bench.go(None, &[], Some(OperatorCommand::Start));
    assert_eq!(got.status.brain, BrainState::Starting, "nor is it a sign of life");
    assert_eq!(got.status.counters.unexpected_answers, 1);
    // A part of an event that was never asked, of a brain that is ready.
    let mut bench = running(&site_text());
    bench.progress = vec![verb(&bench, 99, "move")];
    assert_eq!(bench.go(None, &[], None).status.counters.unexpected_answers, 1);
}

#[test]
fn arguments_that_follow_announce_nothing_anew() {
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, request(5, "move 30"));
    let got = decided(&mut bench, epoch);
    assert_eq!(sent(&bench, &got), ENABLE);
    let verb = verb_of(&bench, "move");
    bench.progress = vec![Progress { epoch, verb, argument: Some(0), value: Value::Integer(30) }];
    let got = bench.go(None, &[], None);
    assert!(got.actuation.is_none() && announcement(&got).is_none(), "{got:?}");
    assert_eq!((got.status.counters.announced, got.status.counters.malformed_answers), (1, 0));
}

#[test]
fn parts_that_do_not_fit_are_not_handed_on() {
    let mut bench = running(&site_text());
    let epoch = asked(&mut bench, Request { stream: true, ..request(5, "move 30") });
    let verb = verb_of(&bench, "move");
    let part = |verb, argument, value| Progress { epoch, verb, argument, value };
    for (number, wrong) in [
        part(900, None, Value::Absent),
        part(verb, None, Value::Integer(3)),
        part(verb, Some(0), Value::Integer(30)), // before its verb
    ]
    .into_iter()
    .enumerate()
    {
        bench.progress = vec![wrong];
        let got = bench.go(None, &[], None);
        assert_eq!(got.status.counters.malformed_answers, number as u64 + 1, "{wrong:?}");
        assert!(got.fields.is_empty() && got.actuation.is_none());
    }
    let epoch = asked(&mut bench, Request { stream: true, ..request(6, "move 30") });
    bench.progress = vec![Progress { epoch, ..part(verb, None, Value::Absent) }];
    assert_eq!(bench.go(None, &[], None).fields.len(), 1);
    for (number, argument, value) in
        [(4, 0, Value::Integer(101)), (5, 0, Value::Number(3.0)), (6, 1, Value::Integer(3))]
    {
        bench.progress = vec![Progress { epoch, ..part(verb, Some(argument), value) }];
        let got = bench.go(None, &[], None);
        assert_eq!(got.status.counters.malformed_answers, number, "{argument} {value:?}");
        assert!(got.fields.is_empty());
    }
}

#[test]
fn an_announcement_does_not_overwrite_what_a_younger_event_has_sent() {
    let mut bench = running(&site_text());
    let old = asked(&mut bench, request(5, "move 30"));
    let young = asked(&mut bench, request(6, "enable it"));
    let answer = decision(young, Some(command(&bench.site, ENABLE)));
    let got = bench.go(None, &[answer], None);
    assert_eq!(sent(&bench, &got), ENABLE);
    let got = decided(&mut bench, old);
    assert!(got.actuation.is_none());
    let record = announcement(&got).unwrap();
    assert!(record.reason.as_str().starts_with("superseded: a younger event's"), "{record:?}");
    assert_eq!((got.status.counters.superseded, got.status.counters.announced), (1, 0));
}
