//! A short fault campaign (`examples/campaign` is the long one): a test for each invariant that a simulation can show.
#![allow(dead_code, reason = "the long campaign uses the rest")]

#[path = "../examples/campaign/monitors.rs"]
mod monitors;
#[path = "../examples/campaign/world.rs"]
mod world;

use monitors::{INVARIANTS, Monitors};
use std::sync::LazyLock;
use world::World;

/// Enough for every case to come up.
const RUNS: u64 = 60;

static WATCHED: LazyLock<Monitors> = LazyLock::new(|| {
    let mut all = Monitors::default();
    for seed in 0..RUNS {
        let (mut world, mut monitors) = (World::new(seed), Monitors::default());
        for _ in 0..400 {
            world.step(&mut monitors);
        }
        world.end(&mut monitors);
        all.add(&monitors);
    }
    all
});

fn holds(number: u8) {
    assert!(WATCHED.checks(number) > 0, "its case never came up");
    assert_eq!(WATCHED.violations(number), 0, "{:?}", WATCHED.examples());
}

macro_rules! campaign {
    ($($name:ident: $number:literal,)*) => {
        $(#[test]
        fn $name() {
            holds($number);
        })*

        #[test]
        fn every_monitor_has_its_test() {
            let numbers: Vec<u8> = INVARIANTS.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, [$($number),*]);
        }
    };
}

campaign! {
    invariant_02_any_input_gives_a_verdict: 2,
    invariant_03_limits_hold_for_any_number: 3,
    invariant_04_slew_holds_across_sources: 4,
    invariant_05_what_is_unknown_is_rejected: 5,
    invariant_06_a_question_is_not_acted_on: 6,
    invariant_07_words_change_no_limit: 7,
    invariant_08_deadline_miss_gives_safe_action: 8,
    invariant_09_an_old_epoch_is_discarded: 9,
    invariant_10_bad_readings_are_rejected: 10,
    invariant_11_a_step_of_the_clock_changes_nothing: 11,
    invariant_12_only_completed_cycles_feed_the_watchdog: 12,
    invariant_13_a_brain_that_is_gone_gives_fallback: 13,
    invariant_15_the_breaker_opens_at_exactly_n: 15,
    invariant_16_open_makes_the_rules_sole_writer: 16,
    invariant_17_half_open_probes_in_shadow: 17,
    invariant_18_the_open_breaker_dwells: 18,
    invariant_19_modes_follow_their_table: 19,
    invariant_20_a_safe_stop_is_one_step_away: 20,
    invariant_21_the_emergency_stop_latches: 21,
    invariant_22_the_operator_beats_the_model: 22,
    invariant_23_a_restart_never_resumes_execute: 23,
    invariant_24_duplicates_change_nothing: 24,
    invariant_25_a_lost_link_gets_nothing: 25,
    invariant_26_no_lease_no_command: 26,
    invariant_27_the_budget_holds: 27,
    invariant_28_one_record_per_actuation_and_replay: 28,
    invariant_31_policies_are_taken_whole_or_refused: 31,
}
