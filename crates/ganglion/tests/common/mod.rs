//! Real processes on copies of the example sites: free ports, a folder each, a time limit on everything, nothing left behind.
#![allow(dead_code, reason = "each test binary uses a part")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub const GANGLION: &str = env!("CARGO_BIN_EXE_ganglion");
/// Nothing that is waited for takes so long, even on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Keys of one decision, in documented order.
pub const ANSWER_KEYS: [&str; 10] = [
    "outcome",
    "command",
    "verdict",
    "reason",
    "confidence",
    "deadline_ms",
    "latency_ms",
    "timings",
    "model",
    "schema",
];

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub fn shared_folder() -> Option<PathBuf> {
    let named = std::env::var_os("GANGLION_SHARED").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let candidates = named.into_iter().chain(above.flat_map(|a| [a.join("shared"), a.join("../shared")]));
    candidates.into_iter().find(|folder| folder.join("design.md").is_file())
}

/// A folder of its own, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ganglion-test-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, content).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy of an example with its own ports.
pub struct TestSite {
    pub folder: Folder,
    pub modbus: u16,
    pub http: u16,
}

impl TestSite {
    /// Deadlines are wide, so that a slow machine changes no outcome; the rest is as shipped.
    pub fn new(example: &str) -> Self {
        let site = Self { folder: Folder::new(), modbus: free_port(), http: free_port() };
        let original = fs::read_to_string(repository().join("examples").join(example).join("site.toml"));
        fs::write(site.file(), original.unwrap()).unwrap();
        let model = format!("path = \"{}\"", repository().join("models/nano/nano.gguf").display());
        site.set("path = ", &model);
        site.set("modbus = ", &format!("modbus = \"127.0.0.1:{}\"", site.modbus));
        site.set("listen = ", &format!("listen = \"127.0.0.1:{}\"", site.http));
        site.set("deadline_ms = ", "deadline_ms = 4000");
        site.set("brain_timeout_ms = ", "brain_timeout_ms = 4000");
        site.set("breaker = ", "breaker = { failures = 3, open_ms = 300, probes = 1 }");
        site
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self) -> PathBuf {
        self.path().join("site.toml")
    }

    pub fn audit(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Replaces the first line that starts with `start`.
    pub fn set(&self, start: &str, line: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        let old = text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no line {start}"));
        fs::write(self.file(), text.replacen(old, line, 1)).unwrap();
    }

    pub fn replace(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(self.file(), text.replacen(from, to, 1)).unwrap();
    }

    /// The plant is a process of the test's own (or none).
    pub fn without_simulator(self) -> Self {
        self.set("simulator = ", "");
        self
    }

    /// Rules that always want the hall's fan at 20 %, register 22.
    pub fn with_a_rule_that_shows(self) -> Self {
        self.replace("when = \"power_price > 60\"", "when = \"power_price > 1\"");
        self
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(GANGLION);
        command.arg("run").arg(self.path()).arg("--json").arg("--audit").arg(self.audit()).args(arguments);
        Run::of(command)
    }

    pub fn start_plant(&self, kind: &str) -> Process {
        let mut command = Command::new(GANGLION);
        command.args(["plant", kind, "--listen", &format!("127.0.0.1:{}", self.modbus)]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line}");
        Process(child)
    }

    pub fn modbus(&self) -> Modbus {
        Modbus::connect(self.modbus)
    }
}

/// Below the range that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + ((std::process::id() * 61 + count) % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Killed with its children when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let below = children(self.0.id());
        let _ = self.0.kill();
        let _ = self.0.wait();
        for child in below {
            signal("KILL", child);
        }
    }
}

pub fn signal(name: &str, process: u32) {
    let _ = Command::new("sh").arg("-c").arg(format!("kill -{name} {process} 2>/dev/null")).status();
}

pub fn is_alive(process: u32) -> bool {
    // The state follows the name's last bracket; a zombie is not alive.
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Living children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let of_parent = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let parent_id = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent_id == Some(parent.to_string().as_str())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_parent).collect()
}

/// Tries until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "did not happen in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running `ganglion run --json`.
pub struct Run {
    process: Process,
    lines: Receiver<String>,
    errors: Option<Receiver<String>>,
    pub seen: Vec<Value>,
}

fn lines_of(reader: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Run {
    pub fn of(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let mut run = Self::spawn(command);
        run.errors = run.process.0.stderr.take().map(lines_of);
        run
    }

    /// With a standard error of the test's own.
    pub fn with_errors(mut command: Command, errors: Stdio) -> Self {
        command.stderr(errors);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        // Silent, not empty: nobody types, and nobody has hung up.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own, as a shell gives a foreground job, so that Ctrl-C can be played.
        command.process_group(0);
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self { process: Process(child), lines: lines_of(out), errors: None, seen: Vec::new() }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.process.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Nothing more is typed: the end of a pipe.
    pub fn hang_up(&mut self) {
        drop(self.process.0.stdin.take());
    }

    /// Ctrl-C: the signal goes to the whole foreground group.
    pub fn press_ctrl_c(&self) {
        let group = format!("-{}", self.id());
        assert!(Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap().success());
    }

    /// The child process that runs the model; waits for it.
    pub fn brain(&self) -> u32 {
        let mut found = None;
        eventually("a brain runs", || {
            found = children(self.id()).into_iter().find(|child| {
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                line.split(|&b| b == 0).nth(1) == Some(b"brain")
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// The next line; `None` at the end.
    fn next(&mut self, until: Instant) -> Option<Value> {
        let left = until.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                let value: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                assert!(value["kind"].is_string(), "{line}");
                self.seen.push(value.clone());
                Some(value)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail("no line in time"),
        }
    }

    fn fail(&mut self, what: &str) -> ! {
        let errors: Vec<_> = self.errors.iter().flat_map(Receiver::try_iter).collect();
        let seen: Vec<_> = self.seen.iter().map(Value::to_string).collect();
        panic!(
            "{what}; standard output so far:\n{}\nstandard error:\n{}",
            seen.join("\n"),
            errors.join("\n")
        );
    }

    /// Reads on until a line satisfies.
    pub fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next(until) {
                Some(value) if wanted(&value) => return value,
                Some(_) => {}
                None => self.fail(&format!("ended while waited for: {what}")),
            }
        }
    }

    pub fn wait_for_execute(&mut self) {
        self.wait_for("mode Execute", |line| line["kind"] == "status" && line["mode"] == "Execute");
    }

    /// Reads to the end.
    pub fn end(mut self) -> (ExitStatus, Vec<Value>) {
        let until = Instant::now() + PATIENCE;
        while self.next(until).is_some() {}
        let mut status = None;
        eventually("the process ends", || {
            status = self.process.0.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), std::mem::take(&mut self.seen))
    }
}

/// What a command printed.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Output {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let read = |mut reader: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = reader.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().unwrap()));
    let err = read(Box::new(child.stderr.take().unwrap()));
    let mut process = Process(child);
    let mut status = None;
    eventually("the command ends", || {
        status = process.0.try_wait().unwrap();
        status.is_some()
    });
    Output { code: status.unwrap().code().unwrap_or(-1), out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Runs `ganglion` to its end.
pub fn ganglion(arguments: &[&str]) -> Output {
    output(Command::new(GANGLION).args(arguments))
}

/// The text of a path that has to be text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A Modbus TCP client in a few lines, so that what the plant holds is seen without this project's code.
pub struct Modbus(TcpStream);

impl Modbus {
    pub fn connect(port: u16) -> Self {
        let mut stream = None;
        eventually("the plant takes a connection", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Function code and two 16-bit fields; returns what follows the function code in the answer.
    fn request(&mut self, function: u8, address: u16, value: u16) -> Vec<u8> {
        let mut frame = vec![0, 7, 0, 0, 0, 6, 1, function];
        frame.extend(address.to_be_bytes());
        frame.extend(value.to_be_bytes());
        self.0.write_all(&frame).unwrap();
        let mut head = [0; 8];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[7], function, "exception of register {address}");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 2];
        self.0.read_exact(&mut rest).unwrap();
        rest
    }

    fn read(&mut self, function: u8, address: u16) -> u16 {
        let answer = self.request(function, address, 1);
        u16::from_be_bytes([answer[1], answer[2]])
    }

    pub fn holding(&mut self, address: u16) -> u16 {
        self.read(3, address)
    }

    pub fn input(&mut self, address: u16) -> u16 {
        self.read(4, address)
    }

    pub fn write(&mut self, address: u16, value: u16) {
        self.request(6, address, value);
    }
}

/// One HTTP request; status and body.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let size = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

pub fn decide(site: &TestSite, text: &str) -> Value {
    let body = serde_json::json!({ "text": text }).to_string();
    let (status, answer) = http(site.http, "POST", "/v1/decide", &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Keys, order and types of one decision, as the documentation says.
pub fn check_answer(answer: &Value) {
    let object = answer.as_object().unwrap();
    let keys: Vec<&str> = object.keys().map(String::as_str).filter(|k| ANSWER_KEYS.contains(k)).collect();
    assert_eq!(keys, ANSWER_KEYS, "{answer}");
    let one_of = |key: &str, words: &[&str]| {
        assert!(words.contains(&answer[key].as_str().unwrap()), "{key} in {answer}");
    };
    one_of("outcome", &["model", "cache", "completion", "rule", "safe"]);
    one_of("verdict", &["approved", "clamped", "rejected"]);
    match answer["command"].as_object() {
        Some(command) => assert_eq!(command.keys().next().unwrap(), "action", "{answer}"),
        None => assert!(answer["command"].is_null() && answer["verdict"] == "rejected", "{answer}"),
    }
    assert!(answer["reason"].is_string());
    assert!((0.0..=1.0).contains(&answer["confidence"].as_f64().unwrap()), "{answer}");
    assert!(answer["deadline_ms"].as_f64().unwrap() > 0.0 && answer["latency_ms"].as_f64().unwrap() >= 0.0);
    let timings = answer["timings"].as_object().unwrap();
    let keys: Vec<&str> = timings.keys().map(String::as_str).collect();
    let expected =
        "prefill_ms decode_ms mask_ms cache_n prompt_n predicted_n forced_n draft_n accepted_n passes_n";
    assert_eq!(keys.join(" "), expected);
    assert!(timings.values().all(Value::is_number), "{answer}");
    for key in ["model", "schema"] {
        let digest = answer[key].as_str().unwrap();
        assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{key} in {answer}");
    }
}
