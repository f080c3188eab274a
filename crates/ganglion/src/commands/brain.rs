//! `ganglion brain`: the guard's child. Events come in and decisions go out over standard input, a datagram socket.

use crate::{load, sandbox};
use anyhow::{Context, Result};
use clap::Args;
use ganglion_decide::Options;
use ganglion_site::{DECISION_FRAME_BYTES, Decision, EVENT_FRAME_BYTES, Event};
use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// The model's process; started by `ganglion run`
#[derive(Args)]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
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
    let site = load::site(&arguments.site)?;
    let (gguf, _) = load::model_file(&site)?;
    let mut decider = load::decider(&site, &gguf, Options::default())?;
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
    let mut left = arguments.fault.map_or(u64::MAX, |fault| fault.loop_after);
    serve(&socket, &site, |event| {
        if left == 0 {
            loop {
                std::hint::spin_loop();
            }
        }
        left -= 1;
        decider.decide(event, &mut load::clock())
    })
}

/// Answers until the guard's end closes. Between events it gives a sign of life, so that a brain that hangs can be told
/// from one that has nothing to do.
fn serve(
    socket: &UnixDatagram,
    site: &ganglion_site::Site,
    mut decide: impl FnMut(&Event) -> Decision,
) -> Result<ExitCode> {
    let sign_of_life = Duration::from_millis(u64::from(site.guard.brain_timeout_ms / 4).max(1));
    socket.set_read_timeout(Some(sign_of_life))?;
    let mut frame = [0u8; EVENT_FRAME_BYTES + 1];
    let mut answer = [0u8; DECISION_FRAME_BYTES];
    loop {
        Decision::SIGN_OF_LIFE.encode(&mut answer);
        if socket.send(&answer).is_err_and(|error| gone(&error)) {
            return Ok(ExitCode::SUCCESS);
        }
        let event = match socket.recv(&mut frame) {
            Ok(size) => frame.get(..size).map(Event::decode),
            Err(error) if gone(&error) => return Ok(ExitCode::SUCCESS),
            Err(_) => continue,
        };
        // What is no event is not answered: the guard counts it as a miss.
        if let Some(Ok(event)) = event {
            decide(&event).encode(&mut answer);
            if socket.send(&answer).is_err_and(|error| gone(&error)) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

fn gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    !matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
