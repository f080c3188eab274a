//! The second look at a finished command, without allocating.
//!
//! It shares nothing with the grammar: the text is read with the site's own command table, each value is checked against its
//! argument, and the command is written out again, which has to give the same bytes, but for zeros behind a decimal and the
//! sign of zero, which change no value. Text arguments are not read here: they can be spelled in several ways.
//!
//! What a command that is still being written has decided so far is read here too.

use ganglion_site::limits::ARGUMENTS_MAX;
use ganglion_site::{ArgumentKind, ArgumentSpec, Command, Site, Value};

/// The command that `text` is the canonical form of; `written` is working memory.
pub(crate) fn read(site: &Site, text: &str, written: &mut String) -> Option<Command> {
    let (name, mut rest) = text.strip_prefix("{\"action\":\"")?.split_once('"')?;
    let verb = site.commands.iter().position(|command| command.name == name)?;
    let arguments = &site.commands.get(verb)?.arguments;
    let mut values = [Value::Absent; ARGUMENTS_MAX];
    let mut spellings = [""; ARGUMENTS_MAX];
    for ((argument, value), spelling) in arguments.iter().zip(&mut values).zip(&mut spellings) {
        rest = rest.strip_prefix(",\"")?.strip_prefix(argument.name.as_str())?.strip_prefix("\":")?;
        let size = rest.find([',', '}'])?;
        let (spelled, behind) = rest.split_at_checked(size)?;
        *value = read_value(argument, spelled)?;
        *spelling = canonical(argument, spelled);
        rest = behind;
    }
    let command = Command { verb: u16::try_from(verb).ok()?, values };
    if rest != "}" || command.check(site).is_err() {
        return None;
    }
    written.clear();
    command.write_json(site, written);
    let mut left = written.strip_prefix("{\"action\":\"")?.strip_prefix(name)?.strip_prefix('"')?;
    for (argument, spelling) in arguments.iter().zip(spellings) {
        left = left.strip_prefix(",\"")?.strip_prefix(argument.name.as_str())?.strip_prefix("\":")?;
        left = left.strip_prefix(spelling)?;
    }
    (left == "}").then_some(command)
}

/// What the beginning of a command says: what is decided in it does not change any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided {
    pub(crate) verb: u16,
    /// Of the first arguments, as many as are decided.
    pub(crate) arguments: usize,
    pub(crate) values: [Value; ARGUMENTS_MAX],
}

impl Decided {
    /// Reads the beginning of a command; `None` where not even the action is decided.
    pub(crate) fn read(site: &Site, text: &str) -> Option<Self> {
        let (name, mut rest) = text.strip_prefix("{\"action\":\"")?.split_once('"')?;
        let verb = site.commands.iter().position(|command| command.name == name)?;
        let mut decided =
            Self { verb: u16::try_from(verb).ok()?, arguments: 0, values: [Value::Absent; ARGUMENTS_MAX] };
        let arguments = &site.commands.get(verb)?.arguments;
        for (argument, value) in arguments.iter().zip(&mut decided.values) {
            let spelled = rest
                .strip_prefix(",\"")
                .and_then(|rest| rest.strip_prefix(argument.name.as_str())?.strip_prefix("\":"));
            let Some((spelled, behind)) =
                spelled.and_then(|text| text.split_at_checked(text.find([',', '}'])?))
            else {
                break;
            };
            let Some(read) = read_value(argument, spelled).filter(|read| argument.check(read).is_ok()) else {
                break;
            };
            *value = read;
            decided.arguments += 1;
            rest = behind;
        }
        Some(decided)
    }

    /// The whole command, what is not decided by the site's defaults. `None` if something critical is missing.
    pub(crate) fn complete(&self, site: &Site) -> Option<Command> {
        let mut command = Command { verb: self.verb, values: self.values };
        let arguments = &command.spec(site)?.arguments;
        for (argument, value) in arguments.iter().zip(&mut command.values).skip(self.arguments) {
            *value = argument.default?;
        }
        command.check(site).ok().map(|()| command)
    }
}

/// The site's spelling of a number that may have zeros behind its decimals, or a zero with a sign.
fn canonical<'a>(argument: &ArgumentSpec, spelled: &'a str) -> &'a str {
    match (&argument.kind, spelled.split_once('.')) {
        (ArgumentKind::Number { .. }, Some((_, decimals))) if !decimals.is_empty() => {
            spelled.trim_end_matches('0').trim_end_matches('.')
        }
        (ArgumentKind::Integer { .. }, None) if spelled == "-0" => "0",
        _ => spelled,
    }
}

fn read_value(argument: &ArgumentSpec, spelled: &str) -> Option<Value> {
    match &argument.kind {
        ArgumentKind::Enum(choices) => {
            let name = spelled.strip_prefix('"')?.strip_suffix('"')?;
            let index = choices.iter().position(|choice| choice == name)?;
            u16::try_from(index).ok().map(Value::Choice)
        }
        ArgumentKind::Integer { .. } => spelled.parse().ok().map(Value::Integer),
        ArgumentKind::Number { .. } => spelled.parse().ok().map(Value::Number),
        ArgumentKind::Bool => spelled.parse().ok().map(Value::Bool),
        ArgumentKind::Text { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn site() -> Site {
        let text = r#"
name = "kinds"
[model]
path = "m.gguf"
[[command]]
name = "do_it"
arguments = [
  { name = "way", choices = ["left", "left-1"] },
  { name = "count", integer = [-3, 12] },
  { name = "fine", number = [-1, 1], step = 0.025 },
  { name = "coarse", number = [-2000, 3000], step = 250 },
  { name = "now", bool = true },
]
[[command]]
name = "say"
arguments = [{ name = "what", text = 8 }]
"#;
        Site::parse(text, Path::new("site.toml")).unwrap()
    }

    #[test]
    fn reads_what_the_site_writes_and_nothing_else() {
        let site = site();
        let mut written = String::new();
        let mut good = 0;
        for fine in -40..=40 {
            for coarse in -8..=12 {
                let mut command = Command::none(&site);
                command.verb = 0;
                command.values[0] = Value::Choice((good % 2) as u16);
                command.values[1] = Value::Integer(i64::from(fine).rem_euclid(16) - 3);
                command.values[2] = Value::Number(f64::from(fine) / 40.0);
                command.values[3] = Value::Number(f64::from(coarse * 250));
                command.values[4] = Value::Bool(coarse % 2 == 0);
                let json = command.to_json(&site);
                let slow = Command::from_json(&site, &json).unwrap();
                assert_eq!(read(&site, &json, &mut written), Some(slow), "{json}");
                let bits = |command: &Command| match command.values[2] {
                    Value::Number(number) => number.to_bits(),
                    _ => unreachable!(),
                };
                assert_eq!(read(&site, &json, &mut written).as_ref().map(bits), Some(bits(&slow)));
                good += 1;
            }
        }
        assert_eq!(read(&site, "{\"action\":\"none\"}", &mut written), Some(Command::none(&site)));
        assert!(good > 1000);
    }

    #[test]
    fn says_what_a_beginning_has_decided() {
        let text = r#"
name = "kinds"
[model]
path = "m.gguf"
[[command]]
name = "do_it"
arguments = [
  { name = "way", choices = ["left", "left-1"] },
  { name = "count", integer = [-3, 12], default = -1 },
  { name = "fine", number = [-1, 1], step = 0.025, default = 0.5 },
]
"#;
        let site = Site::parse(text, Path::new("site.toml")).unwrap();
        let whole = r#"{"action":"do_it","way":"left","count":1,"fine":0.75}"#;
        let mut written = String::new();
        let mut seen = Vec::new();
        for size in 0..=whole.len() {
            let decided = Decided::read(&site, &whole[..size]);
            let json = decided
                .and_then(|decided| decided.complete(&site))
                .map(|command| command.to_json(&site).replace("{\"action\":\"do_it\",\"way\":", ""));
            let state = (decided.map(|decided| decided.arguments), json);
            if seen.last() != Some(&state) {
                seen.push(state);
            }
        }
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            (None, None),
            (Some(0), None),
            (Some(1), some("\"left\",\"count\":-1,\"fine\":0.5}")),
            (Some(2), some("\"left\",\"count\":1,\"fine\":0.5}")),
            (Some(3), some("\"left\",\"count\":1,\"fine\":0.75}")),
        ];
        assert_eq!(seen, expected);
        let last = Decided::read(&site, whole).unwrap().complete(&site);
        assert_eq!(last, read(&site, whole, &mut written));
        for odd in [r#"{"action":"do_i","way":"left","#, r#"{"action":"do"#, "", "{}"] {
            assert!(Decided::read(&site, odd).is_none(), "{odd}");
        }
        let wrong = Decided::read(&site, r#"{"action":"do_it","way":"left","count":13,"fine":"#).unwrap();
        assert_eq!(wrong.arguments, 1, "what is out of range is not decided");
    }

    #[test]
    fn zeros_that_change_no_value_are_taken() {
        let site = site();
        let whole = r#"{"action":"do_it","way":"left","count":0,"fine":0.5,"coarse":250,"now":true}"#;
        let mut written = String::new();
        for (from, to) in
            [("0.5", "0.50"), ("0.5", "0.500"), ("\"count\":0", "\"count\":-0"), ("250", "250.0")]
        {
            let text = whole.replace(from, to);
            assert_ne!(text, whole);
            assert_eq!(
                read(&site, &text, &mut written),
                Some(Command::from_json(&site, whole).unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        let site = site();
        let whole = r#"{"action":"do_it","way":"left","count":1,"fine":0.5,"coarse":250,"now":true}"#;
        let mut written = String::new();
        assert!(read(&site, whole, &mut written).is_some());
        for (from, to) in [
            ("do_it", "do_it2"),
            ("left", "lef"),
            ("\"left\"", "left"),
            (":1,", ":1.0,"),
            (":1,", ":+1,"),
            (":1,", ":01,"),
            (":1,", ":13,"),
            ("0.5", "0."),
            ("0.5", ".5"),
            ("0.5", "0.5.0"),
            ("0.5", "5e-1"),
            ("0.5", "0.51"),
            ("0.5", "NaN"),
            ("0.5", "inf"),
            ("250", "251"),
            ("250", "3250"),
            ("true", "1"),
            ("true", "\"true\""),
            ("true}", "true,\"x\":1}"),
            ("true}", "true}}"),
            ("true}", "true"),
            (",\"now\":true", ""),
            ("\"action\":", "\"action\": "),
            ("\"count\":1,\"fine\":0.5", "\"fine\":0.5,\"count\":1"),
        ] {
            let text = whole.replace(from, to);
            assert_ne!(text, whole);
            assert_eq!(read(&site, &text, &mut written), None, "{text}");
        }
        for text in ["", "{}", "{\"action\":\"say\",\"what\":\"x\"}", "{\"action\":null}", "null"] {
            assert_eq!(read(&site, text, &mut written), None, "{text}");
        }
        for size in 0..whole.len() {
            assert_eq!(read(&site, &whole[..size], &mut written), None);
        }
    }
}
