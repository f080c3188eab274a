//! The vocabulary in the order of its bytes: which tokens a byte automaton lets through.

use crate::bytes::{ByteGraph, NodeId};
use ganglion_tokenizer::{EncodeOptions, TokenId, TokenKind, Tokenizer};
use std::ops::Range;
use std::sync::Arc;

/// Tokens that stand for text, sorted by it. All tokens that start alike are neighbours, so a range of this list is a node
/// of the vocabulary's trie, at no cost in memory.
pub(crate) struct Words {
    tokenizer: Arc<Tokenizer>,
    sorted: Vec<TokenId>,
    eos: TokenId,
}

impl Words {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, eos: TokenId) -> Self {
        let is_text = |&id: &TokenId| {
            let kind = tokenizer.token_kind(id);
            matches!(kind, TokenKind::Normal | TokenKind::Byte | TokenKind::UserDefined)
                && !tokenizer.token_bytes(id).is_empty()
        };
        let size = TokenId::try_from(tokenizer.vocab_size()).unwrap_or(TokenId::MAX);
        let mut sorted: Vec<TokenId> = (0..size).filter(is_text).collect();
        sorted.sort_by_key(|&id| (tokenizer.token_bytes(id), id));
        Self { tokenizer, sorted, eos }
    }

    fn slice(&self, range: &Range<usize>) -> &[TokenId] {
        self.sorted.get(range.clone()).unwrap_or(&[])
    }

    pub(crate) fn bytes(&self, token: TokenId) -> &[u8] {
        self.tokenizer.token_bytes(token)
    }

    /// Of a range of tokens that agree in `depth` bytes, those that go on with `byte`.
    fn narrow(&self, range: &Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let tokens = self.slice(range);
        let at = |id: &TokenId| self.bytes(*id).get(depth).copied();
        let from = tokens.partition_point(|id| at(id) < Some(byte));
        let to = tokens.partition_point(|id| at(id) <= Some(byte));
        range.start + from..range.start + to
    }

    /// Every token that is a path from `node`, with where it leads; ascending by token. End-of-text is left out.
    pub(crate) fn allowed(&self, graph: &ByteGraph, node: NodeId) -> Vec<(TokenId, NodeId)> {
        let mut out = Vec::new();
        self.walk(graph, node, 0..self.sorted.len(), 0, &mut |token, node| {
            if token != self.eos {
                out.push((token, node));
            }
            false
        });
        out.sort_unstable();
        out
    }

    /// Whether some token starts with `stem` and goes on along a path from `node`.
    fn can_extend(&self, graph: &ByteGraph, node: NodeId, stem: &[u8]) -> bool {
        let range = stem
            .iter()
            .enumerate()
            .fold(0..self.sorted.len(), |range, (depth, &byte)| self.narrow(&range, depth, byte));
        !range.is_empty() && self.walk(graph, node, range, stem.len(), &mut |_, _| true)
    }

    /// Hands on the tokens of `range` whose bytes after the first `depth` are a path from `node`, until told to stop.
    fn walk(
        &self,
        graph: &ByteGraph,
        node: NodeId,
        range: Range<usize>,
        depth: usize,
        found: &mut dyn FnMut(TokenId, NodeId) -> bool,
    ) -> bool {
        for &(byte, next) in graph.edges(node) {
            let mut range = self.narrow(&range, depth, byte);
            while let Some(&token) = self.slice(&range).first()
                && self.bytes(token).len() == depth + 1
            {
                if found(token, next) {
                    return true;
                }
                range.start += 1;
            }
            if !range.is_empty() && self.walk(graph, next, range, depth + 1, found) {
                return true;
            }
        }
        false
    }

    /// The tokens that have no alternative at `node` behind the token `last`, in the spelling that the tokenizer would have
    /// chosen. A token at the end that could still be part of a longer one is left open, as llguidance does.
    pub(crate) fn forced(&self, graph: &ByteGraph, node: NodeId, last: Option<TokenId>) -> Vec<TokenId> {
        let (mut text, mut end) = (Vec::new(), node);
        while let Some((byte, next)) = graph.forced(end) {
            text.push(byte);
            end = next;
        }
        if text.is_empty() {
            return Vec::new();
        }
        let mut tokens = last
            .map(|last| canonical(&self.tokenizer, &[self.bytes(last), &text].concat()))
            .unwrap_or_default();
        if last.is_some() && tokens.first() == last.as_ref() {
            tokens.remove(0);
        } else {
            tokens = canonical(&self.tokenizer, &text);
        }
        if tokens.iter().flat_map(|&token| self.bytes(token)).ne(text.iter()) {
            // A vocabulary that cannot spell it this way: the masks go through it piece by piece.
            return Vec::new();
        }
        let keep = tokens.len() - self.open_end(graph, end, &tokens);
        tokens.truncate(keep);
        tokens
    }

    /// How many tokens at the end a longer token could take the place of, given what may follow.
    fn open_end(&self, graph: &ByteGraph, end: NodeId, tokens: &[TokenId]) -> usize {
        let recent = tokens.get(tokens.len().saturating_sub(LOOKBACK_TOKENS)..).unwrap_or(tokens);
        let suffix: Vec<u8> = recent.iter().flat_map(|&token| self.bytes(token)).copied().collect();
        let Some(open) = (0..suffix.len()).find(|&at| self.can_extend(graph, end, &suffix[at..])) else {
            return 0;
        };
        let mut bytes = 0;
        let behind = tokens.iter().rev().take_while(|&&token| {
            let is_open = bytes < suffix.len() - open;
            bytes += self.bytes(token).len();
            is_open
        });
        behind.count()
    }
}

/// How far back a longer token is looked for; llguidance's number, so that both agree.
const LOOKBACK_TOKENS: usize = 4;

/// The tokens of a text that continues a line. SPM vocabularies put a space in front of whatever they encode; behind a line
/// break, where commands stand, there is none.
pub(crate) fn canonical(tokenizer: &Tokenizer, text: &[u8]) -> Vec<TokenId> {
    let options = EncodeOptions::default();
    if !tokenizer.add_space_prefix() {
        return tokenizer.encode_bytes(text, options);
    }
    let mut tokens = tokenizer.encode_bytes(&[b"\n", text].concat(), options);
    let (mut lead, mut bytes) = (0, 0);
    while bytes < b" \n".len() && lead < tokens.len() {
        bytes += tokens.get(lead).map_or(0, |&token| tokenizer.token_bytes(token).len());
        lead += 1;
    }
    tokens.drain(..lead);
    tokens
}
