//! Answers HTTP clients with the guard's records.

use super::inbox::{Full, Inbox, Question, Reply};
use super::missions::{Listener, Missions, Order, Told};
use super::world::answer_of;
use crate::answer::{Identity, field_json};
use crate::document;
use crate::mission::Outcome as Ended;
use ganglion_decide::{Join, Windows};
use ganglion_guard::{Record, Source, Verdict};
use ganglion_server::{
    DecideError, DecideRequest, Decider, Fields, Mission, MissionEvent, MissionRequest, MissionTeller,
    Subject,
};
use ganglion_site::{Decision, Sentence, Site, TagValues};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Windows of a document that are asked at once. Half of what the guard takes, so that others find a place.
const WINDOWS_AT_ONCE: usize = ganglion_guard::limits::PENDING_MAX / 2;
/// Times that a window is asked again when the guard was busy with others.
const BUSY_RETRIES_MAX: u32 = 50;

pub struct Desk {
    identity: Identity,
    inbox: Arc<Inbox>,
    /// On sites with plans.
    missions: Option<Arc<Missions>>,
}

type Answer = oneshot::Receiver<Record>;

impl Desk {
    pub fn new(identity: &Identity, inbox: &Arc<Inbox>, missions: Option<&Arc<Missions>>) -> Self {
        Self { identity: identity.clone(), inbox: Arc::clone(inbox), missions: missions.cloned() }
    }

    /// Hands one sentence to the guard.
    fn ask(
        &self,
        request: &DecideRequest,
        sentence: Sentence,
        dry_run: bool,
        fields: Option<mpsc::UnboundedSender<ganglion_site::Progress>>,
    ) -> Result<Answer, DecideError> {
        let mut tags = TagValues::NONE;
        for &(index, value) in &request.tags {
            tags.set(index, value);
        }
        let (reply, answer) = oneshot::channel();
        let (client, deadline_ms) = (request.client, request.deadline_ms);
        let question = Question {
            source: Source::Http,
            client,
            sentence,
            tags,
            deadline_ms,
            dry_run,
            command: None,
            others: 0,
        };
        let reply = Reply { answer: Some(reply), fields };
        match self.inbox.ask(question, reply) {
            Ok(_) => Ok(answer),
            Err(Full) => Err(DecideError::Unavailable("too many requests wait; try again".into())),
        }
    }

    fn deadline_ms(&self, request: &DecideRequest) -> f64 {
        f64::from(request.deadline_ms.unwrap_or(self.identity.current().guard.deadline_ms))
    }

    fn json(&self, request: &DecideRequest, record: &Record) -> Value {
        answer_of(record, self.deadline_ms(request)).to_json(&self.identity)
    }

    async fn text(
        &self,
        request: &DecideRequest,
        text: &str,
        fields: Option<Fields>,
    ) -> Result<Value, DecideError> {
        let Some(fields) = fields else {
            let answer = self.ask(request, sentence(text)?, request.dry_run, None)?;
            return Ok(self.json(request, &given(answer).await?));
        };
        let (sender, mut decided) = mpsc::unbounded_channel();
        let answer = self.ask(request, sentence(text)?, request.dry_run, Some(sender))?;
        // The sender goes when the answer has come, so that this ends.
        while let Some(progress) = decided.recv().await {
            if let Some(field) = field_json(&progress, &self.identity.site) {
                fields.send(field);
            }
        }
        Ok(self.json(request, &given(answer).await?))
    }

    /// All at once; each is judged, and sent to the plant, by itself.
    async fn parts(&self, request: &DecideRequest, parts: &[String]) -> Result<Value, DecideError> {
        let ask = |part: &String| self.ask(request, sentence(part)?, request.dry_run, None);
        let asked: Vec<Answer> = parts.iter().map(ask).collect::<Result<_, _>>()?;
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(self.json(request, &given(answer).await?));
        }
        Ok(json!({ "parts": answers }))
    }

    /// Window by window, never actuated: what stands in a document is not an operator's order.
    async fn document(&self, request: &DecideRequest, text: &str) -> Result<Value, DecideError> {
        let site = &*self.identity.current();
        let start = Instant::now();
        let mut windows = Windows::new(text.as_bytes());
        let mut waiting = VecDeque::with_capacity(WINDOWS_AT_ONCE);
        let mut join = Join::default();
        loop {
            while waiting.len() < WINDOWS_AT_ONCE
                && let Some(Ok(window)) = windows.next()
            {
                let answer = self.ask(request, window.sentence, true, None)?;
                waiting.push_back((window, answer));
            }
            let Some((window, answer)) = waiting.pop_front() else { break };
            let mut record = given(answer).await?;
            for _ in 0..BUSY_RETRIES_MAX {
                if !is_busy(&record) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                record = given(self.ask(request, window.sentence, true, None)?).await?;
            }
            join.add(site, window.range.clone(), &decided(&record));
        }
        let tags: Vec<Option<f64>> =
            (0..site.tags.len()).map(|tag| request.tags.iter().find(|t| t.0 == tag).map(|t| t.1)).collect();
        let outcome = document::Outcome::of(site, join, windows.read_bytes(), start.elapsed(), &tags);
        outcome
            .map(|outcome| outcome.to_json(&self.identity))
            .map_err(|e| DecideError::Internal(e.to_string()))
    }
}

/// Hands on what a mission says, and how it ended.
fn listener(site: Arc<Site>, teller: MissionTeller) -> Listener {
    let (mut teller, mut verdict) = (Some(teller), "rejected");
    Box::new(move |told| match told {
        Told::Word(word) => {
            if word.forecast.is_some() {
                verdict = "approved";
            }
            let event = if word.forecast.is_some() { MissionEvent::Plan } else { MissionEvent::State };
            teller.iter().for_each(|teller| teller.say(event(word.to_json(&site))));
        }
        Told::End(result) => {
            let (outcome, reason) = match result {
                Ok(Ended::Complete) => ("complete", String::new()),
                Ok(Ended::Planned) => ("planned", String::new()),
                Err(failure) => ("failed", failure.to_string()),
            };
            let answer = json!({"outcome": outcome, "verdict": verdict, "reason": reason});
            teller.take().into_iter().for_each(|teller| teller.end(answer.clone()));
        }
    })
}

fn sentence(text: &str) -> Result<Sentence, DecideError> {
    Sentence::new(text).ok_or_else(|| DecideError::Invalid("the text is too long".into()))
}

async fn given(answer: Answer) -> Result<Record, DecideError> {
    answer.await.map_err(|_| DecideError::Unavailable("the answer was lost, or the guard is ending".into()))
}

fn is_busy(record: &Record) -> bool {
    record.verdict == Some(Verdict::Rejected)
        && record.command.is_none()
        && record.reason.as_str().starts_with("busy")
}

/// What the model said about a window; the rule controller's answer is none about the document.
fn decided(record: &Record) -> Decision {
    use ganglion_site::Outcome::{Cache, Completion, Model};
    let model = matches!(record.outcome, Some(Model | Cache | Completion));
    Decision {
        command: record.command.filter(|_| model),
        confidence: record.confidence,
        ..Decision::SIGN_OF_LIFE
    }
}

impl Decider for Desk {
    async fn decide(&self, request: DecideRequest, fields: Option<Fields>) -> Result<Value, DecideError> {
        match &request.subject {
            Subject::Text(text) => self.text(&request, text, fields).await,
            Subject::Parts(parts) => self.parts(&request, parts).await,
            Subject::Document(text) => self.document(&request, text).await,
        }
    }

    fn mission(&self, request: MissionRequest) -> Result<Mission, DecideError> {
        let Some(missions) = &self.missions else {
            return Err(DecideError::Invalid("no mission: the site file has no [plan]".into()));
        };
        let (teller, mission) = Mission::new();
        let listener = Some(listener(Arc::clone(&self.identity.site), teller));
        let order = Order { dry_run: request.dry_run, listener, ..Order::typed(&request.text) };
        if missions.order(order) {
            Ok(mission)
        } else {
            Err(DecideError::Busy("no mission: one is under way".into()))
        }
    }

    fn status(&self) -> Value {
        let site = &self.identity.site;
        self.inbox.status().map_or(Value::Null, |status| super::screen::status_json(&status, site))
    }

    fn site(&self) -> Value {
        let site = &self.identity.site;
        let commands: Vec<_> =
            site.commands.iter().map(|c| json!({"name": c.name, "about": c.about})).collect();
        json!({"name": site.name, "commands": commands, "schema": site.schema()})
    }
}
