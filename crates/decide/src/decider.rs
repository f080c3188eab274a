//! The decision itself: events in, passes through the model, commands out.

use crate::choice::{Chooser, Confidence};
use crate::cost::PassCost;
use crate::declined::Declined;
use crate::doubt;
use crate::error::Result;
use crate::exchange::{Exchange, List};
use crate::guess::{Guesser, Here};
use crate::limits::COMMAND_TOKENS_MAX;
use crate::loaded::{LoadedModel, check_context};
use crate::memo::Memo;
use crate::prompt::Prompt;
use crate::reader;
use crate::slot::Slot;
use ganglion_grammar::{Constraint, Grammar};
use ganglion_llm::{Part, Session};
use ganglion_site::limits::PARALLEL_MAX;
use ganglion_site::{Command, Decision, Event, Micros, Outcome, Site};
use ganglion_tokenizer::{TokenId, Tokenizer};
use std::sync::Arc;

/// How a decider is set up. Nothing of it changes a command.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Answer an event seen before from memory.
    pub memo: bool,
    /// Let the model look at several choices in one pass, by guessing what it will choose.
    pub drafts: bool,
}

impl Options {
    /// Every event is decided token by token.
    pub const PLAIN: Self = Self { memo: false, drafts: false };
}

impl Default for Options {
    /// Everything that makes decisions fast.
    fn default() -> Self {
        Self { memo: true, drafts: true }
    }
}

/// A site with its model loaded and its prefix evaluated: ready for events.
pub struct Decider {
    site: Arc<Site>,
    tokenizer: Arc<Tokenizer>,
    grammar: Grammar,
    prompt: Prompt,
    session: Session,
    memo: Option<Memo>,
    guesser: Option<Guesser>,
    chooser: Chooser,
    cost: PassCost,
    /// Passes that a command takes, lately.
    passes: f64,
    /// One for each sequence of the session.
    slots: Vec<Slot>,
    /// Of each slot, the tokens to be evaluated next: first certain ones, then guesses.
    pending: Vec<Vec<TokenId>>,
    allowed: Vec<TokenId>,
    spelled: Vec<u8>,
    written: String,
    masks_generally: bool,
    confidence: Confidence,
}

/// The slots of one pass, most urgent first, and how many tokens of each are in it.
#[derive(Default)]
struct Plan {
    parts: [(usize, usize); PARALLEL_MAX],
    count: usize,
    tokens: usize,
}

impl Plan {
    fn add(&mut self, slot: usize, tokens: usize) {
        if let Some(place) = self.parts.get_mut(self.count) {
            *place = (slot, tokens);
            self.count += 1;
            self.tokens += tokens;
        }
    }

    fn parts(&self) -> &[(usize, usize)] {
        self.parts.get(..self.count).unwrap_or(&[])
    }
}

impl Decider {
    /// Compiles the site's schema and evaluates its prefix, or reads what an earlier run evaluated.
    ///
    /// # Errors
    /// Whatever makes the model unusable for this site, with what to change.
    pub fn new(site: Arc<Site>, loaded: &LoadedModel, options: Options) -> Result<Self> {
        let mut prompt = Prompt::new(&site, loaded)?;
        let grammar = loaded.engine.compile(&site.schema())?;
        let context_tokens = check_context(&site, &prompt, loaded.model.config().context_length)?;
        let vocabulary = loaded.model.config().vocab_size;
        let session = loaded.session(&site, prompt.prefix())?;
        let mut longest = Vec::with_capacity(context_tokens);
        let text_bytes = prompt.warm(&site, &loaded.tokenizer, &mut longest);
        let count = session.options().sequences;
        Ok(Self {
            chooser: Chooser::new(vocabulary, site.model.confidence.feasible_mass > 0.0),
            site,
            tokenizer: Arc::clone(&loaded.tokenizer),
            grammar,
            prompt,
            session,
            memo: options.memo.then(Memo::default),
            guesser: options.drafts.then(Guesser::new),
            cost: PassCost::default(),
            passes: 4.0,
            slots: (0..count).map(|_| Slot::new(text_bytes)).collect(),
            pending: (0..count)
                .map(|_| Vec::with_capacity(longest.capacity() + COMMAND_TOKENS_MAX))
                .collect(),
            allowed: Vec::with_capacity(vocabulary),
            spelled: Vec::with_capacity(ganglion_grammar::limits::OUTPUT_BYTES_MAX),
            written: String::with_capacity(ganglion_grammar::limits::OUTPUT_BYTES_MAX),
            masks_generally: false,
            confidence: Confidence::FULL,
        })
    }

    /// Whether masks and the second look come from the general engines even where the site's commands are bounded: slow, to
    /// compare the two.
    pub fn mask_generally(&mut self, on: bool) {
        self.masks_generally = on;
    }

    /// Whether [`Confidence::feasible_mass`] is measured: one product with the whole head a decision. A site that asks for
    /// some has it measured from the start.
    pub fn measure_feasible_mass(&mut self, on: bool) {
        self.chooser.measures_feasible_mass = on;
    }

    /// How sure the model was of the command it last decided.
    pub fn confidence(&self) -> Confidence {
        self.confidence
    }

    /// How the site's commands are masked: by a table, or why not.
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// How the site speaks to its model.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// How many events can share a pass.
    pub fn parallel(&self) -> usize {
        self.slots.len()
    }

    /// Decides one event. `now` reads the clock that `event.deadline_us` is on; it is looked at before every layer.
    ///
    /// Same site, model and event: same command and confidence, bit for bit, as long as the deadline is not reached.
    pub fn decide(&mut self, event: &Event, now: &mut dyn FnMut() -> Micros) -> Decision {
        let mut answer = None;
        self.decide_all(std::slice::from_ref(event), now, &mut |_, decision| answer = Some(decision));
        // Each event gets its answer: what stands here instead is never seen.
        answer.unwrap_or(Decision { epoch: event.epoch, ..Decision::SIGN_OF_LIFE })
    }

    /// Decides several events, as many at a time as the site has room for; `answer` gets each one's place in `events` and its
    /// decision, in the order in which they are decided.
    ///
    /// Each decision is what [`Self::decide`] gives for the event alone.
    pub fn decide_all(
        &mut self,
        events: &[Event],
        now: &mut dyn FnMut() -> Micros,
        answer: &mut dyn FnMut(usize, Decision),
    ) {
        self.run(&mut List { events: events.iter(), now, answer });
    }

    /// Decides events until there is none left. Those that are there at the same time share passes, the earliest deadline
    /// first; an event that comes while others are being decided joins them at their next pass, unless it would make one of
    /// them late.
    pub fn run(&mut self, exchange: &mut dyn Exchange) {
        let mut taken = 0;
        loop {
            let before = taken;
            self.admit(&mut taken, exchange);
            if self.slots.iter().any(|slot| slot.is_open) {
                self.pass(exchange);
            } else if taken == before {
                return;
            }
        }
    }

    /// Fills free slots; what the memo knows is answered at once.
    fn admit(&mut self, taken: &mut usize, exchange: &mut dyn Exchange) {
        for index in 0..self.slots.len() {
            if self.slots.get(index).is_some_and(|slot| slot.is_open) {
                continue;
            }
            let Some(event) = exchange.next() else { return };
            let (number, now) = (*taken, exchange.now());
            *taken += 1;
            if now > event.deadline_us {
                exchange.answer(number, Declined::Expired.decision(&event, Default::default()));
                continue;
            }
            let text = self.prompt.event_text(&self.site, &event);
            if let Some(known) = self.memo.as_ref().and_then(|memo| memo.get(event.client, text)) {
                let (epoch, outcome, timings) =
                    (event.epoch, Outcome::Cache, ganglion_site::Timings::default());
                exchange.answer(number, Decision { epoch, outcome, timings, ..*known });
                continue;
            }
            let Some(slot) = self.slots.get_mut(index) else { return };
            slot.open(number, &event, text, now);
            if let Err(why) = self.begin(index) {
                self.give_up(index, &why, exchange);
            } else if self
                .slots
                .get_mut(index)
                .and_then(|slot| slot.constraint.as_mut())
                .is_some_and(Constraint::is_complete)
            {
                self.finish(index, exchange);
            }
        }
    }

    /// Tokens and constraint of an event that was just opened.
    fn begin(&mut self, index: usize) -> std::result::Result<(), Declined> {
        let prefix = self.prompt.prefix().len();
        let (Some(slot), Some(pending)) = (self.slots.get_mut(index), self.pending.get_mut(index)) else {
            return Ok(());
        };
        if slot.text.is_empty() {
            return Err(Declined::Because("the event is empty: no sentence and no usable tag value".into()));
        }
        self.prompt.event_tokens(&self.tokenizer, pending);
        // What the client's last event here began with need not be evaluated again.
        let held = self.session.tokens_of(index).get(prefix..).filter(|_| slot.held_for == slot.event.client);
        let both = held.unwrap_or(&[]).iter().zip(pending.iter().take(pending.len().saturating_sub(1)));
        let same = both.take_while(|(held, wanted)| held == wanted).count();
        slot.held_for = slot.event.client;
        self.session.truncate_sequence(index, prefix + same)?;
        pending.drain(..same);
        slot.timings.cache_n = count(prefix + same);
        slot.timings.prompt_n = count(pending.len());
        let room = self.session.remaining_of(index).saturating_sub(COMMAND_TOKENS_MAX);
        if pending.len() > room {
            return Err(Declined::Because(format!(
                "the event takes {} tokens, the context leaves {}: shorten the sentence",
                same + pending.len(),
                same + room
            )));
        }
        let mut constraint =
            if self.masks_generally { self.grammar.start_general()? } else { self.grammar.start() };
        let first = pending.len();
        constraint.take_forced(pending)?;
        for token in pending.get(first..).unwrap_or(&[]) {
            slot.write(&self.tokenizer, *token);
        }
        slot.timings.forced_n = count(slot.answer.len());
        slot.certain = pending.len();
        slot.constraint = Some(constraint);
        Ok(())
    }

    /// One pass for the events that are most urgent, and what follows from it.
    fn pass(&mut self, exchange: &mut dyn Exchange) {
        let before_us = exchange.now();
        let plan = self.plan(before_us, exchange);
        let Self { session, slots, pending, site, .. } = self;
        let mut parts = [Part::default(); PARALLEL_MAX];
        for (part, &(sequence, tokens)) in parts.iter_mut().zip(plan.parts()) {
            let tokens = pending.get(sequence).and_then(|pending| pending.get(..tokens)).unwrap_or(&[]);
            *part = Part { sequence, tokens };
        }
        let parts = parts.get(..plan.count).unwrap_or(&[]);
        if parts.is_empty() {
            return;
        }
        let outcome = session.prefill_parts(parts, &mut || {
            let now = exchange.now();
            let mut is_anybody_left = false;
            for &(index, _) in plan.parts() {
                let Some(slot) = slots.get_mut(index).filter(|slot| slot.is_open) else { continue };
                if now > slot.event.deadline_us {
                    slot.give_up(site, &Declined::Expired, exchange);
                } else {
                    is_anybody_left = true;
                }
            }
            !is_anybody_left
        });
        let after_us = exchange.now();
        if outcome.is_ok() {
            self.cost.observe(plan.tokens, after_us.saturating_sub(before_us));
        }
        let failed = outcome.err().map(Declined::from);
        let mut first_row = 0;
        for &(index, tokens) in plan.parts() {
            let row = first_row;
            first_row += tokens;
            let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.is_open) else { continue };
            slot.timings.passes_n += 1;
            if slot.timings.prefill_us == 0 && tokens >= slot.certain {
                slot.timings.prefill_us = span(slot.begun_us, after_us).max(1);
            }
            let done = match &failed {
                Some(Declined::Because(why)) => Err(Declined::Because(why.clone())),
                Some(_) => Err(Declined::Expired),
                None => self.look_at(index, row, tokens, exchange),
            };
            match done {
                Ok(true) => self.finish(index, exchange),
                Ok(false) => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        slot.report(&self.site, exchange);
                    }
                }
                Err(why) => self.give_up(index, &why, exchange),
            }
        }
    }

    /// Who is in the next pass, with how many tokens. Events that cannot be answered in time any more are given up here.
    fn plan(&mut self, now: Micros, exchange: &mut dyn Exchange) -> Plan {
        let mut plan = Plan::default();
        let batch = self.session.options().batch_tokens;
        let mut order = [0; PARALLEL_MAX];
        let mut waiting = 0;
        for (place, (index, _)) in
            order.iter_mut().zip(self.slots.iter().enumerate().filter(|slot| slot.1.is_open))
        {
            *place = index;
            waiting += 1;
        }
        let order = order.get_mut(..waiting).unwrap_or(&mut []);
        order.sort_unstable_by_key(|&index| {
            self.slots.get(index).map(|slot| (slot.event.deadline_us, slot.number))
        });
        for &index in order.iter() {
            let Some(slot) = self.slots.get(index) else { continue };
            let (certain, deadline_us) = (slot.certain, slot.event.deadline_us);
            if now > deadline_us {
                self.give_up(index, &Declined::Expired, exchange);
                continue;
            }
            if let Some((needed_us, left_us)) = self.cost.too_late(certain.min(batch), now, deadline_us) {
                self.give_up(index, &Declined::TooLate { needed_us, left_us }, exchange);
                continue;
            }
            let tokens = certain.min(batch - plan.tokens);
            if tokens > 0 && !self.makes_another_late(&plan, tokens, now) {
                plan.add(index, tokens);
            }
        }
        // Guesses take what room is left.
        for place in 0..plan.count {
            let Some(&(index, tokens)) = plan.parts.get(place) else { continue };
            if self.slots.get(index).is_some_and(|slot| slot.certain == tokens) {
                let guessed = self.guess_ahead(index, batch - plan.tokens);
                if let Some(part) = plan.parts.get_mut(place) {
                    part.1 += guessed;
                    plan.tokens += guessed;
                }
            }
        }
        plan
    }

    /// Whether more tokens in this pass would bring an event behind its deadline that is in time without them, by what is
    /// known of the cost.
    fn makes_another_late(&self, plan: &Plan, tokens: usize, now: Micros) -> bool {
        let ends = |tokens: usize, slot: &Slot| {
            let more = (self.passes - f64::from(slot.timings.passes_n) - 1.0).max(0.0);
            let step_us = self.cost.expected_us(1) as f64;
            now + self.cost.expected_us(tokens) + (more * step_us) as Micros
        };
        plan.parts().iter().filter_map(|&(index, _)| self.slots.get(index)).any(|slot| {
            let deadline_us = slot.event.deadline_us;
            ends(plan.tokens, slot) <= deadline_us && ends(plan.tokens + tokens, slot) > deadline_us
        })
    }

    /// Appends guesses to a slot's pending tokens, as many as pay and as there is room for; returns how many tokens.
    ///
    /// A guess that is right saves a pass, one that is wrong costs its tokens: it is made while the one outweighs the other.
    fn guess_ahead(&mut self, index: usize, room: usize) -> usize {
        let Self { guesser: Some(guesser), slots, pending, tokenizer, grammar, cost, spelled, .. } = self
        else {
            return 0;
        };
        let (Some(slot), Some(pending), Ok(automaton)) =
            (slots.get_mut(index), pending.get_mut(index), grammar.automaton())
        else {
            return 0;
        };
        let Some(mut state) = slot.constraint.as_ref().and_then(Constraint::state) else { return 0 };
        let (pass_cost, token_cost) = cost.parts();
        spelled.clear();
        spelled.extend_from_slice(&slot.written);
        let (before, mut chance) = (pending.len(), 1.0);
        loop {
            let here = Here {
                tokenizer,
                automaton,
                state,
                written: spelled,
                event: slot.text.as_bytes(),
                words: slot.words,
            };
            let Some(guess) = guesser.guess(slot.event.client, &here) else { break };
            let Some(next) = automaton.next(state, guess.token) else { break };
            let run = automaton.run(next);
            chance *= f64::from(guess.rate);
            let tokens = 1 + run.len();
            let pays = chance * pass_cost > (1.0 - chance) * token_cost * tokens as f64;
            // Behind the last choice there is nothing to look at.
            if !pays || pending.len() - before + tokens > room || automaton.is_complete(next) {
                break;
            }
            slot.sources.push(guess.source);
            for &token in std::iter::once(&guess.token).chain(run) {
                pending.push(token);
                spelled.extend_from_slice(tokenizer.token_bytes(token));
            }
            state = next;
        }
        let guessed = pending.len() - before;
        slot.timings.draft_n += count(guessed);
        guessed
    }

    /// Takes the model's choices out of a pass in which a slot's tokens have the rows from `row` on. True: the command is
    /// whole.
    fn look_at(
        &mut self,
        index: usize,
        row: usize,
        tokens: usize,
        exchange: &mut dyn Exchange,
    ) -> std::result::Result<bool, Declined> {
        let (Some(slot), Some(pending)) = (self.slots.get_mut(index), self.pending.get_mut(index)) else {
            return Ok(false);
        };
        if tokens < slot.certain {
            pending.drain(..tokens);
            slot.certain -= tokens;
            return Ok(false);
        }
        let Some(mut constraint) = slot.constraint.take() else { return Ok(false) };
        let first = self.session.position_of(index) - tokens;
        let mut guesses = slot.sources.len();
        let mut at = slot.certain - 1;
        let mut seen = 0;
        let chosen_at = loop {
            let before_us = exchange.now();
            let state = constraint.state();
            constraint.allowed(&mut self.allowed)?;
            slot.timings.mask_us += span(before_us, exchange.now());
            let token =
                self.chooser.choose(&mut self.session, row + at, &self.allowed, &mut slot.confidence)?;
            if let (Some(state), Some(guesser), Ok(automaton)) =
                (state, &mut self.guesser, self.grammar.automaton())
            {
                let (client, source) = (slot.event.client, slot.sources.get(seen).copied());
                match source {
                    Some(source) => guesser.learn(client, source, pending.get(at + 1) == Some(&token)),
                    None => {
                        let here = Here {
                            tokenizer: &self.tokenizer,
                            automaton,
                            state,
                            written: &slot.written,
                            event: slot.text.as_bytes(),
                            words: slot.words,
                        };
                        if let Some(guess) = guesser.guess(client, &here) {
                            guesser.learn(client, guess.source, guess.token == token);
                        }
                    }
                }
                slot.choices.push((state, token));
                seen += 1;
            }
            let before_us = exchange.now();
            constraint.accept(token)?;
            let chosen_at = slot.answer.len();
            slot.write(&self.tokenizer, token);
            let forced = constraint.take_forced(&mut slot.answer)?;
            for token in slot.answer.get(chosen_at + 1..).unwrap_or(&[]) {
                slot.written.extend_from_slice(self.tokenizer.token_bytes(*token));
            }
            slot.timings.forced_n += count(forced);
            slot.timings.mask_us += span(before_us, exchange.now());
            if slot.answer.len() > COMMAND_TOKENS_MAX {
                return Err(Declined::Because(format!(
                    "the command is longer than {COMMAND_TOKENS_MAX} tokens"
                )));
            }
            let unit = slot.answer.get(chosen_at..).unwrap_or(&[]);
            let is_complete = constraint.is_complete();
            let was_guessed =
                guesses > 0 && pending.get(at + 1..).is_some_and(|guessed| guessed.starts_with(unit));
            if was_guessed {
                slot.timings.accepted_n += count(unit.len());
            }
            if is_complete {
                slot.constraint = Some(constraint);
                return Ok(true);
            }
            if !was_guessed {
                break chosen_at;
            }
            guesses -= 1;
            at += unit.len();
        };
        self.session.truncate_sequence(index, first + at + 1)?;
        slot.sources.clear();
        pending.clear();
        pending.extend_from_slice(slot.answer.get(chosen_at..).unwrap_or(&[]));
        slot.certain = pending.len();
        slot.constraint = Some(constraint);
        Ok(false)
    }

    /// Answers with a whole command.
    fn finish(&mut self, index: usize, exchange: &mut dyn Exchange) {
        let command = match self.read_again(index) {
            Ok(command) => command,
            Err(why) => return self.give_up(index, &why, exchange),
        };
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.report(&self.site, exchange);
        let now = exchange.now();
        let mut timings = slot.timings;
        timings.predicted_n = count(slot.answer.len());
        timings.decode_us = span(slot.begun_us, now).saturating_sub(timings.prefill_us);
        let (command, reason) = doubt::settle(&self.site, slot.confidence, command);
        let decision = Decision {
            epoch: slot.event.epoch,
            command: Some(command),
            outcome: Outcome::Model,
            confidence: slot.confidence.margin,
            timings,
            reason,
        };
        let client = slot.event.client;
        if let Some(memo) = self.memo.as_mut() {
            memo.put(client, &slot.text, decision);
        }
        if let Some(guesser) = self.guesser.as_mut() {
            guesser.remember(client, slot.words, &slot.choices);
        }
        self.passes += (f64::from(timings.passes_n) - self.passes) / 16.0;
        self.confidence = slot.confidence;
        let is_over = slot.is_over(now);
        let expired = || Declined::Expired.decision(&slot.event, timings);
        let decision = if is_over { expired() } else { decision };
        slot.answer_with(decision, exchange);
    }

    fn give_up(&mut self, index: usize, why: &Declined, exchange: &mut dyn Exchange) {
        if let Some(slot) = self.slots.get_mut(index) {
            self.confidence = slot.confidence;
            slot.give_up(&self.site, why, exchange);
        }
    }

    /// The finished command, looked at a second time.
    fn read_again(&mut self, index: usize) -> std::result::Result<Command, Declined> {
        let because = |e: &dyn std::fmt::Display| Declined::Because(e.to_string());
        let Some(slot) = self.slots.get(index) else { return Err(Declined::Expired) };
        if !self.masks_generally && self.grammar.automaton().is_ok() {
            let text = std::str::from_utf8(&slot.written).map_err(|e| because(&e))?;
            if let Some(command) = reader::read(&self.site, text, &mut self.written) {
                return Ok(command);
            }
            // The table and the reader disagree: the slow way says about what.
            self.grammar.validate(text)?;
            Command::from_json(&self.site, text).map_err(|e| because(&e))?;
            return Err(Declined::Because(format!("the command is not in its canonical form: {text}")));
        }
        let text = self.tokenizer.decode_bytes(&slot.answer);
        let text = String::from_utf8(text).map_err(|e| because(&e))?;
        self.grammar.validate(&text)?;
        Command::from_json(&self.site, &text).map_err(|e| because(&e))
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn span(from: Micros, to: Micros) -> u32 {
    u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)
}
