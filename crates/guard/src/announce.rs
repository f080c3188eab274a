//! Parts of answers: fields for whoever asked for them, and commands that go out ahead of the one that they announce.
//!
//! A brain says which verb it has decided before it decides the arguments. Where the site says that this verb announces
//! another command, that one passes the same checks as any answer and goes out, for example to release a brake. What follows
//! is the event's own answer, or the rule controller's, as always.

use crate::answers::kept_for_plans;
use crate::envelope::Checked;
use crate::envelope::value_fits;
use crate::guard::Guard;
use crate::limits::DECISIONS_PER_CYCLE_MAX;
use crate::pending::Announcement;
use crate::status::Field;
use crate::text::reason;
use ganglion_audit::{Record, RecordKind, Verdict};
use ganglion_site::limits::ARGUMENTS_MAX;
use ganglion_site::{Command, Outcome, Progress, Value};

impl Guard {
    /// Notes what the brain has decided so far.
    pub(crate) fn take_progress(&mut self, progress: &[Progress]) {
        for part in progress.iter().take(DECISIONS_PER_CYCLE_MAX) {
            let due = self.pending.first_deadline_us(0);
            if !self.brain.ready() || !self.brain.hear(self.now, due) || part.epoch > self.epoch {
                self.counters.unexpected_answers += 1;
                continue;
            }
            let fits = self.part_fits(part);
            let announce = self.site.commands.get(usize::from(part.verb)).and_then(|spec| spec.announce);
            // What belongs to an answered event has nothing more to say.
            let Some(pending) = self.pending.find_mut(part.epoch).filter(|p| p.is_waiting()) else {
                continue;
            };
            let consistent = match (pending.verb, part.argument) {
                (Some(verb), Some(_)) => verb == part.verb,
                (None, None) => true,
                _ => false,
            };
            if !fits || !consistent {
                self.counters.malformed_answers += 1;
                continue;
            }
            pending.verb = Some(part.verb);
            if part.argument.is_none() && !pending.shadow && !pending.event.dry_run {
                pending.announcement = announce.map_or(Announcement::None, Announcement::Due);
            }
            if pending.request.stream && !pending.shadow {
                self.fields.push(Field { request: pending.request.id, progress: *part });
            }
        }
    }

    /// The verb is one of the site's, and a value one that its argument takes.
    fn part_fits(&self, part: &Progress) -> bool {
        let Some(spec) = self.site.commands.get(usize::from(part.verb)) else { return false };
        match part.argument {
            None => part.value == Value::Absent,
            Some(index) => {
                let argument = spec.arguments.get(index);
                argument.and_then(|argument| value_fits(&argument.kind, &part.value)).unwrap_or(false)
            }
        }
    }

    /// Sends the oldest announcement that is due, if this cycle's command is still free and every check lets it.
    pub(crate) fn announce(&mut self) {
        if self.actuation.is_some() || !self.brain_counts() {
            return;
        }
        let oldest = self
            .pending
            .iter()
            .filter(|pending| pending.owes_announcement().is_some())
            .min_by_key(|pending| pending.event.epoch)
            .copied();
        let Some((pending, verb)) = oldest.and_then(|pending| Some((pending, pending.owes_announcement()?)))
        else {
            return;
        };
        let command = Command { verb, values: [Value::Absent; ARGUMENTS_MAX] };
        let (mut checked, approved) = match kept_for_plans(&self.site, &command) {
            Some(reason) => (Checked { verdict: Verdict::Rejected, command, reason }, None),
            None => self.judge(&command, self.prompt_needed(), &pending.request.tags, true),
        };
        let mut actuated = false;
        if let Some(approved) = approved {
            if !self.bucket.has_two() {
                (checked.verdict, checked.reason) = (Verdict::Rejected, self.budget_reason());
            } else if self.outputs.superseded(&self.site, &command, pending.event.epoch) {
                self.counters.superseded += 1;
                checked.reason = reason!("superseded: {}", crate::answers::SUPERSEDED);
            } else {
                actuated = self.actuate(approved, Outcome::Model, &pending.event, &pending.request);
                self.counters.announced += u64::from(actuated);
            }
        }
        if let Some(pending) = self.pending.find_mut(pending.event.epoch) {
            pending.announcement = if actuated { Announcement::Sent } else { Announcement::Over };
        }
        let record = Record {
            source: pending.request.source,
            request: pending.request.id,
            event: pending.event,
            outcome: Some(Outcome::Model),
            command: Some(command),
            verdict: Some(checked.verdict),
            latency_us: self.now - pending.accepted_us,
            actuated,
            ..self.blank(RecordKind::Announcement, checked.reason)
        };
        self.push(record);
    }
}
