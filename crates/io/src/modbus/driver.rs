//! The driver's task: connect, poll, write, beat, arm.

use crate::error::Error;
use crate::limits::{
    ARM_RETRY_MS, BACKOFF_MS_MAX, BACKOFF_MS_MIN, COMMANDS_PER_TICK_MAX, CONNECT_MS_MAX, DRIVER_TICK_MS,
    HEARTBEATS_PER_WATCHDOG, REQUEST_MS_MAX, SAFE_RETRY_MS, SAFE_TRIES_MAX, WATCHDOG_CHECKS_PER_WATCHDOG,
};
use crate::modbus::plan::{Batch, plan};
use crate::modbus::{CommandSource, CycleWatch, Link, Order, Proven, Quality, Source, TagSink, WriteFailure};
use ganglion_guard::{RawWrite, register_writes};
use ganglion_site::{Command, Micros, PlantSpec, ReadTable, Site, WriteTarget};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_modbus::client::{Client, Context, tcp::attach_slave};
use tokio_modbus::{ExceptionCode, Request, Response, Slave};

/// Drives the plant of one site. See the [module](crate::modbus) for what it guarantees.
pub struct Driver<'a> {
    site: &'a Site,
    plant: &'a PlantSpec,
    link: &'a Link,
    batches: Vec<Batch>,
}

const WATCHDOG_ARMED: u16 = 1;
const WATCHDOG_TRIPPED: u16 = 2;

impl<'a> Driver<'a> {
    /// Plans the reads; connects nowhere yet.
    ///
    /// # Errors
    /// [`Error::NoPlant`].
    pub fn new(site: &'a Site, link: &'a Link) -> Result<Self, Error> {
        let plant = site.plant.as_ref().ok_or_else(|| Error::NoPlant { site: site.name.clone() })?;
        Ok(Self { site, plant, link, batches: plan(site) })
    }

    /// Runs until dropped. `clock` gives monotonic microseconds, the same that the guard uses. The device's watchdog
    /// stays armed when this ends: the plant then goes to its safe state by itself.
    pub async fn run<C: CommandSource>(
        self,
        tags: &impl TagSink,
        commands: &mut C,
        cycles: &impl CycleWatch,
        clock: impl Fn() -> Micros,
    ) {
        self.drive(tags, &mut Proven(commands), cycles, clock).await;
    }

    pub(super) async fn drive(
        self,
        tags: &impl TagSink,
        commands: &mut impl Source,
        cycles: &impl CycleWatch,
        clock: impl Fn() -> Micros,
    ) {
        let mut backoff_ms = BACKOFF_MS_MIN;
        self.publish_all_bad(tags, clock());
        loop {
            // Whatever waits was meant for a plant that is no longer in reach.
            refuse_all(commands, WriteFailure::NotConnected);
            let why = match self.connect(commands).await {
                Ok(context) => {
                    self.link.set_connected();
                    tags.link_changed(self.link);
                    let mut session = Session::new(&self, context, cycles.cycles());
                    let why = session.run(tags, commands, cycles, &clock).await;
                    if session.answered {
                        backoff_ms = BACKOFF_MS_MIN;
                    }
                    why
                }
                Err(why) => why,
            };
            self.link.set_disconnected(&why);
            tags.link_changed(self.link);
            self.publish_all_bad(tags, clock());
            let pause_end_us = clock().saturating_add(backoff_ms * 1000);
            while clock() < pause_end_us {
                refuse_all(commands, WriteFailure::NotConnected);
                sleep(Duration::from_millis(DRIVER_TICK_MS)).await;
            }
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
        }
    }

    /// Connects; commands that come meanwhile are refused without waiting for the outcome.
    async fn connect(&self, commands: &mut impl Source) -> Result<Context, String> {
        let address = &self.plant.modbus;
        let connecting = timeout(Duration::from_millis(CONNECT_MS_MAX), TcpStream::connect(address.as_str()));
        tokio::pin!(connecting);
        let outcome = loop {
            tokio::select! {
                outcome = &mut connecting => break outcome,
                () = sleep(Duration::from_millis(DRIVER_TICK_MS)) => refuse_all(commands, WriteFailure::NotConnected),
            }
        };
        let stream = match outcome {
            Err(_) => return Err(format!("cannot connect to {address}: no answer in {CONNECT_MS_MAX} ms")),
            Ok(Err(error)) => return Err(format!("cannot connect to {address}: {error}")),
            Ok(Ok(stream)) => stream,
        };
        stream
            .set_nodelay(true)
            .map_err(|error| format!("cannot set up the connection to {address}: {error}"))?;
        Ok(attach_slave(stream, Slave(self.plant.unit)))
    }

    fn publish_all_bad(&self, tags: &impl TagSink, now_us: Micros) {
        for member in self.batches.iter().flat_map(|batch| &batch.members) {
            tags.publish(member.tag, f64::NAN, Quality::BadNoCommunication, now_us);
        }
    }
}

fn refuse_all(commands: &mut impl Source, why: WriteFailure) {
    // Bounded, so that a source that never runs dry cannot hold the task.
    for _ in 0..COMMANDS_PER_TICK_MAX {
        let Some(order) = commands.next_order() else { break };
        commands.written(&order.command, Err(why));
    }
}

/// Why a request brought no answer.
enum Failure {
    /// The device refused it; the connection is fine.
    Exception(ExceptionCode),
    /// The connection is to be given up.
    Broken(String),
}

/// One connection.
struct Session<'a, 'b> {
    driver: &'b Driver<'a>,
    context: Context,
    /// The device has answered at least once.
    answered: bool,
    armed: bool,
    heartbeat: u16,
    heartbeat_due_us: Micros,
    /// Guard cycles at the last heartbeat.
    cycles_seen: u64,
    watchdog_due_us: Micros,
    poll_due_us: Micros,
    /// Next batch of the poll under way; past the end: none is.
    next_batch: usize,
}

impl<'a, 'b> Session<'a, 'b> {
    fn new(driver: &'b Driver<'a>, context: Context, cycles_seen: u64) -> Self {
        Self {
            driver,
            context,
            answered: false,
            armed: false,
            heartbeat: 0,
            heartbeat_due_us: 0,
            cycles_seen,
            watchdog_due_us: 0,
            poll_due_us: 0,
            next_batch: usize::MAX,
        }
    }

    /// Works until the connection breaks; returns why.
    async fn run<C: Source>(
        &mut self,
        tags: &impl TagSink,
        commands: &mut C,
        cycles: &impl CycleWatch,
        clock: &impl Fn() -> Micros,
    ) -> String {
        loop {
            // One request at most before commands are looked at again.
            let worked = match self.step(tags, commands, cycles, clock).await {
                Ok(worked) => worked,
                Err(why) => return why,
            };
            if worked {
                tags.link_changed(self.driver.link);
            } else {
                sleep(Duration::from_millis(DRIVER_TICK_MS)).await;
            }
        }
    }

    async fn step<C: Source>(
        &mut self,
        tags: &impl TagSink,
        commands: &mut C,
        cycles: &impl CycleWatch,
        clock: &impl Fn() -> Micros,
    ) -> Result<bool, String> {
        let wrote = self.write_commands(commands, clock).await?;
        let now_us = clock();
        let completed = cycles.cycles();
        if self.armed && completed != self.cycles_seen && now_us >= self.heartbeat_due_us {
            self.cycles_seen = completed;
            self.heartbeat_due_us = now_us + self.watchdog_us() / HEARTBEATS_PER_WATCHDOG;
            self.beat(now_us).await?;
            return Ok(true);
        }
        if now_us >= self.watchdog_due_us {
            self.attend_watchdog(cycles, now_us).await?;
            return Ok(true);
        }
        if self.next_batch >= self.driver.batches.len() && now_us >= self.poll_due_us {
            self.next_batch = 0;
            self.poll_due_us = now_us + u64::from(self.driver.plant.poll_ms) * 1000;
        }
        let driver = self.driver;
        if let Some(batch) = driver.batches.get(self.next_batch) {
            self.next_batch += 1;
            self.read_batch(batch, tags, clock).await?;
            return Ok(true);
        }
        Ok(wrote)
    }

    fn watchdog_us(&self) -> Micros {
        u64::from(self.driver.plant.watchdog_ms) * 1000
    }

    async fn write_commands(
        &mut self,
        commands: &mut impl Source,
        clock: &impl Fn() -> Micros,
    ) -> Result<bool, String> {
        for i in 0..COMMANDS_PER_TICK_MAX {
            let Some(Order { command, is_safe }) = commands.next_order() else { return Ok(i > 0) };
            if !self.armed {
                commands.written(&command, Err(WriteFailure::NotArmed));
                continue;
            }
            let (mut result, mut broken) = self.write_command(&command).await;
            for _ in 1..if is_safe { SAFE_TRIES_MAX } else { 1 } {
                if broken.is_none() && matches!(result, Err(WriteFailure::Exception { .. })) {
                    sleep(Duration::from_millis(SAFE_RETRY_MS)).await;
                    (result, broken) = self.write_command(&command).await;
                }
            }
            commands.written(&command, result);
            if let Some(why) = broken {
                return Err(why);
            }
            if let (true, Err(failure)) = (is_safe, result) {
                self.starve(failure, clock());
            }
        }
        Ok(true)
    }

    /// The device does not take the safe command, so its own watchdog has to act: no heartbeat until it has had time to trip.
    /// The guard sees a lost link, and owes the safe command again once the device is armed anew.
    fn starve(&mut self, failure: WriteFailure, now_us: Micros) {
        self.armed = false;
        self.watchdog_due_us = now_us + self.watchdog_us() + ARM_RETRY_MS * 1000;
        self.driver.link.set_disarmed(&format!(
            "the plant did not take the safe command: {failure}; it gets no heartbeat, so that its own watchdog acts"
        ));
    }

    /// What became of the command, and why the connection is to be given up, if it is.
    async fn write_command(&mut self, command: &Command) -> (Result<(), WriteFailure>, Option<String>) {
        let writes = match register_writes(self.driver.site, command) {
            Ok(writes) => writes,
            Err(reason) => {
                self.driver.link.report(reason.as_str());
                return (Err(WriteFailure::Encoding), None);
            }
        };
        for write in writes.iter() {
            match self.write(*write).await {
                Ok(()) => {}
                Err(Failure::Exception(code)) => {
                    let address = write.address;
                    self.driver.link.report(&format!("the plant refused the write to {address}: {code}"));
                    return (Err(WriteFailure::Exception { address, code: code.into() }), None);
                }
                Err(Failure::Broken(why)) => {
                    return (Err(WriteFailure::Broken { address: write.address }), Some(why));
                }
            }
        }
        (Ok(()), None)
    }

    async fn beat(&mut self, now_us: Micros) -> Result<(), String> {
        self.heartbeat = self.heartbeat.wrapping_add(1);
        let write = holding(self.driver.plant.heartbeat, self.heartbeat);
        match self.write(write).await {
            Ok(()) => {
                self.driver.link.set_heartbeat_ack(now_us);
                Ok(())
            }
            Err(Failure::Broken(why)) => Err(why),
            // The watchdog will speak for itself; until then the reason is on record.
            Err(Failure::Exception(code)) => {
                self.driver
                    .link
                    .report(&format!("the plant refused its heartbeat register {}: {code}", write.address));
                Ok(())
            }
        }
    }

    /// Looks at the device's watchdog while armed, tries to arm it while not.
    async fn attend_watchdog(&mut self, cycles: &impl CycleWatch, now_us: Micros) -> Result<(), String> {
        let link = self.driver.link;
        let checked = if self.armed {
            self.watchdog_due_us = now_us + self.watchdog_us() / WATCHDOG_CHECKS_PER_WATCHDOG;
            let checked = self.check_watchdog().await;
            // Only a cycle after this moment, which has seen the loss, allows arming again.
            self.cycles_seen = if self.armed { self.cycles_seen } else { cycles.cycles() };
            checked
        } else {
            self.watchdog_due_us = now_us + ARM_RETRY_MS * 1000;
            self.arm(cycles, now_us).await
        };
        match checked {
            Ok(()) => Ok(()),
            Err(Failure::Broken(why)) => Err(why),
            Err(Failure::Exception(code)) => {
                self.armed = false;
                link.set_disarmed(&format!(
                    "the plant's comms watchdog cannot be used: {code}; refusing to arm"
                ));
                Ok(())
            }
        }
    }

    async fn check_watchdog(&mut self) -> Result<(), Failure> {
        match self.read_word(ReadTable::Input, self.driver.plant.watchdog_state).await? {
            WATCHDOG_ARMED => {}
            WATCHDOG_TRIPPED => {
                self.armed = false;
                self.driver.link.set_tripped();
            }
            found => {
                self.armed = false;
                self.driver.link.set_disarmed(&format!(
                    "the plant's comms watchdog was switched off by someone else (state {found}, expected 1)"
                ));
            }
        }
        Ok(())
    }

    /// Clears and arms the device's watchdog, and believes only what the device then reads back. While the guard does
    /// not cycle, arming would only end in a trip.
    async fn arm(&mut self, cycles: &impl CycleWatch, now_us: Micros) -> Result<(), Failure> {
        let (plant, link) = (self.driver.plant, self.driver.link);
        if self.read_word(ReadTable::Input, plant.watchdog_state).await? == WATCHDOG_TRIPPED {
            link.set_tripped();
        }
        if cycles.cycles() == self.cycles_seen || !cycles.may_arm() {
            return Ok(());
        }
        self.cycles_seen = cycles.cycles();
        self.heartbeat = self.read_word(ReadTable::Holding, plant.heartbeat).await?.wrapping_add(1);
        self.write(holding(plant.watchdog, 0)).await?;
        self.write(holding(plant.heartbeat, self.heartbeat)).await?;
        self.write(holding(plant.watchdog, plant.watchdog_ms)).await?;
        let time_ms = self.read_word(ReadTable::Holding, plant.watchdog).await?;
        let state = self.read_word(ReadTable::Input, plant.watchdog_state).await?;
        if plant.watchdog_ms > 0 && time_ms == plant.watchdog_ms && state == WATCHDOG_ARMED {
            self.armed = true;
            link.set_heartbeat_ack(now_us);
            self.watchdog_due_us = 0;
            self.heartbeat_due_us = 0;
            link.set_armed();
        } else {
            link.set_disarmed(&format!(
                "the plant's comms watchdog did not arm: time {time_ms} ms (wrote {}), state {state} (expected 1); \
                 refusing to arm, since the plant would hold its outputs after a loss",
                plant.watchdog_ms
            ));
        }
        Ok(())
    }

    async fn read_batch(
        &mut self,
        batch: &Batch,
        tags: &impl TagSink,
        clock: &impl Fn() -> Micros,
    ) -> Result<(), String> {
        match self.read(batch.table, batch.address, batch.count).await {
            Ok(words) => {
                let now_us = clock();
                for member in &batch.members {
                    if let Some(&raw) = words.get(member.offset) {
                        let (value, quality) = member.decode(raw);
                        tags.publish(member.tag, value, quality, now_us);
                    }
                }
                Ok(())
            }
            Err(Failure::Exception(code)) => {
                let now_us = clock();
                let last = u32::from(batch.address) + u32::from(batch.count) - 1;
                self.driver.link.report(&format!(
                    "the plant refused to read {:?} {} to {last}: {code}",
                    batch.table, batch.address
                ));
                for member in &batch.members {
                    tags.publish(member.tag, f64::NAN, Quality::BadDeviceFailure, now_us);
                }
                Ok(())
            }
            Err(Failure::Broken(why)) => Err(why),
        }
    }

    async fn read_word(&mut self, table: ReadTable, address: u16) -> Result<u16, Failure> {
        let words = self.read(table, address, 1).await?;
        words.first().copied().ok_or_else(|| Failure::Broken("an empty answer".to_owned()))
    }

    /// Registers, or bits as 0 and 1. At least `count` of them.
    async fn read(&mut self, table: ReadTable, address: u16, count: u16) -> Result<Vec<u16>, Failure> {
        let request = match table {
            ReadTable::Coil => Request::ReadCoils(address, count),
            ReadTable::Discrete => Request::ReadDiscreteInputs(address, count),
            ReadTable::Holding => Request::ReadHoldingRegisters(address, count),
            ReadTable::Input => Request::ReadInputRegisters(address, count),
        };
        let words = match self.call(request).await? {
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => {
                bits.into_iter().map(u16::from).collect()
            }
            Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) => words,
            _ => Vec::new(),
        };
        if words.len() < usize::from(count) {
            let found = words.len();
            return Err(Failure::Broken(format!(
                "the plant answered {found} values, {count} were asked for"
            )));
        }
        Ok(words)
    }

    async fn write(&mut self, write: RawWrite) -> Result<(), Failure> {
        let request = match write.target {
            WriteTarget::Holding => Request::WriteSingleRegister(write.address, write.raw),
            WriteTarget::Coil => Request::WriteSingleCoil(write.address, write.raw == 1),
        };
        let confirmed = match self.call(request).await? {
            Response::WriteSingleRegister(address, raw) => (address, raw) == (write.address, write.raw),
            Response::WriteSingleCoil(address, on) => (address, u16::from(on)) == (write.address, write.raw),
            _ => false,
        };
        if confirmed {
            return Ok(());
        }
        Err(Failure::Broken(format!(
            "the plant confirmed another write than {} to {}",
            write.raw, write.address
        )))
    }

    async fn call(&mut self, request: Request<'_>) -> Result<Response, Failure> {
        let outcome = timeout(Duration::from_millis(REQUEST_MS_MAX), self.context.call(request)).await;
        let answer = match outcome {
            Err(_) => {
                return Err(Failure::Broken(format!("the plant did not answer in {REQUEST_MS_MAX} ms")));
            }
            // The client reports an ended stream as whatever the last system error was.
            Ok(Err(tokio_modbus::Error::Transport(error))) if error.raw_os_error().is_some() => {
                return Err(Failure::Broken("the plant closed the connection".to_owned()));
            }
            Ok(Err(error)) => {
                return Err(Failure::Broken(format!("the connection to the plant broke: {error}")));
            }
            Ok(Ok(answer)) => answer,
        };
        self.answered = true;
        answer.map_err(|code| {
            self.driver.link.count_exception();
            Failure::Exception(code)
        })
    }
}

fn holding(address: u16, raw: u16) -> RawWrite {
    RawWrite { target: WriteTarget::Holding, address, raw, carries: None }
}
