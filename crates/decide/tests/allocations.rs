//! From event to decision nothing is allocated, with memo and without, from the first event on.

#[path = "../../kernels/tests/common/counting.rs"]
mod counting;
use counting::allocations;
use ganglion_decide::{Decider, LoadedModel, Options};
use ganglion_gguf::Gguf;
use ganglion_site::limits::SENTENCE_BYTES_MAX;
use ganglion_site::{Event, Outcome, Sentence, Site};
use std::path::Path;
use std::sync::Arc;

const SENTENCES: [&str; 12] = [
    "set the kitchen to 21 degrees",
    "office to 19.5",
    "fan in the hall at 35 percent",
    "turn everything off",
    "it is cold in the kitchen",
    "weekend program",
    "cooling please",
    "what is the weather like",
    "ä€😀 厨房 21",
    "{\"action\":\"all_off\"}",
    "1e9 -7 0.5 99999999999999999999",
    "",
];

// The only test of this file: another one would allocate in between.
#[test]
fn a_decision_allocates_nothing() {
    for name in ["hvac", "conveyor"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let mut site = Site::load(&folder).unwrap();
        let model = LoadedModel::new(&Gguf::open(&site.model.path).unwrap(), 2).unwrap();
        for (memo, drafts, confidence) in
            [(false, false, 0.0), (false, true, 0.0), (true, true, 0.0), (true, true, 0.99)]
        {
            site.model.confidence.margin = confidence;
            let site = Arc::new(site.clone());
            let before = allocations();
            let mut decider = Decider::new(Arc::clone(&site), &model, Options { memo, drafts }).unwrap();
            assert!(allocations() > before, "this test counts");
            decider.measure_feasible_mass(!memo);
            let long = "set the kitchen to 21 degrees ".repeat(SENTENCE_BYTES_MAX);
            let mut outcomes = [0; 3];
            for round in 0..2 {
                for (epoch, sentence) in (1..).zip(SENTENCES.into_iter().chain([long.as_str()])) {
                    let mut event = Event::new(epoch, u64::MAX);
                    event.sentence = Sentence::cut(sentence);
                    if epoch % 3 == 0 {
                        (0..site.tags.len()).for_each(|tag| event.set_tag(tag, -1234.5678 * epoch as f64));
                    }
                    let before = allocations();
                    let decision = decider.decide(&event, &mut || 0);
                    let allocations = allocations() - before;
                    // An event that is refused says why, and that may allocate.
                    let index = match decision.command {
                        None => 2,
                        Some(_) => usize::from(decision.outcome == Outcome::Cache),
                    };
                    outcomes[index] += 1;
                    assert!(
                        index == 2 || allocations == 0,
                        "{name}: {allocations} allocations for {sentence:?} in round {round}"
                    );
                    if index == 0 {
                        check(&decider, !memo);
                    }
                }
            }
            let (model, cache, refused) = (outcomes[0], outcomes[1], outcomes[2]);
            assert!(model >= 11 && refused <= 3, "{name}: {outcomes:?}");
            assert_eq!(cache > 0, memo, "{name}: {outcomes:?}");
        }
    }
}

fn check(decider: &Decider, has_mass: bool) {
    let confidence = decider.confidence();
    let is_share = |value: f32| (0.0..=1.0).contains(&value);
    assert!(is_share(confidence.margin) && is_share(confidence.certainty), "{confidence:?}");
    assert_eq!(confidence.feasible_mass.is_some(), has_mass);
    assert!(confidence.feasible_mass.is_none_or(is_share), "{confidence:?}");
}
