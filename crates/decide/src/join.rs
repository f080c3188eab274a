//! Many decisions about one text, reduced to what it asks for.
//!
//! A command that several windows decided counts once. Of commands that contradict each other, the one that the model was
//! surest of stands (the earlier among equals), and the others are reported as overruled. Memory is bounded by
//! [`JOIN_COMMANDS_MAX`], whatever the number of windows.

use crate::limits::{JOIN_COMMANDS_MAX, JOIN_RANGES_MAX};
use ganglion_site::{ArgumentKind, Command, Decision, Site, Value, WriteTarget};
use std::ops::Range;

/// A command that at least one window decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The command.
    pub command: Command,
    /// The largest among its windows.
    pub confidence: f32,
    /// The first windows that it came from, as byte ranges of the text; [`JOIN_RANGES_MAX`] at most.
    pub ranges: Vec<Range<u64>>,
    /// How many windows it came from.
    pub windows: u64,
    /// The command that it contradicts and that stands in its place.
    pub overruled_by: Option<Command>,
}

/// Collects the decisions.
#[derive(Debug, Default)]
pub struct Join {
    found: Vec<Joined>,
    /// Windows in which there was nothing to do.
    pub nothing: u64,
    /// Windows without a decision.
    pub undecided: u64,
    /// Windows in all.
    pub windows: u64,
    /// Windows whose commands were left out because too many different ones had been found.
    pub left_out: u64,
}

impl Join {
    /// Adds what one window gave.
    pub fn add(&mut self, site: &Site, range: Range<u64>, decision: &Decision) {
        self.windows += 1;
        let Some(command) = decision.command else {
            self.undecided += 1;
            return;
        };
        if command.is_none(site) {
            self.nothing += 1;
            return;
        }
        if let Some(known) = self.found.iter_mut().find(|joined| joined.command == command) {
            known.confidence = known.confidence.max(decision.confidence);
            known.windows += 1;
            if known.ranges.len() < JOIN_RANGES_MAX {
                known.ranges.push(range);
            }
            return;
        }
        if self.found.len() == JOIN_COMMANDS_MAX {
            let least =
                self.found.iter().enumerate().min_by(|(_, a), (_, b)| a.confidence.total_cmp(&b.confidence));
            match least.map(|(place, joined)| (place, joined.confidence, joined.windows)) {
                Some((place, confidence, windows)) if confidence < decision.confidence => {
                    self.left_out += windows;
                    self.found.remove(place);
                }
                _ => {
                    self.left_out += 1;
                    return;
                }
            }
        }
        self.found.push(Joined {
            command,
            confidence: decision.confidence,
            ranges: vec![range],
            windows: 1,
            overruled_by: None,
        });
    }

    /// All commands in the order of the text, with those that are overruled marked.
    pub fn reduce(mut self, site: &Site) -> Vec<Joined> {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        // Stable: the earlier one first among equals.
        order.sort_by(|a, b| match (self.found.get(*a), self.found.get(*b)) {
            (Some(a), Some(b)) => b.confidence.total_cmp(&a.confidence),
            _ => std::cmp::Ordering::Equal,
        });
        let mut standing: Vec<Command> = Vec::new();
        for place in order {
            let Some(joined) = self.found.get_mut(place) else { continue };
            joined.overruled_by =
                standing.iter().find(|other| contradict(site, &joined.command, other)).copied();
            if joined.overruled_by.is_none() {
                standing.push(joined.command);
            }
        }
        self.found
    }
}

/// Whether two different commands cannot both be meant: they write the same output, or, where a site writes none, they are
/// the same verb about the same thing.
fn contradict(site: &Site, one: &Command, other: &Command) -> bool {
    if one == other {
        return false;
    }
    let (first, second) = (outputs(site, one), outputs(site, other));
    if !first.is_empty() && !second.is_empty() {
        return first.iter().any(|output| second.contains(output));
    }
    one.verb == other.verb && subject(site, one) == subject(site, other)
}

/// Registers that a command writes.
fn outputs(site: &Site, command: &Command) -> Vec<(bool, u32)> {
    let writes = command.spec(site).map_or(&[][..], |spec| &spec.writes);
    let output = |write: &ganglion_site::RegisterWrite| {
        let offset = match write.select.and_then(|index| command.values.get(index)) {
            Some(Value::Choice(choice)) => u32::from(*choice),
            _ => 0,
        };
        (write.target == WriteTarget::Coil, u32::from(write.address) + offset)
    };
    writes.iter().map(output).collect()
}

/// The choices that say what a command is about: all of them, if there is something else to say about it.
fn subject(site: &Site, command: &Command) -> Vec<Value> {
    let arguments = command.spec(site).map_or(&[][..], |spec| &spec.arguments);
    let is_choice = |kind: &ArgumentKind| matches!(kind, ArgumentKind::Enum(_));
    if arguments.iter().all(|argument| is_choice(&argument.kind)) {
        return Vec::new();
    }
    let pairs = arguments.iter().zip(&command.values).filter(|(argument, _)| is_choice(&argument.kind));
    pairs.map(|(_, value)| *value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn hvac() -> Site {
        Site::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac")).unwrap()
    }

    fn decision(site: &Site, json: &str, confidence: f32) -> Decision {
        let command = (!json.is_empty()).then(|| Command::from_json(site, json).unwrap());
        Decision { command, confidence, ..Decision::SIGN_OF_LIFE }
    }

    const WARM: &str = r#"{"action":"set_temperature","room":"kitchen","celsius":21}"#;

    fn reduced(site: &Site, decisions: &[(&str, f32)]) -> Vec<(String, f32, u64, Option<String>)> {
        let mut join = Join::default();
        for (at, (json, confidence)) in (0..).zip(decisions) {
            join.add(site, at * 10..at * 10 + 15, &decision(site, json, *confidence));
        }
        let all = join.reduce(site).into_iter();
        all.map(|j| {
            let text = |command: Command| command.to_json(site);
            (text(j.command), j.confidence, j.windows, j.overruled_by.map(text))
        })
        .collect()
    }

    #[test]
    fn the_same_command_counts_once_and_nothing_is_nothing() {
        let site = hvac();
        let none = r#"{"action":"none"}"#;
        let found = reduced(&site, &[(WARM, 0.5), (none, 1.0), ("", 0.0), (WARM, 0.75)]);
        assert_eq!(found, [(WARM.to_owned(), 0.75, 2, None)]);
        let mut join = Join::default();
        for json in [none, "", WARM] {
            join.add(&site, 0..1, &decision(&site, json, 0.5));
        }
        assert_eq!((join.windows, join.nothing, join.undecided, join.left_out), (3, 1, 1, 0));
    }

    #[test]
    fn of_contradictions_the_surest_stands() {
        let site = hvac();
        let cooler = WARM.replace("21", "18");
        let office = WARM.replace("kitchen", "office");
        let found = reduced(&site, &[(&cooler, 0.5), (&office, 0.1), (WARM, 0.9)]);
        let stands = |json: &str| found.iter().find(|f| f.0 == json).unwrap().3.clone();
        assert_eq!((stands(WARM), stands(&office)), (None, None));
        assert_eq!(stands(&cooler).as_deref(), Some(WARM));
        // The earlier among equals; and other verbs that write the same register.
        let [heat, cool] = ["heat", "cool"].map(|mode| format!(r#"{{"action":"set_mode","mode":"{mode}"}}"#));
        let found = reduced(&site, &[(&cool, 0.5), (&heat, 0.5), (r#"{"action":"all_off"}"#, 0.4)]);
        assert_eq!(found.iter().map(|f| f.3.is_some()).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn a_site_without_outputs_goes_by_what_is_chosen() {
        let text = "name = \"t\"\n[model]\npath = \"m\"\n[[command]]\nname = \"a\"\narguments = [{ name = \"w\", choices = [\"x\", \"y\"] }, { name = \"n\", integer = [0, 9] }]\n[[command]]\nname = \"b\"\narguments = [{ name = \"w\", choices = [\"x\", \"y\"] }]\n";
        let site = Site::parse(text, Path::new("site.toml")).unwrap();
        let a = |w: &str, n: u8| format!(r#"{{"action":"a","w":"{w}","n":{n}}}"#);
        let b = |w: &str| format!(r#"{{"action":"b","w":"{w}"}}"#);
        let found = reduced(
            &site,
            &[(&a("x", 1), 0.9), (&a("x", 2), 0.8), (&a("y", 2), 0.7), (&b("x"), 0.6), (&b("y"), 0.5)],
        );
        assert_eq!(
            found.iter().map(|f| f.3.is_some()).collect::<Vec<_>>(),
            [false, true, false, false, true]
        );
    }

    #[test]
    fn it_keeps_the_surest_of_too_many() {
        let site = hvac();
        let mut join = Join::default();
        for percent in 0..=100u8 {
            let json = format!(r#"{{"action":"set_fan","room":"hall","percent":{percent}}}"#);
            join.add(&site, 0..1, &decision(&site, &json, f32::from(percent) / 100.0));
        }
        assert_eq!(join.left_out, 101 - JOIN_COMMANDS_MAX as u64);
        let found = join.reduce(&site);
        assert_eq!(found.len(), JOIN_COMMANDS_MAX);
        assert_eq!(found.iter().filter(|f| f.overruled_by.is_none()).count(), 1);
        assert!(found.iter().all(|f| f.confidence > 0.3));
    }
}
