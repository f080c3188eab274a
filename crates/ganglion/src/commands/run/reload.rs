//! Another policy while running: the site file is read again at SIGHUP or `!reload`, checked as at a start, and handed to
//! the guard as a whole, or refused as a whole.

use super::inbox::Inbox;
use super::worker::Worker;
use crate::answer::Identity;
use anyhow::{Context, Result};
use ganglion_guard::{Fingerprint, News, Notice, Policy};
use ganglion_record::{Health, fingerprint};
use ganglion_site::Site;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the thread looks whether it is asked.
const TICK: Duration = Duration::from_millis(20);

/// Site texts that were taken over, by fingerprint, beside the audit log: what a hash in the log stands for, and what a
/// brain is started with, whatever the site file says by then.
#[derive(Debug, Clone)]
pub struct Texts {
    folder: PathBuf,
    current: Arc<Mutex<PathBuf>>,
}

impl Texts {
    /// Keeps the first text.
    pub fn start(audit: &Path, text: &str) -> Result<Self> {
        let texts = Self { folder: audit.join("sites"), current: Arc::default() };
        texts.keep(text)?;
        Ok(texts)
    }

    fn keep(&self, text: &str) -> Result<()> {
        let print = fingerprint(text);
        let name: String = print.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = self.folder.join(format!("{name}.toml"));
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            // Whole or not at all: a half one would stop every brain.
            let draft = self.folder.join("draft");
            std::fs::write(&draft, text)?;
            std::fs::rename(&draft, &file)
        };
        write().with_context(|| format!("cannot keep the site's text in {}", self.folder.display()))?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// The file with the text that holds now.
    pub fn current(&self) -> PathBuf {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the thread works with.
pub struct Work {
    pub identity: Identity,
    pub text: Arc<str>,
    pub texts: Texts,
    pub recording: Option<Health>,
    pub inbox: Arc<Inbox>,
    pub retired: rtrb::Consumer<Box<Policy>>,
}

/// The thread that reads, checks and hands over.
pub fn start(work: Work) -> Result<Worker> {
    Worker::start("reload", move |stop| work.run(stop))
}

impl Work {
    fn run(mut self, stop: &AtomicBool) {
        let mut print = fingerprint(&self.text);
        while !stop.load(Ordering::Acquire) {
            // The policy that was exchanged is freed here, off the guard's thread.
            while self.retired.pop().is_ok() {}
            if self.inbox.take_reload() {
                match self.reload(print) {
                    Ok(Some(after)) => print = after,
                    Ok(None) => self.inbox.tell_guard(News::Note(Notice::unchanged())),
                    Err(error) => {
                        let text = format!("{error:#}");
                        eprintln!("reload refused: {text}");
                        self.say(text.lines().next().unwrap_or_default());
                    }
                }
            }
            std::thread::sleep(TICK);
        }
    }

    fn say(&self, why: &str) {
        self.inbox.tell_guard(News::Note(Notice::refused(why)));
    }

    /// The new fingerprint, or nothing when the file has not changed.
    fn reload(&mut self, before: Fingerprint) -> Result<Option<Fingerprint>> {
        let current = self.identity.current();
        let (file, text) = Site::read(&current.file)?;
        let after = fingerprint(&text);
        if after == before {
            return Ok(None);
        }
        let site = Site::parse(&text, &file)?;
        let policy = Policy::new((&current, before), (&site, after))?;
        self.texts.keep(&text)?;
        let text: Arc<str> = text.into();
        if let Some(recording) = &self.recording {
            recording.announce(after, Arc::clone(&text));
        }
        self.inbox.tell_guard(News::Adopt(Box::new(policy)));
        // After the guard: nothing is verified against what does not hold yet.
        self.identity.adopt(&Arc::new(site));
        self.text = text;
        Ok(Some(after))
    }
}
