//! One event in progress.

use crate::choice::Confidence;
use crate::declined::Declined;
use crate::doubt;
use crate::exchange::Exchange;
use crate::guess::{Source, Words};
use crate::limits::{COMMAND_TOKENS_MAX, GRACE_SHARE, GRACE_US_MAX};
use crate::reader::Decided;
use ganglion_grammar::limits::{FORCED_RUN_TOKENS_MAX, OUTPUT_BYTES_MAX};
use ganglion_grammar::{Constraint, StateId};
use ganglion_site::{Decision, Event, Micros, Outcome, Progress, Site, Timings, Value};
use ganglion_tokenizer::{TokenId, Tokenizer};

/// An event from its first pass to its answer, and room for the next. It allocates when it is made, and never again.
pub(crate) struct Slot {
    /// Whether an answer is owed.
    pub(crate) is_open: bool,
    /// Of the events of this run, which.
    pub(crate) number: usize,
    pub(crate) event: Event,
    /// The event's text in its canonical form, and its words.
    pub(crate) text: String,
    pub(crate) words: Words,
    pub(crate) constraint: Option<Constraint>,
    /// Tokens of the command so far, and their bytes.
    pub(crate) answer: Vec<TokenId>,
    pub(crate) written: Vec<u8>,
    /// How many of the pending tokens are no guesses.
    pub(crate) certain: usize,
    /// What the guesses behind them were made from, one a choice.
    pub(crate) sources: Vec<Source>,
    /// The choices so far: where and what.
    pub(crate) choices: Vec<(StateId, TokenId)>,
    pub(crate) confidence: Confidence,
    pub(crate) timings: Timings,
    pub(crate) begun_us: Micros,
    /// Fields that were handed on; the action is the first.
    reported: usize,
    /// Whose event the slot's sequence holds.
    pub(crate) held_for: u64,
}

impl Slot {
    pub(crate) fn new(text_bytes: usize) -> Self {
        let tokens = COMMAND_TOKENS_MAX + FORCED_RUN_TOKENS_MAX;
        Self {
            is_open: false,
            number: 0,
            event: Event::new(0, 0),
            text: String::with_capacity(text_bytes),
            words: Words::default(),
            constraint: None,
            answer: Vec::with_capacity(tokens),
            written: Vec::with_capacity(OUTPUT_BYTES_MAX),
            certain: 0,
            sources: Vec::with_capacity(tokens),
            choices: Vec::with_capacity(tokens),
            confidence: Confidence::FULL,
            timings: Timings::default(),
            begun_us: 0,
            reported: 0,
            held_for: 0,
        }
    }

    /// Makes room for an event.
    pub(crate) fn open(&mut self, number: usize, event: &Event, text: &str, now: Micros) {
        self.is_open = true;
        self.number = number;
        self.event = *event;
        self.text.clear();
        self.text.push_str(text);
        self.words = Words::of(text);
        self.constraint = None;
        self.answer.clear();
        self.written.clear();
        self.certain = 0;
        self.sources.clear();
        self.choices.clear();
        self.confidence = Confidence::FULL;
        self.timings = Timings::default();
        self.begun_us = now;
        self.reported = 0;
    }

    /// Appends a token of the command.
    pub(crate) fn write(&mut self, tokenizer: &Tokenizer, token: TokenId) {
        self.answer.push(token);
        self.written.extend_from_slice(tokenizer.token_bytes(token));
    }

    /// Hands the fields on that were decided since the last time, to a client who wants them, as long as the model is sure.
    pub(crate) fn report(&mut self, site: &Site, exchange: &mut dyn Exchange) {
        if !self.event.stream || !doubt::is_sure(site, self.confidence) {
            return;
        }
        let Some(decided) = self.decided(site) else { return };
        let field = |argument: Option<usize>, value| Progress {
            epoch: self.event.epoch,
            verb: decided.verb,
            argument,
            value,
        };
        let action = std::iter::once(field(None, Value::Absent));
        let values = decided.values.iter().take(decided.arguments).enumerate();
        let arguments = values.map(|(index, value)| field(Some(index), *value));
        for progress in action.chain(arguments).skip(self.reported) {
            exchange.decided(self.number, progress);
        }
        self.reported = self.reported.max(1 + decided.arguments);
    }

    fn decided(&self, site: &Site) -> Option<Decided> {
        Decided::read(site, std::str::from_utf8(&self.written).ok()?)
    }

    /// Answers without the model having decided everything: with the site's defaults where time ran out and they are all that
    /// is missing, else with nothing but the reason.
    pub(crate) fn give_up(&mut self, site: &Site, why: &Declined, exchange: &mut dyn Exchange) {
        let is_of_use = why.is_time() && !self.is_over(exchange.now());
        let completed = self.decided(site).filter(|_| is_of_use).and_then(|decided| decided.complete(site));
        let decision = match completed {
            Some(command) => {
                let (command, reason) = doubt::settle(site, self.confidence, command);
                Decision {
                    epoch: self.event.epoch,
                    command: Some(command),
                    outcome: Outcome::Completion,
                    confidence: self.confidence.margin,
                    timings: self.timings,
                    reason,
                }
            }
            None => why.decision(&self.event, self.timings),
        };
        self.answer_with(decision, exchange);
    }

    /// Whether an answer that is given now comes too late even for the guard, which waits a little longer than it says: a
    /// command would do nothing but look like a fault.
    pub(crate) fn is_over(&self, now: Micros) -> bool {
        let span_us = self.event.deadline_us.saturating_sub(self.begun_us);
        now > self.event.deadline_us.saturating_add((span_us / GRACE_SHARE).min(GRACE_US_MAX))
    }

    pub(crate) fn answer_with(&mut self, decision: Decision, exchange: &mut dyn Exchange) {
        self.is_open = false;
        exchange.answer(self.number, decision);
    }
}
