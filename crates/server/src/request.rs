//! From a request's bytes to a checked [`DecideRequest`].

use crate::clients::{Clients, ConnectionId};
use crate::error::Refusal;
use crate::limits::{DEADLINE_MS_MAX, PARTS_MAX, SALT_BYTES_MAX};
use axum::http::StatusCode;
use ganglion_io::encode::{find_tag, tag_from_json};
use ganglion_io::lines::check_sentence;
use ganglion_site::Site;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// What is to be decided, checked against the site.
#[derive(Debug, Clone, PartialEq)]
pub struct DecideRequest {
    /// What is asked.
    pub subject: Subject,
    /// Tag indices and values, each tag at most once.
    pub tags: Vec<(usize, f64)>,
    /// Time for the decision, 1 to [`DEADLINE_MS_MAX`]; `None`: the site's.
    pub deadline_ms: Option<u32>,
    /// Decide, check and record, but never actuate.
    pub dry_run: bool,
    /// Whose request it is, for caches: equal for requests that may know of each other, never 0.
    pub client: u64,
}

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One sentence; empty only when there are tags.
    Text(String),
    /// Several sentences, at most [`PARTS_MAX`], each a decision of its own.
    Parts(Vec<String>),
    /// A text of any length.
    Document(String),
}

/// A checked request, and whether its fields are wanted one by one.
pub(crate) struct Asked {
    pub(crate) request: DecideRequest,
    pub(crate) stream: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    text: Option<String>,
    parts: Option<Vec<String>>,
    document: Option<String>,
    cache_salt: Option<String>,
    #[serde(default)]
    stream: bool,
    #[serde(default, deserialize_with = "pairs")]
    tags: Vec<(String, Value)>,
    deadline_ms: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

/// A map with its repeated names, which a usual map would quietly merge.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Value)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of tag names and values")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

pub(crate) fn parse(
    site: &Site,
    bytes: &[u8],
    clients: &Clients,
    connection: ConnectionId,
) -> Result<Asked, Refusal> {
    let body: Body = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::bad_request("bad_json", format!("the body is not as expected: {error}")))?;
    let mut tags: Vec<(usize, f64)> = Vec::with_capacity(body.tags.len().min(site.tags.len()));
    for (name, value) in &body.tags {
        let index = find_tag(site, name).map_err(|e| Refusal::bad_request("unknown_tag", e.to_string()))?;
        if tags.iter().any(|(seen, _)| *seen == index) {
            return Err(Refusal::bad_request("bad_tag", format!("tag `{name}` is given twice")));
        }
        let Some(tag) = site.tags.get(index) else { continue };
        let value = tag_from_json(tag, value).map_err(|e| Refusal::bad_request("bad_tag", e.to_string()))?;
        tags.push((index, value));
    }
    if let Some(found) = body.deadline_ms.filter(|ms| !(1..=DEADLINE_MS_MAX).contains(ms)) {
        let message = format!("deadline_ms: found {found}, expected 1 to {DEADLINE_MS_MAX}");
        return Err(Refusal::bad_request("bad_deadline", message));
    }
    let salt = body.cache_salt.as_deref();
    if let Some(found) = salt.map(str::len).filter(|bytes| !(1..=SALT_BYTES_MAX).contains(bytes)) {
        let message = format!("cache_salt: found {found} bytes, expected 1 to {SALT_BYTES_MAX}");
        return Err(Refusal::bad_request("bad_salt", message));
    }
    let (client, stream) = (clients.number(salt, connection), body.stream);
    let (deadline_ms, dry_run) = (body.deadline_ms, body.dry_run);
    let subject = subject(body.text, body.parts, body.document, !tags.is_empty())?;
    if stream && !matches!(subject, Subject::Text(_)) {
        return Err(Refusal::bad_request("bad_stream", "stream: true goes with text only"));
    }
    Ok(Asked { request: DecideRequest { subject, tags, deadline_ms, dry_run, client }, stream })
}

/// Exactly one of the three; a text may be left out where there are tags.
fn subject(
    text: Option<String>,
    parts: Option<Vec<String>>,
    document: Option<String>,
    has_tags: bool,
) -> Result<Subject, Refusal> {
    let sentence = |field: &str, text: &str| {
        check_sentence(text.trim()).map_err(|reason| {
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_text", format!("{field}: {reason}"))
        })
    };
    match (text, parts, document) {
        (text, None, None) => match text.as_deref().unwrap_or("").trim() {
            "" if has_tags => Ok(Subject::Text(String::new())),
            text => sentence("text", text).map(Subject::Text),
        },
        (None, Some(parts), None) => {
            if !(1..=PARTS_MAX).contains(&parts.len()) {
                let message = format!("parts: found {}, expected 1 to {PARTS_MAX} sentences", parts.len());
                return Err(Refusal::bad_request("bad_parts", message));
            }
            let checked = parts.iter().enumerate().map(|(i, part)| sentence(&format!("parts[{i}]"), part));
            checked.collect::<Result<_, _>>().map(Subject::Parts)
        }
        (None, None, Some(document)) if document.trim().is_empty() => {
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_text", "document: empty"))
        }
        (None, None, Some(document)) => Ok(Subject::Document(document)),
        _ => Err(Refusal::bad_request("bad_subject", "expected one of text, parts and document")),
    }
}
