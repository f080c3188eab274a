//! Typed lines or a script, turned into questions.

use super::inbox::{Full, Inbox, Question, Reply};
use super::missions::{Missions, Order};
use super::printer::{Line, Lines};
use anyhow::{Context, Result};
use ganglion_guard::{Mode, OperatorCommand, Source};
use ganglion_io::lines::{Input, ModeWord, read_lines};
use ganglion_io::script::Script;
use ganglion_site::{Sentence, Site, TagValues};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause before a full inbox is tried again, and between looks at the script.
const RETRY: Duration = Duration::from_millis(2);
/// Questions that may wait: a whole table of readings.
const QUESTIONS_MAX: usize = 16_384;

/// Where events come from, checked before anything is started.
pub enum Inputs {
    /// Standard input.
    Typed,
    /// A script or CSV file.
    Script(Script),
}

impl Inputs {
    pub fn open(site: &Site, script: Option<&Path>, row_ms: u64) -> Result<Self> {
        match script {
            None => Ok(Self::Typed),
            Some(file) => Ok(Self::Script(Script::load(site, file, row_ms).context("--script")?)),
        }
    }

    /// Starts reading. The flag is set when no more will come and that should end the run: after a script, after piped
    /// lines, at Ctrl-D. An empty standard input (a service's) does not.
    ///
    /// Mode words act at once, on the thread that reads; questions and missions go one after the other, on a thread of their
    /// own, so that a stop never waits behind a sentence. Piped ones wait for Execute, as a script's do: nobody sees there
    /// that it is too early.
    pub fn start(
        self,
        site: &Arc<Site>,
        inbox: &Arc<Inbox>,
        missions: Option<&Arc<Missions>>,
        lines: Lines,
    ) -> Result<Arc<AtomicBool>> {
        let done = Arc::new(AtomicBool::new(false));
        let (questions, waiting) = sync_channel(QUESTIONS_MAX);
        let flag = Arc::clone(&done);
        let asker = Asker {
            inbox: Arc::clone(inbox),
            missions: missions.cloned(),
            lines: lines.clone(),
            early: !matches!(self, Self::Script(_)) && !std::io::stdin().is_terminal(),
        };
        let site = Arc::clone(site);
        let intake = Intake { inbox: Arc::clone(inbox), asked: questions, lines };
        let read_all = move || match self {
            Self::Typed => {
                let mut any = std::io::stdin().is_terminal();
                // A reader that fails is one that ended.
                let _ = read_lines(&site, std::io::stdin().lock(), |input| {
                    any = true;
                    intake.take(Source::Operator, input);
                    ControlFlow::Continue(())
                });
                any
            }
            Self::Script(script) => {
                play(script, &intake);
                true
            }
        };
        let reader = spawn("inputs", read_all)?;
        spawn("questions", move || {
            let asked = asker.run(waiting);
            let ends = reader.join().unwrap_or(true);
            flag.store(asked || ends, Ordering::Release);
        })?;
        Ok(done)
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start an input thread")
}

/// The script's clock starts when the plant runs, so that a slow start of the model loses no line.
fn play(mut script: Script, intake: &Intake) {
    while intake.inbox.status().is_none_or(|status| status.mode != Mode::Execute) {
        std::thread::sleep(RETRY);
    }
    let start = Instant::now();
    while script.next_at_ms().is_some() {
        let elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        match script.due(elapsed_ms) {
            Some(item) => intake.take(Source::Script, item.input),
            None => std::thread::sleep(RETRY),
        }
    }
}

/// What a line begins with that is a mission.
const MISSION: &str = "mission:";

/// The mission in a line, if it is one; nobody has to mind the case.
fn instruction(line: &str) -> Option<&str> {
    let (head, rest) = line.split_at_checked(MISSION.len())?;
    head.eq_ignore_ascii_case(MISSION).then(|| rest.trim())
}

/// Where lines go.
struct Intake {
    inbox: Arc<Inbox>,
    asked: SyncSender<Asked>,
    lines: Lines,
}

/// What goes one after the other.
enum Asked {
    Question(Box<Question>),
    Mission(String),
}

impl Intake {
    /// Never waits, not even for whoever should read what it has to say: the next line may be a stop.
    fn take(&self, source: Source, input: Input) {
        let mut tags = TagValues::NONE;
        let sentence = match input {
            Input::Mode(word) => return self.obey(word),
            Input::Rejected { line, reason } => {
                return self.say(format!("line {line} is not used: {reason}"));
            }
            Input::Sentence(text) => match instruction(&text) {
                Some(instruction) => return self.hand_on(Asked::Mission(instruction.to_owned())),
                None => text,
            },
            Input::Tags(values, text) => {
                for (index, value) in values {
                    tags.set(index, value);
                }
                text.unwrap_or_default()
            }
        };
        let Some(sentence) = Sentence::new(&sentence) else { return };
        let source =
            if sentence.as_str().is_empty() && source == Source::Operator { Source::Sensor } else { source };
        let question = Question { sentence, tags, ..Question::of(source) };
        self.hand_on(Asked::Question(Box::new(question)));
    }

    fn hand_on(&self, asked: Asked) {
        if let Err(TrySendError::Full(asked)) = self.asked.try_send(asked) {
            let text = match &asked {
                Asked::Question(question) => question.sentence.as_str(),
                Asked::Mission(instruction) => instruction,
            };
            self.say(format!("not asked, {QUESTIONS_MAX} questions wait already: {text}"));
        }
    }

    fn obey(&self, word: ModeWord) {
        match word {
            ModeWord::Estop => self.inbox.signals.set_estop(true),
            ModeWord::Clear => self.inbox.signals.set_estop(false),
            ModeWord::Reload => return self.inbox.ask_reload(),
            _ => {}
        }
        if let Some(command) = operator_command(word)
            && let Err(full) = self.inbox.operate_by_hand(command)
        {
            self.say(format!("{command:?} is not taken: {full}"));
        }
    }

    fn say(&self, text: String) {
        self.lines.show(Line::Input(text));
    }
}

/// Asks and orders.
struct Asker {
    inbox: Arc<Inbox>,
    missions: Option<Arc<Missions>>,
    lines: Lines,
    /// What comes before Execute waits for it.
    early: bool,
}

impl Asker {
    /// Whether there was anything.
    fn run(mut self, waiting: Receiver<Asked>) -> bool {
        let mut any = false;
        for asked in waiting {
            any = true;
            if std::mem::take(&mut self.early) {
                self.wait_for_execute();
            }
            match asked {
                Asked::Question(question) => ask_and_wait(&self.inbox, *question),
                Asked::Mission(instruction) => self.order(&instruction),
            }
        }
        any
    }

    /// Or until somebody, or an abort, keeps the run from getting there by itself.
    fn wait_for_execute(&self) {
        let stays = |mode| matches!(mode, Mode::Execute | Mode::Aborted);
        while !self.inbox.is_held_back() && self.inbox.status().is_none_or(|status| !stays(status.mode)) {
            std::thread::sleep(RETRY);
        }
    }

    fn order(&self, instruction: &str) {
        let why = match &self.missions {
            None => "no mission: the site file has no [plan]",
            Some(missions) if missions.order(Order::typed(instruction)) => return,
            Some(_) => "no mission: one is under way; stop it with a command or !stop",
        };
        self.lines.show(Line::Input(why.into()));
    }
}

/// One question at a time: the guard answers each before it takes the next, and nothing that a person wrote is dropped.
fn ask_and_wait(inbox: &Inbox, question: Question) {
    loop {
        match inbox.ask(question, Reply::default()) {
            Ok(id) => {
                while inbox.is_open(id) {
                    std::thread::sleep(RETRY);
                }
                return;
            }
            Err(Full) => std::thread::sleep(RETRY),
        }
    }
}

/// `None` for a word that is no matter of the mode.
fn operator_command(word: ModeWord) -> Option<OperatorCommand> {
    Some(match word {
        ModeWord::Start => OperatorCommand::Start,
        ModeWord::Hold => OperatorCommand::Hold,
        ModeWord::Unhold => OperatorCommand::Unhold,
        ModeWord::Stop => OperatorCommand::Stop,
        ModeWord::Reset => OperatorCommand::Reset,
        ModeWord::Clear => OperatorCommand::Clear,
        ModeWord::Estop => OperatorCommand::Abort,
        ModeWord::Reload => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mission_is_one_in_any_case() {
        for line in ["mission: go home", "Mission:go home", "MISSION:  go home "] {
            assert_eq!(instruction(line), Some("go home"), "{line}");
        }
        for line in ["missions: go home", "a mission: go home", "mission", "", "größer"] {
            assert_eq!(instruction(line), None, "{line}");
        }
    }
}
