//! The program and the training generator build the same bytes. The golden file is written by
//! `models/nano/recipe/golden_prompts.py`.

use ganglion_site::{Command, Event, Sentence, Site};
use serde_json::Value;
use std::path::Path;

#[test]
fn prompts_and_commands_are_those_of_the_training_generator() {
    let golden = include_str!("golden/prompts.jsonl");
    let (mut sites, mut events) = (0, 0);
    for line in golden.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let site = Site::parse(line["toml"].as_str().unwrap(), Path::new("site.toml")).unwrap();
        assert_eq!(site.prompt_prefix(), line["prefix"].as_str().unwrap());
        sites += 1;
        for case in line["events"].as_array().unwrap() {
            let mut event = Event::new(1, 1);
            event.sentence = Sentence::new(case["text"].as_str().unwrap()).unwrap();
            for (name, value) in case["tags"].as_object().unwrap() {
                let value = value.as_f64().or(value.as_bool().map(f64::from)).unwrap();
                event.set_tag(site.find_tag(name).unwrap(), value);
            }
            assert_eq!(site.prompt_event(&event), case["prompt"].as_str().unwrap(), "{}", line["toml"]);
            let answer = case["answer"].as_str().unwrap();
            assert_eq!(Command::from_json(&site, answer).unwrap().to_json(&site), answer);
            events += 1;
        }
    }
    assert!(sites == 40 && events == 200, "{sites} sites, {events} events");
}
