//! A llama-server on the same model, prefix, schema and events, asked in turn with this program.
//!
//! The way a careful user would set it up: one slot whose cache keeps the prefix (`cache_prompt`), the site's JSON Schema as
//! the output's form, greedy. Cold is the same request with the cache left out. Free is warm without the schema, for as many
//! tokens as our command has: what the server's model costs without its grammar, which masks the whole vocabulary wherever
//! the model's first choice is not allowed.

use super::http::Client;
use super::ours::{Events, Totals, WARM_UP, ms, nanoseconds};
use anyhow::{Context, Result};
use ganglion_decide::{Decider, Prompt};
use ganglion_site::{Command, Event, PROMPT_FORM, Site};
use ganglion_tokenizer::Tokenizer;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Far more than a command takes.
const PREDICT_TOKENS_MAX: u32 = 256;

/// How often the peer is asked.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// Ours, then warm, each time.
    pub warm: u64,
    /// Of these rounds, how many have a free and a cold request at their end; they are spread evenly.
    pub cold: u64,
}

/// One kind of request to the peer.
pub struct Side {
    pub latency_ns: Histogram<u64>,
    pub tokens: u64,
    /// Prompt tokens it evaluated; the rest was in its cache.
    pub evaluated: u64,
}

/// Before either side's turn, so that neither meets the other's threads: both sides' look out for more work for a while.
const REST: Duration = Duration::from_millis(20);

/// What both sides did with the same events, in turn.
pub struct Peer {
    pub url: String,
    pub build: String,
    pub ours: Totals,
    pub warm: Side,
    pub cold: Side,
    pub free: Side,
    /// Answers compared with ours.
    pub compared: u64,
    /// Those that were the same command.
    pub same: u64,
    /// Those that were no command of the site.
    pub invalid: u64,
    /// Tokens of prefix and event, on each side, of the first event.
    pub prompt_tokens: (u64, u64),
}

/// How the peer is spoken to.
struct Asker<'a> {
    client: Client,
    site: &'a Site,
    schema: Value,
    prompt: Prompt,
    tokenizer: Tokenizer,
}

/// What a request leaves to the peer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Warm,
    Cold,
    /// So many tokens.
    Free(u64),
}

/// One answer of the peer.
struct Answer {
    latency_ns: u64,
    command: Option<Command>,
    tokens: u64,
    evaluated: u64,
    prompt_tokens: u64,
}

impl Side {
    fn new() -> Result<Self> {
        Ok(Self { latency_ns: nanoseconds()?, tokens: 0, evaluated: 0 })
    }

    fn add(&mut self, answer: &Answer) -> Result<()> {
        self.latency_ns.record(answer.latency_ns)?;
        self.tokens += answer.tokens;
        self.evaluated += answer.evaluated;
        Ok(())
    }

    /// Mean tokens of an answer, and mean prompt tokens evaluated for it.
    pub fn means(&self) -> (f64, f64) {
        let count = self.latency_ns.len().max(1) as f64;
        (self.tokens as f64 / count, self.evaluated as f64 / count)
    }
}

impl Peer {
    /// Medians of the peer over ours: warm, cold, free. [`None`] where nothing was asked.
    pub fn ratios(&self) -> [Option<f64>; 3] {
        [&self.warm, &self.cold, &self.free].map(|side| {
            let asked = !side.latency_ns.is_empty() && !self.ours.latency_ns.is_empty();
            asked.then(|| ms(&side.latency_ns, 0.5) / ms(&self.ours.latency_ns, 0.5))
        })
    }
}

/// Asks both in turn.
pub fn compare(
    url: &str,
    site: &Site,
    prompt: Prompt,
    tokenizer: Tokenizer,
    decider: &mut Decider,
    events: &mut Events,
    rounds: Rounds,
) -> Result<Peer> {
    let mut client = Client::open(url)?;
    let properties = client.ask("/props", None)?;
    let build = properties.get("build_info").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let mut asker = Asker { client, site, schema: site.schema(), prompt, tokenizer };
    let mut warm_up = Totals::new()?;
    let mut prompt_tokens = (0, 0);
    for round in 0..WARM_UP {
        let event = events.next();
        warm_up.time(decider, &event)?;
        let answer = asker.ask(&event, Kind::Warm)?;
        if round == 0 {
            let tokens = &mut Vec::new();
            asker.prompt.event_text(site, &event);
            asker.prompt.event_tokens(&asker.tokenizer, tokens);
            prompt_tokens = ((asker.prompt.prefix().len() + tokens.len()) as u64, answer.prompt_tokens);
        }
    }
    let mut peer = Peer {
        url: url.to_owned(),
        build,
        ours: Totals::new()?,
        warm: Side::new()?,
        cold: Side::new()?,
        free: Side::new()?,
        compared: 0,
        same: 0,
        invalid: 0,
        prompt_tokens,
    };
    for round in 0..rounds.warm {
        let event = events.next();
        let before = peer.ours.tokens;
        std::thread::sleep(REST);
        let ours = peer.ours.time(decider, &event)?;
        let tokens = peer.ours.tokens - before;
        std::thread::sleep(REST);
        let warm = asker.ask(&event, Kind::Warm)?;
        peer.warm.add(&warm)?;
        peer.compared += 1;
        peer.same += u64::from(warm.command.is_some() && warm.command == ours);
        peer.invalid += u64::from(warm.command.is_none());
        if (round + 1) * rounds.cold / rounds.warm > round * rounds.cold / rounds.warm {
            if tokens > 0 {
                peer.free.add(&asker.ask(&event, Kind::Free(tokens))?)?;
            }
            peer.cold.add(&asker.ask(&event, Kind::Cold)?)?;
        }
    }
    Ok(peer)
}

impl Asker<'_> {
    fn ask(&mut self, event: &Event, kind: Kind) -> Result<Answer> {
        let text = self.prompt.event_text(self.site, event).to_owned();
        let prompt = if self.prompt.form() == PROMPT_FORM {
            json!(format!("{}{text}", self.prompt.prefix_text()))
        } else {
            // A chat template has control tokens in it and something behind the event: those go as they are.
            let mut tokens = Vec::new();
            self.prompt.event_tokens(&self.tokenizer, &mut tokens);
            json!([self.prompt.prefix(), tokens.as_slice()].concat())
        };
        let body = match kind {
            Kind::Free(tokens) => json!({
                "prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": true, "ignore_eos": true,
                "id_slot": 0,
            }),
            Kind::Warm | Kind::Cold => json!({
                "prompt": prompt, "n_predict": PREDICT_TOKENS_MAX, "temperature": 0,
                "cache_prompt": kind == Kind::Warm, "json_schema": self.schema, "id_slot": 0,
            }),
        };
        self.client.refresh()?;
        let start = Instant::now();
        let answer = self.client.ask("/completion", Some(&body))?;
        let latency_ns = u64::try_from(start.elapsed().as_nanos())?.max(1);
        let content = answer.get("content").and_then(Value::as_str).context("the answer has no content")?;
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
        let timing = |key: &str| number(answer.get("timings").and_then(|timings| timings.get(key)));
        Ok(Answer {
            latency_ns,
            command: Command::from_json(self.site, content).ok(),
            tokens: number(answer.get("tokens_predicted")),
            evaluated: timing("prompt_n"),
            prompt_tokens: timing("prompt_n") + timing("cache_n"),
        })
    }
}
