//! The shipped examples load, and mean what they say.

use ganglion_site::{ArgumentKind, LimitTarget, ReadTable, Site, TagKind};
use std::path::PathBuf;

fn example(name: &str) -> Site {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    Site::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn hvac() {
    let site = example("hvac");
    let names: Vec<&str> = site.commands.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(names, ["set_temperature", "set_mode", "set_fan", "set_schedule", "all_off", "none"]);
    assert_eq!(site.tags[0].decimals, 1, "follows from the read scale");
    assert_eq!((site.tags[3].kind, site.tags[3].range_hi), (TagKind::Bool, 1.0));
    assert_eq!(site.tags[4].stale_ms, 10_000);
    assert_eq!(site.limits[0].on, LimitTarget::Argument { command: 0, argument: 1 });
    assert_eq!(site.rules[1].when.len(), 2);
    assert_eq!(site.safe.to_json(&site), r#"{"action":"all_off"}"#);
    assert_eq!(site.rules[0].command.to_json(&site), r#"{"action":"set_fan","room":"hall","percent":20}"#);
    assert!(site.rules[2].command.is_none(&site));
    assert!(matches!(site.commands[0].arguments[1].kind, ArgumentKind::Number { step, .. } if step == 0.5));
    let plant = site.plant.as_ref().unwrap();
    assert_eq!((plant.unit, plant.poll_ms), (1, site.guard.period_ms));
    assert!(site.model.path.ends_with("examples/hvac/../../models/nano/nano.gguf"));
}

#[test]
fn conveyor() {
    let site = example("conveyor");
    assert_eq!(site.prompt.tags, [0, 1, 2]);
    assert_eq!(site.tags[3].read.unwrap().table, ReadTable::Input);
    assert_eq!(site.tags[3].decimals, 1, "as given, not from the scale 0.02");
    assert_eq!(site.model.threads, 0);
    assert_eq!(site.commands.len(), 5);
}

#[test]
fn a_file_can_be_given_instead_of_its_folder() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac");
    assert_eq!(Site::load(&folder).unwrap(), Site::load(&folder.join("site.toml")).unwrap());
}
