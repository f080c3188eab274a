//! The Modbus TCP side of a plant: sockets, frames, and real time.
//!
//! The framing is our own small piece, on purpose: a device that a test must not be able to crash has to take any
//! bytes, and the driver on the other side then meets an implementation that shares no code with its own.

use crate::device::{Exception, Plant};
use crate::error::Error;
use crate::limits::{
    CLIENTS_MAX, FRAME_MS_MAX, PDU_BYTES_MAX, READ_BITS_MAX, READ_REGISTERS_MAX, SPEED_MAX, TICK_MS,
    WRITE_BITS_MAX, WRITE_REGISTERS_MAX,
};
use crate::parts::load_parts;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Which plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantKind {
    /// Three rooms; registers as in the `hvac` module's table.
    Hvac,
    /// Part inspection; registers as in the `conveyor` module's table.
    Conveyor,
    /// A robot among valves; registers as in the `inspection` module's table.
    Inspection,
}

impl FromStr for PlantKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "hvac" => Ok(Self::Hvac),
            "conveyor" => Ok(Self::Conveyor),
            "inspection" => Ok(Self::Inspection),
            _ => Err(Error::UnknownKind { found: name.to_owned() }),
        }
    }
}

/// How a plant is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Which plant.
    pub kind: PlantKind,
    /// Fixes every disturbance.
    pub seed: u64,
    /// Model seconds per real second, above 0 and at most [`SPEED_MAX`]. The watchdog always runs in real time.
    pub speed: f64,
    /// Parts to play instead of generated ones (conveyor only), see [`load_parts`].
    pub csv: Option<PathBuf>,
    /// End when standard input does: a plant started by another process then never outlives it.
    pub exit_with_stdin: bool,
}

impl Options {
    /// Seed 1, real time, generated parts.
    pub fn new(kind: PlantKind) -> Self {
        Self { kind, seed: 1, speed: 1.0, csv: None, exit_with_stdin: false }
    }
}

/// A plant that already listens; [`Server::run`] answers.
pub struct Server {
    listener: TcpListener,
    local_address: SocketAddr,
    plant: Arc<Mutex<Plant>>,
    speed: f64,
}

/// Listens, calls `on_bound` with the real address (port 0 is resolved), and serves until standard input ends (with
/// [`Options::exit_with_stdin`]) or the future is dropped. Prints nothing.
///
/// # Errors
/// Options out of range, an unreadable CSV file, an address that cannot be listened on.
pub async fn serve(
    listen: SocketAddr,
    options: Options,
    on_bound: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let server = Server::bind(listen, &options).await?;
    on_bound(server.local_address());
    if options.exit_with_stdin {
        tokio::select! {
            () = server.run() => {}
            () = stdin_closed() => {}
        }
    } else {
        server.run().await;
    }
    Ok(())
}

impl Server {
    /// Builds the plant and starts listening.
    ///
    /// # Errors
    /// As [`serve`].
    pub async fn bind(listen: SocketAddr, options: &Options) -> Result<Self, Error> {
        if !(options.speed > 0.0 && options.speed <= SPEED_MAX) {
            return Err(Error::Speed { found: options.speed, max: SPEED_MAX });
        }
        let plant = match (options.kind, &options.csv) {
            (PlantKind::Hvac | PlantKind::Inspection, Some(file)) => {
                return Err(Error::CsvUnused { file: file.clone() });
            }
            (PlantKind::Hvac, None) => Plant::hvac(options.seed),
            (PlantKind::Inspection, None) => Plant::inspection(options.seed),
            (PlantKind::Conveyor, None) => Plant::conveyor(options.seed, Vec::new()),
            (PlantKind::Conveyor, Some(file)) => Plant::conveyor(options.seed, load_parts(file)?),
        };
        let failed = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_address, plant: Arc::new(Mutex::new(plant)), speed: options.speed })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Lets time pass and answers clients until dropped, which also closes every connection.
    pub async fn run(self) {
        let mut clients = JoinSet::new();
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                now = ticks.tick() => {
                    let real_us = u64::try_from((now - last).as_micros()).unwrap_or(u64::MAX);
                    last = now;
                    lock(&self.plant).advance(real_us, (real_us as f64 * self.speed) as u64);
                }
                // An accept error (no file descriptors, an aborted handshake) passes; the next tick gives it time.
                Ok((stream, _)) = self.listener.accept() => {
                    if clients.len() < CLIENTS_MAX {
                        clients.spawn(answer(stream, Arc::clone(&self.plant)));
                    }
                }
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

fn lock(plant: &Mutex<Plant>) -> MutexGuard<'_, Plant> {
    plant.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resolves when standard input ends. The thread stays in its read until then.
async fn stdin_closed() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}

const HEADER_BYTES: usize = 7;

/// One client, until it leaves or sends what is no frame.
///
/// The MBAP header (MODBUS Messaging on TCP/IP V1.0b, section 3.1.3) is transaction, protocol 0, length of what
/// follows, unit. Any unit is answered.
async fn answer(mut stream: TcpStream, plant: Arc<Mutex<Plant>>) {
    let _ = stream.set_nodelay(true);
    let mut frame = [0u8; HEADER_BYTES + PDU_BYTES_MAX];
    let mut reply = Vec::with_capacity(HEADER_BYTES + PDU_BYTES_MAX);
    loop {
        let Ok(_) = stream.read_exact(&mut frame[..1]).await else { return };
        let rest = timeout(Duration::from_millis(FRAME_MS_MAX), read_rest(&mut stream, &mut frame));
        let Ok(Some(pdu_bytes)) = rest.await else { return };
        let pdu = &frame[HEADER_BYTES..HEADER_BYTES + pdu_bytes];
        reply.clear();
        reply.extend_from_slice(&frame[..HEADER_BYTES]);
        respond(&mut lock(&plant), pdu, &mut reply);
        let length = (reply.len() - HEADER_BYTES + 1) as u16;
        reply[4..6].copy_from_slice(&length.to_be_bytes());
        let sent = timeout(Duration::from_millis(FRAME_MS_MAX), stream.write_all(&reply));
        if !matches!(sent.await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Reads a frame after its first byte; the PDU's size, or `None` when it is no frame.
async fn read_rest(stream: &mut TcpStream, frame: &mut [u8; HEADER_BYTES + PDU_BYTES_MAX]) -> Option<usize> {
    stream.read_exact(&mut frame[1..HEADER_BYTES]).await.ok()?;
    let protocol = u16::from_be_bytes([frame[2], frame[3]]);
    let pdu_bytes = usize::from(u16::from_be_bytes([frame[4], frame[5]])).checked_sub(1)?;
    if protocol != 0 || pdu_bytes == 0 || pdu_bytes > PDU_BYTES_MAX {
        return None;
    }
    stream.read_exact(&mut frame[HEADER_BYTES..HEADER_BYTES + pdu_bytes]).await.ok()?;
    Some(pdu_bytes)
}

/// Appends the response PDU to `reply`, an exception when the request is refused.
fn respond(plant: &mut Plant, pdu: &[u8], reply: &mut Vec<u8>) {
    let start = reply.len();
    let (function, body) = pdu.split_first().map_or((0, &[][..]), |(f, b)| (*f, b));
    if let Err(exception) = execute(plant, function, body, reply) {
        reply.truncate(start);
        reply.extend([function | 0x80, exception.code()]);
    }
}

fn execute(plant: &mut Plant, function: u8, body: &[u8], reply: &mut Vec<u8>) -> Result<(), Exception> {
    if !matches!(function, 1..=6 | 15 | 16) {
        return Err(Exception::IllegalFunction);
    }
    let &[a1, a0, b1, b0, ref data @ ..] = body else { return Err(Exception::IllegalDataValue) };
    let address = u16::from_be_bytes([a1, a0]);
    let operand = u16::from_be_bytes([b1, b0]);
    if matches!(function, 1..=6) && !data.is_empty() {
        return Err(Exception::IllegalDataValue);
    }
    reply.push(function);
    match function {
        1 => read_bits(reply, address, operand, |a| plant.coil(a)),
        2 => read_bits(reply, address, operand, |a| plant.discrete(a)),
        3 => read_registers(reply, address, operand, |a| plant.holding(a)),
        4 => read_registers(reply, address, operand, |a| plant.input(a)),
        5 => {
            let on = match operand {
                0xFF00 => true,
                0x0000 => false,
                _ => return Err(Exception::IllegalDataValue),
            };
            plant.write_coils(address, &[on])?;
            reply.extend_from_slice(&body[..4]);
            Ok(())
        }
        6 => {
            plant.write_holding(address, &[operand])?;
            reply.extend_from_slice(&body[..4]);
            Ok(())
        }
        15 => {
            let packed =
                counted(data, usize::from(operand).div_ceil(8), (1..=WRITE_BITS_MAX).contains(&operand))?;
            let bits: Vec<bool> =
                (0..usize::from(operand)).map(|i| packed[i / 8] >> (i % 8) & 1 == 1).collect();
            plant.write_coils(address, &bits)?;
            reply.extend_from_slice(&body[..4]);
            Ok(())
        }
        _ => {
            let words =
                counted(data, usize::from(operand) * 2, (1..=WRITE_REGISTERS_MAX).contains(&operand))?;
            let values: Vec<u16> = words.chunks_exact(2).map(|w| u16::from_be_bytes([w[0], w[1]])).collect();
            plant.write_holding(address, &values)?;
            reply.extend_from_slice(&body[..4]);
            Ok(())
        }
    }
}

/// The payload of a multiple write, when its byte count says what it must.
fn counted(data: &[u8], expected_bytes: usize, in_range: bool) -> Result<&[u8], Exception> {
    match data.split_first() {
        Some((&count, payload))
            if in_range && usize::from(count) == expected_bytes && payload.len() == expected_bytes =>
        {
            Ok(payload)
        }
        _ => Err(Exception::IllegalDataValue),
    }
}

/// `address..address + count`, if that many may be read and exist.
fn span(address: u16, count: u16, count_max: u16) -> Result<std::ops::RangeInclusive<u16>, Exception> {
    if count == 0 || count > count_max {
        return Err(Exception::IllegalDataValue);
    }
    let last = address.checked_add(count - 1).ok_or(Exception::IllegalDataAddress)?;
    Ok(address..=last)
}

fn read_registers(
    reply: &mut Vec<u8>,
    address: u16,
    count: u16,
    read: impl Fn(u16) -> Result<u16, Exception>,
) -> Result<(), Exception> {
    let span = span(address, count, READ_REGISTERS_MAX)?;
    reply.push((count * 2) as u8);
    for place in span {
        reply.extend(read(place)?.to_be_bytes());
    }
    Ok(())
}

fn read_bits(
    reply: &mut Vec<u8>,
    address: u16,
    count: u16,
    read: impl Fn(u16) -> Result<bool, Exception>,
) -> Result<(), Exception> {
    let span = span(address, count, READ_BITS_MAX)?;
    reply.push(count.div_ceil(8) as u8);
    let start = reply.len();
    reply.resize(start + usize::from(count.div_ceil(8)), 0);
    for (i, place) in span.enumerate() {
        reply[start + i / 8] |= u8::from(read(place)?) << (i % 8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_exceptions_are_those_of_the_specification() {
        let check = |pdu: &[u8], expected: &[u8]| {
            let mut reply = Vec::new();
            respond(&mut Plant::hvac(1), pdu, &mut reply);
            assert_eq!(reply, expected, "request {pdu:02x?}");
        };
        check(&[3, 0, 0, 0, 3], &[3, 6, 0, 200, 0, 200, 0, 200]);
        check(&[4, 0, 0, 0, 1], &[4, 2, 0, 195]);
        check(&[2, 0, 0, 0, 1], &[2, 1, 0]);
        check(&[1, 0, 0, 0, 3], &[1, 1, 0]);
        check(&[5, 0, 1, 0xFF, 0], &[5, 0, 1, 0xFF, 0]);
        check(&[6, 0, 0, 0, 210], &[6, 0, 0, 0, 210]);
        check(&[15, 0, 0, 0, 3, 1, 5], &[15, 0, 0, 0, 3]);
        check(&[16, 0, 0, 0, 1, 2, 0, 220], &[16, 0, 0, 0, 1]);
        check(&[3, 0, 3, 0, 1], &[0x83, 2]);
        check(&[3, 0, 0, 0, 4], &[0x83, 2]);
        check(&[3, 0, 0, 0, 0], &[0x83, 3]);
        check(&[3, 0, 0, 0, 126], &[0x83, 3]);
        check(&[3, 0xFF, 0xFF, 0, 2], &[0x83, 2]);
        check(&[6, 0, 10, 0, 3], &[0x86, 3]);
        check(&[5, 0, 0, 0x12, 0x34], &[0x85, 3]);
        check(&[15, 0, 0, 0xFF, 0xFF, 1, 5], &[0x8F, 3]);
        check(&[16, 0, 0, 0x80, 1, 2, 0, 1], &[0x90, 3]);
        check(&[16, 0, 0, 0, 1], &[0x90, 3]);
        check(&[7], &[0x87, 1]);
        check(&[0xC3, 1], &[0xC3, 1]);
        check(&[3], &[0x83, 3]);
    }
}
