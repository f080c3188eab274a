//! Everything that follows from a site, byte for byte. Refresh with `UPDATE_EXPECT=1`.

use expect_test::{Expect, expect, expect_file};
use ganglion_site::{Event, Sentence, Site};
use std::path::{Path, PathBuf};

fn example(name: &str) -> Site {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    Site::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn all_kinds() -> Site {
    let text = r#"
name = "kinds"
[model]
path = "m.gguf"
[[command]]
name = "do_it"
about = "  show every kind "
arguments = [
  { name = "way", choices = ["left", "right"] },
  { name = "count", integer = [-3, 12] },
  { name = "speed", number = [-2.5, 1000], step = 0.25, unit = "mm/s" },
  { name = "now", bool = true },
  { name = "label", text = 16 },
]
writes = [{ coil = 3, value = "now" }, { holding = 7, select = "way", value = "speed", scale = 0.25 }]
[[command]]
name = "quiet"
"#;
    Site::parse(text, Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn prefix() {
    expect_file!["snapshots/hvac_prefix.txt"].assert_eq(&example("hvac").prompt_prefix());
    expect_file!["snapshots/conveyor_prefix.txt"].assert_eq(&example("conveyor").prompt_prefix());
    expect![[r#"
        site kinds
        do do_it way=left|right count=-3..12 speed=-2.5..1000/0.25 mm/s now=true|false label=text: show every kind
        do quiet
    "#]].assert_eq(&all_kinds().prompt_prefix());
}

#[test]
fn system_text() {
    expect_file!["snapshots/conveyor_system.txt"].assert_eq(&example("conveyor").system_text());
    expect_file!["snapshots/kinds_system.txt"].assert_eq(&all_kinds().system_text());
}

#[test]
fn schema() {
    let site = all_kinds();
    let schema = serde_json::to_string_pretty(&site.schema()).unwrap();
    expect_file!["snapshots/kinds_schema.json"].assert_eq(&schema);
    expect!["7237e11707d6845f77aecb902604a89765faf3857e00982042bf6463a664b5b6"].assert_eq(&site.schema_sha256());
}

#[test]
fn tables() {
    expect_file!["snapshots/hvac_limits.txt"].assert_eq(&example("hvac").limit_table());
    expect_file!["snapshots/conveyor_limits.txt"].assert_eq(&example("conveyor").limit_table());
    expect_file!["snapshots/hvac_tags.txt"].assert_eq(&example("hvac").tag_table());
    expect_file!["snapshots/hvac_registers.txt"].assert_eq(&example("hvac").register_table());
    expect_file!["snapshots/kinds_registers.txt"].assert_eq(&all_kinds().register_table());
}

fn check_event(site: &Site, tags: &[(usize, f64)], sentence: &str, expect: &Expect) {
    let mut event = Event::new(1, 2);
    event.sentence = Sentence::new(sentence).unwrap();
    tags.iter().for_each(|(index, value)| event.set_tag(*index, *value));
    expect.assert_eq(&site.prompt_event(&event));
}

#[test]
fn events() {
    let hvac = example("hvac");
    check_event(&hvac, &[], "", &expect![[""]]);
    check_event(&hvac, &[], " \n\t\u{0}\u{85}\u{2003}", &expect![[""]]);
    check_event(&hvac, &[], "  make\tthe \r\n\n kitchen\u{0}21 \u{a0}degrees\u{7} ", &expect![[r#"
        say make the kitchen 21 degrees
    "#]]);
    check_event(&hvac, &[(3, 1.0), (0, 40.04), (1, -0.04)], "", &expect![[r#"
        in kitchen_temperature=40 high office_temperature=0 office_occupied=yes
    "#]]);
    check_event(&hvac, &[(0, 40.0), (3, 0.0), (4, f64::NAN)], "hi", &expect![[r#"
        in kitchen_temperature=40 office_occupied=no
        say hi
    "#]]);
    check_event(&hvac, &[(0, 4.99), (63, 5.0)], "hi", &expect![[r#"
        in kitchen_temperature=5 low
        say hi
    "#]]);
    let conveyor = example("conveyor");
    check_event(&conveyor, &[(0, 60.04), (1, 200.0), (2, 1199.6)], "", &expect![[r#"
        in torque=60 high wear=200 speed=1200 low
    "#]]);
}

#[test]
fn the_event_text_is_written_without_growing_a_warm_buffer() {
    let site = example("conveyor");
    let mut event = Event::new(1, 2);
    event.set_tag(0, 60.5);
    event.sentence = Sentence::new("anything to do?").unwrap();
    let mut out = String::new();
    site.write_prompt_event(&event, &mut out);
    let (capacity, pointer) = (out.capacity(), out.as_ptr());
    for _ in 0..100 {
        out.clear();
        site.write_prompt_event(&event, &mut out);
    }
    assert_eq!((out.capacity(), out.as_ptr()), (capacity, pointer));
}
