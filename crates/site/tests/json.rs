//! Commands as JSON: one form out, strict in, each refusal with its own words.

use expect_test::{Expect, expect};
use ganglion_site::{Command, CommandError, Site, Value};
use std::path::Path;

const SITE: &str = r#"
name = "kinds"
[model]
path = "m.gguf"
[[command]]
name = "do_it"
arguments = [
  { name = "way", choices = ["left", "right"] },
  { name = "count", integer = [-3, 12], unit = "s" },
  { name = "speed", number = [-2.5, 100], step = 0.1, unit = "mm/s" },
  { name = "now", bool = true },
  { name = "label", text = 8 },
]
[[command]]
name = "stop"
"#;

fn site() -> Site {
    Site::parse(SITE, Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn check(text: &str, expect: &Expect) {
    let site = site();
    let said = match Command::from_json(&site, text) {
        Ok(command) => format!("{}\n{}", command.to_json(&site), command.describe(&site)),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&said);
}

/// `do_it` with one field's text replaced.
fn check_field(field: &str, value: &str, expect: &Expect) {
    let fields = [("way", "\"left\""), ("count", "1"), ("speed", "1"), ("now", "true"), ("label", "\"\"")];
    let mut text = String::from("{\"action\":\"do_it\"");
    for (name, usual) in fields {
        text.push_str(&format!(",\"{name}\":{}", if name == field { value } else { usual }));
    }
    check(&(text + "}"), expect);
}

#[test]
fn accepted_and_written_in_one_form() {
    check(
        r#"{"action":"stop"}"#,
        &expect![[r#"
        {"action":"stop"}
        stop"#]],
    );
    check(
        r#" { "action" : "none" } "#,
        &expect![[r#"
        {"action":"none"}
        none"#]],
    );
    check(
        r#"{"label":"a\"\\\n\u0001é","now":false,"speed":21.0,"count":-3,"way":"right","action":"do_it"}"#,
        &expect![[r#"
            {"action":"do_it","way":"right","count":-3,"speed":21,"now":false,"label":"a\"\\\n\u0001é"}
            do_it way=right count=-3 s speed=21 mm/s now=no label="a\"\\\n\u{1}é""#]],
    );
    check_field(
        "speed",
        "-0.0",
        &expect![[r#"
        {"action":"do_it","way":"left","count":1,"speed":0,"now":true,"label":""}
        do_it way=left count=1 s speed=0 mm/s now=yes label="""#]],
    );
    check_field(
        "speed",
        "0.30000000000000004",
        &expect![[r#"
        {"action":"do_it","way":"left","count":1,"speed":0.3,"now":true,"label":""}
        do_it way=left count=1 s speed=0.3 mm/s now=yes label="""#]],
    );
    check_field(
        "speed",
        "1e1",
        &expect![[r#"
        {"action":"do_it","way":"left","count":1,"speed":10,"now":true,"label":""}
        do_it way=left count=1 s speed=10 mm/s now=yes label="""#]],
    );
    check_field(
        "count",
        "2.0",
        &expect![[r#"
        {"action":"do_it","way":"left","count":2,"speed":1,"now":true,"label":""}
        do_it way=left count=2 s speed=1 mm/s now=yes label="""#]],
    );
    check_field(
        "count",
        "-0",
        &expect![[r#"
        {"action":"do_it","way":"left","count":0,"speed":1,"now":true,"label":""}
        do_it way=left count=0 s speed=1 mm/s now=yes label="""#]],
    );
}

#[test]
fn refused() {
    check(
        "",
        &expect![[
            r#"expected one JSON object with an "action", found something else: EOF while parsing a value at line 1 column 0"#
        ]],
    );
    check(
        "[]",
        &expect![[
            r#"expected one JSON object with an "action", found something else: invalid type: sequence, expected a JSON object at line 1 column 0"#
        ]],
    );
    check(
        "{\"action\":\"stop\"} {}",
        &expect![[
            r#"expected one JSON object with an "action", found something else: trailing characters at line 1 column 19"#
        ]],
    );
    check("{}", &expect![[r#"expected the field "action", found none"#]]);
    check(r#"{"action":"halt"}"#, &expect![[r#"expected a command of the site, found action "halt""#]]);
    check(r#"{"action":1}"#, &expect!["expected a command of the site, found action 1"]);
    check(r#"{"action":"stop","action":"stop"}"#, &expect!["field action is given twice"]);
    check(r#"{"action":"stop","way":"left"}"#, &expect!["command stop has no argument way"]);
    check(
        r#"{"action":"do_it","way":"left"}"#,
        &expect![
            "command do_it needs argument count: expected a whole number from -3 to 12 s, found nothing"
        ],
    );
    check_field("way", "\"up\"", &expect![[r#"argument way: expected one of left, right, found "up""#]]);
    check_field("way", "0", &expect!["argument way: expected one of left, right, found 0"]);
    check_field("count", "13", &expect!["argument count: expected a whole number from -3 to 12 s, found 13"]);
    check_field(
        "count",
        "1.5",
        &expect!["argument count: expected a whole number from -3 to 12 s, found 1.5"],
    );
    check_field(
        "count",
        "\"1\"",
        &expect![[r#"argument count: expected a whole number from -3 to 12 s, found "1""#]],
    );
    check_field(
        "count",
        "1e300",
        &expect!["argument count: expected a whole number from -3 to 12 s, found 1e300"],
    );
    check_field(
        "speed",
        "100.1",
        &expect!["argument speed: expected a number from -2.5 to 100 mm/s in steps of 0.1, found 100.1"],
    );
    check_field("speed", "0.15", &expect!["argument speed: expected a multiple of 0.1, found 0.15"]);
    check_field(
        "speed",
        "NaN",
        &expect![[
            r#"expected one JSON object with an "action", found something else: expected value at line 1 column 50"#
        ]],
    );
    check_field(
        "speed",
        "null",
        &expect!["argument speed: expected a number from -2.5 to 100 mm/s in steps of 0.1, found null"],
    );
    check_field("now", "\"yes\"", &expect![[r#"argument now: expected true or false, found "yes""#]]);
    check_field(
        "label",
        "\"ééééé\"",
        &expect![[r#"argument label: expected text of at most 8 bytes, found "ééééé""#]],
    );
    check_field("label", "{}", &expect!["argument label: expected text of at most 8 bytes, found an object"]);
}

fn check_values(change: impl FnOnce(&mut Command), expect: &Expect) {
    let site = site();
    let text = r#"{"action":"do_it","way":"left","count":1,"speed":2,"now":true,"label":"x"}"#;
    let mut command = Command::from_json(&site, text).unwrap_or_else(|error| panic!("{error}"));
    change(&mut command);
    let said = command.check(&site).map_or_else(|error| error.to_string(), |()| "accepted".into());
    expect.assert_eq(&said);
}

#[test]
fn values_from_another_process_are_checked() {
    check_values(|_| {}, &expect!["accepted"]);
    check_values(
        |command| command.verb = 3,
        &expect!["expected a command of the site, found action number 3"],
    );
    check_values(
        |command| command.verb = 1,
        &expect!["command stop takes 0 arguments, found a value at place 0"],
    );
    check_values(
        |command| command.values[0] = Value::Choice(2),
        &expect!["argument way: expected one of left, right, found choice 2"],
    );
    check_values(
        |command| command.values[0] = Value::Absent,
        &expect!["command do_it needs argument way: expected one of left, right, found nothing"],
    );
    check_values(
        |command| command.values[1] = Value::Number(1.0),
        &expect!["argument count: expected a whole number from -3 to 12 s, found 1 s"],
    );
    check_values(
        |command| command.values[1] = Value::Integer(13),
        &expect!["argument count: expected a whole number from -3 to 12 s, found 13"],
    );
    check_values(
        |command| command.values[2] = Value::Number(f64::NAN),
        &expect!["argument speed: expected a finite number, found NaN"],
    );
    check_values(
        |command| command.values[2] = Value::Number(f64::INFINITY),
        &expect!["argument speed: expected a finite number, found inf"],
    );
    check_values(
        |command| command.values[2] = Value::Number(0.15),
        &expect!["argument speed: expected a multiple of 0.1, found 0.15"],
    );
    check_values(
        |command| command.values[2] = Value::Number(100.2),
        &expect!["argument speed: expected a number from -2.5 to 100 mm/s in steps of 0.1, found 100.2"],
    );
    check_values(
        |command| command.values[7] = Value::Bool(true),
        &expect!["command do_it takes 5 arguments, found a value at place 7"],
    );
}

#[test]
fn not_a_number_has_its_own_error() {
    let site = site();
    let argument = &site.commands[0].arguments[2];
    let error = argument.check(&Value::Number(f64::NAN));
    assert!(matches!(error, Err(CommandError::NotFinite { field, .. }) if field == "speed"));
}
