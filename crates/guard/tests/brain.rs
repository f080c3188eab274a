//! What the guard makes of a brain's silence, and of a brain that comes back.

mod common;

use common::*;
use ganglion_guard::*;
use ganglion_site::Micros;

/// A guard that slept for longer than the brain may be silent reads what the brain said meanwhile before it judges.
#[test]
fn a_brain_that_spoke_while_the_guard_slept_is_not_lost() {
    let mut bench = Bench::running();
    let timeout_ms = u64::from(bench.site.guard.brain_timeout_ms);
    bench.ms += 3 * timeout_ms;
    let got = bench.idle();
    assert_eq!((got.status.brain, got.brain), (BrainState::Ready, BrainAction::Keep));
    assert_eq!(got.status.breaker, BreakerState::Closed);
}

#[test]
fn a_brain_that_said_nothing_all_the_while_is_lost() {
    let mut bench = Bench::running();
    bench.ms += u64::from(bench.site.guard.brain_timeout_ms);
    let got = bench.go(None, &[], None);
    assert_eq!(got.brain, BrainAction::KillAndRestart { generation: 1 });
    assert_eq!(got.status.breaker, BreakerState::Open);
}

/// Each probe is a sentence that was never asked: what is answered from memory, or declined as empty, is no sign of a model.
#[test]
fn every_probe_of_a_half_open_breaker_is_a_question_of_its_own() {
    let mut bench = Bench::running();
    let failures = bench.site.guard.breaker_failures;
    for id in 0..u64::from(failures) {
        bench.go(Some(request(id + 1, "do it")), &[], None).event.expect("asked");
        bench.ms += u64::from(bench.site.guard.deadline_ms);
        bench.idle();
    }
    let mut asked: Vec<String> = Vec::new();
    let opened_us: Micros = bench.now();
    while asked.len() < 2 {
        let got = bench.idle();
        assert!(bench.now() < opened_us + 60_000_000, "the breaker is {:?}", got.status.breaker);
        if let Some(event) = got.event {
            assert_eq!(got.status.breaker, BreakerState::HalfOpen);
            asked.push(event.sentence.as_str().to_owned());
            // No answer: the breaker opens again, and probes again.
            bench.ms += u64::from(bench.site.guard.deadline_ms);
        }
    }
    assert!(!asked[0].is_empty());
    assert_ne!(asked[0], asked[1]);
}
