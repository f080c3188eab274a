//! A short run of what `examples/campaign.rs` does a million times.

mod random;

use random::campaign::{Size, lateness, validity};

#[test]
fn every_command_of_random_sites_is_valid() {
    let tally = validity(Size { decisions: 1200, per_site: 30, seed: 1 });
    assert_eq!((tally.invalid, tally.decisions), (0, 1200), "{tally:#?}");
    assert!(tally.by_table > 10 && tally.sites > tally.by_table, "both kinds of masks: {tally:#?}");
    assert!(tally.model > 700 && tally.cache > 50 && tally.none < tally.model / 2, "{tally:#?}");
}

#[test]
fn no_command_of_random_sites_is_late() {
    let tally = lateness(Size { decisions: 1200, per_site: 30, seed: 2 });
    assert_eq!((tally.late, tally.decisions), (0, 1200), "{tally:#?}");
    assert!(tally.stalls > 100 && tally.model > 200 && tally.expired > 200, "{tally:#?}");
    assert!(tally.completion > 0, "{tally:#?}");
}
