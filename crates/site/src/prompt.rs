//! What the model reads: a static prefix per site and a short text per event, byte for byte fixed, since models are
//! trained on exactly this form and the prefix's KV state is kept.
//!
//! ```text
//! site NAME
//! do COMMAND[ ARGUMENT=KIND[ UNIT]]...[: ABOUT]     one line per command, `none` left out
//! tag NAME[ UNIT]                                   one line per tag of `[prompt] tags`
//! note TEXT                                         one line per note
//! in NAME=VALUE[ high| low] ...                     the event's tags, if any
//! say SENTENCE                                      the operator's words, if any
//! ```

use crate::command::{ArgumentKind, ArgumentSpec, Command, CommandSpec, Value};
use crate::frame::Event;
use crate::json::push_string;
use crate::limits::DECIMALS_MAX;
use crate::number::{push_decimal, shortest};
use crate::site::{LimitTarget, Site, Tag, TagKind};

/// Version of the canonical prompt; models trained on it carry the same string in their metadata.
pub const PROMPT_FORM: &str = "ganglion-1";

impl Site {
    /// The static part of the canonical prompt, in [`PROMPT_FORM`]: site, commands, tags, notes.
    pub fn prompt_prefix(&self) -> String {
        let mut out = format!("site {}\n", self.name);
        for command in self.commands.iter().filter(|command| command.name != CommandSpec::NONE) {
            out.push_str("do ");
            out.push_str(&command.name);
            for argument in &command.arguments {
                push_argument(&mut out, argument);
            }
            if !command.about.is_empty() {
                out.push_str(": ");
                out.push_str(&command.about);
            }
            out.push('\n');
        }
        for tag in self.prompt.tags.iter().filter_map(|index| self.tags.get(*index)) {
            out.push_str("tag ");
            out.push_str(&tag.name);
            push_unit(&mut out, &tag.unit);
            out.push('\n');
        }
        for note in &self.prompt.notes {
            out.push_str("note ");
            out.push_str(note);
            out.push('\n');
        }
        out
    }

    /// The event's part of the canonical prompt: tag values, then the sentence.
    pub fn prompt_event(&self, event: &Event) -> String {
        let mut out = String::new();
        self.write_prompt_event(event, &mut out);
        out
    }

    /// [`prompt_event`](Self::prompt_event) appended to `out`; does not allocate when `out` has room.
    pub fn write_prompt_event(&self, event: &Event, out: &mut String) {
        let mut lead = "in ";
        for (index, tag) in self.tags.iter().enumerate() {
            let Some(value) = event.tag(index) else { continue };
            out.push_str(lead);
            lead = " ";
            out.push_str(&tag.name);
            out.push('=');
            push_tag_value(out, tag, value);
            out.push_str(self.level_of(index, value));
        }
        if lead == " " {
            out.push('\n');
        }
        let start = out.len();
        out.push_str("say ");
        if push_folded(out, event.sentence.as_str()) { out.push('\n') } else { out.truncate(start) }
    }

    /// ` high`, ` low` or nothing: where a value stands to its tag's limits.
    fn level_of(&self, tag: usize, value: f64) -> &'static str {
        let limits = || self.limits.iter().filter(|limit| limit.on == LimitTarget::Tag(tag));
        if limits().any(|limit| limit.hi.or(limit.hihi).is_some_and(|hi| value > hi)) {
            " high"
        } else if limits().any(|limit| limit.lo.or(limit.lolo).is_some_and(|lo| value < lo)) {
            " low"
        } else {
            ""
        }
    }

    /// The system message for a chat model that was not trained on the canonical form; static per site. The user
    /// message is [`prompt_event`](Self::prompt_event).
    pub fn system_text(&self) -> String {
        let mut out = format!(
            "You control the site \"{}\". Each message holds tag readings (a line that starts with \"in\"), an \
             operator's sentence (a line that starts with \"say\"), or both. Answer with exactly one command as one \
             JSON object on one line, and nothing else: no explanation, no Markdown, no second object.\n\nCommands, \
             each with an example:\n",
            self.name
        );
        for (index, command) in self.commands.iter().enumerate() {
            self.push_command_help(&mut out, index, command);
        }
        if !self.prompt.tags.is_empty() {
            out.push_str("\nTags:\n");
            for tag in self.prompt.tags.iter().filter_map(|index| self.tags.get(*index)) {
                let unit = match (tag.kind, tag.unit.as_str()) {
                    (TagKind::Bool, _) => "yes or no",
                    (TagKind::Number, "") => "a number",
                    (TagKind::Number, unit) => unit,
                };
                out.push_str(&format!("- {} ({unit})\n", tag.name));
            }
            out.push_str("A reading marked \"high\" or \"low\" is beyond its limit.\n");
        }
        if !self.prompt.notes.is_empty() {
            out.push_str("\nPolicy:\n");
            self.prompt.notes.iter().for_each(|note| out.push_str(&format!("- {note}\n")));
        }
        out.push_str(
            "\nRules:\n- \"action\" comes first, then the arguments in the order shown, all of them and no \
             others.\n- Copy names and numbers from the message exactly; stay within the stated ranges.\n- If the \
             message asks for something that no command does, only asks a question, or nothing needs to be done, \
             answer {\"action\":\"none\"}.\n",
        );
        out
    }

    fn push_command_help(&self, out: &mut String, index: usize, command: &CommandSpec) {
        let mut example = Command::none(self);
        example.verb = u16::try_from(index).unwrap_or(u16::MAX);
        for (value, argument) in example.values.iter_mut().zip(&command.arguments) {
            *value = example_value(&argument.kind);
        }
        out.push_str("- ");
        example.write_json(self, out);
        match (command.name.as_str(), command.about.as_str()) {
            (CommandSpec::NONE, _) => out.push_str(": do nothing"),
            (_, "") => {}
            (_, about) => {
                out.push_str(": ");
                out.push_str(about);
            }
        }
        for argument in &command.arguments {
            out.push_str("; ");
            push_string(out, &argument.name);
            out.push_str(" is ");
            out.push_str(&argument.expected());
        }
        out.push('\n');
    }
}

/// A value for the help text: the first choice, the low end of a range.
fn example_value(kind: &ArgumentKind) -> Value {
    match kind {
        ArgumentKind::Enum(_) => Value::Choice(0),
        ArgumentKind::Integer { lo, .. } => Value::Integer(*lo),
        ArgumentKind::Number { lo, .. } => Value::Number(*lo),
        ArgumentKind::Bool => Value::Bool(true),
        ArgumentKind::Text { .. } => Value::Text(crate::frame::InlineText::cut("text")),
    }
}

fn push_argument(out: &mut String, argument: &ArgumentSpec) {
    out.push(' ');
    out.push_str(&argument.name);
    out.push('=');
    match &argument.kind {
        ArgumentKind::Enum(choices) => out.push_str(&choices.join("|")),
        ArgumentKind::Integer { lo, hi } => out.push_str(&format!("{lo}..{hi}")),
        ArgumentKind::Number { lo, hi, step } => {
            out.push_str(&format!("{}..{}/{}", shortest(*lo), shortest(*hi), shortest(*step)));
        }
        ArgumentKind::Bool => out.push_str("true|false"),
        ArgumentKind::Text { .. } => out.push_str("text"),
    }
    push_unit(out, &argument.unit);
}

fn push_unit(out: &mut String, unit: &str) {
    if !unit.is_empty() {
        out.push(' ');
        out.push_str(unit);
    }
}

/// A tag's value as the prompt and tables show it.
pub(crate) fn push_tag_value(out: &mut String, tag: &Tag, value: f64) {
    match tag.kind {
        TagKind::Bool => out.push_str(if value == 0.0 { "no" } else { "yes" }),
        TagKind::Number => push_decimal(out, value, tag.decimals.min(DECIMALS_MAX)),
    }
}

/// Appends `text` with each run of whitespace and control characters folded to one space, none at the ends. Says
/// whether anything was left.
fn push_folded(out: &mut String, text: &str) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return false };
    out.push_str(first);
    for word in words {
        out.push(' ');
        out.push_str(word);
    }
    true
}

impl Tag {
    /// A value for people: decimals as the site has them, `yes`/`no` for a bool, with the unit.
    pub fn show(&self, value: f64) -> String {
        let mut out = String::new();
        push_tag_value(&mut out, self, value);
        push_unit(&mut out, &self.unit);
        out
    }
}
