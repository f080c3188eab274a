//! A mission: what is ordered, and what becomes of it, as server-sent events: `state` for each transition, `plan` for each
//! verified plan, then `answer`.

use crate::error::{DecideError, Refusal};
use crate::limits::{KEEP_ALIVE_MS, MISSION_EVENTS_WAITING_MAX};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use ganglion_io::lines::check_sentence;
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// An instruction of several steps. What its clauses mean is decided later, one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissionRequest {
    /// What is to be done.
    pub text: String,
    /// Plan and verify, but never actuate.
    pub dry_run: bool,
}

/// Something that a mission says on its way, as JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum MissionEvent {
    /// It has come to another state.
    State(Value),
    /// It has come to another state with a plan that was verified.
    Plan(Value),
}

/// A mission under way, to be listened to. It goes on when nobody does.
#[derive(Debug)]
pub struct Mission {
    events: mpsc::Receiver<MissionEvent>,
    answer: oneshot::Receiver<Value>,
}

/// The other end of a [`Mission`].
#[derive(Debug)]
pub struct MissionTeller {
    events: mpsc::Sender<MissionEvent>,
    answer: oneshot::Sender<Value>,
}

impl Mission {
    /// Both ends.
    pub fn new() -> (MissionTeller, Self) {
        let (tell, events) = mpsc::channel(MISSION_EVENTS_WAITING_MAX);
        let (give, answer) = oneshot::channel();
        (MissionTeller { events: tell, answer: give }, Self { events, answer })
    }
}

impl MissionTeller {
    /// Hands one on; never waits. One that comes when too many wait for a slow client is left out.
    pub fn say(&self, event: MissionEvent) {
        let _ = self.events.try_send(event);
    }

    /// How it ended.
    pub fn end(self, answer: Value) {
        // The client may have left.
        let _ = self.answer.send(answer);
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    text: String,
    #[serde(default)]
    dry_run: bool,
}

/// From a request's bytes to a checked instruction, which has the bounds of a typed one.
pub(crate) fn parse(bytes: &[u8]) -> Result<MissionRequest, Refusal> {
    let body: Body = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::bad_request("bad_json", format!("the body is not as expected: {error}")))?;
    let text = check_sentence(body.text.trim()).map_err(|reason| {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_text", format!("text: {reason}"))
    })?;
    Ok(MissionRequest { text, dry_run: body.dry_run })
}

/// What is sent. Holds the request's place among those under way.
struct Events {
    mission: Option<Mission>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(mission) = &mut self.mission else { return Poll::Ready(None) };
        let (name, data) = match ready!(mission.events.poll_recv(context)) {
            Some(MissionEvent::State(state)) => ("state", state),
            Some(MissionEvent::Plan(plan)) => ("plan", plan),
            None => {
                let answer = ready!(Pin::new(&mut mission.answer).poll(context));
                self.mission = None;
                match answer {
                    Ok(answer) => ("answer", answer),
                    Err(_) => {
                        let ended = DecideError::Unavailable("the run has ended before the mission".into());
                        ("error", Refusal::from(ended).to_json())
                    }
                }
            }
        };
        Poll::Ready(Some(Ok(Event::default().event(name).data(data.to_string()))))
    }
}

/// Answers with everything that the mission says. There is no time limit: a mission takes as long as its steps do.
pub(crate) fn respond(permit: Arc<OwnedSemaphorePermit>, mission: Mission) -> Response {
    let events = Events { mission: Some(mission), _permit: permit };
    // A connection on which nothing moves is closed, and a step may take minutes.
    let alive = KeepAlive::new().interval(Duration::from_millis(KEEP_ALIVE_MS));
    Sse::new(events).keep_alive(alive).into_response()
}
