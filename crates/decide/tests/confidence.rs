//! A site's threshold changes nothing above it, and below it makes the answer `none` with the reason.

use ganglion_decide::{Decider, LoadedModel, Options};
use ganglion_gguf::Gguf;
use ganglion_site::{Command, Event, Outcome, Sentence, Site};
use std::path::Path;
use std::sync::Arc;

const SENTENCES: [&str; 8] = [
    "set the kitchen to 21 degrees",
    "fan in the hall at 35 percent",
    "turn everything off",
    "it is cold in the kitchen",
    "make it nice",
    "what is the weather like",
    "purple elephants dance at 12",
    "weekend program",
];

fn event(epoch: u64, sentence: &str) -> Event {
    let mut event = Event::new(epoch, u64::MAX);
    event.sentence = Sentence::new(sentence).unwrap();
    event
}

#[test]
fn below_the_threshold_the_answer_is_none_with_the_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac");
    let mut site = Site::load(&folder).unwrap();
    let model = LoadedModel::new(&Gguf::open(&site.model.path).unwrap(), 2).unwrap();
    let events: Vec<_> = (1..).zip(SENTENCES).map(|(epoch, sentence)| event(epoch, sentence)).collect();
    let mut plain = Decider::new(Arc::new(site.clone()), &model, Options::PLAIN).unwrap();
    let answers: Vec<_> = events.iter().map(|event| plain.decide(event, &mut || 0)).collect();
    let mut margins: Vec<_> = answers.iter().map(|decision| decision.confidence).collect();
    margins.sort_by(f32::total_cmp);
    site.model.confidence.margin = f64::from(margins[SENTENCES.len() / 2]);
    let site = Arc::new(site);
    let mut careful =
        Decider::new(Arc::clone(&site), &model, Options { memo: true, ..Options::PLAIN }).unwrap();
    let mut unsure = 0;
    for round in 0..2 {
        for (event, answer) in events.iter().zip(&answers) {
            let decision = careful.decide(event, &mut || 0);
            assert_eq!(decision.confidence.to_bits(), answer.confidence.to_bits());
            assert_eq!(decision.outcome, if round == 0 { Outcome::Model } else { Outcome::Cache });
            if f64::from(answer.confidence) < site.model.confidence.margin {
                assert_eq!(decision.command, Some(Command::none(&site)));
                assert!(decision.reason.as_str().starts_with("the model is unsure: confidence 0."));
                unsure += 1;
            } else {
                assert_eq!((decision.command, decision.reason), (answer.command, answer.reason));
            }
        }
    }
    assert!((2..2 * SENTENCES.len()).contains(&unsure), "{unsure} of {margins:?}");
}

#[test]
fn feasible_mass_is_measured_where_the_site_asks_for_some() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac");
    let mut site = Site::load(&folder).unwrap();
    let model = LoadedModel::new(&Gguf::open(&site.model.path).unwrap(), 2).unwrap();
    for (least, measured) in [(0.0, false), (1e-9, true)] {
        site.model.confidence.feasible_mass = least;
        let mut decider = Decider::new(Arc::new(site.clone()), &model, Options::PLAIN).unwrap();
        decider.decide(&event(1, SENTENCES[0]), &mut || 0);
        assert_eq!(decider.confidence().feasible_mass.is_some(), measured);
    }
}
