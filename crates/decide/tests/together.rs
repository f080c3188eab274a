//! Events that share passes, guesses and deadlines: what they may change, and what not.

use ganglion_decide::{Decider, Exchange, LoadedModel, Options, ran_out_of_time};
use ganglion_gguf::Gguf;
use ganglion_site::{Command, Decision, Event, Micros, Outcome, Progress, Sentence, Site, Value};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

fn site(name: &str, change: impl FnOnce(&mut Site)) -> (Arc<Site>, LoadedModel) {
    let mut site = Site::load(&folder(name)).unwrap();
    change(&mut site);
    let model = LoadedModel::new(&Gguf::open(&site.model.path).unwrap(), 2).unwrap();
    (Arc::new(site), model)
}

fn events(name: &str) -> Vec<Event> {
    let sentences = std::fs::read_to_string(folder(name).join("events.txt")).unwrap();
    let sentence = |(sentence, epoch): (&str, u64)| {
        let mut event = Event::new(epoch, u64::MAX);
        event.sentence = Sentence::cut(sentence);
        if epoch % 4 == 0 {
            event.set_tag(0, epoch as f64 / 3.0);
        }
        event
    };
    sentences.lines().filter(|line| !line.is_empty()).zip(1..).map(sentence).collect()
}

/// What must not depend on how a decision was come by.
fn essence(decision: &Decision) -> (u64, Option<Command>, u32, &str) {
    (decision.epoch, decision.command, decision.confidence.to_bits(), decision.reason.as_str())
}

#[test]
fn commands_and_confidence_do_not_depend_on_guesses_or_company() {
    for name in ["hvac", "conveyor"] {
        let events = events(name);
        let (plain_site, model) = site(name, |site| site.model.parallel = 1);
        let mut plain = Decider::new(plain_site, &model, Options::PLAIN).unwrap();
        let wanted: Vec<Decision> = events.iter().map(|event| plain.decide(event, &mut || 0)).collect();
        assert!(wanted.iter().filter(|decision| decision.command.is_some()).count() > 5);
        for parallel in [1, 2, 3, 8] {
            let (site, _) = site(name, |site| site.model.parallel = parallel);
            for drafts in [false, true] {
                let mut decider =
                    Decider::new(Arc::clone(&site), &model, Options { memo: false, drafts }).unwrap();
                assert_eq!(decider.parallel(), parallel);
                let mut drafted = 0;
                // The second round meets histories, and a clock by which guessing pays differently.
                for tick in [0, 7] {
                    let mut found: Vec<Option<Decision>> = vec![None; events.len()];
                    let mut time = 0;
                    let mut now = || {
                        time += tick;
                        time
                    };
                    decider.decide_all(&events, &mut now, &mut |index, decision| {
                        assert!(found[index].replace(decision).is_none(), "one answer an event");
                    });
                    for (wanted, found) in wanted.iter().zip(&found) {
                        let found = found.as_ref().expect("an answer an event");
                        assert_eq!(essence(wanted), essence(found), "{name} {parallel} {drafts}");
                        let t = found.timings;
                        assert_eq!(
                            (t.predicted_n, t.forced_n),
                            (wanted.timings.predicted_n, wanted.timings.forced_n)
                        );
                        assert!(t.accepted_n <= t.draft_n, "{t:?}");
                        // In company an event may not get all its tokens into one pass.
                        assert!(parallel > 1 || t.passes_n <= wanted.timings.passes_n, "{t:?}");
                        drafted += t.draft_n;
                    }
                }
                assert_eq!(drafted > 0, drafts);
            }
        }
    }
}

#[test]
fn what_was_asked_before_takes_fewer_passes() {
    let (site, model) = site("hvac", |_| ());
    let mut decider = Decider::new(site, &model, Options { memo: false, drafts: true }).unwrap();
    let mut passes = |client: u64, sentence: &str| {
        let mut event = Event::new(1, u64::MAX);
        event.client = client;
        event.sentence = Sentence::cut(sentence);
        decider.decide(&event, &mut || 0).timings.passes_n
    };
    let sentence = "set the kitchen to 21 degrees";
    let first = passes(0, sentence);
    let again = passes(0, sentence);
    assert!(again < first, "{again} and {first}");
    assert_eq!(passes(7, sentence), first, "another client's history does not help");
}

/// A clock that runs as often as it is asked, with stalls, and a list of events that come by and by.
struct Shop<'a> {
    time_us: Cell<Micros>,
    /// Microseconds a look at the clock.
    tick_us: Micros,
    events: Vec<Event>,
    next: usize,
    answers: Vec<(usize, Decision, Micros)>,
    progress: Vec<(usize, Progress)>,
    /// Whether an event is there yet.
    is_there: &'a dyn Fn(usize, Micros) -> bool,
}

impl<'a> Shop<'a> {
    fn new(events: Vec<Event>, tick_us: Micros, is_there: &'a dyn Fn(usize, Micros) -> bool) -> Self {
        let (answers, progress) = (Vec::new(), Vec::new());
        Self { time_us: Cell::new(0), tick_us, events, next: 0, answers, progress, is_there }
    }
}

impl Exchange for Shop<'_> {
    fn now(&mut self) -> Micros {
        self.time_us.set(self.time_us.get() + self.tick_us);
        self.time_us.get()
    }

    fn next(&mut self) -> Option<Event> {
        let event = self.events.get(self.next).copied();
        let event = event.filter(|_| (self.is_there)(self.next, self.time_us.get()))?;
        self.next += 1;
        Some(event)
    }

    fn decided(&mut self, number: usize, progress: Progress) {
        self.progress.push((number, progress));
    }

    fn answer(&mut self, number: usize, decision: Decision) {
        self.answers.push((number, decision, self.time_us.get()));
    }
}

#[test]
fn fields_are_handed_on_in_order_as_they_are_decided() {
    let (site, model) = site("hvac", |site| site.model.parallel = 2);
    let mut decider = Decider::new(Arc::clone(&site), &model, Options::PLAIN).unwrap();
    let mut asked = events("hvac");
    asked.iter_mut().for_each(|event| event.stream = event.epoch % 3 != 0);
    let mut shop = Shop::new(asked.clone(), 1, &|_, _| true);
    decider.run(&mut shop);
    assert_eq!(shop.answers.len(), asked.len());
    let mut fields = 0;
    for (number, decision, _) in &shop.answers {
        let progress: Vec<&Progress> =
            shop.progress.iter().filter(|(of, _)| of == number).map(|(_, progress)| progress).collect();
        let Some(command) = decision.command else { continue };
        if !asked[*number].stream {
            assert!(progress.is_empty());
            continue;
        }
        let arguments = command.spec(&site).unwrap().arguments.len();
        assert_eq!(progress.len(), 1 + arguments);
        for (index, progress) in progress.into_iter().enumerate() {
            assert_eq!((progress.epoch, progress.verb), (decision.epoch, command.verb));
            assert_eq!(progress.argument, index.checked_sub(1));
            let value = index.checked_sub(1).map_or(Value::Absent, |index| command.values[index]);
            assert_eq!(progress.value, value);
            fields += 1;
        }
    }
    assert!(fields > 30, "{fields}");
}

#[test]
fn at_the_deadline_defaults_complete_what_is_decided() {
    let (site, model) = site("hvac", |site| {
        let fan = site.commands.iter_mut().find(|command| command.name == "set_fan").unwrap();
        fan.arguments[1].default = Some(Value::Integer(30));
    });
    let sentence = Sentence::cut("fan in the hall at 85 percent");
    let mut seen = Vec::new();
    for deadline_us in 0..60 {
        let mut decider = Decider::new(Arc::clone(&site), &model, Options::PLAIN).unwrap();
        let mut event = Event::new(1, deadline_us);
        event.sentence = sentence;
        let mut shop = Shop::new(vec![event], 1, &|_, _| true);
        decider.run(&mut shop);
        let [(_, decision, at_us)] = &shop.answers[..] else { panic!("one answer") };
        // Around a choice the clock is looked at a few times.
        assert!(*at_us <= deadline_us + 8, "at {at_us} for {deadline_us}");
        let command = decision.command.map(|command| command.to_json(&site));
        assert!(command.is_some() || ran_out_of_time(decision), "{decision:?}");
        let state = (decision.outcome, command);
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
    let fan =
        |percent: u32| Some(format!("{{\"action\":\"set_fan\",\"room\":\"hall\",\"percent\":{percent}}}"));
    let expected = [(Outcome::Model, None), (Outcome::Completion, fan(30)), (Outcome::Model, fan(85))];
    assert_eq!(seen, expected, "nothing, then with the default, then whole");
}

#[test]
fn what_cannot_be_in_time_is_declined_at_once() {
    let (site, model) = site("hvac", |_| ());
    let mut decider = Decider::new(Arc::clone(&site), &model, Options::PLAIN).unwrap();
    // A look at the clock takes 100 µs, so that a pass of eight layers takes about a millisecond.
    let ask = |decider: &mut Decider, epoch: u64, left_us: Micros| {
        let mut event = Event::new(epoch, left_us);
        event.sentence = Sentence::cut("set the kitchen to 21 degrees");
        let mut shop = Shop::new(vec![event], 100, &|_, _| true);
        decider.run(&mut shop);
        shop.answers.pop().unwrap()
    };
    for epoch in 0..8 {
        assert!(ask(&mut decider, epoch, u64::MAX).1.command.is_some());
    }
    let (_, decision, at_us) = ask(&mut decider, 9, 400);
    let reason = decision.reason.as_str();
    assert!(
        reason.starts_with("too late to decide: a pass takes about ") && ran_out_of_time(&decision),
        "{reason}"
    );
    assert!(at_us <= 300, "declined after {at_us} µs");
    assert!(ask(&mut decider, 10, u64::MAX).1.command.is_some());
}

/// A long line of patient events must not hold up an urgent one, nor an urgent one's company bring a patient one behind its
/// deadline.
#[test]
fn the_urgent_come_first_and_nobody_is_made_late() {
    let (site, model) = site("hvac", |site| site.model.parallel = 4);
    let mut decider = Decider::new(Arc::clone(&site), &model, Options::PLAIN).unwrap();
    let mut alone = Shop::new(events("hvac"), 10, &|_, _| true);
    decider.run(&mut alone);
    let busy_us = alone.time_us.get();
    let mut asked = events("hvac");
    let urgent = asked.len() / 2;
    for (index, event) in asked.iter_mut().enumerate() {
        event.deadline_us = if index == urgent { busy_us * 2 / 3 } else { 20 * busy_us };
    }
    let mut shop = Shop::new(asked, 10, &|_, _| true);
    decider.run(&mut shop);
    assert!(shop.answers.iter().all(|(_, decision, _)| decision.command.is_some()));
    let place = shop.answers.iter().position(|(number, ..)| *number == urgent).unwrap();
    // It was let in after those before it, and only its company can be done before it is.
    assert!(place < urgent + 2 * decider.parallel(), "{place} of {urgent}");
    for (number, decision, at_us) in &shop.answers {
        let deadline_us = shop.events[*number].deadline_us;
        assert!(*at_us <= deadline_us, "{decision:?} at {at_us}");
    }
}

#[test]
fn an_event_that_comes_later_joins() {
    let (site, model) = site("hvac", |site| site.model.parallel = 2);
    let mut decider = Decider::new(Arc::clone(&site), &model, Options::PLAIN).unwrap();
    let asked = events("hvac");
    let wanted: Vec<Decision> = asked.iter().map(|event| decider.decide(event, &mut || 0)).collect();
    let is_there = |index: usize, time: Micros| time >= 20 * index as Micros;
    let mut shop = Shop::new(asked, 1, &is_there);
    let mut rounds = 0;
    while shop.next < shop.events.len() {
        decider.run(&mut shop);
        let _ = shop.now();
        rounds += 1;
    }
    assert!(rounds >= 1);
    // Numbers count from 0 in every run: epochs say which event it was.
    for (_, decision, _) in &shop.answers {
        let wanted = wanted.iter().find(|wanted| wanted.epoch == decision.epoch).unwrap();
        assert_eq!(essence(wanted), essence(decision));
    }
    assert_eq!(shop.answers.len(), shop.events.len());
}
