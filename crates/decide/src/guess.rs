//! Guesses of what the model will choose, so that one pass can look at several choices. A guess that turns out wrong costs its
//! tokens in a pass and changes nothing: every choice is the model's.
//!
//! Two things are guessed from: a value that the event names, and the command that was decided for the most similar of the
//! recent events (prompt look-up and a small retrieval, as in REST, He et al. 2023). How often each was right lately says how
//! far ahead it pays. Clients have histories of their own: nobody's answer is faster for what somebody else asked.

use crate::limits::{CLIENTS_MAX, GUESS_ALLOWED_MAX, HISTORY_CHOICES_MAX, HISTORY_COMMANDS};
use ganglion_grammar::StateId;
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
        let past = newest_first.filter_map(|index| self.past.get(index)?.as_ref());
        let chosen = past.filter_map(|past| {
            let choices = past.choices.iter().take(past.size);
            let (_, token) = choices.into_iter().find(|choice| choice.0 == state)?;
            Some((*token, words.similarity(past.words)))
        });
        chosen.reduce(|best, next| if next.1 > best.1 { next } else { best })
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

    /// What the model may choose of `allowed`, two at least, behind `written`.
    pub(crate) fn guess(&mut self, client: u64, here: &Here<'_>) -> Option<Guess> {
        let client = self.place(client);
        let recalled = client
            .recall(here.state, here.words)
            .filter(|(token, _)| here.allowed.binary_search(token).is_ok());
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
    pub(crate) state: StateId,
    /// Ascending.
    pub(crate) allowed: &'a [TokenId],
    /// The command so far.
    pub(crate) written: &'a [u8],
    /// The event's text and its words.
    pub(crate) event: &'a [u8],
    pub(crate) words: Words,
}

impl Here<'_> {
    /// The allowed token that goes furthest along a word or number of the event.
    fn named(&self) -> Option<TokenId> {
        if self.allowed.len() > GUESS_ALLOWED_MAX {
            return None;
        }
        let is_end = |byte: &u8| matches!(byte, b'"' | b':');
        let start = self.written.iter().rposition(is_end).map_or(0, |at| at + 1);
        let begun = self.written.get(start..).unwrap_or(&[]);
        let mut best: Option<(usize, TokenId)> = None;
        for &token in self.allowed {
            let bytes = self.tokenizer.token_bytes(token);
            let (bytes, opens) = match bytes.strip_prefix(b"\"") {
                Some(rest) if begun.is_empty() => (rest, true),
                _ => (bytes, false),
            };
            let size =
                bytes.iter().position(|byte| matches!(byte, b'"' | b',' | b'}')).unwrap_or(bytes.len());
            let (value, is_whole) = (bytes.get(..size).unwrap_or(bytes), size < bytes.len());
            let length = begun.len() + value.len();
            if length == 0 || (opens && value.is_empty()) {
                continue;
            }
            // A token that ends the value counts for more than one that leaves it where it is.
            let score = 2 * length + usize::from(is_whole);
            if best.is_none_or(|(least, _)| score > least) && self.event_has(begun, value, is_whole) {
                best = Some((score, token));
            }
        }
        best.map(|(_, token)| token)
    }

    /// Whether the event has `head` and `tail` in a row where a word begins; also where it ends, if it `is_whole`.
    fn event_has(&self, head: &[u8], tail: &[u8], is_whole: bool) -> bool {
        let size = head.len() + tail.len();
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        self.event.windows(size).enumerate().any(|(at, window)| {
            window.iter().zip(head.iter().chain(tail)).all(|(a, b)| same(*a, *b))
                && !(at > 0 && is_word(self.event.get(at - 1)))
                && !(is_whole && is_word(self.event.get(at + size)))
        })
    }
}

/// Letters whatever their case; what separates words in a name or in a sentence.
fn same(a: u8, b: u8) -> bool {
    let plain = |byte: u8| if matches!(byte, b'_' | b'-' | b' ') { b' ' } else { byte.to_ascii_lowercase() };
    plain(a) == plain(b)
}
