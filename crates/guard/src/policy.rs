//! Another policy for a running guard: built and checked by whoever asks for it, taken over between two cycles by exchanging
//! places, and handed back with the old one inside, to be freed elsewhere.
//!
//! A policy is what a site says about *when* and *how far*: limits, rules, the safe command, deadlines, breaker, budget,
//! staleness. What it says about *what there is* (tags, commands, registers, model, plant, prompt) is the site's identity:
//! brain, driver and log were built on it, so a change of that needs a restart.

use crate::approved::Approved;
use crate::bucket::Bucket;
use crate::condition::Conditions;
use crate::envelope::Envelope;
use crate::error::GuardError;
use crate::guard::{Guard, Times};
use crate::rules::ActiveRule;
use crate::text::reason;
use ganglion_audit::RecordKind;
use ganglion_site::{Command, GuardSpec, Reason, Site};
use serde::{Deserialize, Serialize};

/// SHA-256 of a site file's text.
pub type Fingerprint = [u8; 32];

/// A checked policy, ready to be exchanged for the guard's own.
#[derive(Debug)]
pub struct Policy {
    site: Site,
    envelope: Envelope,
    safe: Approved<Command>,
    conditions: Conditions,
    times: Times,
    /// Places of the new histories and those of the old ones that they go on from.
    slots: Vec<(usize, usize)>,
    moments: Vec<(usize, usize)>,
    fingerprint: Fingerprint,
    notice: Notice,
}

/// A sentence for the log about something that happened outside the cycle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub kind: RecordKind,
    /// What happened.
    pub reason: Reason,
}

/// What reaches the guard between two cycles.
#[derive(Debug)]
pub enum News {
    /// Another policy.
    Adopt(Box<Policy>),
    /// To be logged.
    Note(Notice),
}

impl Policy {
    /// Makes `new` ready to follow `old`, whose file had the fingerprint `before`.
    ///
    /// # Errors
    /// [`GuardError::NeedsRestart`] when more than the policy differs; those of [`Guard::new`].
    pub fn new(
        (old, before): (&Site, Fingerprint),
        (new, after): (&Site, Fingerprint),
    ) -> Result<Self, GuardError> {
        same_identity(old, new)?;
        let envelope = Envelope::new(new)?;
        let safe = envelope.seal_safe(new)?;
        let conditions = Conditions::new(new);
        let text = reason!("policy {} in place of {}", Hex(&after), Hex(&before));
        Ok(Self {
            slots: envelope.same_slots(&Envelope::new(old)?),
            moments: Conditions::same_terms(old, new),
            times: Times::new(new),
            site: new.clone(),
            envelope,
            safe,
            conditions,
            fingerprint: after,
            notice: Notice { kind: RecordKind::Policy, reason: text },
        })
    }

    /// Of the file that it came from.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Notice {
    /// A policy that was not taken, and why.
    pub fn refused(why: &str) -> Self {
        let text = reason!("the policy stays as it was; the new one is refused: {why}");
        Self { kind: RecordKind::Policy, reason: text }
    }

    /// A file that says what it said before.
    pub fn unchanged() -> Self {
        Self {
            kind: RecordKind::Policy,
            reason: Reason::cut("nothing has changed: the site file is as it was"),
        }
    }
}

impl Guard {
    /// Exchanges the policy, between two cycles. Mode, breaker, pending events, what was last sent and what is known of
    /// conditions that both policies have go on; the rule controller chooses anew. No heap: `policy` holds the old one
    /// afterwards.
    pub fn adopt(&mut self, policy: &mut Policy) {
        policy.envelope.go_on_from(&self.envelope, &policy.slots);
        policy.conditions.go_on_from(&self.conditions, &policy.moments);
        std::mem::swap(&mut self.site, &mut policy.site);
        std::mem::swap(&mut self.envelope, &mut policy.envelope);
        std::mem::swap(&mut self.conditions, &mut policy.conditions);
        std::mem::swap(&mut self.safe, &mut policy.safe);
        std::mem::swap(&mut self.times, &mut policy.times);
        self.breaker.adopt(&self.site.guard);
        self.brain.adopt(&self.site.guard);
        self.bucket = Bucket::after(self.bucket, self.site.guard.commands);
        self.last_rule = None;
        self.active = ActiveRule::NONE;
        self.note(policy.notice);
    }

    /// Has something logged by the next cycle.
    pub fn note(&mut self, notice: Notice) {
        self.noted = Some(notice);
    }
}

/// Refuses `new` unless it has the identity of `old`.
fn same_identity(old: &Site, new: &Site) -> Result<(), GuardError> {
    let mut policy_of_old = new.clone();
    policy_of_old.file.clone_from(&old.file);
    policy_of_old.limits.clone_from(&old.limits);
    policy_of_old.rules.clone_from(&old.rules);
    policy_of_old.safe = old.safe;
    // Their names are in records and on screens; how they come about is policy.
    if new.triggers.iter().map(|t| &t.name).eq(old.triggers.iter().map(|t| &t.name)) {
        policy_of_old.triggers.clone_from(&old.triggers);
    }
    let (mine, its) = (&mut policy_of_old.guard, &old.guard);
    // What follows from the deadline may go with it.
    let by_default =
        |spec: &GuardSpec| spec.brain_timeout_ms == GuardSpec::brain_timeout_default_ms(spec.deadline_ms);
    if by_default(mine) && by_default(its) {
        mine.brain_timeout_ms = its.brain_timeout_ms;
    }
    mine.deadline_ms = its.deadline_ms;
    mine.breaker_failures = its.breaker_failures;
    mine.breaker_open_ms = its.breaker_open_ms;
    mine.breaker_probes = its.breaker_probes;
    mine.commands = its.commands;
    for (mine, its) in policy_of_old.tags.iter_mut().zip(&old.tags) {
        (mine.stale_ms, mine.frozen_ms) = (its.stale_ms, its.frozen_ms);
    }
    if policy_of_old == *old {
        return Ok(());
    }
    let differs = [
        ("name", old.name != new.name),
        ("[model]", old.model != new.model),
        ("[guard] period_ms or brain_timeout_ms", policy_of_old.guard != old.guard),
        ("[prompt]", old.prompt != new.prompt),
        ("[plant]", old.plant != new.plant),
        ("[http]", old.http != new.http),
        ("[record]", old.record != new.record),
        ("[plan]", old.plan != new.plan),
        ("[[tag]]", policy_of_old.tags != old.tags),
        ("[[command]]", old.commands != new.commands),
        ("[[trigger]] names", policy_of_old.triggers != old.triggers),
    ];
    let what = differs.iter().find(|(_, differs)| *differs).map_or("another section", |(what, _)| *what);
    Err(GuardError::NeedsRestart { what })
}

struct Hex<'b>(&'b [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
