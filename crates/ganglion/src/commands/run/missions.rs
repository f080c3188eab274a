//! Missions of a run: a thread that carries out one at a time, with the inbox as its hands.

use super::inbox::{Inbox, Question, Reply};
use crate::answer::Identity;
use crate::mission::{Agent, Failure, Hands, Outcome, Refused, Word};
use anyhow::{Context, Result};
use ganglion_guard::{Mode, OperatorCommand, Quality, Source, monotonic_us, refused_for_now};
use ganglion_plan::{PlanError, Planner, Start};
use ganglion_site::{Command, Reason, Sentence, Site};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between two looks at the world.
const TICK: Duration = Duration::from_millis(10);
/// Time that the driver has to say whether the plant took a command.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Time for the guard to get to Complete.
const COMPLETE_PATIENCE: Duration = Duration::from_secs(2);
/// Why there is no answer.
const LOST: &str = "the answer was lost, or the guard is ending";
/// How often a clause is asked again when time ran out.
const TRIES: u32 = 3;

/// What a site's missions need besides the run itself.
pub struct Missions {
    orders: SyncSender<Order>,
    busy: AtomicBool,
    failed: AtomicBool,
}

/// What is to be carried out.
pub struct Order {
    /// In words.
    pub instruction: String,
    /// The run is there for this mission alone: it waits for Execute, and ends in Complete.
    pub alone: bool,
    /// Ends with the verified plan.
    pub dry_run: bool,
    /// Hears everything that the mission says; called on its thread.
    pub listener: Option<Listener>,
}

/// What a listener hears.
pub enum Told<'a> {
    Word(&'a Word),
    End(&'a Result<Outcome, Failure>),
}

/// Whoever ordered the mission. It must not wait.
pub type Listener = Box<dyn FnMut(Told<'_>) + Send>;

impl Order {
    /// An instruction that somebody typed.
    pub fn typed(instruction: &str) -> Self {
        Self { instruction: instruction.to_owned(), alone: false, dry_run: false, listener: None }
    }
}

impl Missions {
    /// The thread, for a site that has plans. It starts the solver at once: that may take its time.
    pub fn start(
        identity: &Identity,
        inbox: &Arc<Inbox>,
        notes: rtrb::Producer<Reason>,
        solver: PathBuf,
        dry_run: bool,
    ) -> Result<(Arc<Self>, Receiver<Word>)> {
        let (tell, words) = channel();
        let (orders, waiting) = sync_channel::<Order>(1);
        let missions =
            Arc::new(Self { orders, busy: AtomicBool::new(false), failed: AtomicBool::new(false) });
        let own = Arc::clone(&missions);
        let mut hands = InboxHands {
            inbox: Arc::clone(inbox),
            identity: identity.clone(),
            notes,
            tell,
            listener: None,
            foreign: None,
            others: None,
        };
        let work = move || {
            let mut planner = Planner::new(&hands.identity.current(), &solver);
            for mut order in waiting {
                order.dry_run |= dry_run;
                hands.listener = order.listener.take();
                let result = carry_out(&mut planner, &mut hands, &order);
                own.failed.fetch_or(result.is_err(), Ordering::AcqRel);
                // Whoever hears the end may order the next one.
                own.busy.store(false, Ordering::Release);
                if let Some(mut listener) = hands.listener.take() {
                    listener(Told::End(&result));
                }
            }
        };
        let named = std::thread::Builder::new().name("mission".to_owned());
        named.spawn(work).context("cannot start the mission thread")?;
        Ok((missions, words))
    }

    /// Orders a mission; `false` when one is under way.
    pub fn order(&self, order: Order) -> bool {
        if self.busy.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.orders.try_send(order).is_ok()
    }

    /// None is under way.
    pub fn is_idle(&self) -> bool {
        !self.busy.load(Ordering::Acquire)
    }

    /// Every one that was ordered has come to its end, and to a good one.
    pub fn all_done(&self) -> bool {
        self.is_idle() && !self.failed.load(Ordering::Acquire)
    }
}

fn carry_out(
    planner: &mut Result<Planner, PlanError>,
    hands: &mut InboxHands,
    order: &Order,
) -> Result<Outcome, Failure> {
    (hands.foreign, hands.others) = (None, None);
    let failed = |why: String, hands: &mut InboxHands| {
        hands.say(&Word { state: crate::mission::State::Idle, text: why.clone(), forecast: None });
        Failure(why)
    };
    if !order.alone && hands.mode() != Some(Mode::Execute) {
        let mode = hands.mode().map_or("not known yet", Mode::as_str);
        return Err(failed(format!("the mode is {mode}: missions are taken in Execute only"), hands));
    }
    let site = hands.identity.current();
    let ready = match planner {
        Ok(planner) => planner,
        Err(error) => return Err(failed(error.to_string(), hands)),
    };
    let outcome = Agent::new(&site, ready, hands).run(&order.instruction, order.dry_run)?;
    if order.alone && outcome == Outcome::Complete {
        // Not taken: the mode tells.
        let _ = hands.inbox.operate(OperatorCommand::Complete);
        let begin = Instant::now();
        while hands.mode() != Some(Mode::Complete) && begin.elapsed() < COMPLETE_PATIENCE {
            hands.pause();
        }
    }
    Ok(outcome)
}

/// The agent's hands in a run: nothing reaches the plant but through the guard.
struct InboxHands {
    inbox: Arc<Inbox>,
    identity: Identity,
    notes: rtrb::Producer<Reason>,
    tell: Sender<Word>,
    listener: Option<Listener>,
    /// Commands of others that had gone to the plant when the mission began.
    foreign: Option<u64>,
    /// The same by the guard's count, which is ahead of what this thread has heard: it refuses a step that comes too late.
    others: Option<u64>,
}

impl InboxHands {
    /// Asks the guard, and waits for its answer.
    fn ask(&mut self, question: Question) -> Result<ganglion_guard::Record, String> {
        loop {
            let (reply, answer) = oneshot::channel();
            if self.inbox.ask(question, Reply { answer: Some(reply), fields: None }).is_ok() {
                return answer.blocking_recv().map_err(|_| LOST.to_string());
            }
            self.pause();
        }
    }
}

impl Hands for InboxHands {
    fn decide(&mut self, clause: &str) -> Result<Command, String> {
        self.foreign.get_or_insert(self.inbox.foreign().0);
        self.others.get_or_insert(self.inbox.status().map_or(0, |status| status.counters.others));
        let sentence = Sentence::new(clause).ok_or("the clause is too long")?;
        let question = Question { sentence, dry_run: true, ..Question::of(Source::Mission) };
        let mut why = String::new();
        for _ in 0..TRIES {
            let record = self.ask(question)?;
            use ganglion_site::Outcome as From;
            match (record.outcome, record.command) {
                (Some(From::Model | From::Cache), Some(command)) if command.is_none(&self.identity.site) => {
                    return Err("no command of the site answers this".into());
                }
                (Some(From::Model | From::Cache), Some(command)) => return Ok(command),
                _ => why = record.reason.as_str().to_owned(),
            }
            std::thread::sleep(TICK);
        }
        Err(why)
    }

    fn act(&mut self, command: &Command) -> Result<u64, Refused> {
        let before = self.inbox.last_write().0;
        let others = self.others.unwrap_or(0);
        let question = Question { command: Some(*command), others, ..Question::of(Source::Mission) };
        let record = self.ask(question).map_err(Refused::because)?;
        if !record.actuated {
            return Err(match record.reason.as_str() {
                "" => Refused { why: "the guard had another command to send".into(), for_now: true },
                why => Refused { why: why.to_owned(), for_now: refused_for_now(why) },
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < WRITE_PATIENCE {
            match self.inbox.last_write() {
                (count, Some((written, failure))) if count > before && written == *command => {
                    return failure.map_or_else(
                        || Ok(monotonic_us()),
                        |why| Err(Refused::because(format!("the plant did not take it: {why}"))),
                    );
                }
                _ => self.pause(),
            }
        }
        Err(Refused::because("the driver did not say whether the plant took it".into()))
    }

    fn readings(&self, since_us: u64) -> Start {
        let mut start = Start::UNKNOWN;
        let unusable = self.inbox.status().map_or(u64::MAX, |status| status.unusable);
        let now_us = monotonic_us();
        for (index, tag) in self.identity.current().tags.iter().enumerate() {
            let sample = self.inbox.signals.tags.read(index);
            let age_us = now_us.saturating_sub(sample.time_us);
            let fresh = sample.time_us >= since_us && age_us <= u64::from(tag.stale_ms) * 1000;
            if sample.quality == Quality::Good && fresh && unusable >> index & 1 == 0 {
                start.set(index, sample.value);
            }
        }
        start
    }

    fn link_losses(&self) -> u64 {
        self.inbox.plant_losses()
    }

    fn site(&self) -> Arc<Site> {
        self.identity.current()
    }

    fn mode(&self) -> Option<Mode> {
        self.inbox.status().map(|status| status.mode)
    }

    fn outranked(&self) -> Option<String> {
        let (count, who) = self.inbox.foreign();
        self.foreign.filter(|before| count > *before).map(|_| format!("a command of the {who}"))
    }

    fn say(&mut self, word: &Word) {
        // A full queue leaves the log without this sentence; the guard's own records are there all the same.
        let _ = self.notes.push(Reason::cut(&format!("{}: {}", word.state.as_str(), word.text)));
        let _ = self.tell.send(word.clone());
        if let Some(listener) = &mut self.listener {
            listener(Told::Word(word));
        }
    }

    fn now_us(&self) -> u64 {
        monotonic_us()
    }

    fn pause(&mut self) {
        std::thread::sleep(TICK);
    }
}
