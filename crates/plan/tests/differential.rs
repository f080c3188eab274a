//! The fast check against a second opinion written in SMT-LIB: it never accepts what the solver refuses.

mod common;
#[path = "common/random.rs"]
mod random;
use ganglion_plan::Checker;
use ganglion_plan::smt::verify;
use random::Random;

/// As many as a test may take; `cargo bench -p ganglion-plan` runs 100,000.
const PLANS: u64 = 600;

#[test]
fn the_fast_check_never_accepts_what_the_solver_refuses() {
    let Some(mut solver) = common::solver() else { return };
    let (mut accepted, mut too_careful) = (0, 0);
    for seed in 0..PLANS {
        let site = random::site(seed / 5);
        let mut random = Random(seed ^ 0x5eed);
        let start = random::start(&mut random, &site);
        let count = 1 + random.below(8);
        let steps = random::plan(&mut random, &site, &start, count);
        let fast = Checker::new(&site).unwrap().check(&start, &steps);
        let exact = verify::is_safe(&mut solver, &site, &start, &steps).unwrap();
        assert!(exact || fast.is_err(), "seed {seed}: accepted, and yet a course of events breaks a rule");
        accepted += u32::from(fast.is_ok());
        too_careful += u32::from(exact && fast.is_err());
    }
    println!("{accepted} of {PLANS} accepted by both, {too_careful} by the solver only");
    assert!(
        accepted > PLANS as u32 / 10 && accepted < PLANS as u32 * 9 / 10,
        "{accepted}: the plans test nothing"
    );
    assert!(too_careful < PLANS as u32 / 10, "{too_careful}: the fast check refuses far too much");
}
