//! An instruction, split into clauses: one command each.

use ganglion_io::lines::check_sentence;
use ganglion_plan::limits::TASKS_MAX;

/// One piece of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// What is decided like any sentence.
    pub text: String,
    /// `then` stood before it: not before the clause before it.
    pub after_previous: bool,
}

/// Splits at commas, semicolons, full stops, line ends, `and` and `then`.
///
/// # Errors
/// Nothing in it, too many clauses, or a question.
pub fn split(instruction: &str) -> Result<Vec<Clause>, String> {
    let mut clauses: Vec<Clause> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut then = false;
    let close = |words: &mut Vec<&str>, then: &mut bool, clauses: &mut Vec<Clause>| {
        if !words.is_empty() {
            let after_previous = std::mem::take(then) && !clauses.is_empty();
            clauses.push(Clause { text: words.join(" "), after_previous });
            words.clear();
        }
    };
    for line in instruction.lines() {
        for word in line.split_whitespace() {
            let bare = word.trim_end_matches([',', ';', '.']);
            if bare.eq_ignore_ascii_case("and") || bare.eq_ignore_ascii_case("then") {
                close(&mut words, &mut then, &mut clauses);
                then |= bare.eq_ignore_ascii_case("then");
                continue;
            }
            if !bare.is_empty() {
                words.push(bare);
            }
            if bare.len() < word.len() {
                close(&mut words, &mut then, &mut clauses);
            }
        }
        close(&mut words, &mut then, &mut clauses);
    }
    match clauses.len() {
        0 => Err("the instruction is empty".into()),
        count if count > TASKS_MAX => Err(format!("{count} clauses: a mission has at most {TASKS_MAX}")),
        _ => check_sentences(&clauses).and_then(|()| {
            match clauses.iter().find(|clause| clause.text.ends_with(['?', '\u{ff1f}', '\u{61f}'])) {
                Some(clause) => Err(format!("\"{}\" is a question, not a step", clause.text)),
                None => Ok(clauses),
            }
        }),
    }
}

/// Every clause is a sentence: not too long, and nothing in it that a terminal would obey.
fn check_sentences(clauses: &[Clause]) -> Result<(), String> {
    let wrong =
        |clause: &Clause| check_sentence(&clause.text).err().map(|why| format!("{:?}: {why}", clause.text));
    clauses.iter().find_map(wrong).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(instruction: &str) -> String {
        let clauses = split(instruction).unwrap();
        let mark =
            |clause: &Clause| format!("{}{}", if clause.after_previous { "> " } else { "" }, clause.text);
        clauses.iter().map(mark).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn clauses() {
        assert_eq!(shown("open valve 3"), "open valve 3");
        assert_eq!(
            shown("Open valve 3 and measure the pressure at valve 4, then return home."),
            "Open valve 3 | measure the pressure at valve 4 | > return home"
        );
        assert_eq!(shown("then go home"), "go home");
        assert_eq!(shown("set 21.5 degrees; and THEN, wait"), "set 21.5 degrees | > wait");
        assert_eq!(
            shown("photograph valve 1,\nphotograph valve 2"),
            "photograph valve 1 | photograph valve 2"
        );
    }

    #[test]
    fn what_is_no_mission() {
        assert_eq!(split(" , and then . "), Err("the instruction is empty".into()));
        assert!(split("open valve 3 and is valve 4 open?").unwrap_err().contains("is a question"));
        let escape = split("wait, go \u{1b}[31mhome").unwrap_err();
        assert_eq!(escape, "\"go \\u{1b}[31mhome\": control character U+001B in a sentence");
        assert!(split(&"long ".repeat(200)).unwrap_err().contains("a sentence has at most 512"));
        assert!(split(&"wait, ".repeat(25)).unwrap_err().contains("25 clauses"));
    }
}
