//! Steps of verified plans: judged like the brain's answers, and by nothing less.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::Outcome;

fn step(bench: &Bench, json: &str) -> Request {
    let others = bench.guard.status().counters.others;
    let command = Some(command(&bench.site, json));
    Request { source: Source::Mission, command, others, ..request(7, "warm it") }
}

const WARM: &str = r#"{"action":"set_temperature","celsius":21.5}"#;
const SAFE: &str = r#"{"action":"all_off"}"#;

#[test]
fn a_step_goes_out_in_the_cycle_that_takes_it_up_and_the_brain_is_not_asked() {
    let mut bench = Bench::running();
    let got = bench.go(Some(step(&bench, WARM)), &[], None);
    assert_eq!(bench.json(&got).unwrap(), WARM);
    assert!(got.event.is_none());
    let record = got.decisions()[0];
    assert_eq!((record.source, record.outcome), (Source::Mission, Some(Outcome::Plan)));
    assert_eq!((record.verdict, record.actuated, record.request), (Some(Verdict::Approved), true, 7));
}

#[test]
fn limits_mode_link_and_budget_hold_for_steps_too() {
    let mut bench = Bench::running();
    for (json, why) in [
        (r#"{"action":"set_temperature","celsius":30}"#, "above its limit"),
        (r#"{"action":"set_temperature","celsius":10}"#, "below its limit"),
    ] {
        let got = bench.go(Some(step(&bench, json)), &[], None);
        assert!(got.actuation.is_none() && got.decisions()[0].reason.as_str().contains(why), "{got:?}");
    }
    // A command that would be moved to a bound is not the one that was verified.
    bench.go(Some(step(&bench, r#"{"action":"set_fan","room":"office","percent":10}"#)), &[], None);
    let got = bench.go(Some(step(&bench, r#"{"action":"set_fan","room":"office","percent":90}"#)), &[], None);
    assert!(got.actuation.is_none() && got.decisions()[0].verdict == Some(Verdict::Rejected), "{got:?}");
    bench.go(None, &[], Some(OperatorCommand::Hold));
    let got = bench.go(Some(step(&bench, WARM)), &[], None);
    assert!(got.actuation.is_none() && got.decisions()[0].reason.as_str().contains("Held"), "{got:?}");
}

#[test]
fn with_an_open_breaker_the_rule_controller_is_the_sole_writer() {
    let mut bench = Bench::running();
    bench.brain = BrainProcess::Restarting;
    bench.idle();
    let got = bench.go(Some(step(&bench, WARM)), &[], None);
    assert!(got.actuation.is_none_or(|a| a.outcome != Outcome::Plan), "{got:?}");
    let refused = |r: &&&Record| r.reason.as_str().contains("no plan is carried out");
    let decisions = got.decisions();
    let record = decisions.iter().find(refused).unwrap_or_else(|| panic!("{got:?}"));
    assert!(refused_for_now(record.reason.as_str()));
    // What ends a mission that has failed goes out all the same.
    let got = bench.go(Some(step(&bench, SAFE)), &[], None);
    let record = got.decisions()[0];
    assert_eq!((bench.json(&got).as_deref(), record.outcome), (Some(SAFE), Some(Outcome::Safe)));
    assert_eq!((record.verdict, record.actuated), (Some(Verdict::Approved), true));
    assert!(bench.idle().actuation.is_none(), "and stands: the rule's choice is as before");
}

#[test]
fn the_safe_command_of_a_mission_takes_no_token() {
    let site = parse(&SITE.replace("[plant]", "commands = { burst = 1, per_minute = 1 }\n[plant]"));
    let mut bench = Bench::of(site, &[20.0, 30.0]).started();
    assert!(bench.go(Some(step(&bench, WARM)), &[], None).actuation.is_some());
    let cooler = r#"{"action":"set_temperature","celsius":20}"#;
    let got = bench.go(Some(step(&bench, cooler)), &[], None);
    let why = got.decisions()[0].reason;
    assert!(got.actuation.is_none() && why.as_str().contains("too many commands"), "{got:?}");
    assert!(refused_for_now(why.as_str()) && !refused_for_now("celsius is above its limit"));
    let got = bench.go(Some(step(&bench, SAFE)), &[], None);
    assert_eq!(bench.json(&got).as_deref(), Some(SAFE));
    // Only where commands are taken at all.
    bench.go(None, &[], Some(OperatorCommand::Hold));
    let got = bench.go(Some(step(&bench, SAFE)), &[], None);
    assert!(got.actuation.is_none() && refused_for_now(got.decisions()[0].reason.as_str()), "{got:?}");
}

#[test]
fn a_stop_or_an_emergency_stop_in_the_same_cycle_wins() {
    for estop in [false, true] {
        let mut bench = Bench::running();
        bench.estop = estop;
        let operator = (!estop).then_some(OperatorCommand::Stop);
        let got = bench.go(Some(step(&bench, WARM)), &[], operator);
        assert_eq!(bench.json(&got).as_deref(), Some(r#"{"action":"all_off"}"#));
        let refused = got.decisions().into_iter().find(|r| r.source == Source::Mission).unwrap();
        assert_eq!(refused.verdict, Some(Verdict::Rejected));
    }
}

#[test]
fn a_brain_cannot_pass_its_answers_off_as_steps() {
    let mut bench = Bench::running();
    let epoch = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap().epoch;
    let mut answer = decision(epoch, Some(command(&bench.site, WARM)));
    answer.outcome = Outcome::Plan;
    let got = bench.go(None, &[answer], None);
    assert!(got.actuation.is_none() && got.decisions()[0].reason.as_str().contains("malformed"), "{got:?}");
}

#[test]
fn complete_ends_execute_and_sends_nothing() {
    let mut bench = Bench::running();
    let got = bench.go(None, &[], Some(OperatorCommand::Complete));
    assert_eq!((got.status.mode, got.actuation), (Mode::Completing, None));
    assert_eq!(bench.idle().status.mode, Mode::Complete);
    assert!(bench.go(Some(step(&bench, WARM)), &[], None).actuation.is_none());
}

#[test]
fn a_dry_step_is_judged_and_not_sent() {
    let mut bench = Bench::running();
    let got = bench.go(Some(Request { dry_run: true, ..step(&bench, WARM) }), &[], None);
    assert!(got.actuation.is_none() && got.decisions()[0].verdict == Some(Verdict::Approved), "{got:?}");
}

#[test]
fn commands_of_plans_may_be_kept_for_plans() {
    let plan = "plan = { takes = 60, effects = [{ tag = \"temperature\", add = 1 }] }\n[[command]]\nname = \"set_fan\"";
    let site = SITE.replacen("[[command]]\nname = \"set_fan\"", plan, 1);
    for (only, sent) in [("", true), ("only = true\n", false)] {
        let site = parse(&format!("{site}[plan]\n{only}"));
        let mut bench = Bench::of(site, &[20.0, 30.0]).started();
        let got = bench.ask(WARM);
        assert_eq!(got.actuation.is_some(), sent, "{got:?}");
        let why = got.decisions()[0].reason;
        assert_eq!(why.as_str().contains("set_temperature is sent in verified plans only"), !sent, "{why:?}");
        let checked = bench.guard.check(&command(&bench.site, WARM), &[]);
        assert_eq!(checked.verdict == Verdict::Approved, sent, "what `ask` says");
        // A clause of a mission is decided all the same, a step goes out, and so does what has no plan.
        let clause = Request { source: Source::Mission, dry_run: true, ..request(2, "warm it") };
        let epoch = bench.go(Some(clause), &[], None).event.unwrap().epoch;
        let answer = decision(epoch, Some(command(&bench.site, WARM)));
        assert_eq!(bench.go(None, &[answer], None).decisions()[0].verdict, Some(Verdict::Approved));
        assert!(bench.go(Some(step(&bench, WARM)), &[], None).actuation.is_some());
        assert!(bench.ask(r#"{"action":"set_fan","room":"office","percent":10}"#).actuation.is_some());
    }
}

#[test]
fn a_step_that_was_made_before_somebody_elses_command_is_not_sent_over_it() {
    let mut bench = Bench::running();
    let (warm, safe) = (step(&bench, WARM), step(&bench, SAFE));
    assert!(bench.ask(r#"{"action":"set_temperature","celsius":18}"#).actuation.is_some());
    for late in [warm, safe] {
        let got = bench.go(Some(late), &[], None);
        let why = got.decisions()[0].reason;
        assert!(got.actuation.is_none() && why.as_str().contains("somebody else's command"), "{got:?}");
        assert!(!refused_for_now(why.as_str()));
    }
    // Its own steps do not count.
    let warm = step(&bench, WARM);
    assert!(bench.go(Some(warm), &[], None).actuation.is_some());
    assert!(bench.go(Some(warm), &[], None).actuation.is_some());
}
