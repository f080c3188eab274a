//! Whatever makes decisions fast changes none of them: on random sites with random models, every combination of techniques
//! gives the same commands, byte for byte, and the same confidence, bit for bit.

mod random;

use ganglion_decide::{Decider, LoadedModel, Options};
use ganglion_site::{ArgumentKind, Decision, Event, Site};
use random::{Random, Shape, event, model, site};
use std::sync::Arc;

const SITES: u64 = 12;
const EVENTS: u64 = 10;

/// One way to decide.
#[derive(Debug, Clone, Copy)]
struct Way {
    options: Options,
    /// Events that share passes.
    parallel: usize,
    threads: usize,
    measures_mass: bool,
    masks_generally: bool,
}

const PLAIN: Way =
    Way { options: Options::PLAIN, parallel: 1, threads: 1, measures_mass: false, masks_generally: false };

/// Every combination. A new option has to be named here before this compiles.
fn ways() -> Vec<Way> {
    const BOTH: [bool; 2] = [false, true];
    let mut ways = Vec::new();
    for memo in BOTH {
        for drafts in BOTH {
            for parallel in [1, 3] {
                for threads in [1, 2] {
                    for measures_mass in BOTH {
                        for masks_generally in BOTH {
                            let options = Options { memo, drafts };
                            ways.push(Way { options, parallel, threads, measures_mass, masks_generally });
                        }
                    }
                }
            }
        }
    }
    ways
}

/// Everything of a decision that must not change: the command's bytes, or why there is none, and the confidence's bits.
fn essence(site: &Site, decision: &Decision) -> (u64, Option<String>, String, u32) {
    let json = decision.command.map(|command| command.to_json(site));
    (decision.epoch, json, decision.reason.as_str().to_owned(), decision.confidence.to_bits())
}

/// Decides all events twice, so that what is learned and remembered from the first time is used in the second.
fn decide(site: &Site, models: &[LoadedModel; 2], way: Way, events: &[Event]) -> Vec<Decision> {
    let mut site = site.clone();
    site.model.parallel = way.parallel;
    let model = &models[way.threads - 1];
    let mut decider = Decider::new(Arc::new(site), model, way.options).unwrap();
    decider.mask_generally(way.masks_generally);
    decider.measure_feasible_mass(way.measures_mass);
    let mut decisions = Vec::new();
    for _ in 0..2 {
        let mut answers = vec![None; events.len()];
        decider.decide_all(events, &mut || 0, &mut |index, decision| answers[index] = Some(decision));
        decisions.extend(answers.into_iter().map(Option::unwrap));
    }
    decisions
}

#[test]
fn no_combination_of_techniques_changes_a_command() {
    let mut random = Random::new(3);
    let (mut compared, mut commands, mut cached, mut accepted, mut shared) = (0, 0, 0, 0, 0);
    for round in 0..SITES {
        let gguf = model(&mut random, Shape { layers: 1 + (round % 2) as u32, width: 32 });
        let models = [1, 2].map(|threads| LoadedModel::new(&gguf, threads).unwrap());
        let site = site(&mut random, false);
        let events: Vec<_> = (0..EVENTS).map(|epoch| event(&mut random, &site, epoch + 1)).collect();
        let wanted: Vec<_> =
            decide(&site, &models, PLAIN, &events).iter().map(|decision| essence(&site, decision)).collect();
        commands += wanted.iter().filter(|wanted| wanted.1.is_some()).count();
        // General masks allow zeros behind a decimal that change no value, but may be chosen for ever.
        let mut arguments = site.commands.iter().flat_map(|command| &command.arguments);
        let has_decimals = arguments.any(|argument| matches!(argument.kind, ArgumentKind::Number { .. }));
        for way in ways() {
            // They are slow, and where a table says the same in fewer choices, the least sure choice may be another.
            if way.masks_generally && (has_decimals || way.measures_mass) {
                continue;
            }
            let found = decide(&site, &models, way, &events);
            for (wanted, found) in wanted.iter().zip(&found) {
                let essence = essence(&site, found);
                let same = if way.masks_generally {
                    (wanted.0, &wanted.1) == (essence.0, &essence.1)
                } else {
                    *wanted == essence
                };
                assert!(same, "{way:?}, {}: {found:?}, wanted {wanted:?}", site.prompt_prefix());
                cached += u64::from(found.outcome == ganglion_site::Outcome::Cache);
                accepted += u64::from(found.timings.accepted_n);
                shared += u64::from(way.parallel > 1);
                compared += 1;
            }
        }
    }
    assert!(compared > 5000 && commands > 150, "{compared} compared, {commands} commands");
    assert!(cached > 1000 && accepted > 1000 && shared > 1000, "{cached} {accepted} {shared}");
}
