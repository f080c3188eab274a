//! The fast check allocates nothing: a counting allocator watches.

mod common;
#[path = "../../kernels/tests/common/counting.rs"]
mod counting;
#[path = "common/random.rs"]
mod random;
use counting::operations_here;
use ganglion_plan::Checker;
use random::Random;

#[test]
fn a_check_touches_no_heap() {
    let (mut safe, mut refused) = (0, 0);
    for seed in 0..200 {
        let site = random::site(seed);
        let mut checker = Checker::new(&site).unwrap();
        for round in 0..10 {
            let mut random = Random(seed * 10 + round);
            let start = random::start(&mut random, &site);
            let count = 1 + random.below(50);
            let steps = random::plan(&mut random, &site, &start, count);
            let before = operations_here();
            let result = checker.check(&start, &steps);
            assert_eq!(operations_here(), before, "seed {seed}");
            *if result.is_ok() { &mut safe } else { &mut refused } += 1;
        }
    }
    assert!(safe > 50 && refused > 500, "{safe} {refused}");
}
