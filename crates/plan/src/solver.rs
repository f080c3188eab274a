//! The solver's process: questions in SMT-LIB on its standard input, answers on its standard output.
//!
//! One child is kept and asked again and again. One that has not answered in its time is killed and another is started, so
//! that no question waits for an older one. Two threads per child do the writing and reading: a child that is stopped, or
//! that does not read, holds up nobody.

use crate::error::PlanError;
use crate::limits::{ANSWER_BYTES_MAX, SOLVER_MEMORY_MB, SOLVER_START_MS};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// A solver that answers within a budget, or not at all.
#[derive(Debug)]
pub struct Solver {
    program: PathBuf,
    budget_ms: u32,
    running: Option<Running>,
    asked: u64,
    starts: u32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    questions: SyncSender<Vec<u8>>,
    answers: Receiver<(u64, Result<String, String>)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Solver {
    /// The program that is used where nothing else is said.
    pub const PROGRAM: &'static str = "z3";

    /// Starts `program`, which has to understand Z3's options `-in`, `-smt2`, `-t:` and `-memory:`, and waits until it
    /// answers.
    ///
    /// # Errors
    /// [`PlanError::NoSolver`] when it cannot be started or says nothing.
    pub fn start(program: &Path, budget_ms: u32) -> Result<Self, PlanError> {
        let mut solver = Self { program: program.to_owned(), budget_ms, running: None, asked: 0, starts: 0 };
        solver.running = Some(solver.spawn()?);
        let hello = solver.exchange("(reset)\n", Duration::from_millis(SOLVER_START_MS));
        hello.map_err(|error| solver.missing(error.to_string()))?;
        Ok(solver)
    }

    /// How often the program was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// The process that is running now.
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// One question, and everything that is said in answer to it. What was said before is forgotten by the solver only
    /// where `text` begins with `(reset)`.
    ///
    /// # Errors
    /// No answer within the budget: the process is killed, and another is started. No process, one that ends, or one that
    /// complains.
    pub fn ask(&mut self, text: &str) -> Result<String, PlanError> {
        if self.running.is_none() {
            self.running = Some(self.spawn()?);
        }
        let answer = self.exchange(text, Duration::from_millis(self.budget_ms.into()));
        if answer.is_err() {
            // Killed by the drop of the old one.
            self.running = None;
            self.running = Some(self.spawn()?);
        }
        answer
    }

    fn exchange(&mut self, text: &str, patience: Duration) -> Result<String, PlanError> {
        self.asked += 1;
        let ended = || PlanError::SolverFailed { reason: "its process has ended".into() };
        let running = self.running.as_ref().ok_or_else(ended)?;
        let question = format!("{text}\n(echo \"{MARK}{}\")\n", self.asked).into_bytes();
        running.questions.try_send(question).map_err(|_| ended())?;
        match running.answers.recv_timeout(patience) {
            Ok((number, Ok(answer))) if number == self.asked => match answer.find("(error") {
                None => Ok(answer),
                Some(at) => {
                    let words = answer.get(at..).unwrap_or_default().lines().next().unwrap_or_default();
                    Err(PlanError::SolverFailed { reason: words.chars().take(200).collect() })
                }
            },
            Ok((_, Ok(_))) => Err(PlanError::SolverFailed { reason: "it answered another question".into() }),
            Ok((_, Err(reason))) => Err(PlanError::SolverFailed { reason }),
            Err(RecvTimeoutError::Timeout) => {
                Err(PlanError::Timeout { budget_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX) })
            }
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    fn spawn(&mut self) -> Result<Running, PlanError> {
        self.starts += 1;
        // Its own limit of time is a second line: it must not compute on when this process was killed.
        let mut child = Command::new(&self.program)
            .args(["-in", "-smt2", &format!("-t:{}", self.budget_ms.saturating_mul(2))])
            .arg(format!("-memory:{SOLVER_MEMORY_MB}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    self.missing(format!("{error}; install it, on Debian with `apt-get install z3`"))
                }
                _ => self.missing(error.to_string()),
            })?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| self.missing("it has no pipes".into()))?;
        // A question and its answer: nothing else is ever under way.
        let (questions, to_write) = sync_channel(1);
        let (tell, answers) = sync_channel(1);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error: std::io::Error| PlanError::SolverFailed { reason: error.to_string() };
        thread("solver-in").spawn(move || write_all(stdin, &to_write)).map_err(failed)?;
        thread("solver-out").spawn(move || read_all(stdout, &tell)).map_err(failed)?;
        Ok(Running { child, questions, answers })
    }

    fn missing(&self, reason: String) -> PlanError {
        PlanError::NoSolver { program: self.program.display().to_string(), reason }
    }
}

/// Before the number of a question, in the line that ends its answer.
const MARK: &str = "answered ";

fn write_all(mut stdin: ChildStdin, questions: &Receiver<Vec<u8>>) {
    for question in questions {
        if stdin.write_all(&question).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

fn read_all(stdout: ChildStdout, tell: &SyncSender<(u64, Result<String, String>)>) {
    let mut lines = BufReader::new(stdout);
    let mut answer = String::new();
    loop {
        let mut line = Vec::new();
        let size = (&mut lines).take(ANSWER_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if !matches!(size, Ok(1..)) {
            // The end of the pipe; the asker sees that nobody is left to answer.
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let number = line.trim().trim_matches('"').strip_prefix(MARK).and_then(|n| n.parse().ok());
        let message = match number {
            Some(number) => (number, Ok(std::mem::take(&mut answer))),
            None if answer.len() + line.len() > ANSWER_BYTES_MAX => {
                (0, Err("its answer is too long".to_owned()))
            }
            None => {
                answer.push_str(&line);
                continue;
            }
        };
        let last = message.1.is_err();
        if tell.send(message).is_err() || last {
            return;
        }
    }
}
