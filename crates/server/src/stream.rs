//! An answer in parts, as server-sent events: `field` for each field as soon as it is decided and checked, then `answer`, or
//! `error`.

use crate::error::Refusal;
use crate::limits::{FIELDS_WAITING_MAX, REQUEST_MS_MAX};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// Where a [`Decider`](crate::Decider) puts the fields of a command while it is being decided. One that comes when too many
/// wait is left out: the answer has them all.
#[derive(Debug, Clone)]
pub struct Fields {
    sender: Sender<Part>,
}

impl Fields {
    /// Hands one on.
    pub fn send(&self, field: Value) {
        let _ = self.sender.try_send(Part::Field(field));
    }
}

#[derive(Debug)]
enum Part {
    Field(Value),
    Answer(Result<Value, Refusal>),
}

/// What is sent; ends behind the answer. Holds the request's place among those under way.
struct Parts {
    parts: Receiver<Part>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Stream for Parts {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.parts.poll_recv(context).map(|part| {
            let event = Event::default();
            let (name, data) = match part? {
                Part::Field(field) => ("field", field),
                Part::Answer(Ok(answer)) => ("answer", answer),
                Part::Answer(Err(refusal)) => ("error", refusal.to_json()),
            };
            Some(Ok(event.event(name).data(data.to_string())))
        })
    }
}

/// Answers with what `decide` gives: its fields while it runs, and its result. It is dropped when the client leaves.
pub(crate) fn respond<F>(permit: Arc<OwnedSemaphorePermit>, decide: impl FnOnce(Fields) -> F) -> Response
where
    F: Future<Output = Result<Value, crate::DecideError>> + Send + 'static,
{
    let (sender, parts) = channel(FIELDS_WAITING_MAX);
    let deciding = decide(Fields { sender: sender.clone() });
    tokio::spawn(async move {
        let in_time = async {
            let late = || crate::DecideError::Timeout(format!("not answered in {REQUEST_MS_MAX} ms"));
            timeout(Duration::from_millis(REQUEST_MS_MAX), deciding).await.unwrap_or_else(|_| Err(late()))
        };
        let answer = tokio::select! {
            answer = in_time => answer,
            () = sender.closed() => return,
        };
        let _ = sender.send(Part::Answer(answer.map_err(Refusal::from))).await;
    });
    Sse::new(Parts { parts, _permit: permit }).into_response()
}
