//! `ganglion brain`: the guard's child. Events come in and decisions go out over standard input, a datagram socket.

use crate::{load, sandbox};
use anyhow::{Context, Result};
use clap::Args;
use ganglion_decide::{Decider, Exchange, Options};
use ganglion_site::{
    DECISION_FRAME_BYTES, Decision, EVENT_FRAME_BYTES, Event, Micros, PROGRESS_FRAME_BYTES, Progress, Site,
};
use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The model's process; started by `ganglion run`
#[derive(Args)]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// The site's text, where it is not the file's of now
    #[arg(long, hide = true)]
    text: Option<PathBuf>,
    /// The variant of the model, by its place in the site file
    #[arg(long, hide = true, default_value_t = 0)]
    variant: usize,
    /// Failure injection for tests: loop-after=N answers N events and spins for ever on the next
    #[arg(long, hide = true)]
    fault: Option<Fault>,
}

/// A failure to be injected.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    loop_after: u64,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.strip_prefix("loop-after=").and_then(|count| count.parse().ok());
        Ok(Self { loop_after: count.ok_or("expected loop-after=N")? })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loop-after={}", self.loop_after)
    }
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let socket = UnixDatagram::from(std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?);
    // Fails at once when standard input is no socket, that is, when a person starts this by hand.
    socket.peer_addr().context("standard input is no socket: the brain is started by `ganglion run`")?;
    ganglion_guard::die_with_parent().context("cannot tie the brain to its guard")?;
    let site = load::variant(&site_of(arguments)?, arguments.variant)?;
    let (gguf, _) = load::model_file(&site)?;
    let mut decider = load::decider(&site, &gguf, Options { memo: site.model.memo, ..Options::default() })?;
    drop(gguf);
    if site.model.lock_memory
        && let Err(error) = ganglion_guard::lock_memory()
    {
        eprintln!(
            "brain: model.lock_memory refused ({error}): a page fault may delay an answer; give the binary CAP_IPC_LOCK \
             or set LimitMEMLOCK=infinity in the service"
        );
    }
    let locked = sandbox::enter();
    eprintln!("brain: ready, {locked}");
    let left = arguments.fault.map_or(u64::MAX, |fault| fault.loop_after);
    serve(&socket, &site, &mut decider, left)
}

/// The site that the guard runs with: its file may say something else by now.
fn site_of(arguments: &Arguments) -> Result<Arc<Site>> {
    let Some(text) = &arguments.text else { return load::site(&arguments.site) };
    let (_, text) = Site::read(text)?;
    let folder = arguments.site.is_dir();
    let file = if folder { arguments.site.join("site.toml") } else { arguments.site.clone() };
    Ok(Arc::new(Site::parse(&text, &file)?))
}

/// Answers until the guard's end closes. Between events it gives a sign of life, so that a brain that hangs can be told
/// from one that has nothing to do.
fn serve(
    socket: &UnixDatagram,
    site: &ganglion_site::Site,
    decider: &mut Decider,
    left: u64,
) -> Result<ExitCode> {
    let sign_of_life = Duration::from_millis(u64::from(site.guard.brain_timeout_ms / 4).max(1));
    socket.set_read_timeout(Some(sign_of_life))?;
    let mut mail = Mail { socket, frame: [0; EVENT_FRAME_BYTES + 1], first: None, left, is_gone: false };
    while !mail.is_gone {
        let mut sign = [0u8; DECISION_FRAME_BYTES];
        Decision::SIGN_OF_LIFE.encode(&mut sign);
        mail.send(&sign);
        mail.first = mail.receive();
        if mail.first.is_some() {
            // What else is there, and what comes meanwhile, is decided along with it.
            socket.set_nonblocking(true)?;
            decider.run(&mut mail);
            socket.set_nonblocking(false)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The guard's end of the socket, as the decider sees it.
struct Mail<'a> {
    socket: &'a UnixDatagram,
    frame: [u8; EVENT_FRAME_BYTES + 1],
    /// The event that ended the wait.
    first: Option<Event>,
    /// Events before the injected failure.
    left: u64,
    is_gone: bool,
}

impl Mail<'_> {
    /// The next event, if one is there. What is no event is not answered: the guard counts it as a miss.
    fn receive(&mut self) -> Option<Event> {
        match self.socket.recv(&mut self.frame) {
            Ok(size) => self.frame.get(..size).and_then(|frame| Event::decode(frame).ok()),
            Err(error) => {
                self.is_gone |= gone(&error);
                None
            }
        }
    }

    /// Waits for room when the guard is behind with reading: an answer is not thrown away.
    fn send(&mut self, frame: &[u8]) {
        let mut sent = self.socket.send(frame);
        if sent.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            sent = self
                .socket
                .set_nonblocking(false)
                .and_then(|()| self.socket.send(frame))
                .and_then(|size| self.socket.set_nonblocking(true).map(|()| size));
        }
        self.is_gone |= sent.is_err_and(|error| gone(&error));
    }
}

impl Exchange for Mail<'_> {
    fn now(&mut self) -> Micros {
        ganglion_guard::monotonic_us()
    }

    fn next(&mut self) -> Option<Event> {
        if self.is_gone {
            return None;
        }
        let event = self.first.take().or_else(|| self.receive())?;
        if self.left == 0 {
            loop {
                std::hint::spin_loop();
            }
        }
        self.left -= 1;
        Some(event)
    }

    fn decided(&mut self, _: usize, progress: Progress) {
        let mut frame = [0u8; PROGRESS_FRAME_BYTES];
        progress.encode(&mut frame);
        self.send(&frame);
    }

    fn answer(&mut self, _: usize, decision: Decision) {
        let mut frame = [0u8; DECISION_FRAME_BYTES];
        decision.encode(&mut frame);
        self.send(&frame);
    }
}

fn gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    !matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
