//! Masks and refusals, on the default model's vocabulary.

use ganglion_gguf::Gguf;
use ganglion_grammar::{Engine, Grammar, GrammarError};
use ganglion_tokenizer::{EncodeOptions, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

struct Bench {
    tokenizer: Arc<Tokenizer>,
    engine: Engine,
}

impl Bench {
    fn new() -> Self {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/nano.gguf");
        let tokenizer = Arc::new(Tokenizer::from_gguf(&Gguf::open(model).unwrap()).unwrap());
        Self { engine: Engine::new(Arc::clone(&tokenizer)).unwrap(), tokenizer }
    }

    /// Whether the masks let `text` through, token by token, to its end.
    fn accepts(&self, grammar: &Grammar, text: &str) -> bool {
        let mut constraint = grammar.start();
        let (mut forced, mut allowed) = (Vec::new(), Vec::new());
        for token in self.tokenizer.encode(text, EncodeOptions::default()) {
            if forced.is_empty() {
                constraint.take_forced(&mut forced).unwrap();
            }
            if !forced.is_empty() {
                if forced.remove(0) != token {
                    return false;
                }
                continue;
            }
            constraint.allowed(&mut allowed).unwrap();
            if !allowed.contains(&token) {
                return false;
            }
            constraint.accept(token).unwrap();
        }
        let mut rest = Vec::new();
        constraint.take_forced(&mut rest).unwrap();
        forced.is_empty() && rest.is_empty() && constraint.is_complete()
    }
}

fn command(argument: Value) -> Value {
    json!({"type": "object", "properties": {"action": {"const": "go"}, "value": argument},
           "required": ["action", "value"], "additionalProperties": false})
}

#[test]
fn masks_follow_the_schema() {
    let bench = Bench::new();
    let cases = [
        (
            json!({"type": "integer", "minimum": 10, "maximum": 100}),
            vec!["10", "57", "100"],
            vec!["9", "101", "-5", "\"10\"", "010"],
        ),
        (
            json!({"type": "number", "minimum": -2.5, "maximum": 60, "multipleOf": 0.5}),
            vec!["-2.5", "0", "21", "21.5", "60"],
            vec!["-3", "60.5", "21.3", "NaN"],
        ),
        (
            json!({"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.05}),
            vec!["0.05", "0.35", "1"],
            vec!["0.07", "1.05"],
        ),
        (
            json!({"enum": ["north-1", "north-2", "south"]}),
            vec!["\"north-2\"", "\"south\""],
            vec!["\"north\"", "\"south-1\"", "south"],
        ),
        (json!({"type": "boolean"}), vec!["true", "false"], vec!["1", "\"true\"", "null"]),
        (
            json!({"type": "string", "maxLength": 4}),
            vec!["\"\"", "\"abcd\"", "\"ä€\""],
            vec!["\"abcde\"", "\"a"],
        ),
    ];
    for (schema, good, bad) in cases {
        let grammar = bench.engine.compile(&command(schema.clone())).unwrap();
        for (values, want) in [(good, true), (bad, false)] {
            for value in values {
                let text = format!("{{\"action\":\"go\",\"value\":{value}}}");
                assert_eq!(bench.accepts(&grammar, &text), want, "{schema} and {text}");
                assert_eq!(grammar.validate(&text).is_ok(), want, "validator: {schema} and {text}");
            }
        }
    }
}

#[test]
fn only_compact_json_in_property_order() {
    let bench = Bench::new();
    let grammar = bench.engine.compile(&command(json!({"type": "boolean"}))).unwrap();
    assert!(bench.accepts(&grammar, r#"{"action":"go","value":true}"#));
    for text in
        [r#"{"value":true,"action":"go"}"#, r#"{"action": "go", "value": true}"#, r#"{"action":"go"}"#, ""]
    {
        assert!(!bench.accepts(&grammar, text), "{text}");
    }
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    let bench = Bench::new();
    for (argument, keyword) in [
        (json!({"type": "string", "maxLength": 3, "format": "date"}), "format"),
        (json!({"type": "array", "maxItems": 2, "uniqueItems": true}), "uniqueItems"),
        (json!({"not": {"type": "null"}}), "not"),
        (json!({"type": "integer", "if": {}, "then": {}}), "if"),
        (json!({"$ref": "#/$defs/x"}), "$ref"),
        (json!({"type": "object", "patternProperties": {}}), "patternProperties"),
        (json!({"enum": [1], "nonsense": 1}), "nonsense"),
    ] {
        match bench.engine.compile(&command(argument)) {
            Err(GrammarError::UnsupportedKeyword { keyword: found, path }) => {
                assert_eq!((found.as_str(), path.as_str()), (keyword, "#/properties/value"));
            }
            other => panic!("{keyword}: {:?}", other.err()),
        }
    }
    for argument in [json!({"type": "string"}), json!({"type": "array", "items": {"type": "boolean"}})] {
        assert!(matches!(bench.engine.compile(&command(argument)), Err(GrammarError::Unbounded { .. })));
    }
}

#[test]
fn nothing_random_panics() {
    let bench = Bench::new();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = [
        "type",
        "const",
        "enum",
        "anyOf",
        "properties",
        "required",
        "items",
        "minimum",
        "maximum",
        "multipleOf",
        "pattern",
        "maxLength",
        "x",
        "not",
    ];
    let values = [
        "\"object\"",
        "\"string\"",
        "\"integer\"",
        "1",
        "-0.5",
        "[]",
        "{}",
        "null",
        "true",
        "[\"a\"]",
        "\"(\"",
        "{\"a\":{\"type\":\"boolean\"}}",
        "[{\"const\":1}]",
    ];
    let (mut compiled, mut refused) = (0, 0);
    for _ in 0..2000 {
        let pick = |n: u64, of: usize| usize::try_from(n).unwrap_or(0) % of;
        let fields: Vec<String> = (0..next() % 5)
            .map(|_| {
                format!(
                    "\"{}\":{}",
                    words[pick(next() >> 1, words.len())],
                    values[pick(next() >> 1, values.len())]
                )
            })
            .collect();
        let schema: Value = serde_json::from_str(&format!("{{{}}}", fields.join(","))).unwrap();
        match bench.engine.compile(&schema) {
            Ok(grammar) => {
                compiled += 1;
                let (mut constraint, mut allowed, mut written) = (grammar.start(), Vec::new(), Vec::new());
                for _ in 0..8 {
                    if constraint.take_forced(&mut written).is_err()
                        || constraint.is_complete()
                        || constraint.allowed(&mut allowed).is_err()
                    {
                        break;
                    }
                    let Some(&token) = allowed.get(pick(next() >> 1, allowed.len().max(1))) else { break };
                    constraint.accept(token).unwrap();
                }
                assert!(constraint.accept(u32::MAX).is_err());
            }
            Err(_) => refused += 1,
        }
    }
    assert!(compiled > 50 && refused > 50, "{compiled} compiled, {refused} refused");
}
