//! Everything on the network, on one thread: the plant's driver, the HTTP server, signals; and the simulated plant's process.

use super::desk::Desk;
use super::inbox::Inbox;
use super::{SharedSignals, StopFlag};
use crate::answer::{Answer, Identity};
use anyhow::{Context, Result, bail};
use ganglion_guard::{Actuation, DeviceWatchdog, Link as GuardLink, Record, Verdict, monotonic_us};
use ganglion_io::modbus::{CommandSource, CycleWatch, Driver, Link, Quality, TagSink, WriteFailure};
use ganglion_server::Server;
use ganglion_site::{Command, Micros, Outcome, Site};
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Time that the simulated plant has to end by itself.
const SIMULATOR_END: std::time::Duration = std::time::Duration::from_secs(1);

/// What the screen should hear from out there.
#[derive(Debug)]
pub enum News {
    /// The plant took a command.
    Written(Command),
    /// It did not.
    Refused(Command, WriteFailure),
    /// The connection changed: what is wrong, or nothing.
    Link(String),
    /// HTTP listens there, or does not listen.
    Http(Result<std::net::SocketAddr, String>),
}

/// The network thread.
pub struct World {
    stop: Arc<StopFlag>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    /// A signal asked for the end.
    pub fn stop_asked(&self) -> bool {
        self.stop.is_set()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The simulated plant; dropped, its standard input closes and it ends.
pub struct Simulator(Child);

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let start = std::time::Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if start.elapsed() > SIMULATOR_END {
                // It hangs; fails only when it has ended by now.
                let _ = self.0.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Starts the site's simulator, if it names one, and waits until it listens.
pub fn start_simulator(site: &Site) -> Result<Option<Simulator>> {
    let Some(plant) = &site.plant else { return Ok(None) };
    let Some(kind) = &plant.simulator else { return Ok(None) };
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .args(["plant", kind, "--exit-with-stdin", "--listen", &plant.modbus])
        .arg(format!("--speed={}", plant.simulator_speed))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start the simulated plant")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.is_empty() {
        let _ = child.wait();
        bail!(
            "the simulated plant \"{kind}\" did not start on {} (plant.modbus in {})",
            plant.modbus,
            site.file.display()
        );
    }
    Ok(Some(Simulator(child)))
}

/// Starts the network thread.
pub fn start(
    desk: Desk,
    identity: &Identity,
    inbox: &Arc<Inbox>,
    signals: &SharedSignals,
    actuations: rtrb::Consumer<Actuation>,
    dry_run: bool,
) -> Result<(World, Receiver<News>)> {
    let (tell, news) = channel();
    let (end, ended) = oneshot::channel();
    let stop = Arc::new(StopFlag::default());
    let outside = Everything {
        identity: identity.clone(),
        inbox: Arc::clone(inbox),
        signals: Arc::clone(signals),
        stop: Arc::clone(&stop),
        tell,
        dry_run,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new()
        .name("network".to_owned())
        .spawn(move || runtime.block_on(outside.run(desk, actuations, ended)))
        .context("cannot start the network thread")?;
    Ok((World { stop, end: Some(end), thread: Some(thread) }, news))
}

struct Everything {
    identity: Identity,
    inbox: Arc<Inbox>,
    signals: SharedSignals,
    stop: Arc<StopFlag>,
    tell: Sender<News>,
    dry_run: bool,
}

impl Everything {
    async fn run(self, desk: Desk, actuations: rtrb::Consumer<Actuation>, ended: oneshot::Receiver<()>) {
        let site = Arc::clone(&self.identity.site);
        let (end_server, server_ends) = oneshot::channel::<()>();
        let server = self.serve_http(desk, server_ends);
        let plant = PlantSide {
            inbox: &self.inbox,
            signals: &self.signals,
            tell: &self.tell,
            dry_run: self.dry_run,
            seen: Cell::default(),
        };
        let mut commands = Commands { actuations, tell: &self.tell };
        let link = Link::default();
        let driver = async {
            if let Ok(driver) = Driver::new(&site, &link) {
                driver.run(&plant, &mut commands, &plant, monotonic_us).await;
            }
        };
        let signals = async {
            while asked_to_end(&self.inbox).await {
                self.stop.set();
            }
        };
        tokio::select! {
            () = async { tokio::join!(server, driver, signals); } => {}
            _ = ended => {}
        }
        drop(end_server);
    }

    async fn serve_http(&self, desk: Desk, ends: oneshot::Receiver<()>) {
        let Some(address) = self.identity.site.http else { return std::future::pending().await };
        let server = match Server::bind(address).await {
            Ok(server) => server,
            Err(error) => {
                let _ = self.tell.send(News::Http(Err(error.to_string())));
                return std::future::pending().await;
            }
        };
        let _ = self.tell.send(News::Http(Ok(server.local_address())));
        let until = async {
            let _ = ends.await;
        };
        if let Err(error) = server.run(Arc::clone(&self.identity.site), desk, until).await {
            let _ = self.tell.send(News::Http(Err(error.to_string())));
        }
    }
}

/// Ctrl-C, SIGTERM or a lost terminal; false when neither can be listened to. Without a terminal to be lost, SIGHUP means
/// what it means to other services: read the configuration again.
async fn asked_to_end(inbox: &Inbox) -> bool {
    use std::io::IsTerminal;
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else { return std::future::pending().await };
    let by_terminal = std::io::stdin().is_terminal();
    loop {
        tokio::select! {
            result = tokio::signal::ctrl_c() => return result.is_ok(),
            _ = terminate.recv() => return true,
            _ = hang_up.recv() => {
                if by_terminal {
                    return true;
                }
                inbox.ask_reload();
            }
        }
    }
}

/// What the driver reads from and tells the guard.
struct PlantSide<'a> {
    inbox: &'a Inbox,
    signals: &'a SharedSignals,
    tell: &'a Sender<News>,
    dry_run: bool,
    /// Whether it was connected, and how often its watchdog had tripped.
    seen: Cell<(bool, u64)>,
}

impl TagSink for PlantSide<'_> {
    fn publish(&self, tag: usize, value: f64, quality: Quality, time_us: Micros) {
        self.signals.publish(tag, value, quality, time_us);
    }

    fn link_changed(&self, link: &Link) {
        let now = (link.is_connected(), link.trip_count());
        let (connected, trips) = self.seen.replace(now);
        // Before the guard hears of it: whoever waits out a hold must see the loss when it is over.
        if (connected && !now.0) || trips != now.1 {
            self.inbox.lost_plant();
        }
        if self.dry_run && link.is_connected() {
            // Nothing is ever sent in a dry run, so nothing has to be armed nor acknowledged.
            let watchdog = DeviceWatchdog::Armed;
            self.signals.set_link(GuardLink { connected: true, watchdog, heartbeat_ack_us: Micros::MAX / 2 });
        } else {
            self.signals.link_changed(link);
        }
        let _ = self.tell.send(News::Link(link.status().last_error));
    }
}

impl CycleWatch for PlantSide<'_> {
    fn cycles(&self) -> u64 {
        self.signals.heartbeats()
    }

    fn may_arm(&self) -> bool {
        !self.dry_run
    }
}

/// Approved commands on their way to the plant.
struct Commands<'a> {
    actuations: rtrb::Consumer<Actuation>,
    tell: &'a Sender<News>,
}

impl CommandSource for Commands<'_> {
    fn next_command(&mut self) -> Option<Actuation> {
        self.actuations.pop().ok()
    }

    fn written(&mut self, command: &Command, result: Result<(), WriteFailure>) {
        let _ = self.tell.send(match result {
            Ok(()) => News::Written(*command),
            Err(failure) => News::Refused(*command, failure),
        });
    }
}

/// A decision record as the documented answer.
pub fn answer_of(record: &Record, deadline_ms: f64) -> Answer<'_> {
    Answer {
        outcome: record.outcome.unwrap_or(Outcome::Model),
        command: record.clamped.or(record.command),
        verdict: record.verdict.unwrap_or(Verdict::Rejected),
        reason: record.reason.as_str(),
        confidence: record.confidence,
        deadline_ms,
        latency_ms: record.latency_us as f64 / 1000.0,
        timings: record.timings,
    }
}
