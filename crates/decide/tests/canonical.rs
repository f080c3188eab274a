//! The default model's tokens at run time are those it was trained on: in the prefix, in the event, and in the command as
//! the grammar forces it. A forced run that is spelled otherwise would show the model something it never saw.

use ganglion_gguf::Gguf;
use ganglion_grammar::Engine;
use ganglion_site::Site;
use ganglion_tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn tokens_are_those_of_training() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let gguf = Gguf::open(root.join("models/nano/nano.gguf")).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).unwrap());
    let engine = Engine::new(Arc::clone(&tokenizer)).unwrap();
    let golden = std::fs::read_to_string(root.join("crates/site/tests/golden/prompts.jsonl")).unwrap();
    let mut commands = 0;
    for line in golden.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let site = Site::parse(line["toml"].as_str().unwrap(), Path::new("site.toml")).unwrap();
        let plain = EncodeOptions::default();
        assert_eq!(tokenizer.encode(&site.prompt_prefix(), plain), tokens(&line["prefix_tokens"]));
        let grammar = engine.compile(&site.schema()).unwrap();
        for case in line["events"].as_array().unwrap() {
            assert_eq!(
                tokenizer.encode(case["prompt"].as_str().unwrap(), plain),
                tokens(&case["prompt_tokens"])
            );
            let answer = tokens(&case["answer_tokens"]);
            let mut constraint = grammar.start();
            let (mut written, mut allowed) = (Vec::new(), Vec::new());
            while written.len() < answer.len() {
                constraint.take_forced(&mut written).unwrap();
                assert_eq!(written, answer[..written.len()], "forced otherwise in {}", case["answer"]);
                if written.len() < answer.len() {
                    let next = answer[written.len()];
                    constraint.allowed(&mut allowed).unwrap();
                    assert!(
                        allowed.contains(&next),
                        "token {} of {} is not allowed",
                        written.len(),
                        case["answer"]
                    );
                    constraint.accept(next).unwrap();
                    written.push(next);
                }
            }
            constraint.take_forced(&mut written).unwrap();
            assert!(constraint.is_complete() && written == answer, "{} goes on", case["answer"]);
            grammar.validate(case["answer"].as_str().unwrap()).unwrap();
            commands += 1;
        }
    }
    assert_eq!(commands, 200);
}
