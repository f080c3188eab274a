//! The one way in: requests and mode commands of all sources, and who waits for which answer.

use super::SharedSignals;
use ganglion_guard::{
    Field, News, OperatorCommand, OperatorQueue, OperatorQueueFull, Record, RecordKind, Request, Source,
    Status,
};
use ganglion_site::{Command, Progress, Sentence, TagValues};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// A guard that takes no news for so long has ended.
const NEWS_TRIES_MAX: u32 = 500;
const NEWS_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What a source asks.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Who asks.
    pub source: Source,
    /// Whose question it is, for caches; 0 is the site itself.
    pub client: u64,
    /// The sentence, or empty.
    pub sentence: Sentence,
    /// Readings that come with the event.
    pub tags: TagValues,
    /// Time for it; the site's by default.
    pub deadline_ms: Option<u32>,
    /// Never actuate.
    pub dry_run: bool,
    /// The step of a verified plan; the brain is not asked.
    pub command: Option<Command>,
    /// Commands of others that the sender of a step knows of.
    pub others: u64,
}

impl Question {
    /// One of the site itself that asks nothing.
    pub const fn of(source: Source) -> Self {
        Self {
            source,
            client: 0,
            sentence: Sentence::EMPTY,
            tags: TagValues::NONE,
            deadline_ms: None,
            dry_run: false,
            command: None,
            others: 0,
        }
    }
}

/// What the driver said last: which command, and what went wrong with it.
pub type LastWrite = Option<(Command, Option<String>)>;

/// Shared by the input thread and the network thread; the guard's side of it is lock-free.
pub struct Inbox {
    requests: Mutex<rtrb::Producer<Request>>,
    operator: Mutex<OperatorQueue>,
    open: Mutex<Open>,
    news: Mutex<rtrb::Producer<News>>,
    reload: AtomicBool,
    status: Mutex<Option<Status>>,
    held_back: AtomicBool,
    /// Commands that went to the plant and were no mission's: how many, and whose the last one was.
    foreign: Mutex<(u64, &'static str)>,
    written: Mutex<(u64, LastWrite)>,
    plant_lost: AtomicU64,
    pub signals: SharedSignals,
}

#[derive(Default)]
struct Open {
    last_id: u64,
    /// Requests without an answer yet.
    waiting: HashMap<u64, Reply>,
}

/// The way back to whoever asked; without any, the answer is only shown.
#[derive(Debug, Default)]
pub struct Reply {
    /// Takes the answer.
    pub answer: Option<oneshot::Sender<Record>>,
    /// Takes fields as they are decided.
    pub fields: Option<mpsc::UnboundedSender<Progress>>,
}

impl Inbox {
    pub fn new(
        requests: rtrb::Producer<Request>,
        operator: OperatorQueue,
        news: rtrb::Producer<News>,
        signals: SharedSignals,
    ) -> Self {
        let (requests, operator) = (Mutex::new(requests), Mutex::new(operator));
        Self {
            requests,
            operator,
            open: Mutex::default(),
            news: Mutex::new(news),
            reload: AtomicBool::new(false),
            status: Mutex::default(),
            held_back: AtomicBool::new(false),
            foreign: Mutex::default(),
            written: Mutex::default(),
            plant_lost: AtomicU64::new(0),
            signals,
        }
    }

    /// Hands a question to the guard; the answer comes through `reply`, and on the screen.
    pub fn ask(&self, question: Question, reply: Reply) -> Result<u64, Full> {
        let mut open = lock(&self.open);
        open.last_id += 1;
        let id = open.last_id;
        let Question { source, client, sentence, tags, deadline_ms, dry_run, command, others } = question;
        let stream = reply.fields.is_some();
        let request =
            Request { id, source, client, sentence, tags, deadline_ms, dry_run, stream, command, others };
        lock(&self.requests).push(request).map_err(|_| Full)?;
        open.waiting.insert(id, reply);
        Ok(id)
    }

    /// A mode command.
    ///
    /// # Errors
    /// If too many wait; never for a stop or an abort.
    pub fn operate(&self, command: OperatorCommand) -> Result<(), OperatorQueueFull> {
        lock(&self.operator).send(command)
    }

    /// Has the site file's policy read again.
    pub fn ask_reload(&self) {
        self.reload.store(true, Ordering::Release);
    }

    /// Whether that was asked for since the last look.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::AcqRel)
    }

    /// Something that comes before the guard's next cycle. Waits for room: whoever tells has time.
    pub fn tell_guard(&self, news: News) {
        let mut news = Some(news);
        for _ in 0..NEWS_TRIES_MAX {
            let Some(item) = news.take() else { return };
            match lock(&self.news).push(item) {
                Ok(()) => return,
                Err(rtrb::PushError::Full(back)) => news = Some(back),
            }
            std::thread::sleep(NEWS_PAUSE);
        }
    }

    /// Gives an answer to whoever waits for it.
    pub fn answered(&self, record: &Record) {
        if record.actuated && record.source != Source::Mission {
            let mut foreign = lock(&self.foreign);
            *foreign = (foreign.0 + 1, record.source.as_str());
        }
        if record.request == 0 || record.kind != RecordKind::Decision {
            return;
        }
        let reply = lock(&self.open).waiting.remove(&record.request);
        if let Some(answer) = reply.and_then(|reply| reply.answer) {
            // The client may have left.
            let _ = answer.send(*record);
        }
    }

    /// An answer was lost on its way here, and nobody knows whose: all who wait hear that theirs does not come.
    pub fn lose_answers(&self) {
        lock(&self.open).waiting.clear();
    }

    /// Gives a field to whoever waits for it. The guard hands on a bounded number per question.
    pub fn decided(&self, field: &Field) {
        let open = lock(&self.open);
        if let Some(fields) = open.waiting.get(&field.request).and_then(|reply| reply.fields.as_ref()) {
            let _ = fields.send(field.progress);
        }
    }

    /// Commands that went to the plant and were no mission's: how many, and whose the last one was.
    pub fn foreign(&self) -> (u64, &'static str) {
        *lock(&self.foreign)
    }

    /// The driver has written a command, or failed to.
    pub fn wrote(&self, command: &Command, failure: Option<String>) {
        let mut written = lock(&self.written);
        *written = (written.0 + 1, Some((*command, failure)));
    }

    /// How often the driver has said something, and what it said last.
    pub fn last_write(&self) -> (u64, LastWrite) {
        lock(&self.written).clone()
    }

    /// The connection broke, or the plant's watchdog has tripped.
    pub fn lost_plant(&self) {
        self.plant_lost.fetch_add(1, Ordering::AcqRel);
    }

    /// How often.
    pub fn plant_losses(&self) -> u64 {
        self.plant_lost.load(Ordering::Acquire)
    }

    /// A mode command that a person gave. Whatever holds or stops also ends the run's own start.
    ///
    /// # Errors
    /// As [`Inbox::operate`].
    pub fn operate_by_hand(&self, command: OperatorCommand) -> Result<(), OperatorQueueFull> {
        if !matches!(command, OperatorCommand::Start | OperatorCommand::Reset | OperatorCommand::Unhold) {
            self.held_back.store(true, Ordering::Release);
        }
        self.operate(command)
    }

    /// A person has said something that holds or stops.
    pub fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Acquire)
    }

    /// This question has no answer yet.
    pub fn is_open(&self, id: u64) -> bool {
        lock(&self.open).waiting.contains_key(&id)
    }

    /// Every question has its answer.
    pub fn is_idle(&self) -> bool {
        lock(&self.open).waiting.is_empty()
    }

    /// The latest status, for clients.
    pub fn publish(&self, status: &Status) {
        *lock(&self.status) = Some(*status);
    }

    /// The latest status.
    pub fn status(&self) -> Option<Status> {
        *lock(&self.status)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganglion_guard::Channels;
    use ganglion_site::Site;
    use std::path::Path;

    #[test]
    fn whoever_waits_hears_that_an_answer_was_lost() {
        let text = "name = \"s\"\n[model]\npath = \"m.gguf\"\n[[command]]\nname = \"stop\"\n";
        let site = Site::parse(text, Path::new("site.toml")).unwrap();
        let (_inside, outside) = Channels::new(&site, None, None);
        let inbox = Inbox::new(outside.requests, outside.operator, outside.news, outside.signals);
        let (reply, answer) = oneshot::channel();
        let id =
            inbox.ask(Question::of(Source::Mission), Reply { answer: Some(reply), fields: None }).unwrap();
        assert!(inbox.is_open(id) && !inbox.is_idle());
        inbox.lose_answers();
        assert!(!inbox.is_open(id) && inbox.is_idle(), "the run may end, the next line is asked");
        assert!(answer.blocking_recv().is_err(), "a mission goes on");
    }
}
