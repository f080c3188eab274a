//! Guesses of what the model will choose, so that one pass can look at several choices. A guess that turns out wrong costs its
//! tokens in a pass and changes nothing: every choice is the model's.
//!
//! Two things are guessed from: a value that the event names, and the command that was decided for the most similar of the
//! recent events (prompt look-up and a small retrieval, as in REST, He et al. 2023). How often each was right lately says how
//! far ahead it pays. Clients have histories of their own: nobody's answer is faster for what somebody else asked.

use crate::limits::{CLIENTS_MAX, GUESS_ALLOWED_MAX, HISTORY_CHOICES_MAX, HISTORY_COMMANDS};
use ganglion_grammar::{Automaton, StateId};
use ganglion_site::limits::NAME_BYTES_MAX;
use ganglion_tokenizer::{TokenId, Tokenizer};

/// Weight of the newest guess in a source's rate.
const RATE_SHARE: f32 = 1.0 / 16.0;
/// What is believed of each source before it was tried.
const RATES: [f32; SOURCES] = [0.5, 0.9, 0.2, 0.4, 0.6, 0.8];
const SOURCES: usize = 6;

/// What a guess was made from: index into the rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source(u8);

impl Source {
    const EVENT: Self = Self(0);
    const BOTH: Self = Self(1);

    /// A recent command, by how similar its event was.
    fn history(similarity: f32) -> Self {
        Self(2 + (similarity * 4.0).clamp(0.0, 3.0) as u8)
    }
}

/// A token that the model may choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Guess {
    pub(crate) token: TokenId,
    pub(crate) source: Source,
    /// How often such guesses were right lately.
    pub(crate) rate: f32,
}

/// The words of an event, as a set of bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Words(u128);

impl Words {
    pub(crate) fn of(text: &str) -> Self {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        Self(words.fold(0, |bits, word| bits | 1 << (hash(word) % 128)))
    }

    /// Shared words by all words (Jaccard).
    fn similarity(self, other: Self) -> f32 {
        let all = (self.0 | other.0).count_ones().max(1);
        (self.0 & other.0).count_ones() as f32 / all as f32
    }
}

/// FNV-1a; words that share a bit make a guess worse, nothing else.
fn hash(word: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    word.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The choices of one command.
#[derive(Debug, Clone, Copy)]
struct Past {
    words: Words,
    size: usize,
    choices: [(StateId, TokenId); HISTORY_CHOICES_MAX],
}

#[derive(Debug, Clone)]
struct Client {
    id: u64,
    used: u64,
    /// The newest overwrites the oldest.
    past: [Option<Past>; HISTORY_COMMANDS],
    next: usize,
    rates: [f32; SOURCES],
}

impl Client {
    const fn new(id: u64) -> Self {
        Self { id, used: 0, past: [None; HISTORY_COMMANDS], next: 0, rates: RATES }
    }

    fn rate(&self, source: Source) -> f32 {
        self.rates.get(usize::from(source.0)).copied().unwrap_or(0.0)
    }

    /// What was chosen here for the most similar event, the newest among equals.
    fn recall(&self, state: StateId, words: Words) -> Option<(TokenId, f32)> {
        let newest_first =
            (1..=HISTORY_COMMANDS).map(|back| (self.next + HISTORY_COMMANDS - back) % HISTORY_COMMANDS);
        let mut best = None;
        for past in newest_first.filter_map(|index| self.past.get(index)?.as_ref()) {
            let similarity = words.similarity(past.words);
            if best.is_some_and(|(_, most)| similarity <= most) {
                continue;
            }
            if let Some((_, token)) = past.choices.iter().take(past.size).find(|choice| choice.0 == state) {
                best = Some((*token, similarity));
            }
        }
        best
    }
}

/// Everything that guesses are made from. Allocates when it is made, and never again.
pub(crate) struct Guesser {
    clients: Box<[Client]>,
    clock: u64,
}

impl Guesser {
    pub(crate) fn new() -> Self {
        Self { clients: (0..CLIENTS_MAX).map(|_| Client::new(0)).collect(), clock: 0 }
    }

    /// Bytes that [`Guesser::new`] allocates.
    pub(crate) const SIZE_BYTES: usize = CLIENTS_MAX * size_of::<Client>();

    /// The place of a client; that of the one who was away for longest if it has none.
    fn place(&mut self, id: u64) -> &mut Client {
        self.clock += 1;
        let clock = self.clock;
        let known = self.clients.iter().position(|client| client.id == id && client.used > 0);
        let oldest = || (0..self.clients.len()).min_by_key(|&index| self.clients.get(index).map(|c| c.used));
        let index = known.or_else(oldest).unwrap_or(0);
        let client = &mut self.clients[index];
        if known.is_none() {
            *client = Client::new(id);
        }
        client.used = clock;
        client
    }

    /// What the model may choose.
    pub(crate) fn guess(&mut self, client: u64, here: &Here<'_>) -> Option<Guess> {
        let client = self.place(client);
        let recalled = client.recall(here.state, here.words);
        let named = here.named();
        let of = |token, source| Guess { token, source, rate: client.rate(source) };
        let recalled = recalled.map(|(token, similarity)| of(token, Source::history(similarity)));
        let named = named.map(|token| of(token, Source::EVENT));
        match (named, recalled) {
            (Some(named), Some(recalled)) if named.token == recalled.token => {
                Some(of(named.token, Source::BOTH))
            }
            (Some(named), Some(recalled)) if recalled.rate > named.rate => Some(recalled),
            (named, recalled) => named.or(recalled),
        }
    }

    /// Takes note of how a guess turned out.
    pub(crate) fn learn(&mut self, client: u64, source: Source, was_right: bool) {
        if let Some(rate) = self.place(client).rates.get_mut(usize::from(source.0)) {
            *rate += RATE_SHARE * (f32::from(u8::from(was_right)) - *rate);
        }
    }

    /// Remembers a command by its choices.
    pub(crate) fn remember(&mut self, client: u64, words: Words, choices: &[(StateId, TokenId)]) {
        let Some(&first) = choices.first() else { return };
        let mut past = Past { words, size: 0, choices: [first; HISTORY_CHOICES_MAX] };
        for (place, choice) in past.choices.iter_mut().zip(choices) {
            *place = *choice;
            past.size += 1;
        }
        let client = self.place(client);
        // Of equal events the newest is enough.
        let same = client.past.iter().position(|known| known.is_some_and(|known| known.words == words));
        let index = same.unwrap_or(client.next);
        if let Some(place) = client.past.get_mut(index) {
            *place = Some(past);
        }
        if same.is_none() {
            client.next = (client.next + 1) % HISTORY_COMMANDS;
        }
    }
}

/// A choice that is to be guessed.
pub(crate) struct Here<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) automaton: &'a Automaton,
    pub(crate) state: StateId,
    /// The command so far.
    pub(crate) written: &'a [u8],
    /// The event's text and its words.
    pub(crate) event: &'a [u8],
    pub(crate) words: Words,
}

impl Here<'_> {
    /// The allowed token that goes furthest along a word or number of the event, with what must follow it.
    fn named(&self) -> Option<TokenId> {
        let allowed = self.automaton.allowed(self.state);
        if allowed.len() > GUESS_ALLOWED_MAX {
            return None;
        }
        let is_start = |byte: &u8| matches!(byte, b'"' | b':');
        let start = self.written.iter().rposition(is_start).map_or(0, |at| at + 1);
        let begun = self.written.get(start..).unwrap_or(&[]);
        let mut best: Option<((usize, bool, usize), TokenId)> = None;
        for &token in allowed {
            let value = self.value(begun, token);
            let bytes = value.bytes();
            // One that ends the value counts for more than one that leaves it where it is; of several spellings, the
            // one with the longest token is what a model writes.
            let score = (bytes.len(), value.is_whole, self.tokenizer.token_bytes(token).len());
            let is_better = best.is_none_or(|(least, _)| score > least);
            if !bytes.is_empty() && is_better && self.event_has(bytes, value.is_whole) {
                best = Some((score, token));
            }
        }
        best.map(|(_, token)| token)
    }

    /// The value that is being written, after `token` and the tokens without a choice behind it.
    fn value(&self, begun: &[u8], token: TokenId) -> Spelling {
        let run = self.automaton.next(self.state, token).map_or(&[][..], |next| self.automaton.run(next));
        let mut value = Spelling { bytes: [0; NAME_BYTES_MAX], size: 0, is_whole: false };
        begun.iter().for_each(|byte| value.push(*byte));
        let tokens = std::iter::once(&token).chain(run);
        let mut bytes = tokens.flat_map(|token| self.tokenizer.token_bytes(*token)).peekable();
        if begun.is_empty() {
            let _opening = bytes.next_if(|byte| **byte == b'"');
        }
        for byte in bytes {
            if matches!(byte, b'"' | b',' | b'}') {
                value.is_whole = true;
                break;
            }
            value.push(*byte);
        }
        value
    }

    /// Whether the event has `value` where a word begins; also where it ends, if it `is_whole`.
    fn event_has(&self, value: &[u8], is_whole: bool) -> bool {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        self.event.windows(value.len()).enumerate().any(|(at, window)| {
            window.iter().zip(value).all(|(a, b)| same(*a, *b))
                && !(at > 0 && is_word(self.event.get(at - 1)))
                && !(is_whole && is_word(self.event.get(at + value.len())))
        })
    }
}

/// A value as far as it is spelled; what is longer than a name is cut.
struct Spelling {
    bytes: [u8; NAME_BYTES_MAX],
    size: usize,
    is_whole: bool,
}

impl Spelling {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.size) {
            *place = byte;
            self.size += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.size).unwrap_or(&[])
    }
}

/// Letters whatever their case; what separates words in a name or in a sentence.
fn same(a: u8, b: u8) -> bool {
    let plain = |byte: u8| if matches!(byte, b'_' | b'-' | b' ') { b' ' } else { byte.to_ascii_lowercase() };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganglion_gguf::Gguf;
    use ganglion_grammar::{Engine, Grammar};
    use ganglion_site::Site;
    use std::path::Path;
    use std::sync::Arc;

    fn hvac() -> (Arc<Tokenizer>, Grammar) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac");
        let site = Site::load(&folder).unwrap();
        let tokenizer = Arc::new(Tokenizer::from_gguf(&Gguf::open(&site.model.path).unwrap()).unwrap());
        let grammar = Engine::new(Arc::clone(&tokenizer)).unwrap().compile(&site.schema()).unwrap();
        (tokenizer, grammar)
    }

    /// Goes along a command; `look` is told of every choice.
    fn walk(
        tokenizer: &Tokenizer,
        automaton: &Automaton,
        command: &str,
        look: &mut dyn FnMut(StateId, &[u8], TokenId),
    ) {
        let (mut state, mut written) = (automaton.start(), Vec::new());
        loop {
            automaton.run(state).iter().for_each(|token| written.extend(tokenizer.token_bytes(*token)));
            if automaton.is_complete(state) {
                assert_eq!(written, command.as_bytes());
                return;
            }
            let rest = &command.as_bytes()[written.len()..];
            let fits = |token: &&TokenId| rest.starts_with(tokenizer.token_bytes(**token));
            let token =
                automaton.allowed(state).iter().filter(fits).max_by_key(|t| tokenizer.token_bytes(**t).len());
            let token = *token.unwrap();
            look(state, &written, token);
            written.extend(tokenizer.token_bytes(token));
            state = automaton.next(state, token).unwrap();
        }
    }

    #[test]
    fn values_that_the_event_names_are_guessed() {
        let (tokenizer, grammar) = hvac();
        let automaton = grammar.automaton().unwrap();
        for (event, command, named) in [
            (
                "Set the Kitchen to 21.5 degrees",
                r#"{"action":"set_temperature","room":"kitchen","celsius":21.5}"#,
                3,
            ),
            ("fan hall 35%", r#"{"action":"set_fan","room":"hall","percent":35}"#, 2),
            ("set fan, please", r#"{"action":"set_fan","room":"hall","percent":35}"#, 1),
            ("nothing of the kind", r#"{"action":"set_fan","room":"hall","percent":35}"#, 0),
        ] {
            let (mut right, mut wrong) = (0, 0);
            let words = Words::of(event);
            walk(&tokenizer, automaton, command, &mut |state, written, token| {
                let event = event.as_bytes();
                let here = Here { tokenizer: &tokenizer, automaton, state, written, event, words };
                match here.named() {
                    Some(guess) if guess == token => right += 1,
                    Some(_) => wrong += 1,
                    None => {}
                }
            });
            assert!(right >= named && wrong <= right, "{event}: {right} right, {wrong} wrong");
        }
    }

    #[test]
    fn the_most_similar_event_is_recalled_by_its_client_alone() {
        let (tokenizer, grammar) = hvac();
        let automaton = grammar.automaton().unwrap();
        let mut guesser = Guesser::new();
        let past = [
            ("it is cold in the kitchen", r#"{"action":"set_temperature","room":"kitchen","celsius":21}"#),
            ("air for the hall", r#"{"action":"set_fan","room":"hall","percent":50}"#),
            ("let us go home", r#"{"action":"all_off"}"#),
        ];
        for (event, command) in past {
            let mut choices = Vec::new();
            walk(&tokenizer, automaton, command, &mut |state, _, token| choices.push((state, token)));
            guesser.remember(1, Words::of(event), &choices);
        }
        for (event, index) in
            [("it is very cold in the kitchen", 0), ("more air for the hall", 1), ("we go home", 2)]
        {
            let words = Words::of(event);
            let mut guessed = |client: u64| {
                let (mut right, mut all) = (0, 0);
                walk(&tokenizer, automaton, past[index].1, &mut |state, written, token| {
                    let here = Here { tokenizer: &tokenizer, automaton, state, written, event: b"", words };
                    right +=
                        usize::from(guesser.guess(client, &here).is_some_and(|guess| guess.token == token));
                    all += 1;
                });
                (right, all)
            };
            let (right, all) = guessed(1);
            assert_eq!(right, all, "{event}");
            assert_eq!(guessed(2).0, 0);
        }
        // More clients than there is room for: the first is forgotten.
        (3..3 + CLIENTS_MAX as u64).for_each(|client| guesser.learn(client, Source::EVENT, true));
        assert!(guesser.clients.iter().all(|client| client.id != 1));
    }

    #[test]
    fn rates_follow_what_happens() {
        let mut guesser = Guesser::new();
        (0..100).for_each(|_| guesser.learn(5, Source::EVENT, false));
        assert!(guesser.place(5).rate(Source::EVENT) < 0.01);
        (0..100).for_each(|_| guesser.learn(5, Source::EVENT, true));
        assert!(guesser.place(5).rate(Source::EVENT) > 0.99);
        assert_eq!(guesser.place(6).rates, RATES);
    }
}
