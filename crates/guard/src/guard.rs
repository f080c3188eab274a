//! The guard: one call per cycle, time as an argument, no I/O, no heap after [`Guard::new`].

use crate::answers::kept_for_plans;
use crate::approved::Approved;
use crate::brain::BrainWatch;
use crate::breaker::{Breaker, BreakerState};
use crate::bucket::Bucket;
use crate::condition::{Conditions, timeless_in_force, timeless_rule};
use crate::envelope::{Checked, Envelope, Judging, check_tags, undecided, well_formed};
use crate::error::GuardError;
use crate::limits::{
    BRAIN_MARGIN_US_MAX, DECISIONS_PER_CYCLE_MAX, GUARD_MARGIN_US_MAX, NOTICES_PER_CYCLE_MAX, PENDING_MAX,
    RECORDS_PER_CYCLE_MAX,
};
use crate::mode::Mode;
use crate::outputs::Outputs;
use crate::pending::{Pending, PendingTable};
use crate::policy::Notice;
use crate::rules::{ActiveRule, RuleChoice};
use crate::sense::{Readings, Sense, bit, mask};
use crate::status::*;
use crate::tags::TagSample;
use crate::text::reason;
use crate::triggers::TriggerState;
use ganglion_audit::{Record, RecordKind, Source, Verdict};
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::{
    Command, Decision, Epoch, Event, LimitTarget, Micros, Outcome, Reason, Sentence, Site, TagValues, Timings,
};

/// The safety layer's whole state. See the crate's documentation for the flow of one event.
#[derive(Debug, Clone)]
pub struct Guard {
    pub(crate) site: Site,
    pub(crate) envelope: Envelope,
    pub(crate) safe: Approved<Command>,
    pub(crate) conditions: Conditions,
    pub(crate) bucket: Bucket,
    pub(crate) dry_run: bool,
    /// Some command announces another.
    pub(crate) announces: bool,
    pub(crate) prompt_mask: u64,
    pub(crate) times: Times,
    pub(crate) noted: Option<Notice>,

    pub(crate) now: Micros,
    pub(crate) mode: Mode,
    pub(crate) breaker: Breaker,
    pub(crate) brain: BrainWatch,
    pub(crate) sense: Sense,
    pub(crate) readings: Readings,
    pub(crate) link: Link,
    pub(crate) sole_writer: bool,
    pub(crate) link_was_up: bool,
    pub(crate) could_write: bool,
    pub(crate) latch: Severity,
    pub(crate) held_by_link: bool,
    pub(crate) safe_owed: bool,
    pub(crate) safe_latched: bool,
    pub(crate) epoch: Epoch,
    pub(crate) pending: PendingTable,
    pub(crate) outputs: Outputs,
    pub(crate) triggers: Vec<TriggerState>,
    pub(crate) last_rule: Option<Command>,
    pub(crate) active: ActiveRule,

    pub(crate) event_out: Option<Event>,
    pub(crate) fields: Vec<Field>,
    pub(crate) actuation: Option<Actuation>,
    records: Vec<Record>,
    pub(crate) counters: Counters,
    pub(crate) status: Status,
}

/// What follows from a site's policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Tags with a trip limit: unreadable means that the plant's state is unknown.
    pub trip_mask: u64,
    pub deadline_us: Micros,
    pub guard_margin_us: Micros,
    pub brain_margin_us: Micros,
}

impl Times {
    pub fn new(site: &Site) -> Self {
        let deadline_us = Micros::from(site.guard.deadline_ms) * 1000;
        let trips = site.limits.iter().filter(|limit| limit.lolo.is_some() || limit.hihi.is_some());
        Self {
            trip_mask: mask(trips.filter_map(|limit| match limit.on {
                LimitTarget::Tag(index) => Some(index),
                LimitTarget::Argument { .. } => None,
            })),
            deadline_us,
            guard_margin_us: GUARD_MARGIN_US_MAX.min(deadline_us / 10),
            brain_margin_us: BRAIN_MARGIN_US_MAX.min(deadline_us / 5),
        }
    }
}

impl Guard {
    /// Allocates everything, checks the safe command, starts in Stopped: a restarted guard never resumes Execute by
    /// itself.
    ///
    /// # Errors
    /// [`GuardError::SafeCommand`], [`GuardError::TooManyRateSlots`].
    pub fn new(site: &Site) -> Result<Self, GuardError> {
        let envelope = Envelope::new(site)?;
        let safe = envelope.seal_safe(site)?;
        let breaker = Breaker::new(&site.guard);
        let mode = Mode::Stopped;
        Ok(Self {
            announces: site.commands.iter().any(|spec| spec.announce.is_some()),
            prompt_mask: mask(site.prompt.tags.iter().copied()),
            times: Times::new(site),
            noted: None,
            now: 0,
            mode,
            breaker,
            brain: BrainWatch::new(&site.guard),
            sense: Sense::BLIND,
            readings: Readings::NONE,
            link: Link::DOWN,
            sole_writer: false,
            link_was_up: false,
            could_write: false,
            latch: Severity::Nominal,
            held_by_link: false,
            safe_owed: false,
            safe_latched: false,
            epoch: 0,
            pending: PendingTable::new(),
            outputs: Outputs::new(site),
            triggers: vec![TriggerState::FRESH; site.triggers.len()],
            last_rule: None,
            active: ActiveRule::NONE,
            event_out: None,
            fields: Vec::with_capacity(DECISIONS_PER_CYCLE_MAX),
            actuation: None,
            records: Vec::with_capacity(RECORDS_PER_CYCLE_MAX),
            counters: Counters::default(),
            status: Status {
                time_us: 0,
                mode,
                breaker: breaker.state(),
                severity: Severity::Nominal,
                brain: BrainState::Absent,
                link: Link::DOWN,
                pending: 0,
                rule_in_control: false,
                alarms: 0,
                trips: 0,
                unusable: 0,
                counters: Counters::default(),
                reason: Reason::EMPTY,
            },
            conditions: Conditions::new(site),
            bucket: Bucket::new(site.guard.commands),
            site: site.clone(),
            envelope,
            safe,
            dry_run: false,
        })
    }

    /// With `true`, decides, checks and records everything and actuates nothing, not even the safe command.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The state after the last cycle.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether the next cycle can take an event (a shadow probe does not stand in its way).
    pub fn can_take_event(&self) -> bool {
        self.pending.count() < PENDING_MAX
    }

    /// A cycle is wanted at this time even if the period has not passed: the last look for a pending answer, or at once
    /// for what waits for its turn.
    pub fn next_wake_us(&self) -> Option<Micros> {
        if self.has_backlog() {
            return Some(self.now);
        }
        self.pending.iter().map(|pending| pending.cutoff_us).min()
    }

    /// Whether something waits for the next cycle because a cycle gives one command.
    pub fn has_backlog(&self) -> bool {
        self.pending.iter().any(|p| !p.is_waiting() || p.owes_announcement().is_some())
    }

    /// The verdict for one command as if in Execute, for `ask`: only tags with a given value are judged, no history, no
    /// actuation, no change of state. The site's own safe command passes whatever the tags read.
    pub fn check(&self, command: &Command, tags: &[Option<f64>]) -> Checked {
        if command == self.safe.get() {
            return Checked { verdict: Verdict::Approved, command: *command, reason: Reason::EMPTY };
        }
        match kept_for_plans(&self.site, command) {
            Some(reason) => Checked { verdict: Verdict::Rejected, command: *command, reason },
            None => self.check_limits(command, tags),
        }
    }

    fn check_limits(&self, command: &Command, tags: &[Option<f64>]) -> Checked {
        let sense = Sense::given(&self.site, tags);
        if let Err(reason) = well_formed(&self.site, command) {
            return Checked { verdict: Verdict::Rejected, command: *command, reason };
        }
        match check_tags(&self.site, &sense, sense.read) {
            Err(reason) => Checked { verdict: Verdict::Rejected, command: *command, reason },
            Ok(()) => {
                let in_force = timeless_in_force(&self.site, &sense);
                self.envelope.check(&self.site, command, Judging { now: None, in_force })
            }
        }
    }

    /// What the rule controller would do with these readings, for `ask`: no history, no actuation, no change of state.
    pub fn fallback(&self, tags: &[Option<f64>]) -> (Outcome, Checked) {
        let sense = Sense::given(&self.site, tags);
        let mut rules = self.site.rules.iter().enumerate();
        let rule = rules.find(|(index, _)| timeless_rule(&self.site, *index, &sense)).map(|(_, rule)| rule);
        match rule.map(|rule| self.check_limits(&rule.command, tags)) {
            Some(checked) if checked.verdict != Verdict::Rejected => (Outcome::Rule, checked),
            _ => (Outcome::Safe, self.check(self.safe.get(), tags)),
        }
    }

    /// One cycle: read → judge → want. Never waits, allocates, locks or panics; equal inputs give equal outputs.
    pub fn cycle(&mut self, now: Micros, input: &Input<'_>) -> Output<'_> {
        self.begin(now);
        self.sense_plant(input.tags, input.link);
        self.sole_writer = input.sole_writer;
        let (mode_before, breaker_before) = (self.mode, self.breaker.state());
        self.run_modes(input);
        if mode_before == Mode::Execute && self.mode != Mode::Execute {
            self.drop_pending();
        }
        // First, so that whatever else is decided in this cycle finds the place taken and is recorded as not sent.
        self.pay_safe();
        self.follow_brain(input.brain);
        self.take_progress(input.progress);
        self.take_decisions(input.decisions);
        self.watch_brain();
        self.expire_pending();
        self.settle();
        if let Some(request) = input.event {
            self.accept(request);
        }
        self.announce();
        self.watch_triggers();
        self.breaker.tick(self.now, self.brain.ready());
        self.control_by_rule();
        self.probe();
        if self.breaker.state() != breaker_before {
            let (from, to) = (breaker_before.as_str(), self.breaker.state().as_str());
            self.notice(RecordKind::Breaker, reason!("breaker {from} → {to}"));
        }
        self.finish();
        let brain = match self.brain.kill() {
            Some(generation) => BrainAction::KillAndRestart { generation },
            None => BrainAction::Keep,
        };
        Output {
            event: self.event_out.as_ref(),
            actuation: self.actuation,
            brain,
            // Another writer's plant is not fed by this one's cycles, and the driver never arms it.
            heartbeat: self.sole_writer,
            records: &self.records,
            fields: &self.fields,
            status: &self.status,
        }
    }

    fn begin(&mut self, now: Micros) {
        // A clock that steps back is read as one that stands still.
        self.now = self.now.max(now);
        self.counters.cycles += 1;
        self.bucket.tick(self.now);
        self.event_out = None;
        self.actuation = None;
        self.records.clear();
        self.fields.clear();
        if let Some(Notice { kind, reason }) = self.noted.take() {
            self.notice(kind, reason);
        }
    }

    fn sense_plant(&mut self, tags: &[TagSample], link: Link) {
        let before = self.sense;
        self.sense = Sense::take(&self.site, tags, self.now, self.mode, &mut self.readings);
        self.conditions.update(&self.site, &self.sense, self.now);
        self.link = link;
        let new_trips = self.sense.trips & !before.trips;
        let changed = self.sense.alarms ^ before.alarms;
        for index in 0..TAGS_MAX {
            if new_trips & bit(index) != 0 {
                let text = self.sense.describe(&self.site, index, true);
                self.notice(RecordKind::Trip, text);
            } else if changed & self.sense.alarms & bit(index) != 0 {
                let text = self.sense.describe(&self.site, index, false);
                self.notice(RecordKind::Alarm, text);
            } else if changed & bit(index) != 0 {
                let name = self.site.tags.get(index).map_or("?", |t| t.name.as_str());
                let text = reason!("tag {name} is back inside its alarm limits or can no longer be judged");
                self.notice(RecordKind::Alarm, text);
            }
        }
    }

    // ---- commands ----

    /// Mode, link, tags, budget, then the envelope: the only way from a command to an `Approved` one. `given` are the
    /// event's own readings; only a command that is `for_the_plant` needs a token.
    pub(crate) fn judge(
        &self,
        command: &Command,
        needed: u64,
        given: &TagValues,
        for_the_plant: bool,
    ) -> (Checked, Option<Approved<Command>>) {
        let refuse = |reason| (Checked { verdict: Verdict::Rejected, command: *command, reason }, None);
        if let Err(reason) = well_formed(&self.site, command) {
            return refuse(reason);
        }
        if self.mode != Mode::Execute {
            return refuse(self.mode_reason());
        }
        if let Some(reason) = self.link_fault() {
            return refuse(reason);
        }
        if let Err(reason) = check_tags(&self.site, &self.sense, needed | self.times.trip_mask) {
            return refuse(reason);
        }
        let event = self.sense.with(&self.site, given);
        let in_force = self.conditions.in_force(&self.site, &self.sense, &event);
        if let Some(reason) = undecided(&self.site, command, in_force, &self.sense) {
            return refuse(reason);
        }
        if for_the_plant && !self.is_none(command) && !self.bucket.has_one() {
            return refuse(self.budget_reason());
        }
        self.envelope.judge(&self.site, command, Judging { now: Some(self.now), in_force })
    }

    pub(crate) fn budget_reason(&self) -> Reason {
        let per_minute = self.site.guard.commands.map_or(0, |budget| budget.per_minute);
        reason!("{OVER_BUDGET}: no more than {per_minute} per minute may go to the plant")
    }

    /// Whether it is the command that does nothing.
    pub(crate) fn is_none(&self, command: &Command) -> bool {
        usize::from(command.verb) + 1 == self.site.commands.len()
    }

    // ---- events ----

    pub(crate) fn accept(&mut self, request: &Request) {
        self.counters.events += 1;
        if self.mode != Mode::Execute {
            let text = self.mode_reason();
            return self.refuse(request, text);
        }
        if let Some(command) = &request.command {
            return self.accept_step(request, command);
        }
        if !self.can_take_event() {
            self.counters.busy += 1;
            return self.refuse(
                request,
                reason!("{BUSY}: {PENDING_MAX} events are still waiting for their answers"),
            );
        }
        let sense = self.sense.with(&self.site, &request.tags);
        // The plant's own trips have left Execute by now, so that this one came with the event.
        if let Some(why) = sense.first_trip(&self.site) {
            return self.answer_by_safe(request, why);
        }
        // A question is decided, checked and recorded like anything else, and never actuated.
        let request = &Request { dry_run: request.dry_run || is_question(&request.sentence), ..*request };
        let needed = self.prompt_needed() | request.tags.present();
        if let Err(why) = check_tags(&self.site, &sense, needed | self.times.trip_mask) {
            return self.answer_by_rule(
                request,
                self.now,
                reason!("{}; the model was not asked", why.as_str()),
            );
        }
        if self.brain_counts() {
            return self.ask(request, false);
        }
        let why = match self.brain.state() {
            BrainState::Ready => reason!("the breaker is {}", self.breaker.state().as_str()),
            state => reason!("the brain is {}", state.as_str()),
        };
        self.answer_by_rule(request, self.now, why);
        if self.may_probe() {
            self.ask(request, true);
        }
    }

    /// The step of a verified plan: the same checks as for the brain's answers. While the rule controller is in control it
    /// is the sole writer; the safe command, with which a mission ends that has failed, goes out even then.
    fn accept_step(&mut self, request: &Request, command: &Command) {
        if request.others < self.counters.others {
            return self.refuse(request, reason!("somebody else's command has gone to the plant since"));
        }
        if command == self.safe.get() {
            return self.answer_by_safe(request, reason!("asked for by the {}", request.source.as_str()));
        }
        if self.rule_in_control() {
            return self.refuse(request, reason!("{BY_RULE}; no plan is carried out"));
        }
        let to_plant = !(request.dry_run || self.dry_run);
        let (checked, approved) = self.judge(command, 0, &TagValues::NONE, to_plant);
        // What was verified is the command as it stands, not one that was moved to a bound.
        let approved = approved.filter(|_| checked.verdict == Verdict::Approved);
        let event = self.event_of(request);
        let actuated =
            approved.is_some_and(|approved| self.actuate(approved, Outcome::Plan, &event, request));
        let verdict = if approved.is_some() { Verdict::Approved } else { Verdict::Rejected };
        self.count(verdict);
        let record = Record {
            source: request.source,
            request: request.id,
            event,
            outcome: Some(Outcome::Plan),
            command: Some(*command).filter(|c| well_formed(&self.site, c).is_ok()),
            verdict: Some(verdict),
            actuated,
            ..self.blank(RecordKind::Decision, checked.reason)
        };
        self.push(record);
    }

    /// Nothing is done about this event.
    pub(crate) fn refuse(&mut self, request: &Request, why: Reason) {
        self.counters.rejected += 1;
        let record = Record {
            source: request.source,
            request: request.id,
            event: self.event_of(request),
            outcome: Some(Outcome::Safe),
            verdict: Some(Verdict::Rejected),
            ..self.blank(RecordKind::Decision, why)
        };
        self.push(record);
    }

    /// A half-open breaker with nothing to do asks a question of its own, so that closing costs no operator's sentence.
    fn probe(&mut self) {
        if self.may_probe() && check_tags(&self.site, &self.sense, self.prompt_needed()).is_ok() {
            // A sentence that was never asked before: an answer from memory would say nothing about the model.
            let text = reason!("are you there? {}", self.counters.cycles);
            let request = Request { sentence: Sentence::cut(text.as_str()), ..Request::own(true) };
            self.ask(&request, true);
        }
    }

    /// Whether the brain's answers are acted on.
    pub(crate) fn brain_counts(&self) -> bool {
        self.breaker.state() == BreakerState::Closed && self.brain.ready()
    }

    fn may_probe(&self) -> bool {
        let can = self.breaker.state() == BreakerState::HalfOpen && self.brain.ready();
        can && self.event_out.is_none() && !self.pending.has_shadow()
    }

    // ---- out ----

    /// Hands a command to the driver; `false` when it was not: dry run, `none`, or the place is taken.
    pub(crate) fn actuate(
        &mut self,
        approved: Approved<Command>,
        outcome: Outcome,
        event: &Event,
        request: &Request,
    ) -> bool {
        let none = self.is_none(approved.get());
        if self.dry_run || request.dry_run || none || self.actuation.is_some() {
            return false;
        }
        // The safe command takes no token: stopping never waits.
        if outcome != Outcome::Safe {
            self.bucket.take();
        }
        self.envelope.commit(&self.site, approved.get(), self.now);
        // What answers no asked event is younger than every event asked so far.
        let epoch = if event.epoch == 0 { self.epoch + 1 } else { event.epoch };
        self.outputs.note(&self.site, approved.get(), epoch);
        if outcome == Outcome::Safe {
            self.outputs.note_safe(epoch);
        }
        self.counters.actuated += 1;
        self.counters.others += u64::from(request.source != Source::Mission);
        self.actuation =
            Some(Actuation { approved, outcome, epoch: event.epoch, request: request.id, time_us: self.now });
        true
    }

    fn finish(&mut self) {
        let (severity, text) = self.severity();
        self.status = Status {
            time_us: self.now,
            mode: self.mode,
            breaker: self.breaker.state(),
            severity,
            brain: self.brain.state(),
            link: self.link,
            pending: u8::try_from(self.pending.count()).unwrap_or(u8::MAX),
            rule_in_control: self.rule_in_control(),
            alarms: self.sense.alarms,
            trips: self.sense.trips,
            unusable: mask(0..self.site.tags.len()) & !self.sense.usable,
            counters: self.counters,
            reason: text,
        };
    }

    /// Prompt tags that must be usable: all that are read from the plant, and others once they were set.
    pub(crate) fn prompt_needed(&self) -> u64 {
        let tags = self.site.tags.iter().enumerate();
        let from_plant = tags.filter(|(_, tag)| tag.read.is_some()).map(|(index, _)| index);
        self.prompt_mask & (mask(from_plant) | self.sense.read)
    }

    /// Time that a request has, in µs.
    pub(crate) fn span_us(&self, request: &Request) -> Micros {
        request.deadline_ms.map_or(self.times.deadline_us, |ms| {
            (Micros::from(ms) * 1000).clamp(1000, Micros::from(self.site.guard.brain_timeout_ms) * 1000)
        })
    }

    pub(crate) fn mode_reason(&self) -> Reason {
        reason!("{MODE} {}; commands are taken in Execute only", self.mode.as_str())
    }

    /// An event that never went to the brain: epoch 0.
    pub(crate) fn event_of(&self, request: &Request) -> Event {
        let sense = self.sense.with(&self.site, &request.tags);
        Event {
            epoch: 0,
            deadline_us: self.now.saturating_add(self.span_us(request)),
            tags: sense.values,
            tags_present: (self.prompt_mask | request.tags.present()) & sense.usable,
            sentence: request.sentence,
            client: request.client,
            dry_run: request.dry_run || self.dry_run,
            stream: request.stream,
        }
    }

    pub(crate) fn record_answer(
        &mut self,
        pending: &Pending,
        decision: &Decision,
        clamped: Option<Command>,
        verdict: Verdict,
        text: Reason,
        actuated: bool,
    ) {
        if !pending.shadow {
            self.count(verdict);
        }
        let kind = if pending.shadow { RecordKind::Probe } else { RecordKind::Decision };
        let record = Record {
            source: pending.request.source,
            request: pending.request.id,
            event: Event { deadline_us: pending.deadline_us, ..pending.event },
            outcome: Some(decision.outcome),
            // A command that is none of the site's cannot be written down as one.
            command: decision.command.filter(|c| well_formed(&self.site, c).is_ok()),
            clamped,
            verdict: Some(verdict),
            confidence: decision.confidence,
            latency_us: self.now - pending.accepted_us,
            timings: decision.timings,
            actuated,
            ..self.blank(kind, text)
        };
        self.push(record);
    }

    pub(crate) fn record_choice(
        &mut self,
        request: &Request,
        event: &Event,
        accepted_us: Micros,
        choice: &RuleChoice,
        actuated: bool,
        why: Reason,
    ) {
        self.count(choice.verdict);
        match choice.outcome {
            Outcome::Safe => self.counters.by_safe += 1,
            _ => self.counters.by_rule += 1,
        }
        let text = match (why.as_str(), choice.reason.as_str()) {
            (why, "") => reason!("{why}"),
            ("", more) => reason!("{more}"),
            (why, more) => reason!("{why}; {more}"),
        };
        let clamped = (choice.verdict == Verdict::Clamped).then_some(*choice.approved.get());
        let record = Record {
            source: request.source,
            request: request.id,
            event: *event,
            outcome: Some(choice.outcome),
            command: Some(choice.proposed),
            clamped,
            verdict: Some(choice.verdict),
            latency_us: self.now - accepted_us,
            actuated,
            ..self.blank(RecordKind::Decision, text)
        };
        self.push(record);
    }

    pub(crate) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Approved => self.counters.approved += 1,
            Verdict::Clamped => self.counters.clamped += 1,
            Verdict::Rejected => self.counters.rejected += 1,
        }
    }

    pub(crate) fn blank(&self, kind: RecordKind, reason: Reason) -> Record {
        let nobody = Event { dry_run: self.dry_run, ..Event::new(0, 0) };
        Record {
            kind,
            time_us: self.now,
            mode: self.mode.as_str(),
            breaker: self.breaker.state().as_str(),
            source: Source::Guard,
            request: 0,
            event: nobody,
            outcome: None,
            command: None,
            clamped: None,
            verdict: None,
            reason,
            confidence: 0.0,
            latency_us: 0,
            timings: Timings::default(),
            actuated: false,
        }
    }

    /// Notices never take the place that decisions need.
    pub(crate) fn notice(&mut self, kind: RecordKind, text: Reason) {
        let record = self.blank(kind, text);
        self.push_within(NOTICES_PER_CYCLE_MAX, record);
    }

    pub(crate) fn push(&mut self, record: Record) {
        self.push_within(RECORDS_PER_CYCLE_MAX, record);
    }

    fn push_within(&mut self, places: usize, record: Record) {
        if self.records.len() < places {
            self.records.push(record);
        } else {
            self.counters.records_dropped += 1;
        }
    }
}

pub(crate) const BUSY: &str = "busy";
const BY_RULE: &str = "the rule controller is in control";
const MODE: &str = "the mode is";
const OVER_BUDGET: &str = "too many commands";

/// Whether a refusal is about the moment, not about what was asked: the same may pass a little later.
pub fn refused_for_now(reason: &str) -> bool {
    [BUSY, BY_RULE, MODE, OVER_BUDGET].iter().any(|why| reason.starts_with(why))
}

/// A sentence that ends in a question mark, ASCII, full-width or Arabic.
pub(crate) fn is_question(sentence: &Sentence) -> bool {
    let text = sentence.as_str().trim_end().trim_end_matches(['"', '\'', ')', '!', '.']);
    text.ends_with(['?', '\u{ff1f}', '\u{61f}'])
}
