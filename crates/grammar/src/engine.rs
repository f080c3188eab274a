//! The vocabulary as masks want it, and constraints over it.

use crate::automaton::{Automaton, StateId};
use crate::bytes::NotBounded;
use crate::error::GrammarError;
use crate::limits::{FORCED_RUN_TOKENS_MAX, MASK_ITEMS_MAX, MASK_LEXER_FUEL_MAX};
use crate::schema;
use crate::words::{Words, canonical};
use ganglion_tokenizer::{TokenId, TokenKind, Tokenizer};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

/// A model's vocabulary, ready to make masks for any schema. Build once per model.
pub struct Engine {
    words: Words,
    general: Arc<General>,
}

/// What `llguidance` needs, made when it is first needed: that takes about 7 µs a token, and bounded schemas do without.
struct General {
    tokenizer: Arc<Tokenizer>,
    eos: TokenId,
    factory: OnceLock<Result<ParserFactory, String>>,
}

struct Environment {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        canonical(&self.tokenizer, bytes)
    }
}

impl Engine {
    /// Prepares `tokenizer`'s vocabulary.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] when the model has no end-of-text token.
    pub fn new(tokenizer: Arc<Tokenizer>) -> crate::Result<Self> {
        let eos = tokenizer.eos().or(tokenizer.eot()).ok_or_else(|| {
            GrammarError::Vocabulary("it has no end-of-text token (tokenizer.ggml.eos_token_id)".into())
        })?;
        let words = Words::new(Arc::clone(&tokenizer), eos);
        Ok(Self { words, general: Arc::new(General { tokenizer, eos, factory: OnceLock::new() }) })
    }

    /// Compiles a schema: compact JSON, keys in `properties` order, all strings and arrays bounded.
    ///
    /// # Errors
    /// A keyword that is not enforced, something unbounded, or a schema that cannot be satisfied.
    pub fn compile(&self, schema: &Value) -> crate::Result<Grammar> {
        schema::check(schema)?;
        let validator = jsonschema::validator_for(schema).map_err(|e| GrammarError::Schema(e.to_string()))?;
        let masks = match Automaton::new(schema, &self.words) {
            Ok(automaton) => Masks::Table(Arc::new(automaton)),
            Err(reason) => Masks::General(Box::new(self.general.matcher(schema)?), reason),
        };
        Ok(Grammar { masks, general: Arc::clone(&self.general), schema: schema.clone(), validator })
    }

    /// A constraint to all texts of a regular expression, by `llguidance`: an oracle for automata.
    ///
    /// # Errors
    /// An expression that `llguidance` does not take.
    pub fn start_regex(&self, expression: &str) -> crate::Result<Constraint> {
        let matcher = self.general.matcher_of(TopLevelGrammar::from_regex(expression))?;
        Ok(Constraint(Way::General(Box::new(matcher))))
    }
}

impl General {
    fn factory(&self) -> crate::Result<&ParserFactory> {
        let factory = self.factory.get_or_init(|| self.new_factory());
        factory.as_ref().map_err(|e| GrammarError::Vocabulary(e.clone()))
    }

    fn new_factory(&self) -> Result<ParserFactory, String> {
        let size = u32::try_from(self.tokenizer.vocab_size()).map_err(|e| e.to_string())?;
        let words: Vec<Vec<u8>> = (0..size).map(|id| word(&self.tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, self.eos), &words);
        let env: TokEnv = Arc::new(Environment { trie, tokenizer: Arc::clone(&self.tokenizer) });
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.step_lexer_fuel = MASK_LEXER_FUEL_MAX;
        limits.step_max_items = MASK_ITEMS_MAX;
        limits.verbose_errors = false;
        Ok(factory)
    }

    fn matcher_of(&self, grammar: TopLevelGrammar) -> crate::Result<Matcher> {
        let parser =
            self.factory()?.create_parser(grammar).map_err(|e| GrammarError::Schema(e.to_string()))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(GrammarError::Schema(error)),
            None => Ok(matcher),
        }
    }

    fn matcher(&self, schema: &Value) -> crate::Result<Matcher> {
        let mut guided = schema.clone();
        if let Value::Object(map) = &mut guided {
            map.insert(
                "x-guidance".into(),
                serde_json::json!({"whitespace_flexible": false, "item_separator": ",", "key_separator": ":", "coerce_one_of": true}),
            );
        }
        self.matcher_of(TopLevelGrammar::from_json_schema(guided))
    }
}

/// The bytes a token stands for; specials are marked so that they never match text.
fn word(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    match tokenizer.token_kind(id) {
        TokenKind::Normal | TokenKind::Byte | TokenKind::UserDefined => bytes.to_vec(),
        _ if bytes.is_empty() => Vec::new(),
        _ => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
    }
}

/// One compiled schema. [`Grammar::start`] is cheap: do it for every decision.
pub struct Grammar {
    masks: Masks,
    general: Arc<General>,
    schema: Value,
    validator: jsonschema::Validator,
}

enum Masks {
    Table(Arc<Automaton>),
    General(Box<Matcher>, NotBounded),
}

impl Grammar {
    /// A fresh constraint at the beginning of the output: by the automaton if there is one. That allocates nothing.
    pub fn start(&self) -> Constraint {
        Constraint(match &self.masks {
            Masks::Table(automaton) => {
                Way::Table(Walk { state: automaton.start(), automaton: Arc::clone(automaton), taken: 0 })
            }
            Masks::General(matcher, _) => Way::General(Box::new(matcher.deep_clone())),
        })
    }

    /// As [`Grammar::start`], by `llguidance` in any case, which is compiled for it: to compare the two. It allows any
    /// number of zeros behind a decimal.
    ///
    /// # Errors
    /// A schema that `llguidance` does not take.
    pub fn start_general(&self) -> crate::Result<Constraint> {
        Ok(Constraint(Way::General(Box::new(self.general.matcher(&self.schema)?))))
    }

    /// The automaton.
    ///
    /// # Errors
    /// Why the schema has none.
    pub fn automaton(&self) -> Result<&Automaton, &NotBounded> {
        match &self.masks {
            Masks::Table(automaton) => Ok(automaton),
            Masks::General(_, reason) => Err(reason),
        }
    }

    /// Validates finished output with a second, independent implementation.
    ///
    /// # Errors
    /// [`GrammarError::Invalid`] with the place and the reason.
    pub fn validate(&self, output: &str) -> crate::Result<Value> {
        let value: Value = serde_json::from_str(output).map_err(|e| GrammarError::Invalid(e.to_string()))?;
        self.validator
            .validate(&value)
            .map_err(|e| GrammarError::Invalid(format!("{} at {}", e, e.instance_path())))?;
        Ok(value)
    }
}

/// The state of one output being written.
pub struct Constraint(Way);

enum Way {
    Table(Walk),
    General(Box<Matcher>),
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Way::Table(walk) => Way::Table(walk.clone()),
            // A shallow clone shares the lexer's cache and its limits.
            Way::General(matcher) => Way::General(Box::new(matcher.deep_clone())),
        })
    }
}

/// A place in an automaton: in a state, with some of its run taken.
#[derive(Clone)]
struct Walk {
    automaton: Arc<Automaton>,
    state: StateId,
    taken: usize,
}

impl Walk {
    fn rest(&self) -> &[TokenId] {
        self.automaton.run(self.state).get(self.taken..).unwrap_or(&[])
    }

    fn accept(&mut self, token: TokenId) -> Option<()> {
        match self.rest().first() {
            Some(&forced) => (forced == token).then(|| self.taken += 1),
            None => {
                self.state = self.automaton.next(self.state, token)?;
                self.taken = 0;
                Some(())
            }
        }
    }
}

impl Constraint {
    /// Tokens that must come next, in canonical tokenisation; already accepted when this returns. They need no logits.
    ///
    /// # Errors
    /// [`GrammarError::Mask`] when the run is longer than the limit.
    pub fn take_forced(&mut self, out: &mut Vec<TokenId>) -> crate::Result<usize> {
        let matcher = match &mut self.0 {
            Way::Table(walk) => {
                let run = walk.rest();
                let size = run.len();
                out.extend_from_slice(run);
                walk.taken += size;
                return Ok(size);
            }
            Way::General(matcher) => matcher,
        };
        let run = matcher.consume_ff_tokens();
        if run.len() > FORCED_RUN_TOKENS_MAX {
            return Err(GrammarError::Mask(format!("forced run of {} tokens", run.len())));
        }
        out.extend_from_slice(&run);
        checked(matcher, run.len())
    }

    /// Ids allowed next, ascending, into `out` (cleared first). End-of-text is never among them: see [`Self::is_complete`].
    ///
    /// # Errors
    /// [`GrammarError::Mask`] when the work limits are met.
    pub fn allowed(&mut self, out: &mut Vec<TokenId>) -> crate::Result<()> {
        out.clear();
        let matcher = match &mut self.0 {
            Way::Table(walk) => {
                match walk.rest().first() {
                    Some(&forced) => out.push(forced),
                    None => out.extend_from_slice(walk.automaton.allowed(walk.state)),
                }
                return Ok(());
            }
            Way::General(matcher) => matcher,
        };
        let mask = matcher.compute_mask().map_err(|e| GrammarError::Mask(e.to_string()))?;
        let eos = matcher.tok_env().map_err(|e| GrammarError::Mask(e.to_string()))?.tok_trie().eos_token();
        mask.iter_set_entries(|id| out.extend(u32::try_from(id).ok().filter(|&id| id != eos)));
        checked(matcher, ())
    }

    /// Takes the chosen token.
    ///
    /// # Errors
    /// [`GrammarError::NotAllowed`].
    pub fn accept(&mut self, token: TokenId) -> crate::Result<()> {
        let is_taken = match &mut self.0 {
            Way::Table(walk) => walk.accept(token).is_some(),
            Way::General(matcher) => matcher.consume_token(token).is_ok(),
        };
        if is_taken { Ok(()) } else { Err(GrammarError::NotAllowed { token }) }
    }

    /// Where the output stands in the grammar's automaton, if that is what masks it. What is left of the state's run is
    /// still to come.
    pub fn state(&self) -> Option<StateId> {
        match &self.0 {
            Way::Table(walk) => Some(walk.state),
            Way::General(_) => None,
        }
    }

    /// True when the output is a whole value that nothing can be added to.
    pub fn is_complete(&mut self) -> bool {
        match &mut self.0 {
            Way::Table(walk) => walk.rest().is_empty() && walk.automaton.is_complete(walk.state),
            Way::General(matcher) => matcher.is_stopped() && !matcher.is_error(),
        }
    }
}

fn checked<T>(matcher: &Matcher, value: T) -> crate::Result<T> {
    match matcher.get_error() {
        Some(error) => Err(GrammarError::Mask(error)),
        None => Ok(value),
    }
}
