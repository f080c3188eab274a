//! `docs/site-file.md` against the parser: its examples are one valid file, its tables hold every key that is read and no
//! other, and its ranges of whole numbers and defaults are those of the parser.

use ganglion_site::limits::*;
use ganglion_site::{How, KvStorage, Problem, RecordKeep, Site, UNITS};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/site-file.md");

/// A key that no table has, and a value that no key takes.
const UNKNOWN: &str = "zz";
const WRONG: &str = "\"?\"";

/// The examples of the page, joined.
fn examples() -> String {
    let blocks = PAGE.split("\n```toml\n").skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0).collect::<Vec<_>>().join("\n")
}

fn problems(text: &str) -> Vec<Problem> {
    match Site::parse(text, Path::new("site.toml")) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().to_vec(),
    }
}

/// Each table of the page that begins with a column `key`: its rows by their key.
fn tables() -> Vec<BTreeMap<&'static str, &'static str>> {
    let bodies = PAGE.split("\n| key |").skip(1);
    let rows = |body: &'static str| body.lines().skip(2).take_while(|line| line.starts_with("| `"));
    bodies.map(|body| rows(body).map(|row| (row.split('`').nth(1).unwrap(), row)).collect()).collect()
}

/// Places in `text` where a table's first key may stand, each with whether the table is written inline.
fn openings(text: &str) -> Vec<(usize, bool)> {
    let mut found = vec![(0, false)];
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '{' if !quoted => found.push((at + 1, true)),
            '\n' => {
                let header = text[..at].lines().last().is_some_and(|line| line.starts_with('['));
                // A line of a list begins with white space in the examples, or closes it.
                found.extend(header.then_some((at + 1, false)));
            }
            _ => {}
        }
    }
    found
}

fn with_field(text: &str, (at, inline): (usize, bool), key: &str, value: &str) -> String {
    let end = if inline { "," } else { "\n" };
    format!("{}{key} = {value}{end}{}", &text[..at], &text[at..])
}

/// The keys of the table at an opening, if the parser fixes them: those of a command or of choices are the site's own.
fn known_keys(text: &str, opening: (usize, bool)) -> Option<BTreeSet<String>> {
    let problems = problems(&with_field(text, opening, UNKNOWN, WRONG));
    assert!(!problems.is_empty(), "an unknown field is ignored: {}", &text[opening.0..]);
    let unknown = problems.iter().find(|problem| problem.found == format!("unknown field {UNKNOWN}"))?;
    let list = unknown.expected.split(" (did you mean").next()?.strip_prefix("one of ")?;
    Some(list.split(", ").map(str::to_owned).collect())
}

#[test]
fn the_examples_are_one_valid_file() {
    let text = examples();
    let found = problems(&text);
    assert!(found.is_empty(), "{}\n{found:#?}", text.lines().nth(found[0].line - 1).unwrap_or_default());
}

#[test]
fn every_key_is_on_the_page_and_no_other() {
    let text = examples();
    let known: BTreeSet<BTreeSet<String>> =
        openings(&text).into_iter().filter_map(|opening| known_keys(&text, opening)).collect();
    let documented: BTreeSet<BTreeSet<String>> =
        tables().iter().map(|table| table.keys().map(|key| (*key).to_owned()).collect()).collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&known).collect();
    assert!(missing.is_empty() && stale.is_empty(), "read: {missing:#?}\non the page: {stale:#?}");
}

#[test]
fn ranges_of_whole_numbers_are_those_of_the_parser() {
    let text = examples();
    let mut compared = BTreeSet::new();
    for opening in openings(&text) {
        let Some(keys) = known_keys(&text, opening) else { continue };
        let tables = tables();
        let table = tables.iter().find(|table| {
            table.len() == keys.len() && keys.iter().all(|key| table.contains_key(key.as_str()))
        });
        // What a default may be is the argument's own range.
        for key in keys.iter().filter(|key| *key != "default") {
            // Where the example has the key already, its own value is made wrong.
            let rest = &text[opening.0..];
            let end = if opening.1 { rest.find('}') } else { rest.find("\n[") }.unwrap_or(rest.len());
            let given = rest[..end].find(&format!("{key} = ")).filter(|at| {
                rest[..*at].bytes().next_back().is_none_or(|byte| byte == b' ' || byte == b'\n')
            });
            let changed = match given {
                None => with_field(&text, opening, key, WRONG),
                Some(at) => {
                    let at = opening.0 + at + key.len() + 3;
                    let digits = text[at..].find(|c: char| !c.is_ascii_digit() && c != '-').unwrap();
                    format!("{}{WRONG}{}", &text[..at], &text[at + digits..])
                }
            };
            let whole = |problem: &Problem| {
                let named = problem.field.rsplit([' ', ']']).next() == Some(key);
                named.then(|| problem.expected.strip_prefix("a whole number from ").map(str::to_owned))?
            };
            for range in problems(&changed).iter().filter_map(whole) {
                let row = table.and_then(|table| table.get(key.as_str())).copied().unwrap_or_default();
                assert!(row.contains(&range), "{key}: the parser takes {range}, the page says {row:?}");
                compared.insert(row);
            }
        }
    }
    // The size of a text argument has a message of its own.
    let tables = tables();
    let rows = tables.iter().flatten().filter(|(key, row)| row.contains("| integer") && **key != "text");
    let left: Vec<_> = rows.filter(|(_, row)| !compared.contains(*row)).collect();
    assert!(left.is_empty(), "not compared: {left:#?}");
}

#[test]
fn numbers_and_symbols_are_those_of_the_crate() {
    let counts = [
        ("tag", TAGS_MAX),
        ("command", COMMANDS_MAX - 1),
        ("limit", LIMITS_MAX),
        ("rule", RULES_MAX),
        ("trigger", TRIGGERS_MAX),
        ("variant", VARIANTS_MAX),
        ("arguments", ARGUMENTS_MAX),
        ("writes", WRITES_MAX),
        ("notes", NOTES_MAX),
        ("about", ABOUT_BYTES_MAX),
        ("always", PLAN_RULES_MAX),
        ("never", PLAN_RULES_MAX),
        ("roads", PLAN_ROADS_MAX),
        ("insert", PLAN_INSERT_CHOICES_MAX),
        ("effects", TAGS_MAX),
    ];
    for (key, count) in counts {
        let row = |line: &&str| line.starts_with(&format!("| `{key}` |"));
        let most = format!("at most {count}");
        assert!(PAGE.lines().filter(row).any(|line| line.contains(&most)), "{key}: {most}");
    }
    let texts = [
        format!("at most {SITE_FILE_BYTES_MAX} bytes"),
        format!("1 to {NAME_BYTES_MAX} bytes"),
        format!("1 to {PATH_BYTES_MAX} bytes"),
        format!("1 to {NOTE_BYTES_MAX} bytes"),
        format!("1 to {SENTENCE_BYTES_MAX} bytes"),
        format!("1 to {CHOICES_MAX}, all different"),
        format!("1 to {TEXT_ARGUMENT_BYTES_MAX} |"),
        format!("1 to {PLAN_PLACES_MAX} |"),
        format!("±{INTEGER_MAX}"),
        format!("At most {CONDITION_BYTES_MAX} bytes and {CONDITION_TERMS_MAX} comparisons"),
    ];
    for text in texts {
        assert!(PAGE.contains(&text), "{text}");
    }
    for unit in UNITS {
        assert!(PAGE.contains(&format!("`{}`", unit.symbol)), "unit {}", unit.symbol);
    }
    for (name, _) in KvStorage::NAMES {
        assert!(PAGE.contains(&format!("`\"{name}\"`")), "kv {name}");
    }
    for (state, _) in ganglion_site::PACKML_STATES {
        assert!(PAGE.contains(&format!("`{state}`")), "state {state}");
    }
}

#[test]
fn defaults_are_those_of_the_parser() {
    let text = "name = \"t\"\n[model]\npath = \"m\"\n[[model.variant]]\nname = \"v\"\npath = \"v\"\n\
        [model.switch]\nmisses = 1\n[guard]\nsafe = { action = \"a\", x = 0 }\ncommands = { per_minute = 9 }\n\
        [plant]\nmodbus = \"h:502\"\nheartbeat = 1\nwatchdog = 2\nwatchdog_ms = 500\nwatchdog_state = 3\n\
        [record]\nfolder = \"f\"\n[[tag]]\nname = \"t\"\nrange = [0, 1]\nread = { input = 1 }\n[[command]]\nname = \"a\"\n\
        arguments = [{ name = \"x\", integer = [0, 1] }]\nwrites = [{ holding = 9, value = \"x\" }]\nplan = { takes = 1 }\n\
        [[rule]]\ndo = { action = \"a\", x = 0 }\n\
        pi = { argument = \"x\", tag = \"t\", setpoint = 0, kp = 1, ti_s = 1 }\n\
        [[trigger]]\nname = \"c\"\nwhen = \"t > 0\"\n[plan]\ninsert = [{ action = \"a\", x = 0 }]\n";
    let site = Site::parse(text, Path::new("site.toml")).unwrap();
    let (model, guard, tag) = (&site.model, &site.guard, &site.tags[0]);
    let (plant, record, plan) =
        (site.plant.as_ref().unwrap(), site.record.as_ref().unwrap(), site.plan.as_ref().unwrap());
    let How::Pi(pi) = site.rules[0].how else { panic!("{:?}", site.rules[0].how) };
    let numbers = [
        ("context_tokens", model.context_tokens as u64),
        ("threads", model.threads as u64),
        ("parallel", model.parallel as u64),
        ("dwell_s", model.switch.dwell_s.into()),
        ("period_ms", guard.period_ms.into()),
        ("deadline_ms", guard.deadline_ms.into()),
        ("failures", guard.breaker_failures.into()),
        ("open_ms", guard.breaker_open_ms.into()),
        ("probes", guard.breaker_probes.into()),
        ("burst", guard.commands.unwrap().burst.into()),
        ("unit", plant.unit.into()),
        ("simulator_speed", plant.simulator_speed as u64),
        ("size_mib", record.size_mib.into()),
        ("minutes", record.minutes.into()),
        ("scale", tag.read.unwrap().scale as u64),
        ("stale_ms", tag.stale_ms.into()),
        ("every_ms", pi.every_ms.into()),
        ("pause_ms", site.triggers[0].pause_ms.into()),
        ("insert_max", plan.insert_max as u64),
        ("budget_ms", plan.budget_ms.into()),
    ];
    let tables = tables();
    let default = |key: &str, value: String| {
        let mut rows = tables.iter().filter_map(|table| table.get(key));
        assert!(rows.any(|row| row.split('|').nth(4) == Some(&format!(" {value} "))), "{key}: {value}");
    };
    for (key, value) in numbers {
        default(key, value.to_string());
    }
    default("lock_memory", format!("`{}`", model.lock_memory));
    default("memo", format!("`{}`", model.memo));
    default("only", format!("`{}`", plan.only));
    default("keep_text", format!("`{}`", record.keep_text));
    default("kv", format!("`\"{}\"`", KvStorage::NAMES.iter().find(|(_, kv)| *kv == model.kv).unwrap().0));
    assert_eq!(guard.brain_timeout_ms, 5 * guard.deadline_ms);
    assert_eq!(plant.poll_ms, guard.period_ms);
    assert_eq!(record.keep, RecordKeep::Everything);
}

#[test]
fn the_forms_of_conditions_are_taken() {
    let section = PAGE.split("\n## Conditions\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let forms: Vec<_> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(forms.len(), 4);
    for form in forms {
        let text = format!("{}\n[[trigger]]\nname = \"form\"\nwhen = \"{form}\"\n", examples());
        let found = problems(&text);
        assert!(found.is_empty(), "{form}: {found:#?}");
    }
}

#[test]
fn links_within_the_documentation_lead_somewhere() {
    let anchor = |title: &str| -> String {
        let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
        title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let anchors = |page: &str| -> BTreeSet<String> {
        let titles = page.lines().filter(|line| line.starts_with('#'));
        titles.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    };
    let (safety, plans) = (include_str!("../../../docs/safety.md"), include_str!("../../../docs/plans.md"));
    for link in PAGE.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let (file, title) = link.split_once('#').unwrap_or((link, ""));
        let page = match file {
            "" => PAGE,
            "safety.md" => safety,
            "plans.md" => plans,
            _ => panic!("{link}: no such page"),
        };
        assert!(title.is_empty() || anchors(page).contains(title), "{link}: no such section");
    }
}
