//! The mission agent: an instruction becomes a plan, the plan becomes commands, one after the other, each watched until it
//! is done.
//!
//! ```text
//! Idle → ReceiveCmd → Parse → Execute → Monitor ─┬─► Execute …  the next step
//!          │            │        ▲          │    └─► Complete
//!          │            ▼        │          ▼
//!          │          Adjust ────┴──────  Adjust               once each: for the plan as said, and under way
//!          └────────────┴────────────────────────► Idle        refused, failed or outranked: the safe command
//! ```
//!
//! All of it happens in PackML's Execute; while the operator or the link holds, the mission waits; Complete of a mission run
//! by itself is PackML's Complete. The agent has no power of its own: what it wants done goes through [`Hands`] to the
//! guard, which judges every step like any other command.

pub mod forecast;
#[cfg(test)]
mod tests;
mod text;

/// Whether an instruction has the form of a mission, before anything starts for it.
///
/// # Errors
/// Why it has none.
pub fn check(instruction: &str) -> Result<(), Failure> {
    text::split(instruction).map(drop).map_err(Failure)
}

use ganglion_guard::Mode;
use ganglion_plan::{Plan, PlannedStep, Planner, Start, Step, Task};
use ganglion_site::plan::{Action, PlanSpec, Takes};
use ganglion_site::{Command, Site};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where a mission stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// None is under way.
    Idle,
    /// An instruction was taken.
    ReceiveCmd,
    /// Clauses are decided, the plan is made and verified.
    Parse,
    /// A step is handed to the guard.
    Execute,
    /// A step is watched until it is done.
    Monitor,
    /// Another plan is looked for.
    Adjust,
    /// All is done.
    Complete,
}

impl State {
    /// The name used in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::ReceiveCmd => "ReceiveCmd",
            Self::Parse => "Parse",
            Self::Execute => "Execute",
            Self::Monitor => "Monitor",
            Self::Adjust => "Adjust",
            Self::Complete => "Complete",
        }
    }
}

/// One thing that a mission says: a transition, or its plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// The state that it has come to.
    pub state: State,
    /// Why, in words.
    pub text: String,
    /// The plan, when there is a new one.
    pub forecast: Option<forecast::Forecast>,
}

impl Word {
    /// For programs.
    pub fn to_json(&self, site: &Site) -> Value {
        let mut fields = json!({"state": self.state.as_str(), "text": self.text});
        if let (Some(forecast), Some(fields)) = (&self.forecast, fields.as_object_mut()) {
            fields.insert("plan".into(), forecast.to_json(site));
        }
        fields
    }
}

/// Why a command did not reach the plant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// It is about the moment: the same command may pass a little later.
    pub for_now: bool,
}

impl Refused {
    /// For a reason that lasts.
    pub fn because(why: String) -> Self {
        Self { why, for_now: false }
    }
}

/// What became of a step.
enum StepEnd {
    Done,
    /// Another plan may help.
    Failed(String),
    /// It was not begun, and may be a little later.
    NotNow(String),
}

/// What the agent reaches the world through. Time is its world's, in µs.
pub trait Hands {
    /// Decides one clause; nothing is actuated. `Err` says why there is no command.
    fn decide(&mut self, clause: &str) -> Result<Command, String>;
    /// Hands one command to the guard, and waits until the plant has taken it: the time of that.
    fn act(&mut self, command: &Command) -> Result<u64, Refused>;
    /// Usable readings, if no older than `since_us`.
    fn readings(&self, since_us: u64) -> Start;
    /// How often the plant has been lost so far: its connection, or its watchdog tripped.
    fn link_losses(&self) -> u64;
    /// The site with the policy that holds now.
    fn site(&self) -> Arc<Site>;
    /// The guard's mode; `None` before its first cycle.
    fn mode(&self) -> Option<Mode>;
    /// Who else has had a command sent to the plant since the mission began.
    fn outranked(&self) -> Option<String>;
    /// For the audit log and the screen.
    fn say(&mut self, word: &Word);
    /// Now, and after a short while.
    fn now_us(&self) -> u64;
    fn pause(&mut self);
}

/// How a mission ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is done.
    Complete,
    /// A dry run: the plan was verified and shown.
    Planned,
}

/// A mission failed, or was never begun; the sentence says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Slack of every step's time, in s of real time: the plant is polled, the guard has its cycle.
const SLACK_S: f64 = 5.0;
/// Longest time for which a step waits that the guard refuses for the moment: a brain starts anew, a breaker closes, a command
/// budget fills.
const REFUSED_S_MAX: u64 = 120;
/// Between two tries.
const RETRY_S: u64 = 1;
/// Between two tries of the safe command.
const SAFE_RETRY_S: f64 = 0.1;

/// One mission at a time.
pub struct Agent<'a, H> {
    site: Arc<Site>,
    planner: &'a mut Planner,
    hands: &'a mut H,
    state: State,
    tasks: Vec<Task>,
    replanned: bool,
    acted: bool,
    /// Since when the guard has refused the next step for the moment.
    refused_us: Option<u64>,
}

impl<'a, H: Hands> Agent<'a, H> {
    pub fn new(site: &Arc<Site>, planner: &'a mut Planner, hands: &'a mut H) -> Self {
        let site = Arc::clone(site);
        Self {
            site,
            planner,
            hands,
            state: State::Idle,
            tasks: Vec::new(),
            replanned: false,
            acted: false,
            refused_us: None,
        }
    }

    /// Another policy holds for what is left of a mission, too.
    fn follow_policy(&mut self) -> Result<(), Failure> {
        let site = self.hands.site();
        self.planner.follow(&site).map_err(|error| Failure(error.to_string()))?;
        self.site = site;
        Ok(())
    }

    /// From an instruction to its end. `dry_run` ends with the verified plan.
    pub fn run(mut self, instruction: &str, dry_run: bool) -> Result<Outcome, Failure> {
        let result = self.carry_out(instruction, dry_run);
        if let Err(Failure(why)) = &result {
            let acted = self.acted;
            self.go(State::Idle, &format!("the mission has ended: {why}"), None);
            // An operator's stop has sent it already; a second one does no harm, and outside Execute the guard refuses it.
            if acted && self.hands.outranked().is_none() && self.hands.mode() == Some(Mode::Execute) {
                let text = match self.send_safe() {
                    Ok(_) => "the safe command was sent".to_string(),
                    Err(refused) => format!("the safe command was not sent: {}", refused.why),
                };
                self.go(State::Idle, &text, None);
            }
        }
        result
    }

    /// Sends the safe command; the time when the plant had taken it.
    fn send_safe(&mut self) -> Result<u64, Refused> {
        let safe = self.hands.site().safe;
        let begun_us = self.hands.now_us();
        loop {
            let sent = self.hands.act(&safe);
            let tried_us = self.hands.now_us();
            match sent {
                Err(refused) if refused.for_now && self.seconds_since(begun_us) < SLACK_S => {
                    while self.seconds_since(tried_us) < SAFE_RETRY_S {
                        self.hands.pause();
                    }
                }
                sent => return sent,
            }
        }
    }

    fn seconds_since(&self, begun_us: u64) -> f64 {
        self.hands.now_us().saturating_sub(begun_us) as f64 / 1e6
    }

    fn go(&mut self, state: State, text: &str, plan: Option<&Plan>) {
        self.state = state;
        let forecast = plan.map(|plan| forecast::Forecast::of(self.planner.checker(), plan));
        self.hands.say(&Word { state, text: text.to_string(), forecast });
    }

    fn carry_out(&mut self, instruction: &str, dry_run: bool) -> Result<Outcome, Failure> {
        self.go(State::ReceiveCmd, "an instruction was received", None);
        let clauses = text::split(instruction).map_err(Failure)?;
        self.wait_for_execute()?;
        self.go(State::Parse, &format!("{} clauses", clauses.len()), None);
        for clause in &clauses {
            let command = self.hands.decide(&clause.text);
            let command = command.map_err(|why| Failure(format!("\"{}\": {why}", clause.text)))?;
            self.tasks.push(Task { command, after_previous: clause.after_previous });
        }
        self.follow_policy()?;
        let start = self.hands.readings(0);
        let plan =
            self.planner.plan(&start, &self.tasks.clone()).map_err(|refusal| Failure(refusal.sentence))?;
        let steps = plan.steps.len();
        if let Some(why) = &plan.instead_of {
            self.go(State::Adjust, &format!("{why}; another plan keeps every rule"), None);
        }
        let time = ganglion_plan::explain::times(plan.time_s);
        self.go(State::Execute, &format!("the plan is verified: {steps} steps, {time}"), Some(&plan));
        if dry_run {
            return Ok(Outcome::Planned);
        }
        self.follow(plan.steps)?;
        self.go(State::Complete, "every step is done", None);
        Ok(Outcome::Complete)
    }

    /// Step after step; before each, the rest is verified again with what is read now.
    fn follow(&mut self, mut steps: Vec<PlannedStep>) -> Result<(), Failure> {
        let mut next = 0;
        while let Some(planned) = steps.get(next).copied() {
            self.wait_for_execute()?;
            self.follow_policy()?;
            let rest: Vec<Step> = steps.iter().skip(next).map(|planned| planned.step).collect();
            let start = self.hands.readings(0);
            let number = next + 1;
            let name = planned.step.command.describe(&self.site);
            let end = match self.planner.checker().check(&start, &rest) {
                Err(violation) => StepEnd::Failed(format!(
                    "with the present readings, {}",
                    violation.sentence(&self.site, &rest)
                )),
                Ok(_) => {
                    if self.refused_us.is_none() {
                        self.go(State::Execute, &format!("step {number} of {}: {name}", steps.len()), None);
                    }
                    self.one_step(number, &planned.step, &start)?
                }
            };
            match end {
                StepEnd::Done => next += 1,
                StepEnd::NotNow(why) => self.wait_out(&why)?,
                StepEnd::Failed(why) => {
                    steps = self.adjust(&why, steps.get(next..).unwrap_or_default())?;
                    next = 0;
                }
            }
        }
        Ok(())
    }

    /// Waits a little for what the guard refuses for the moment; no replan could help there.
    fn wait_out(&mut self, why: &str) -> Result<(), Failure> {
        let now_us = self.hands.now_us();
        if self.refused_us.is_none() {
            self.go(self.state, &format!("waiting: {why}"), None);
        }
        let begun_us = *self.refused_us.get_or_insert(now_us);
        if self.seconds_since(begun_us) >= REFUSED_S_MAX as f64 {
            return Err(Failure(format!("{why}, for {REFUSED_S_MAX} s")));
        }
        while self.seconds_since(now_us) < RETRY_S as f64 {
            self.check_rank()?;
            self.hands.pause();
        }
        Ok(())
    }

    /// Another plan for what is left, once per mission.
    fn adjust(&mut self, why: &str, left: &[PlannedStep]) -> Result<Vec<PlannedStep>, Failure> {
        self.go(State::Adjust, why, None);
        if std::mem::replace(&mut self.replanned, true) {
            return Err(Failure(format!("{why}; a mission is replanned once")));
        }
        let mut tasks = Vec::new();
        let mut before = None;
        let mut indices: Vec<usize> = left.iter().filter_map(|planned| planned.task).collect();
        indices.sort_unstable();
        for index in indices {
            let Some(task) = self.tasks.get(index) else { continue };
            // What came before it is done already, unless it is left too.
            let after_previous = task.after_previous && before == index.checked_sub(1);
            tasks.push(Task { after_previous, ..*task });
            before = Some(index);
        }
        if tasks.is_empty() {
            // Only what planning had added is left, such as the way home.
            let added =
                left.iter().rfind(|planned| planned.task.is_none()).map(|planned| planned.step.command);
            tasks.extend(added.map(|command| Task { command, after_previous: false }));
        }
        self.follow_policy()?;
        let start = self.hands.readings(0);
        let plan = self.planner.plan(&start, &tasks);
        let plan =
            plan.map_err(|refusal| Failure(format!("{why}; and no other plan: {}", refusal.sentence)))?;
        self.tasks = tasks;
        let (steps, time) = (plan.steps.len(), ganglion_plan::explain::times(plan.time_s));
        self.go(State::Execute, &format!("another plan is verified: {steps} steps, {time}"), Some(&plan));
        Ok(plan.steps)
    }

    /// One step to its end.
    fn one_step(&mut self, number: usize, step: &Step, before: &Start) -> Result<StepEnd, Failure> {
        let site = Arc::clone(&self.site);
        let missing = || Failure("the site has no plan for a step".into());
        let spec = site.plan.as_ref().ok_or_else(missing)?;
        let action = spec.action(&step.command).ok_or_else(missing)?;
        self.check_rank()?;
        self.acted = true;
        let name = step.command.describe(&site);
        let losses = self.hands.link_losses();
        let begun_us = match self.hands.act(&step.command) {
            Ok(time_us) => time_us,
            Err(Refused { why, for_now }) => {
                self.check_rank()?;
                let why = format!("step {number} {name} was not carried out: {why}");
                return Ok(if for_now { StepEnd::NotNow(why) } else { StepEnd::Failed(why) });
            }
        };
        self.refused_us = None;
        self.go(State::Monitor, &format!("step {number} {name} is under way"), None);
        let speed = site.plant.as_ref().filter(|p| p.simulator.is_some()).map_or(1.0, |p| p.simulator_speed);
        let expected_s = longest_s(spec, action, &step.command);
        let timeout_s = action.timeout_s.unwrap_or(2.0 * expected_s) / speed + SLACK_S;
        let map = spec.map.as_ref();
        let from = map.and_then(|map| map.place_of(before.tags.get(map.tag).copied().flatten()?.lo));
        let (mut waited_us, mut last_us) = (0, self.hands.now_us());
        loop {
            self.check_rank()?;
            let held = self.hands.mode() != Some(Mode::Execute);
            if held {
                self.wait_for_execute()?;
                last_us = self.hands.now_us();
            }
            // A plant that was on its own has made itself safe, and that looks like the end of a step.
            if self.hands.link_losses() != losses {
                let why = format!("the plant was lost while step {number} {name} was under way");
                self.go(self.state, &why, None);
                let lost_us = self.hands.now_us();
                self.wait_for_readings(lost_us, before)?;
                return Ok(StepEnd::Failed(why));
            }
            let now = self.hands.readings(begun_us);
            if let Err(violation) = self.planner.checker().watch(&now, step, from) {
                let why = format!("under way, {}", violation.sentence(&self.site, &[*step]));
                return self.break_off(why, &now).map(StepEnd::Failed);
            }
            if self.is_done(action, &step.command, begun_us, expected_s / speed) {
                return Ok(StepEnd::Done);
            }
            if waited_us as f64 / 1e6 > timeout_s {
                let limit = ganglion_plan::explain::time(timeout_s);
                return Ok(StepEnd::Failed(format!("step {number} {name} was not done within {limit}")));
            }
            self.hands.pause();
            let now_us = self.hands.now_us();
            waited_us += now_us.saturating_sub(last_us);
            last_us = now_us;
        }
    }

    /// Stops what is under way by the safe command, at once, and waits until the plant shows it.
    fn break_off(&mut self, why: String, before: &Start) -> Result<String, Failure> {
        self.check_rank()?;
        let sent = self.send_safe();
        let stopped_us =
            sent.map_err(|refused| Failure(format!("{why}; and no safe command: {}", refused.why)))?;
        self.go(self.state, &format!("{why}; the safe command was sent"), None);
        self.wait_for_readings(stopped_us, before)?;
        Ok(why)
    }

    /// Waits until what was read `before` is read again, and the guard takes commands; a tag that stays away is left to the check.
    fn wait_for_readings(&mut self, since_us: u64, before: &Start) -> Result<(), Failure> {
        let again = |now: &Start| {
            now.tags.iter().zip(&before.tags).all(|(now, before)| now.is_some() || before.is_none())
        };
        // The guard needs a cycle to notice a loss; only time in Execute counts.
        let patience_s = SLACK_S + 3.0 * f64::from(self.site.guard.period_ms) / 1000.0;
        let mut waited_s = 0.0;
        loop {
            self.wait_for_execute()?;
            if again(&self.hands.readings(since_us)) || waited_s > patience_s {
                return Ok(());
            }
            let begun_us = self.hands.now_us();
            self.hands.pause();
            waited_s += self.seconds_since(begun_us);
        }
    }

    /// Whether the plant says so, with readings from after the command; where it has nothing to say, whether the time is up.
    fn is_done(&self, action: &Action, command: &Command, begun_us: u64, expected_s: f64) -> bool {
        let readings = self.hands.readings(begun_us);
        let holds = |tag: usize, test: &dyn Fn(f64) -> bool| {
            readings.tags.get(tag).copied().flatten().is_some_and(|span| span.lo == span.hi && test(span.lo))
        };
        let map = self.site.plan.as_ref().and_then(|plan| plan.map.as_ref());
        let goal = action.moves.as_ref().and_then(|moves| map?.places.get(moves.of(command)?));
        let there = map.zip(goal).is_none_or(|(map, place)| holds(map.tag, &|value| value == place.number));
        let terms = action.done.of(command).map_or(&[][..], Vec::as_slice);
        let said = terms.iter().all(|term| holds(term.compare.tag, &|value| term.compare.holds(value)));
        let time_is_up = goal.is_some()
            || !terms.is_empty()
            || self.hands.now_us().saturating_sub(begun_us) as f64 / 1e6 >= expected_s;
        there && said && time_is_up
    }

    /// Whoever else writes to the plant has taken over: an operator, the rule controller, the guard's safe command.
    fn check_rank(&mut self) -> Result<(), Failure> {
        match self.hands.outranked() {
            Some(who) => Err(Failure(format!("{who} has taken over"))),
            None => Ok(()),
        }
    }

    /// Waits while the guard holds; a stop or an abort ends the mission.
    fn wait_for_execute(&mut self) -> Result<(), Failure> {
        let mut said = false;
        loop {
            match self.hands.mode() {
                Some(Mode::Execute) => return Ok(()),
                Some(
                    mode @ (Mode::Stopping
                    | Mode::Aborting
                    | Mode::Aborted
                    | Mode::Clearing
                    | Mode::Completing
                    | Mode::Complete),
                ) => return Err(Failure(format!("the mode is {}", mode.as_str()))),
                // Before a run's own start; after a step, the operator has stopped it.
                Some(Mode::Stopped) if self.acted => return Err(Failure("the mode is Stopped".into())),
                Some(mode) if self.acted && !std::mem::replace(&mut said, true) => {
                    let (state, text) = (self.state, format!("waiting: the mode is {}", mode.as_str()));
                    self.go(state, &text, None);
                }
                _ => {}
            }
            self.check_rank()?;
            self.hands.pause();
        }
    }
}

/// The longest time that a step may take by the site's word, in s.
fn longest_s(spec: &PlanSpec, action: &Action, command: &Command) -> f64 {
    match action.takes {
        Takes::Seconds(span) => span.hi,
        Takes::Argument { index, s_per_unit } => {
            command.values.get(index).and_then(ganglion_site::plan::numeric).unwrap_or(0.0) * s_per_unit
        }
        Takes::Travel => spec.map.as_ref().map_or(0.0, |map| {
            // The road that is taken leads here; the longest one is the bound.
            let to = action.moves.as_ref().and_then(|moves| moves.of(command));
            let roads = map.roads.iter().filter(|road| to.is_some_and(|to| road.between.contains(&to)));
            roads.map(|road| road.length_m).fold(0.0, f64::max) / map.m_per_s.lo
        }),
    }
}
