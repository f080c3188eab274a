//! From a request's bytes to a checked [`DecideRequest`].

use crate::error::Refusal;
use crate::limits::DEADLINE_MS_MAX;
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
    /// The operator's sentence; empty only when there are tags.
    pub text: String,
    /// Tag indices and values, each tag at most once.
    pub tags: Vec<(usize, f64)>,
    /// Time for the decision, 1 to [`DEADLINE_MS_MAX`]; `None`: the site's.
    pub deadline_ms: Option<u32>,
    /// Decide, check and record, but never actuate.
    pub dry_run: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    text: String,
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

pub(crate) fn parse(site: &Site, bytes: &[u8]) -> Result<DecideRequest, Refusal> {
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
    let text = match body.text.trim() {
        "" if !tags.is_empty() => String::new(),
        text => check_sentence(text).map_err(|reason| {
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_text", format!("text: {reason}"))
        })?,
    };
    Ok(DecideRequest { text, tags, deadline_ms: body.deadline_ms, dry_run: body.dry_run })
}
