//! The driver against real devices over loopback TCP: our plant, and one by pymodbus. They stand inside the crate because
//! only here can a command be written that no guard approved.

use super::*;
use crate::limits::BACKOFF_MS_MIN;
use ganglion_plant::{Options, PlantKind, Server};
use ganglion_site::Site;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

/// What the guard would be: tags, commands and cycles, all in one thread.
#[derive(Default)]
struct Bench {
    tags: RefCell<Vec<Option<(f64, Quality)>>>,
    commands: RefCell<VecDeque<Command>>,
    results: RefCell<Vec<Result<(), WriteFailure>>>,
    cycles: Cell<u64>,
    guard_hangs: Cell<bool>,
    may_not_arm: Cell<bool>,
    all_are_safe: Cell<bool>,
    link: Link,
}

impl TagSink for Rc<Bench> {
    fn publish(&self, tag: usize, value: f64, quality: Quality, _: Micros) {
        if let Some(slot) = self.tags.borrow_mut().get_mut(tag) {
            *slot = Some((value, quality));
        }
    }
}

impl Source for Rc<Bench> {
    fn next_order(&mut self) -> Option<Order> {
        let command = self.commands.borrow_mut().pop_front()?;
        Some(Order { command, is_safe: self.all_are_safe.get() })
    }

    fn written(&mut self, _: &Command, result: Result<(), WriteFailure>) {
        self.results.borrow_mut().push(result);
    }
}

impl CycleWatch for Rc<Bench> {
    fn cycles(&self) -> u64 {
        self.cycles.get()
    }

    fn may_arm(&self) -> bool {
        !self.may_not_arm.get()
    }
}

impl Bench {
    fn start(site: &Site) -> (Rc<Self>, JoinHandle<()>) {
        let bench = Rc::new(Self { tags: RefCell::new(vec![None; site.tags.len()]), ..Self::default() });
        let (site, guard, driven) = (site.clone(), Rc::clone(&bench), Rc::clone(&bench));
        spawn_local(async move {
            loop {
                if !guard.guard_hangs.get() {
                    guard.cycles.set(guard.cycles.get() + 1);
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
        let started = Instant::now();
        let driver = spawn_local(async move {
            let clock = || u64::try_from(started.elapsed().as_micros()).unwrap();
            let driver = Driver::new(&site, &driven.link).unwrap();
            driver.drive(&driven, &mut Rc::clone(&driven), &driven, clock).await;
        });
        (bench, driver)
    }

    fn tag(&self, index: usize) -> (f64, Quality) {
        self.tags.borrow()[index].unwrap_or((f64::NAN, Quality::BadNoCommunication))
    }

    /// Sends a command and waits for what becomes of it.
    async fn command(&self, site: &Site, json: &str) -> Result<(), WriteFailure> {
        let count = self.results.borrow().len();
        self.commands.borrow_mut().push_back(Command::from_json(site, json).unwrap());
        until(|| self.results.borrow().len() > count).await;
        self.results.borrow()[count]
    }
}

/// Waits for `condition`; a generous bound, so that only a hang fails.
async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited too long");
        sleep(Duration::from_millis(2)).await;
    }
}

async fn plant(kind: PlantKind, listen: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let server = Server::bind(listen, &Options::new(kind)).await.unwrap();
    (server.local_address(), spawn_local(server.run()))
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn site(name: &str, address: SocketAddr) -> Site {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let mut site = Site::load(&folder).unwrap();
    let spec = site.plant.as_mut().unwrap();
    spec.modbus = address.to_string();
    spec.poll_ms = 20;
    site
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}

#[test]
fn tags_come_in_and_commands_go_out() {
    run(async {
        let (address, _plant) = plant(PlantKind::Hvac, any_port()).await;
        let site = site("hvac", address);
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.is_armed() && (0..5).all(|tag| bench.tag(tag).1.is_good())).await;
        assert!((bench.tag(0).0 - 19.5).abs() < 0.3, "{:?}", bench.tag(0));
        assert!([0.0, 1.0].contains(&bench.tag(3).0));

        assert_eq!(bench.command(&site, r#"{"action":"set_fan","room":"hall","percent":70}"#).await, Ok(()));
        assert_eq!(bench.command(&site, r#"{"action":"all_off"}"#).await, Ok(()));
        let status = bench.link.status();
        assert!(status.connected && status.armed && !status.tripped && status.trip_count == 0, "{status:?}");
        assert_eq!((status.reconnect_count, status.last_error.as_str()), (0, ""));
    });
}

#[test]
fn a_hung_guard_trips_the_plant_and_a_recovered_one_arms_it_again_when_allowed() {
    run(async {
        let (address, _plant) = plant(PlantKind::Conveyor, any_port()).await;
        let mut site = site("conveyor", address);
        site.plant.as_mut().unwrap().watchdog_ms = 200;
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.is_armed()).await;
        bench.may_not_arm.set(true);
        bench.guard_hangs.set(true);
        until(|| bench.link.is_tripped()).await;
        assert!(!bench.link.is_armed());
        let refused = bench.command(&site, r#"{"action":"accept"}"#).await;
        assert_eq!(refused, Err(WriteFailure::NotArmed));
        assert!(bench.link.status().last_error.contains("tripped"));

        bench.guard_hangs.set(false);
        sleep(Duration::from_millis(1200)).await;
        assert!(bench.link.is_tripped(), "nobody allowed arming");
        bench.may_not_arm.set(false);
        until(|| bench.link.is_armed()).await;
        assert!(!bench.link.is_tripped());
        assert_eq!(bench.link.trip_count(), 1);
        assert_eq!(bench.command(&site, r#"{"action":"accept"}"#).await, Ok(()));
    });
}

#[test]
fn a_plant_that_comes_back_is_found_again_and_old_commands_are_not_replayed() {
    run(async {
        let (address, server) = plant(PlantKind::Hvac, any_port()).await;
        let site = site("hvac", address);
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.is_armed() && bench.tag(0).1.is_good()).await;
        server.abort();
        until(|| !bench.link.is_connected()).await;
        until(|| bench.tag(0).1 == Quality::BadNoCommunication && bench.tag(0).0.is_nan()).await;
        let heat = r#"{"action":"set_mode","mode":"heat"}"#;
        assert_eq!(bench.command(&site, heat).await, Err(WriteFailure::NotConnected));
        assert!(
            bench.link.status().last_error.contains(&address.to_string()) || !bench.link.status().connected
        );
        sleep(Duration::from_millis(2 * BACKOFF_MS_MIN)).await;

        let (_, _second) = plant(PlantKind::Hvac, address).await;
        until(|| bench.link.is_armed() && bench.tag(0).1.is_good()).await;
        assert_eq!(bench.link.status().reconnect_count, 1);
        assert_eq!(bench.results.borrow().len(), 1);
        assert_eq!(bench.command(&site, heat).await, Ok(()));
    });
}

#[test]
fn an_unreachable_plant_is_reported_and_refuses_commands_at_once() {
    run(async {
        let free = std::net::TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
        let site = site("hvac", free);
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.status().last_error.contains("cannot connect to")).await;
        assert_eq!(bench.command(&site, r#"{"action":"all_off"}"#).await, Err(WriteFailure::NotConnected));
        assert_eq!(bench.tag(2).1, Quality::BadNoCommunication);
    });
}

#[test]
fn refused_reads_and_writes_leave_the_rest_working() {
    run(async {
        let (address, _plant) = plant(PlantKind::Hvac, any_port()).await;
        let mut site = site("hvac", address);
        site.tags[4].read.as_mut().unwrap().address = 50;
        site.commands[1].writes[0].address = 11;
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.is_armed() && bench.tag(0).1.is_good()).await;
        until(|| bench.tag(4).1 == Quality::BadDeviceFailure).await;
        assert!(bench.tag(4).0.is_nan());
        let refused = bench.command(&site, r#"{"action":"set_mode","mode":"heat"}"#).await;
        assert_eq!(refused, Err(WriteFailure::Exception { address: 11, code: 2 }));
        assert_eq!(bench.command(&site, r#"{"action":"set_schedule","program":"weekend"}"#).await, Ok(()));
        let status = bench.link.status();
        assert!(status.connected && status.armed && status.exception_count >= 2, "{status:?}");
    });
}

#[test]
fn a_device_that_refuses_the_safe_command_is_left_to_its_own_watchdog() {
    run(async {
        let (address, _plant) = plant(PlantKind::Hvac, any_port()).await;
        let mut site = site("hvac", address);
        site.commands[1].writes[0].address = 11;
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.is_armed()).await;
        bench.all_are_safe.set(true);
        let refused = bench.command(&site, r#"{"action":"set_mode","mode":"heat"}"#).await;
        assert_eq!(refused, Err(WriteFailure::Exception { address: 11, code: 2 }));
        until(|| bench.link.trip_count() == 1).await;
        until(|| bench.link.is_armed()).await;
        assert_eq!(bench.link.status().exception_count, 3, "it was tried three times");
        assert_eq!(bench.command(&site, r#"{"action":"all_off"}"#).await, Ok(()));
    });
}

#[test]
fn a_device_without_a_working_watchdog_is_never_armed() {
    run(async {
        let (address, _plant) = plant(PlantKind::Hvac, any_port()).await;
        let mut site = site("hvac", address);
        // A register that exists and never says "armed".
        site.plant.as_mut().unwrap().watchdog_state = 5;
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.status().last_error.contains("refusing to arm")).await;
        until(|| bench.tag(0).1.is_good()).await;
        assert_eq!(bench.command(&site, r#"{"action":"all_off"}"#).await, Err(WriteFailure::NotArmed));

        site.plant.as_mut().unwrap().watchdog_state = 99;
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.link.status().last_error.contains("cannot be used")).await;
        assert!(!bench.link.is_armed());
    });
}

#[test]
fn values_outside_a_tags_range_are_bad() {
    run(async {
        let (address, _plant) = plant(PlantKind::Hvac, any_port()).await;
        let mut site = site("hvac", address);
        site.tags[0].range_lo = 50.0;
        let (bench, _driver) = Bench::start(&site);
        until(|| bench.tag(0).1 == Quality::BadOutOfRange).await;
        assert!(bench.tag(0).0 > 15.0);
        until(|| bench.tag(1).1.is_good()).await;
    });
}

#[test]
fn a_device_that_talks_nonsense_is_left_and_tried_again() {
    run(async {
        let listener = tokio::net::TcpListener::bind(any_port()).await.unwrap();
        let site = site("hvac", listener.local_addr().unwrap());
        let accepted = Rc::new(Cell::new(0u32));
        let count = Rc::clone(&accepted);
        spawn_local(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let answers: [&[u8]; 4] = [
                b"",
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                &[0, 0, 0, 0, 0, 3, 1, 0x84, 2],
                &[0, 0, 0, 0, 0, 2, 9, 4],
            ];
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let answer = answers[count.get() as usize % answers.len()];
                count.set(count.get() + 1);
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(answer).await;
            }
        });
        let (bench, _driver) = Bench::start(&site);
        until(|| accepted.get() >= 4).await;
        assert!(!bench.link.is_armed());
        assert!(!bench.link.status().last_error.is_empty());
    });
}

#[test]
fn the_guards_signals_take_tags_and_link() {
    run(async {
        let (address, _plant) = plant(PlantKind::Hvac, any_port()).await;
        let site = site("hvac", address);
        let (_inside, outside) = ganglion_guard::Channels::new(&site, None, None);
        let (signals, mut actuations) = (outside.signals, outside.actuations);
        let driven = std::sync::Arc::clone(&signals);
        spawn_local(async move {
            let started = Instant::now();
            let link = Link::default();
            let driver = Driver::new(&site, &link).unwrap();
            let clock = || 1 + u64::try_from(started.elapsed().as_micros()).unwrap();
            driver.run(&*driven, &mut actuations, &*driven, clock).await;
        });
        until(|| signals.link().connected && (0..5).all(|tag| signals.tags.read(tag).time_us > 0)).await;
        assert_eq!(signals.link().watchdog, ganglion_guard::DeviceWatchdog::Off, "no cycles, no arming");
        assert_eq!(signals.tags.read(0).quality, ganglion_guard::Quality::Good);
    });
}

#[test]
fn reads_are_batched_by_contiguous_addresses() {
    let plans = |name: &str| {
        let batches = plan::plan(&site(name, any_port()));
        batches.into_iter().map(|b| (b.table, b.address, b.count, b.members.len())).collect::<Vec<_>>()
    };
    use ganglion_site::ReadTable::{Discrete, Input};
    assert_eq!(plans("hvac"), [(Discrete, 0, 1, 1), (Input, 0, 4, 4)]);
    assert_eq!(plans("conveyor"), [(Input, 0, 4, 4)]);
    let mut wide = site("hvac", any_port());
    let tag = wide.tags[0].clone();
    wide.tags = (0..64u16)
        .map(|i| {
            let mut tag = tag.clone();
            tag.read.as_mut().unwrap().address = 63 - i;
            tag
        })
        .collect();
    let batches = plan::plan(&wide);
    assert_eq!((batches.len(), batches[0].count, batches[0].members[0].tag), (1, 64, 63));
}

#[test]
fn drives_a_device_by_pymodbus() {
    let Some(python) = std::env::var_os("GANGLION_PYTHON") else {
        println!("skipped: GANGLION_PYTHON does not name a python with pymodbus");
        return;
    };
    let start = |watchdog: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/device.py");
        let mut command = std::process::Command::new(&python);
        command
            .arg(script)
            .arg(watchdog)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        std::io::BufRead::read_line(&mut output, &mut port).unwrap();
        (child, output, SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap())))
    };
    run(async {
        let (mut device, mut output, address) = start("yes");
        let site = site("hvac", address);
        let (bench, driver) = Bench::start(&site);
        until(|| bench.link.is_armed() && bench.tag(4).1.is_good()).await;
        let values: Vec<f64> = (0..5).map(|tag| bench.tag(tag).0).collect();
        assert_eq!(values, [21.5, -5.0, 18.0, 1.0, 33.4]);
        let set = r#"{"action":"set_temperature","room":"hall","celsius":22.5}"#;
        assert_eq!(bench.command(&site, set).await, Ok(()));
        assert_eq!(bench.command(&site, r#"{"action":"all_off"}"#).await, Ok(()));
        driver.abort();
        drop(device.stdin.take());
        let mut written = String::new();
        std::io::Read::read_to_string(&mut output, &mut written).unwrap();
        device.wait().unwrap();
        assert!(written.starts_with("2=225 10=0 31=1 100="), "{written}");
        assert!(written.trim_end().ends_with("101=1000"), "{written}");
    });
    run(async {
        let (mut device, _output, address) = start("no");
        let (bench, _driver) = Bench::start(&site("hvac", address));
        until(|| bench.link.status().last_error.contains("did not arm")).await;
        assert!(!bench.link.is_armed());
        drop(device.stdin.take());
        device.wait().unwrap();
    });
}
