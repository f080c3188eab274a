//! The JSON of one decision: what `ask --json`, `run --json` and `POST /v1/decide` give.

use ganglion_guard::Verdict;
use ganglion_site::{ArgumentKind, Command, Outcome, Progress, Site, Timings};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What every answer of a run repeats.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The site whose names are used: what another policy cannot change.
    pub site: Arc<Site>,
    /// SHA-256 of the model files, by variant.
    pub models: Arc<[String]>,
    /// The variant that answers.
    level: Arc<AtomicU8>,
    /// The site with the policy that holds now.
    current: Arc<Mutex<Arc<Site>>>,
    /// SHA-256 of the site's JSON Schema.
    pub schema_sha256: String,
}

impl Identity {
    /// A site and the hashes of its models; the first one answers.
    pub fn new(site: &Arc<Site>, models: Vec<String>) -> Self {
        let schema_sha256 = site.schema_sha256();
        let current = Arc::new(Mutex::new(Arc::clone(site)));
        Self { site: Arc::clone(site), models: models.into(), level: Arc::default(), current, schema_sha256 }
    }

    /// The site with the policy that holds now: its limits, safe command, deadline and staleness.
    pub fn current(&self) -> Arc<Site> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another policy holds from now on.
    pub fn adopt(&self, site: &Arc<Site>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(site);
    }

    /// Of the model file that answers.
    pub fn model_sha256(&self) -> &str {
        let level = usize::from(self.level.load(Ordering::Acquire));
        self.models.get(level).map_or("", String::as_str)
    }

    /// Another variant answers from now on.
    pub fn answers_with(&self, level: u8) {
        self.level.store(level, Ordering::Release);
    }
}

/// One decision and what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Where it came from.
    pub outcome: Outcome,
    /// As it would go (or went) to the plant; `None` when there is none.
    pub command: Option<Command>,
    /// What the guard says.
    pub verdict: Verdict,
    /// Why it was clamped, rejected or not decided; empty otherwise.
    pub reason: &'a str,
    /// 0 to 1.
    pub confidence: f32,
    /// Time that was given.
    pub deadline_ms: f64,
    /// Time that was taken.
    pub latency_ms: f64,
    /// Where it went.
    pub timings: Timings,
}

impl Answer<'_> {
    /// The object, keys in documented order.
    pub fn to_json(self, identity: &Identity) -> Value {
        let ms = |us: u32| f64::from(us) / 1000.0;
        let t = &self.timings;
        json!({
            "outcome": self.outcome.as_str(),
            "command": self.command.map(|c| command_json(&c, &identity.site)),
            "verdict": self.verdict.as_str(),
            "reason": self.reason,
            "confidence": (f64::from(self.confidence) * 1e4).round() / 1e4,
            "deadline_ms": self.deadline_ms,
            "latency_ms": self.latency_ms,
            "timings": {
                "prefill_ms": ms(t.prefill_us), "decode_ms": ms(t.decode_us), "mask_ms": ms(t.mask_us),
                "cache_n": t.cache_n, "prompt_n": t.prompt_n, "predicted_n": t.predicted_n, "forced_n": t.forced_n,
                "draft_n": t.draft_n, "accepted_n": t.accepted_n, "passes_n": t.passes_n,
            },
            "model": identity.model_sha256(),
            "schema": identity.schema_sha256,
        })
    }
}

/// A field of a command that is being decided: `{"action": …}`, or `{"action": …, "argument": …, "value": …}`.
pub fn field_json(progress: &Progress, site: &Site) -> Option<Value> {
    let spec = site.commands.get(usize::from(progress.verb))?;
    let Some(index) = progress.argument else { return Some(json!({ "action": spec.name })) };
    let argument = spec.arguments.get(index)?;
    let value = match (&progress.value, &argument.kind) {
        (ganglion_site::Value::Choice(choice), ArgumentKind::Enum(choices)) => {
            json!(choices.get(usize::from(*choice))?)
        }
        (ganglion_site::Value::Integer(value), _) => json!(value),
        (ganglion_site::Value::Number(value), _) => json!(value),
        (ganglion_site::Value::Bool(value), _) => json!(value),
        (ganglion_site::Value::Text(text), _) => json!(text.as_str()),
        _ => return None,
    };
    Some(json!({ "action": spec.name, "argument": argument.name, "value": value }))
}

/// A command as an object.
pub fn command_json(command: &Command, site: &Site) -> Value {
    serde_json::from_str(&command.to_json(site)).unwrap_or(Value::Null)
}
