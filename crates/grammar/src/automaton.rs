//! A bounded schema as a table over the model's vocabulary: state → forced run, allowed tokens, shortest completion.
//!
//! A state is where the output stands once a token was chosen. First comes its forced run, the tokens without an
//! alternative; behind it the output is complete, or one of at least two allowed tokens is to be chosen. The automaton is
//! acyclic, its states are merged where they allow the same from there on, and looking something up allocates nothing.

use crate::bytes::{ByteGraph, NodeId, NotBounded};
use crate::limits::{AUTOMATON_BYTES_MAX, AUTOMATON_STATES_MAX, FORCED_RUN_TOKENS_MAX};
use crate::words::Words;
use ganglion_tokenizer::TokenId;
use serde_json::Value;
use std::collections::HashMap;
use std::rc::Rc;

/// Index of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(u32);

/// Part of one of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Span {
    start: u32,
    size: u32,
}

impl Span {
    fn of<T>(self, table: &[T]) -> &[T] {
        let start = self.start as usize;
        table.get(start..start + self.size as usize).unwrap_or(&[])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    run: Span,
    /// In `tokens`; empty where the output is complete behind the run.
    allowed: Span,
    /// In `targets`, as many as are allowed.
    targets: u32,
}

/// The shortest way from a state to a whole output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shortest {
    tokens: u32,
    /// Index among the allowed tokens.
    choice: u32,
}

/// The token automaton of one schema.
#[derive(Debug)]
pub struct Automaton {
    states: Vec<State>,
    shortest: Vec<Shortest>,
    /// Forced runs and allowed tokens, each list once.
    tokens: Vec<TokenId>,
    targets: Vec<StateId>,
    start: StateId,
}

impl Automaton {
    /// Compiles a schema that allows finitely many outputs.
    ///
    /// # Errors
    /// [`NotBounded`]: what in the schema is of another kind, or which limit it goes beyond.
    pub(crate) fn new(schema: &Value, words: &Words) -> Result<Self, NotBounded> {
        let (graph, start) = ByteGraph::new(schema)?;
        let mut build = Build {
            graph: &graph,
            words,
            known: HashMap::new(),
            merged: HashMap::new(),
            lists: HashMap::new(),
            target_lists: HashMap::new(),
            allowed: HashMap::new(),
            out: Self {
                states: Vec::new(),
                shortest: Vec::new(),
                tokens: Vec::new(),
                targets: Vec::new(),
                start: StateId(0),
            },
        };
        let start = build.state(start, None)?;
        let mut out = build.out;
        out.start = start;
        out.tokens.shrink_to_fit();
        out.states.shrink_to_fit();
        out.targets.shrink_to_fit();
        Ok(out)
    }

    /// Where an output begins.
    pub fn start(&self) -> StateId {
        self.start
    }

    /// Tokens that come next without a choice.
    pub fn run(&self, state: StateId) -> &[TokenId] {
        self.get(state).map_or(&[], |state| state.run.of(&self.tokens))
    }

    /// Tokens to choose from behind the run, ascending, two at least; none where the output is complete.
    pub fn allowed(&self, state: StateId) -> &[TokenId] {
        self.get(state).map_or(&[], |state| state.allowed.of(&self.tokens))
    }

    /// The state behind an allowed token.
    pub fn next(&self, state: StateId, token: TokenId) -> Option<StateId> {
        let index = self.allowed(state).binary_search(&token).ok()?;
        self.target(state, index)
    }

    /// Whether the output is complete behind the state's run.
    pub fn is_complete(&self, state: StateId) -> bool {
        self.allowed(state).is_empty()
    }

    /// The fewest tokens that complete the output from a state on, its run included; equal ones by lowest ids first.
    pub fn completion(&self, state: StateId) -> Completion<'_> {
        Completion { automaton: self, state: Some(state), run: self.run(state) }
    }

    /// How many tokens [`Self::completion`] gives.
    pub fn completion_tokens(&self, state: StateId) -> usize {
        self.shortest.get(state.0 as usize).map_or(0, |shortest| shortest.tokens as usize)
    }

    /// All states; the last ones are nearest to the start.
    pub fn states(&self) -> impl Iterator<Item = StateId> + use<> {
        // As many as a u32 counts, by the limit.
        (0..self.states.len() as u32).map(StateId)
    }

    /// Memory of the tables.
    pub fn size_bytes(&self) -> usize {
        self.states.len() * (size_of::<State>() + size_of::<Shortest>())
            + self.tokens.len() * size_of::<TokenId>()
            + self.targets.len() * size_of::<StateId>()
    }

    fn get(&self, state: StateId) -> Option<&State> {
        self.states.get(state.0 as usize)
    }

    fn target(&self, state: StateId, index: usize) -> Option<StateId> {
        self.targets.get(self.get(state)?.targets as usize + index).copied()
    }

    /// The shortest way through a state whose targets' ways are known.
    fn shortest_from(&self, state: &State) -> Shortest {
        let behind = Span { start: state.targets, size: state.allowed.size };
        let costs = behind
            .of(&self.targets)
            .iter()
            .zip(0..)
            .map(|(&target, choice)| (1 + self.completion_tokens(target) as u32, choice));
        let (tokens, choice) = costs.min().unwrap_or((0, 0));
        Shortest { tokens: state.run.size + tokens, choice }
    }
}

/// Tokens of the shortest completion, one by one.
#[derive(Debug, Clone)]
pub struct Completion<'a> {
    automaton: &'a Automaton,
    state: Option<StateId>,
    run: &'a [TokenId],
}

impl Iterator for Completion<'_> {
    type Item = TokenId;

    fn next(&mut self) -> Option<TokenId> {
        if let Some((&token, rest)) = self.run.split_first() {
            self.run = rest;
            return Some(token);
        }
        let state = self.state?;
        let choice = self.automaton.shortest.get(state.0 as usize)?.choice as usize;
        let token = self.automaton.allowed(state).get(choice).copied()?;
        self.state = self.automaton.target(state, choice);
        self.run = self.state.map_or(&[], |state| self.automaton.run(state));
        Some(token)
    }
}

/// Allowed tokens and the places they lead to.
type Choices = Rc<[(TokenId, NodeId)]>;

/// An automaton in the making.
struct Build<'a> {
    graph: &'a ByteGraph,
    words: &'a Words,
    /// By place in the text and, where the text goes on without a choice, the token before it: the spelling depends on it.
    known: HashMap<(NodeId, Option<TokenId>), StateId>,
    merged: HashMap<State, StateId>,
    lists: HashMap<Vec<TokenId>, Span>,
    target_lists: HashMap<Vec<StateId>, u32>,
    allowed: HashMap<NodeId, Choices>,
    out: Automaton,
}

impl Build<'_> {
    fn state(&mut self, node: NodeId, last: Option<TokenId>) -> Result<StateId, NotBounded> {
        let key = (node, last.filter(|_| self.graph.forced(node).is_some()));
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        let (run, choices, end) = self.settle(node, key.1);
        if choices.is_empty() && !self.graph.is_final(end) {
            return Err(NotBounded::Spelling);
        }
        if run.len() > FORCED_RUN_TOKENS_MAX {
            return Err(NotBounded::TooLarge {
                what: "tokens of one forced run",
                limit: FORCED_RUN_TOKENS_MAX,
            });
        }
        let mut targets = Vec::with_capacity(choices.len());
        for &(token, node) in choices.iter() {
            targets.push(self.state(node, Some(token))?);
        }
        let state = State {
            run: self.list(run),
            allowed: self.list(choices.iter().map(|choice| choice.0).collect()),
            targets: self.targets(targets),
        };
        let id = match self.merged.get(&state) {
            Some(&known) => known,
            None => self.push(state)?,
        };
        self.known.insert(key, id);
        Ok(id)
    }

    /// Goes along everything that has no alternative: the tokens, and what is to be chosen from behind them.
    ///
    /// Step by step what llguidance does: a whole run first, then one look at the mask, and so on. After a run the spelling of
    /// the open end is looked at anew, with the token before it known.
    fn settle(&mut self, mut node: NodeId, mut last: Option<TokenId>) -> (Vec<TokenId>, Choices, NodeId) {
        let mut run: Vec<TokenId> = Vec::new();
        let mut is_mask_due = false;
        loop {
            let mut more = self.words.forced(self.graph, node, last);
            if is_mask_due {
                more.truncate(1);
            }
            if more.is_empty() && (is_mask_due || self.graph.is_final(node)) {
                let allowed = self.allowed(node);
                let [(token, _)] = *allowed else { return (run, allowed, node) };
                more.push(token);
            }
            for &token in &more {
                node = self
                    .words
                    .bytes(token)
                    .iter()
                    .fold(node, |node, &byte| self.graph.step(node, byte).unwrap_or(node));
                last = Some(token);
            }
            run.extend_from_slice(&more);
            is_mask_due = !is_mask_due;
        }
    }

    fn allowed(&mut self, node: NodeId) -> Choices {
        let (words, graph) = (self.words, self.graph);
        self.allowed.entry(node).or_insert_with(|| words.allowed(graph, node).into()).clone()
    }

    fn list(&mut self, list: Vec<TokenId>) -> Span {
        let tokens = &mut self.out.tokens;
        *self.lists.entry(list).or_insert_with_key(|list| {
            let span = Span { start: tokens.len() as u32, size: list.len() as u32 };
            tokens.extend_from_slice(list);
            span
        })
    }

    fn targets(&mut self, list: Vec<StateId>) -> u32 {
        let targets = &mut self.out.targets;
        *self.target_lists.entry(list).or_insert_with_key(|list| {
            let start = targets.len() as u32;
            targets.extend_from_slice(list);
            start
        })
    }

    fn push(&mut self, state: State) -> Result<StateId, NotBounded> {
        let out = &mut self.out;
        if out.states.len() >= AUTOMATON_STATES_MAX {
            return Err(NotBounded::TooLarge { what: "states", limit: AUTOMATON_STATES_MAX });
        }
        if out.size_bytes() > AUTOMATON_BYTES_MAX {
            return Err(NotBounded::TooLarge { what: "bytes of tables", limit: AUTOMATON_BYTES_MAX });
        }
        // In range by the limit.
        let id = StateId(out.states.len() as u32);
        out.shortest.push(out.shortest_from(&state));
        out.states.push(state);
        self.merged.insert(state, id);
        Ok(id)
    }
}
