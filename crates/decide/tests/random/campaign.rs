//! Two campaigns over random sites and events: every command is valid, and none is late.

use super::{Random, Shape, event, model, site};
use ganglion_decide::{Decider, LoadedModel, Options, ran_out_of_time};
use ganglion_site::{Command, Decision, Event, Micros, Outcome, Site};
use std::sync::Arc;

/// How much of a campaign is run.
#[derive(Clone, Copy)]
pub struct Size {
    pub decisions: u64,
    /// Decisions on one site before the next is drawn.
    pub per_site: u64,
    pub seed: u64,
}

/// What came of the decisions of a campaign.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Tally {
    pub sites: u64,
    /// Sites whose commands are masked by a table.
    pub by_table: u64,
    pub decisions: u64,
    pub model: u64,
    pub cache: u64,
    pub completion: u64,
    /// Without a command, for want of time.
    pub expired: u64,
    /// Without a command for another reason.
    pub declined: u64,
    /// Commands that are `none`.
    pub none: u64,
    /// Valid commands would make it 0.
    pub invalid: u64,
    /// Commands in time would make it 0.
    pub late: u64,
    /// Stalls that were injected.
    pub stalls: u64,
    /// The first few faults.
    pub faults: Vec<String>,
}

impl Tally {
    fn count(&mut self, decision: &Decision, site: &Site) {
        self.decisions += 1;
        match (decision.command, decision.outcome) {
            (None, _) if ran_out_of_time(decision) => self.expired += 1,
            (None, _) => self.declined += 1,
            (Some(_), Outcome::Cache) => self.cache += 1,
            (Some(_), Outcome::Completion) => self.completion += 1,
            (Some(_), _) => self.model += 1,
        }
        self.none += u64::from(decision.command == Some(Command::none(site)));
    }

    fn fault(&mut self, text: impl FnOnce() -> String) {
        const FAULTS_MAX: usize = 8;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text());
        }
    }

    /// Adds another part of the same campaign.
    pub fn add(&mut self, other: Self) {
        self.sites += other.sites;
        self.by_table += other.by_table;
        self.decisions += other.decisions;
        self.model += other.model;
        self.cache += other.cache;
        self.completion += other.completion;
        self.expired += other.expired;
        self.declined += other.declined;
        self.none += other.none;
        self.invalid += other.invalid;
        self.late += other.late;
        self.stalls += other.stalls;
        self.faults.extend(other.faults);
    }
}

/// A model for every so many sites: loading one takes as long as many decisions do.
const SITES_PER_MODEL: u64 = 16;

/// Sites with their deciders, one after the other; `each` runs the decisions of one.
fn over_sites(size: Size, mut each: impl FnMut(&mut Random, &Arc<Site>, Decider, u64, &mut Tally)) -> Tally {
    let mut random = Random::new(size.seed);
    let mut tally = Tally::default();
    let mut loaded = None;
    while tally.decisions < size.decisions {
        let options = Options { memo: random.one_in(2), drafts: !random.one_in(4) };
        let shape = Shape { layers: 1 + random.below(2) as u32, width: 32 };
        if tally.sites % SITES_PER_MODEL == 0 {
            loaded = None;
        }
        let model = loaded.get_or_insert_with(|| LoadedModel::new(&model(&mut random, shape), 1).unwrap());
        let with_text = random.one_in(8);
        let site = Arc::new(site(&mut random, with_text));
        let decider = Decider::new(Arc::clone(&site), model, options).unwrap();
        tally.sites += 1;
        tally.by_table += u64::from(decider.grammar().automaton().is_ok());
        // General masks are a hundred times slower.
        let slower = if decider.grammar().automaton().is_ok() { 1 } else { 20 };
        let count = size.per_site.div_ceil(slower).min(size.decisions - tally.decisions);
        each(&mut random, &site, decider, count, &mut tally);
    }
    tally
}

/// A new event, or one of the last few once more.
fn another(random: &mut Random, site: &Site, epoch: u64, recent: &mut Vec<Event>) -> Event {
    const RECENT: usize = 16;
    if random.one_in(4) && !recent.is_empty() {
        let index = random.below(recent.len() as u64) as usize;
        return Event { epoch, ..recent[index] };
    }
    let new = event(random, site, epoch);
    if recent.len() < RECENT {
        recent.push(new);
    } else {
        recent[random.below(RECENT as u64) as usize] = new;
    }
    new
}

/// Every command is looked at by `jsonschema` with the site's schema, by the site's own table, and read back.
pub fn validity(size: Size) -> Tally {
    over_sites(size, |random, site, mut decider, count, tally| {
        let schema = jsonschema::validator_for(&site.schema()).unwrap();
        let (mut done, mut recent) = (0, Vec::new());
        while done < count {
            // Alone or together.
            let events = 1 + random.below(6).min(count - done - 1);
            let events: Vec<_> =
                (0..events).map(|index| another(random, site, done + index + 1, &mut recent)).collect();
            let mut answers = Vec::new();
            decider.decide_all(&events, &mut || 0, &mut |index, decision| answers.push((index, decision)));
            assert_eq!(answers.len(), events.len(), "each event has one answer");
            for (index, decision) in answers {
                tally.count(&decision, site);
                if let Err(problem) = is_valid(site, &schema, &events[index], &decision) {
                    tally.invalid += 1;
                    tally.fault(|| format!("{problem}: {decision:?} to {:?}", events[index].sentence));
                }
            }
            done += events.len() as u64;
        }
    })
}

fn is_valid(
    site: &Site,
    schema: &jsonschema::Validator,
    event: &Event,
    decision: &Decision,
) -> Result<(), String> {
    if decision.epoch != event.epoch {
        return Err(format!("epoch {} for {}", decision.epoch, event.epoch));
    }
    if !(0.0..=1.0).contains(&decision.confidence) {
        return Err(format!("confidence {}", decision.confidence));
    }
    let Some(command) = decision.command else {
        let reason = decision.reason.as_str();
        // An event that is empty or too long; and a schema counts a text's characters, a site its bytes.
        let known = reason.starts_with("the event ") || reason.contains("expected text of at most");
        return if known { Ok(()) } else { Err(format!("declined: {reason}")) };
    };
    command.check(site).map_err(|error| error.to_string())?;
    let json = command.to_json(site);
    let value: serde_json::Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    schema.validate(&value).map_err(|error| format!("{json}: {error}"))?;
    match Command::from_json(site, &json) {
        Ok(read) if read == command => Ok(()),
        Ok(_) => Err(format!("{json} reads as another command")),
        Err(error) => Err(format!("{json}: {error}")),
    }
}

/// A clock that moves when it is looked at: mostly by little, now and then by much.
struct Clock {
    random: Random,
    now_us: Micros,
    stalls: u64,
    stall_one_in: u64,
}

impl Clock {
    fn look(&mut self) -> Micros {
        const STALL_US_MAX: u64 = 30_000;
        self.now_us += self.random.below(40);
        if self.random.one_in(self.stall_one_in) {
            self.now_us += 1 + self.random.below(STALL_US_MAX);
            self.stalls += 1;
        }
        self.now_us
    }
}

/// As the guard does it: the brain is told an earlier deadline than the one that counts.
const BRAIN_MARGIN_US_MAX: Micros = 5_000;

/// The clock moves only when the decider looks at it, and stalls at random. No answer with a command may come when the
/// guard's deadline is over.
pub fn lateness(size: Size) -> Tally {
    over_sites(size, |random, site, mut decider, count, tally| {
        let stall_one_in = [20, 200, 2000][random.below(3) as usize];
        let mut clock =
            Clock { random: Random::new(random.next()), now_us: 1_000_000, stalls: 0, stall_one_in };
        let (mut done, mut recent) = (0, Vec::new());
        while done < count {
            let events = 1 + random.below(6).min(count - done - 1);
            let mut deadlines = Vec::new();
            let mut asked = Vec::new();
            for index in 0..events {
                let mut event = another(random, site, done + index + 1, &mut recent);
                // From already over to ample.
                let left_us = [0, 100, 500, 2_000, 10_000, 100_000][random.below(6) as usize];
                let left_us = left_us + random.below(left_us + 1);
                deadlines.push(clock.now_us + left_us);
                event.deadline_us = clock.now_us + left_us - BRAIN_MARGIN_US_MAX.min(left_us / 5);
                asked.push(event);
            }
            let mut answers = Vec::new();
            let clock_cell = std::cell::RefCell::new(&mut clock);
            decider.decide_all(&asked, &mut || clock_cell.borrow_mut().look(), &mut |index, decision| {
                answers.push((index, decision, clock_cell.borrow().now_us));
            });
            assert_eq!(answers.len(), asked.len(), "each event has one answer");
            for (index, decision, at_us) in answers {
                tally.count(&decision, site);
                if decision.command.is_some() && at_us > deadlines[index] {
                    tally.late += 1;
                    tally.fault(|| {
                        let late_us = at_us - deadlines[index];
                        format!(
                            "{late_us} µs late by the deadline of {}: {decision:?}",
                            asked[index].deadline_us
                        )
                    });
                }
            }
            done += events;
        }
        tally.stalls += clock.stalls;
    })
}
