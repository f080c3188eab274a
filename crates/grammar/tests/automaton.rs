//! The automaton against llguidance: in every state the same run, the same allowed tokens, the same end.
//!
//! From a schema, llguidance takes any number of zeros behind a decimal, the automaton as many as the step has decimals. So the
//! oracle gets all outputs as a regular expression; with the schema as it is, it has to go along with everything that the
//! automaton allows. It does not where a step has two decimals or more: there it knows 7.30 and 7, but not 7.3.

use ganglion_gguf::Gguf;
use ganglion_grammar::limits::AUTOMATON_BYTES_MAX;
use ganglion_grammar::{Automaton, Constraint, Engine, StateId};
use ganglion_site::Site;
use ganglion_site::limits::{ARGUMENTS_MAX, COMMANDS_MAX};
use ganglion_tokenizer::{TokenId, Tokenizer};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// More by $GANGLION_RANDOM_SITES.
const RANDOM_SITES: u64 = 300;
const RANDOM_SITES_ELSEWHERE: u64 = 10;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn engine() -> (Engine, Arc<Tokenizer>) {
    let gguf = Gguf::open(root().join("models/nano/nano.gguf")).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).unwrap());
    (Engine::new(Arc::clone(&tokenizer)).unwrap(), tokenizer)
}

/// Digits after the point of the shortest spelling.
fn decimals(value: &Value) -> usize {
    value.as_f64().unwrap().to_string().split_once('.').map_or(0, |(_, fraction)| fraction.len())
}

/// The outputs of a bounded schema as a regular expression, every number spelled out.
fn expression(schema: &Value) -> String {
    if let Some(choices) = schema.get("anyOf").or(schema.get("enum")).and_then(Value::as_array) {
        let texts: Vec<String> = choices
            .iter()
            .map(|choice| if choice.is_object() { expression(choice) } else { escape(choice) })
            .collect();
        return format!("({})", texts.join("|"));
    }
    if let Some(value) = schema.get("const") {
        return escape(value);
    }
    match schema["type"].as_str().unwrap() {
        "boolean" => "(true|false)".into(),
        "object" => {
            let fields = schema["properties"].as_object().unwrap().iter();
            let fields: Vec<String> = fields
                .map(|(key, schema)| format!("\"{}\":{}", key.replace('.', "\\."), expression(schema)))
                .collect();
            format!("\\{{{}\\}}", fields.join(","))
        }
        kind => {
            let step = schema.get("multipleOf").cloned().unwrap_or(json!(1));
            let digits = decimals(&step);
            let scale = 10i64.pow(digits as u32);
            let step = (step.as_f64().unwrap() * scale as f64).round() as i64;
            let count =
                |bound: &str| (schema[bound].as_f64().unwrap() * scale as f64 / step as f64).round() as i64;
            let mut texts: Vec<String> = Vec::new();
            for units in (count("minimum")..=count("maximum")).map(|count| count * step) {
                let sign = if units < 0 { "-" } else { "" };
                let whole = format!("{sign}{}", units.abs() / scale);
                let fraction = format!("{:0digits$}", units.abs() % scale);
                let least = fraction.trim_end_matches('0').len();
                texts.extend((least.max(1)..=digits).map(|size| format!("{whole}\\.{}", &fraction[..size])));
                texts.extend((units % scale == 0).then_some(whole));
            }
            if kind == "integer" && count("minimum") < 0 && count("maximum") >= 0 {
                texts.push("-0".into());
            }
            format!("({})", texts.join("|"))
        }
    }
}

fn escape(value: &Value) -> String {
    value.to_string().replace('.', "\\.")
}

/// Whether a number somewhere has a step of two decimals or more.
fn has_fine_steps(schema: &Value) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(has_fine_steps),
        Value::Object(map) => {
            map.get("multipleOf").is_some_and(|step| decimals(step) > 1) || map.values().any(has_fine_steps)
        }
        _ => false,
    }
}

/// What the oracle says: tokens without an alternative, then those to choose from, then whether that is the end.
fn settle(oracle: &mut Constraint) -> (Vec<TokenId>, Vec<TokenId>) {
    let (mut run, mut allowed) = (Vec::new(), Vec::new());
    loop {
        oracle.take_forced(&mut run).unwrap();
        if oracle.is_complete() {
            return (run, Vec::new());
        }
        oracle.allowed(&mut allowed).unwrap();
        let [only] = allowed[..] else { return (run, allowed) };
        oracle.accept(only).unwrap();
        run.push(only);
    }
}

struct Compared {
    states: usize,
    choices: usize,
}

struct Comparison<'a> {
    automaton: &'a Automaton,
    tokenizer: &'a Tokenizer,
    seen: HashSet<StateId>,
    choices: usize,
    text: String,
    schema: &'a Value,
}

impl Comparison<'_> {
    /// `oracle` and `plain` stand where the last chosen token left them.
    fn state(&mut self, state: StateId, mut oracle: Constraint, mut plain: Option<Constraint>) {
        let (run, allowed) = settle(&mut oracle);
        assert_eq!(self.automaton.run(state), run, "run after {:?}", self.text);
        let size = self.text.len();
        for &token in &run {
            if let Some(plain) = &mut plain {
                plain.accept(token).unwrap();
            }
            self.text.push_str(std::str::from_utf8(self.tokenizer.token_bytes(token)).unwrap());
        }
        assert_eq!(self.automaton.allowed(state), allowed, "after {:?}", self.text);
        if let Some(plain) = &mut plain {
            assert_eq!(self.automaton.is_complete(state), plain.is_complete(), "{:?}", self.text);
        }
        if self.seen.insert(state) {
            for &token in &allowed {
                self.choices += 1;
                let next = self.automaton.next(state, token).unwrap();
                let (mut oracle, mut plain) = (oracle.clone(), plain.clone());
                oracle.accept(token).unwrap();
                if let Some(plain) = &mut plain {
                    plain
                        .accept(token)
                        .unwrap_or_else(|error| panic!("{error} after {:?} of {}", self.text, self.schema));
                }
                let size = self.text.len();
                self.text.push_str(std::str::from_utf8(self.tokenizer.token_bytes(token)).unwrap());
                self.state(next, oracle, plain);
                self.text.truncate(size);
            }
        }
        self.text.truncate(size);
    }
}

/// Compares all states, and every edge's far end.
fn compare(engine: &Engine, tokenizer: &Tokenizer, schema: &Value) -> Compared {
    let grammar = engine.compile(schema).unwrap();
    let automaton = grammar.automaton().unwrap_or_else(|reason| panic!("{reason}: {schema}"));
    let oracle = engine.start_regex(&expression(schema)).unwrap();
    let plain = (!has_fine_steps(schema)).then(|| grammar.start_general().unwrap());
    let (seen, text) = (HashSet::new(), String::new());
    let mut comparison = Comparison { automaton, tokenizer, seen, choices: 0, text, schema };
    comparison.state(automaton.start(), oracle, plain);
    assert_eq!(comparison.seen.len(), automaton.states().count(), "states that nothing leads to");
    for state in automaton.states() {
        check_completion(automaton, state);
    }
    let text: Vec<u8> = automaton
        .completion(automaton.start())
        .flat_map(|token| tokenizer.token_bytes(token))
        .copied()
        .collect();
    grammar.validate(std::str::from_utf8(&text).unwrap()).unwrap();
    Compared { states: comparison.seen.len(), choices: comparison.choices }
}

/// The completion is a path to an end, as long as it says, and no choice in its place is shorter.
fn check_completion(automaton: &Automaton, from: StateId) {
    let tokens: Vec<TokenId> = automaton.completion(from).collect();
    assert_eq!(tokens.len(), automaton.completion_tokens(from));
    let (mut state, mut rest) = (from, tokens.as_slice());
    loop {
        rest = rest.strip_prefix(automaton.run(state)).unwrap();
        let Some((&token, behind)) = rest.split_first() else { break };
        let shortest = automaton
            .allowed(state)
            .iter()
            .map(|&other| automaton.completion_tokens(automaton.next(state, other).unwrap()));
        assert_eq!(shortest.min().unwrap(), behind.len());
        (state, rest) = (automaton.next(state, token).unwrap(), behind);
    }
    assert!(automaton.is_complete(state));
}

#[test]
fn agrees_with_the_oracle_on_the_example_sites() {
    let (engine, tokenizer) = engine();
    for name in ["hvac", "conveyor"] {
        let site = Site::load(&root().join("examples").join(name)).unwrap();
        let compared = compare(&engine, &tokenizer, &site.schema());
        assert!(compared.states > 5, "{name}: {} states", compared.states);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn name(&mut self) -> String {
        let words = [
            "set",
            "fan",
            "north",
            "zone",
            "kitchen",
            "hall",
            "a",
            "b",
            "speed",
            "on",
            "off",
            "valve",
            "x",
            "temperature",
        ];
        let mut name = words[self.below(words.len() as u64) as usize].to_owned();
        for _ in 0..self.below(3) {
            let tail = ["_", "-", "1", "2", "12", ".", "s", "_mode", "_room", "th"];
            name.push_str(tail[self.below(tail.len() as u64) as usize]);
        }
        name
    }

    fn names(&mut self, count: u64) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        while names.len() < count as usize {
            let name = self.name();
            if !names.contains(&name) && name != "none" && name != "action" {
                names.push(name);
            }
        }
        names
    }

    fn kind(&mut self) -> String {
        match self.below(5) {
            0 => {
                let count = 1 + self.below(6);
                format!("choices = {:?}", self.names(count))
            }
            1 => {
                let lo = self.below(2000) as i64 - 700;
                format!("integer = [{lo}, {}]", lo + self.below(1500) as i64)
            }
            2 | 3 => {
                let (lead, places) = ([1i64, 2, 5, 25][self.below(4) as usize], self.below(4) as usize);
                let scale = 10i64.pow(places as u32);
                let (lo, count) = (self.below(400) as i64 - 150, 1 + self.below(400) as i64);
                let spell = |units: i64| {
                    let sign = if units < 0 { "-" } else { "" };
                    format!(
                        "{sign}{}.{:0places$}{}",
                        units.abs() / scale,
                        units.abs() % scale,
                        if places == 0 { "" } else { "0" }
                    )
                };
                format!(
                    "number = [{}, {}], step = {}",
                    spell(lo * lead),
                    spell((lo + count) * lead),
                    spell(lead)
                )
            }
            _ => "bool = true".into(),
        }
    }

    fn site(&mut self) -> String {
        let mut text = String::from("name = \"random\"\n[model]\npath = \"m.gguf\"\n");
        let commands = 1 + self.below(4);
        for command in self.names(commands) {
            let count = self.below(4);
            let arguments: Vec<String> = self
                .names(count)
                .into_iter()
                .map(|name| format!("{{ name = {name:?}, {} }}", self.kind()))
                .collect();
            text += &format!("[[command]]\nname = {command:?}\narguments = [{}]\n", arguments.join(", "));
        }
        text
    }
}

#[test]
fn agrees_with_the_oracle_on_random_sites() {
    let (engine, tokenizer) = engine();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut states, mut choices) = (0, 0);
    let wanted = std::env::var("GANGLION_RANDOM_SITES").ok().and_then(|count| count.parse().ok());
    let sites = wanted.unwrap_or(RANDOM_SITES);
    for _ in 0..sites {
        let text = random.site();
        let site =
            Site::parse(&text, Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let compared = compare(&engine, &tokenizer, &site.schema());
        (states, choices) = (states + compared.states, choices + compared.choices);
    }
    println!("{sites} sites, {states} states, {choices} choices");
    assert!(states > 5_000 && choices > 20_000, "{states} states, {choices} choices");
}

/// Vocabularies of up to 152,000 tokens, byte-level BPE and SPM, if the shared test data are there.
#[test]
fn agrees_with_the_oracle_in_other_vocabularies() {
    let shared = std::env::var_os("GANGLION_SHARED").map(std::path::PathBuf::from);
    let Some(folder) = shared.map(|shared| shared.join("data/vocab")).filter(|folder| folder.is_dir()) else {
        println!("skipped: no folder of shared test data (set GANGLION_SHARED)");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "gguf"));
    files.sort();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut compared = 0;
    for file in &files {
        let Ok(tokenizer) = Tokenizer::from_gguf(&Gguf::open(file).unwrap()).map(Arc::new) else { continue };
        let Ok(engine) = Engine::new(Arc::clone(&tokenizer)) else { continue };
        println!("{}: {} tokens", file.display(), tokenizer.vocab_size());
        let start = std::time::Instant::now();
        let site = Site::load(&root().join("examples/hvac")).unwrap();
        let bytes = engine.compile(&site.schema()).unwrap().automaton().unwrap().size_bytes();
        println!("  hvac: {bytes} bytes in {:?}", start.elapsed());
        for name in ["hvac", "conveyor"] {
            let site = Site::load(&root().join("examples").join(name)).unwrap();
            let found = compare(&engine, &tokenizer, &site.schema());
            println!("  {name}: {} states, {} choices", found.states, found.choices);
            compared += 1;
        }
        for _ in 0..RANDOM_SITES_ELSEWHERE {
            let site = Site::parse(&random.site(), Path::new("site.toml")).unwrap();
            compare(&engine, &tokenizer, &site.schema());
        }
    }
    assert!(compared > 4, "{compared} comparisons of {} files", files.len());
}

/// A site with as many commands, arguments and choices as a site can have.
fn largest_site(choices: u64) -> String {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut text = String::from("name = \"largest\"\n[model]\npath = \"m.gguf\"\n");
    for command in 0..COMMANDS_MAX - 1 {
        let arguments: Vec<String> = (0..ARGUMENTS_MAX)
            .map(|argument| {
                let names: Vec<String> =
                    (0..choices).map(|choice| format!("{}_{choice}", random.name())).collect();
                format!("{{ name = \"argument_{argument}\", choices = {names:?} }}")
            })
            .collect();
        text +=
            &format!("[[command]]\nname = \"command_{command}\"\narguments = [{}]\n", arguments.join(", "));
    }
    text
}

#[test]
fn sites_as_large_as_they_can_be_have_an_automaton() {
    let (engine, _) = engine();
    for choices in [8, 35] {
        let text = largest_site(choices);
        let site = Site::parse(&text, Path::new("site.toml")).unwrap();
        let grammar = engine.compile(&site.schema()).unwrap();
        let automaton = grammar.automaton().unwrap_or_else(|reason| panic!("{choices} choices: {reason}"));
        let (states, bytes) = (automaton.states().count(), automaton.size_bytes());
        println!("{} bytes of site: {states} states in {bytes} bytes", text.len());
        assert!(bytes <= AUTOMATON_BYTES_MAX);
    }
}

#[test]
fn what_is_not_bounded_is_left_to_llguidance_and_says_why() {
    let (engine, _) = engine();
    let command = |argument: Value| {
        json!({"type": "object", "properties": {"action": {"const": "go"}, "value": argument},
               "required": ["action", "value"], "additionalProperties": false})
    };
    let many: Vec<String> = (0..100_000).map(|number| format!("{}", number * 7919)).collect();
    for (argument, why) in [
        (json!({"type": "string", "maxLength": 4}), "#/properties/value: string is not"),
        (json!({"type": "number", "minimum": 0, "maximum": 1}), "without range or step"),
        (json!({"type": "integer", "minimum": 0}), "without range or step"),
        (json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 2}), "array"),
        (json!({"enum": ["a\"b"]}), "the constant"),
        (json!({"enum": [1.5]}), "the constant 1.5"),
        (
            json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": false}),
            "optional",
        ),
        (json!({"const": "x".repeat(5000)}), "more than 4096 bytes"),
        (json!({"enum": many}), "more than"),
    ] {
        let grammar = engine.compile(&command(argument.clone()));
        let Ok(grammar) = grammar else { continue };
        let reason = grammar.automaton().map(|_| ()).unwrap_err().to_string();
        assert!(reason.contains(why), "{reason}");
        let mut constraint = grammar.start();
        let mut tokens = Vec::new();
        // llguidance has a limit of its own on the run of a long constant.
        assert!(!matches!(constraint.take_forced(&mut tokens), Ok(0)));
    }
}
