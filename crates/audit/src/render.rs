//! A record as JSON.

use crate::chain::Key;
use crate::record::Record;
use ganglion_site::{Command, Event, Outcome, Site, Timings};
use serde_json::{Map, Value, json};

/// What the log says about itself at the start of each file.
#[derive(Debug, Clone)]
pub struct Header {
    /// The site whose names the records use.
    pub site: std::sync::Arc<Site>,
    /// SHA-256 of the model file, hexadecimal; empty when no model answers.
    pub model_sha256: String,
    /// SHA-256 of the site's JSON Schema, hexadecimal.
    pub schema_sha256: String,
}

/// The body of a decision or notice: a JSON object that starts with `seq`.
pub(crate) fn record_body(sequence: u64, wall_ms: u64, record: &Record, site: &Site, key: &Key) -> String {
    let mut map = Map::new();
    map.insert("seq".into(), json!(sequence));
    map.insert("kind".into(), json!(record.kind.as_str()));
    map.insert("time_us".into(), json!(record.time_us));
    map.insert("wall_ms".into(), json!(wall_ms));
    map.insert("mode".into(), json!(record.mode));
    map.insert("breaker".into(), json!(record.breaker));
    map.insert("reason".into(), json!(record.reason.as_str()));
    if let Some(verdict) = record.verdict {
        map.insert("source".into(), json!(record.source.as_str()));
        if let Some(trigger) = record.source.trigger(site) {
            map.insert("trigger".into(), json!(trigger));
        }
        map.insert("request".into(), json!(record.request));
        map.insert("epoch".into(), json!(record.event.epoch));
        map.insert("dry_run".into(), json!(record.event.dry_run));
        map.insert("tags".into(), tags(&record.event, site));
        map.insert("sentence_hmac".into(), sentence(&record.event, key));
        map.insert("outcome".into(), json!(record.outcome.map(Outcome::as_str)));
        map.insert("command".into(), command(record.command.as_ref(), site));
        map.insert("clamped_to".into(), command(record.clamped.as_ref(), site));
        map.insert("verdict".into(), json!(verdict.as_str()));
        map.insert("confidence".into(), json!((f64::from(record.confidence) * 1e4).round() / 1e4));
        map.insert("deadline_us".into(), json!(record.event.deadline_us));
        map.insert("latency_us".into(), json!(record.latency_us));
        map.insert("timings".into(), timings(&record.timings));
        map.insert("actuated".into(), json!(record.actuated));
    }
    Value::Object(map).to_string()
}

/// The body of a file's first line.
pub(crate) fn header_body(sequence: u64, wall_ms: u64, file: u32, previous: &str, header: &Header) -> String {
    json!({
        "seq": sequence, "kind": "header", "wall_ms": wall_ms, "format": 1, "file": file, "previous": previous,
        "site": header.site.name, "model": header.model_sha256, "schema": header.schema_sha256,
    })
    .to_string()
}

/// The body of a line about the log itself.
pub(crate) fn note_body(sequence: u64, wall_ms: u64, note: &Note) -> String {
    match note {
        Note::Gap { lost, reason } => json!({
            "seq": sequence, "kind": "gap", "wall_ms": wall_ms, "lost": lost, "reason": reason,
        }),
        Note::Torn { file, size_bytes, sha256 } => json!({
            "seq": sequence, "kind": "torn", "wall_ms": wall_ms, "file": file, "size_bytes": size_bytes, "sha256": sha256,
            "reason": "an unfinished last line was set aside when the log was opened again",
        }),
        Note::Interrupted { kept, announced } => json!({
            "seq": sequence, "kind": "interrupted", "wall_ms": wall_ms, "kept": kept, "announced": announced,
            "reason": "the writer was interrupted; the records up to `kept` had reached the disk",
        }),
    }
    .to_string()
}

/// A gap's reason: the guard was faster than the disk.
pub(crate) const QUEUE_FULL: &str = "the queue to the writer was full; these records are lost";
/// A gap's reason: the disk took nothing more until the writer's end.
pub(crate) const NOT_STORED: &str =
    "the last writer ended before it could store these records; they are lost";

/// What the log has to say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    Gap { lost: u64, reason: &'static str },
    Torn { file: String, size_bytes: usize, sha256: String },
    Interrupted { kept: u64, announced: u64 },
}

fn tags(event: &Event, site: &Site) -> Value {
    let shown = site.tags.iter().zip(&event.tags).enumerate();
    let shown =
        shown.filter(|(index, _)| event.tags_present.checked_shr(*index as u32).unwrap_or(0) & 1 == 1);
    Value::Object(shown.map(|(_, (tag, value))| (tag.name.clone(), json!(value))).collect())
}

fn sentence(event: &Event, key: &Key) -> Value {
    match event.sentence.as_str() {
        "" => Value::Null,
        text => json!(key.sentence(text)),
    }
}

fn command(command: Option<&Command>, site: &Site) -> Value {
    command.and_then(|c| serde_json::from_str(&c.to_json(site)).ok()).unwrap_or(Value::Null)
}

fn timings(timings: &Timings) -> Value {
    let ms = |us: u32| f64::from(us) / 1000.0;
    json!({
        "prefill_ms": ms(timings.prefill_us), "decode_ms": ms(timings.decode_us), "mask_ms": ms(timings.mask_us),
        "cache_n": timings.cache_n, "prompt_n": timings.prompt_n,
        "predicted_n": timings.predicted_n, "forced_n": timings.forced_n,
        "draft_n": timings.draft_n, "accepted_n": timings.accepted_n, "passes_n": timings.passes_n,
    })
}
