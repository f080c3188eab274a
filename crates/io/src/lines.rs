//! Operator lines and sensor events as text.
//!
//! | line | meaning |
//! |---|---|
//! | `!start`, `!hold`, `!unhold`, `!stop`, `!reset`, `!clear`, `!estop` | a mode command |
//! | `name=value name=value` | a sensor event; `; sentence` may follow |
//! | anything else | a sentence |
//!
//! A line that is none of these (empty, too long, not UTF-8, an unknown tag or mode) becomes [`Input::Rejected`]: it is
//! reported, never dropped.

use crate::encode::parse_tag;
use crate::limits::LINE_BYTES_MAX;
use ganglion_site::Site;
use ganglion_site::limits::SENTENCE_BYTES_MAX;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::str::FromStr;

/// One item of input.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A sentence of 1 to [`SENTENCE_BYTES_MAX`] bytes.
    Sentence(String),
    /// Tag indices with their values, and a sentence when one followed.
    Tags(Vec<(usize, f64)>, Option<String>),
    /// A mode command.
    Mode(ModeWord),
    /// A line that cannot be used, and why.
    Rejected {
        /// Counted from 1.
        line: u64,
        /// What is wrong and what was expected.
        reason: String,
    },
}

/// What an operator may ask of the mode machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeWord {
    /// Idle → Execute.
    Start,
    /// Execute → Held.
    Hold,
    /// Held → Execute.
    Unhold,
    /// Any → Stopped.
    Stop,
    /// Stopped → Idle.
    Reset,
    /// Aborted → Stopped.
    Clear,
    /// Any → Aborted.
    Estop,
    /// No matter of the mode: the site file's policy is read again.
    Reload,
}

const MODE_WORDS: [(&str, ModeWord); 8] = [
    ("start", ModeWord::Start),
    ("hold", ModeWord::Hold),
    ("unhold", ModeWord::Unhold),
    ("stop", ModeWord::Stop),
    ("reset", ModeWord::Reset),
    ("clear", ModeWord::Clear),
    ("estop", ModeWord::Estop),
    ("reload", ModeWord::Reload),
];

impl FromStr for ModeWord {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let plain: String = word.chars().filter(|c| c.is_alphanumeric()).collect();
        let found = MODE_WORDS.iter().find(|(name, _)| plain.eq_ignore_ascii_case(name));
        found.map(|(_, mode)| *mode).ok_or_else(|| {
            let names: Vec<&str> = MODE_WORDS.iter().map(|(name, _)| *name).collect();
            format!("unknown mode command `!{word}`: expected one of {}", names.join(", "))
        })
    }
}

/// Reads one line (without its line feed).
pub fn parse_line(site: &Site, line: u64, bytes: &[u8]) -> Input {
    parse_bytes(site, bytes).unwrap_or_else(|error| match error {
        LineError::Grammar(reason) | LineError::Sentence(reason) => Input::Rejected { line, reason },
    })
}

/// Why a line cannot be used.
pub(crate) enum LineError {
    /// A mode command or sensor event that is malformed: whoever wrote a script can mend it.
    Grammar(String),
    /// A sentence that is no usable one.
    Sentence(String),
}

pub(crate) fn parse_bytes(site: &Site, bytes: &[u8]) -> Result<Input, LineError> {
    let text = std::str::from_utf8(bytes).map_err(|_| LineError::Sentence("not UTF-8".to_owned()))?.trim();
    if let Some(word) = text.strip_prefix('!') {
        return word.trim().parse().map(Input::Mode).map_err(LineError::Grammar);
    }
    // Whoever writes nothing but this wants the machine to stop, and not a model's opinion.
    let plain = text.trim_end_matches(['!', '.']).to_ascii_lowercase();
    match plain.as_str() {
        "stop" => return Ok(Input::Mode(ModeWord::Stop)),
        "estop" | "e-stop" | "emergency stop" => return Ok(Input::Mode(ModeWord::Estop)),
        _ => {}
    }
    if text.split_whitespace().next().is_some_and(is_assignment) {
        return parse_tags(site, text).map_err(LineError::Grammar);
    }
    check_sentence(text).map(Input::Sentence).map_err(LineError::Sentence)
}

/// `name=…`: no sentence starts like that.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    })
}

fn parse_tags(site: &Site, text: &str) -> Result<Input, String> {
    let (assignments, sentence) = match text.split_once(';') {
        Some((before, after)) => (before, Some(check_sentence(after.trim())?)),
        None => (text, None),
    };
    let mut tags: Vec<(usize, f64)> = Vec::new();
    for word in assignments.split_whitespace() {
        let (index, value) = parse_tag(site, word).map_err(|error| error.to_string())?;
        if tags.iter().any(|(seen, _)| *seen == index) {
            return Err(format!("`{word}`: the tag is given twice"));
        }
        tags.push((index, value));
    }
    Ok(Input::Tags(tags, sentence))
}

/// `text` as a sentence.
///
/// # Errors
/// Why it is none: empty, too long, or with control characters.
pub fn check_sentence(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty: expected a sentence".to_owned());
    }
    if text.len() > SENTENCE_BYTES_MAX {
        return Err(format!("{} bytes: a sentence has at most {SENTENCE_BYTES_MAX}", text.len()));
    }
    if let Some(found) = text.chars().find(|c| c.is_control() && *c != '\t') {
        return Err(format!("control character U+{:04X} in a sentence", u32::from(found)));
    }
    Ok(text.to_owned())
}

/// Reads operator lines until the reader ends, fails, or `take` breaks. Memory stays bounded whatever comes. Meant for a
/// thread of its own; for standard input see [`spawn_lines`].
///
/// # Errors
/// As the reader.
pub fn read_lines(
    site: &Site,
    mut reader: impl BufRead,
    mut take: impl FnMut(Input) -> ControlFlow<()>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for line in 1.. {
        let Some(size_bytes) = read_bounded_line(&mut reader, &mut bytes)? else { break };
        let input = if size_bytes > bytes.len() {
            let reason = format!("{size_bytes} bytes: a line has at most {LINE_BYTES_MAX}");
            Input::Rejected { line, reason }
        } else {
            parse_line(site, line, &bytes)
        };
        if take(input).is_break() {
            break;
        }
    }
    Ok(())
}

/// Reads one line into `bytes`, up to [`LINE_BYTES_MAX`] of it, and returns its full size; `None` at the end.
fn read_bounded_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    bytes.clear();
    let mut size_bytes = 0;
    let mut any = false;
    loop {
        let chunk = match reader.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            chunk => chunk?,
        };
        if chunk.is_empty() {
            return Ok(any.then_some(size_bytes));
        }
        any = true;
        let end = chunk.iter().position(|&b| b == b'\n');
        let content = &chunk[..end.unwrap_or(chunk.len())];
        let room = LINE_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&content[..content.len().min(room)]);
        size_bytes += content.len();
        let used = content.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(size_bytes));
        }
    }
}

/// Reads lines on a thread of its own and hands them over a queue of
/// [`INPUT_QUEUE_MAX`](crate::limits::INPUT_QUEUE_MAX) items; the receiver ends when the reader does. A full
/// queue makes the operator wait, not the guard.
pub fn spawn_lines(
    site: std::sync::Arc<Site>,
    reader: impl BufRead + Send + 'static,
) -> std::sync::mpsc::Receiver<Input> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(crate::limits::INPUT_QUEUE_MAX);
    std::thread::spawn(move || {
        // A reader that fails is one that ended.
        let _ = read_lines(&site, reader, |input| match sender.send(input) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
    });
    receiver
}
