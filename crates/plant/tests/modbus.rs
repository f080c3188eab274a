//! The plants from outside: real TCP clients, ours, pymodbus, and ones that send rubbish.

use ganglion_plant::{Options, PlantKind, Server, serve};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_modbus::client::{Context, Reader, Writer, tcp};
use tokio_modbus::{ExceptionCode, Slave};

async fn start(options: &Options) -> SocketAddr {
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), options).await.unwrap();
    let address = server.local_address();
    tokio::spawn(server.run());
    address
}

async fn client(address: SocketAddr) -> Context {
    tcp::connect_slave(address, Slave(1)).await.unwrap()
}

#[tokio::test]
async fn several_clients_share_one_plant() {
    let address = start(&Options::new(PlantKind::Hvac)).await;
    let (mut one, mut two) = (client(address).await, client(address).await);
    one.write_multiple_registers(0, &[210, 215]).await.unwrap().unwrap();
    assert_eq!(two.read_holding_registers(0, 3).await.unwrap().unwrap(), [210, 215, 200]);
    two.write_multiple_coils(0, &[true, false, true]).await.unwrap().unwrap();
    assert_eq!(one.read_coils(0, 3).await.unwrap().unwrap(), [true, false, true]);
    assert_eq!(one.read_holding_registers(40, 1).await.unwrap(), Err(ExceptionCode::IllegalDataAddress));
    assert_eq!(one.write_single_register(20, 101).await.unwrap(), Err(ExceptionCode::IllegalDataValue));
    assert_eq!(one.masked_write_register(0, 0, 0).await.unwrap(), Err(ExceptionCode::IllegalFunction));
}

#[tokio::test]
async fn a_client_that_vanishes_trips_the_watchdog_and_stops_the_belt() {
    let address = start(&Options::new(PlantKind::Conveyor)).await;
    let mut master = client(address).await;
    master.write_single_register(101, 100).await.unwrap().unwrap();
    master.write_single_register(100, 1).await.unwrap().unwrap();
    assert_eq!(master.read_input_registers(100, 1).await.unwrap().unwrap(), [1]);
    drop(master);
    let mut observer = client(address).await;
    for _ in 0..1000 {
        if observer.read_input_registers(100, 1).await.unwrap().unwrap() == [2] {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(observer.read_input_registers(100, 1).await.unwrap().unwrap(), [2]);
    assert_eq!(observer.read_discrete_inputs(0, 1).await.unwrap().unwrap()[..1], [false]);
    assert_eq!(observer.read_holding_registers(1, 1).await.unwrap().unwrap(), [0]);
    assert_eq!(observer.write_single_register(0, 1).await.unwrap(), Err(ExceptionCode::ServerDeviceFailure));
}

#[tokio::test]
async fn the_conveyor_plays_a_file_and_speed_speeds_it_up() {
    let file = std::env::temp_dir().join(format!("ganglion-plant-{}.csv", std::process::id()));
    let text = "\u{FEFF}UDI,Air temperature [K],Rotational speed [rpm],Torque [Nm],Tool wear [min]\r\n\
                1,298.1,1551,42.8,0\r\n2,298.2,1408,66.3,3\r\n";
    std::fs::write(&file, text).unwrap();
    let options = Options { csv: Some(file.clone()), speed: 50.0, ..Options::new(PlantKind::Conveyor) };
    let address = start(&options).await;
    let mut client = client(address).await;
    let mut seen = [false; 2];
    for _ in 0..1000 {
        let part = client.read_input_registers(0, 4).await.unwrap().unwrap();
        match part[..] {
            [428, 0, 1551, 14905] => seen[0] = true,
            [663, 3, 1408, 14910] => seen[1] = true,
            _ => panic!("{part:?}"),
        }
        if seen == [true, true] {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen, [true, true]);
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_a_reason() {
    let any: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 0));
    let refusal = async |options: Options| Server::bind(any, &options).await.err().unwrap().to_string();
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let text = refusal(Options { speed, ..Options::new(PlantKind::Hvac) }).await;
        assert!(text.contains("expected above 0"), "{text}");
    }
    let csv = Some(PathBuf::from("/nowhere.csv"));
    let text = refusal(Options { csv: csv.clone(), ..Options::new(PlantKind::Hvac) }).await;
    assert!(text.contains("only the conveyor"), "{text}");
    let text = refusal(Options { csv, ..Options::new(PlantKind::Conveyor) }).await;
    assert!(text.contains("cannot read /nowhere.csv"), "{text}");
    assert!(
        "boiler"
            .parse::<PlantKind>()
            .unwrap_err()
            .to_string()
            .contains("expected `hvac`, `conveyor` or `inspection`")
    );
    let taken = start(&Options::new(PlantKind::Hvac)).await;
    let text = Server::bind(taken, &Options::new(PlantKind::Hvac)).await.err().unwrap().to_string();
    assert!(text.contains(&format!("cannot listen on {taken}")), "{text}");
}

#[tokio::test]
async fn serve_reports_the_bound_address() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    tokio::spawn(async move {
        serve(any, Options::new(PlantKind::Hvac), |address| sender.send(address).unwrap()).await.unwrap();
    });
    let mut client = client(receiver.await.unwrap()).await;
    assert_eq!(client.read_holding_registers(0, 1).await.unwrap().unwrap(), [200]);
}

/// SplitMix64, for reproducible rubbish.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, count_max: u64) -> Vec<u8> {
        (0..self.next() % (count_max + 1)).map(|_| self.next() as u8).collect()
    }

    /// Rubbish in three grades: any bytes, a right header with any PDU, a known function with any operands.
    fn frame(&mut self) -> Vec<u8> {
        if self.next().is_multiple_of(4) {
            return self.bytes(300);
        }
        let count_max = if self.next().is_multiple_of(2) { 12 } else { 252 };
        let mut pdu = self.bytes(count_max);
        pdu.insert(
            0,
            if self.next().is_multiple_of(3) { self.next() as u8 } else { (self.next() % 17) as u8 },
        );
        let mut frame = vec![self.next() as u8, self.next() as u8, 0, 0];
        frame.extend((pdu.len() as u16 + 1).to_be_bytes());
        frame.push(self.next() as u8);
        frame.extend(pdu);
        frame
    }
}

#[tokio::test]
async fn ten_thousand_random_frames_get_an_answer_or_a_closed_connection() {
    let address = start(&Options::new(PlantKind::Hvac)).await;
    let mut random = Random(20_200_423);
    let (mut answered, mut closed) = (0, 0);
    let mut open: Option<TcpStream> = None;
    for _ in 0..10_000 {
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => TcpStream::connect(address).await.unwrap(),
        };
        let frame = random.frame();
        let is_whole = frame.len() >= 8
            && frame[2..4] == [0, 0]
            && usize::from(u16::from_be_bytes([frame[4], frame[5]])) + 6 == frame.len();
        stream.write_all(&frame).await.unwrap();
        if !is_whole {
            // Ends what the server may still wait for.
            stream.shutdown().await.unwrap();
        }
        let mut header = [0; 7];
        match timeout(Duration::from_secs(20), stream.read_exact(&mut header))
            .await
            .expect("neither answer nor end")
        {
            Ok(_) => {
                assert_eq!(header[..2], frame[..2], "another transaction");
                let mut pdu = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
                stream.read_exact(&mut pdu).await.unwrap();
                assert!(pdu[0] & 0x7F == frame[7] & 0x7F);
                answered += 1;
                open = is_whole.then_some(stream);
            }
            Err(_) => closed += 1,
        }
    }
    assert!(answered > 5_000 && closed > 1_000, "{answered} answered, {closed} closed");
    client(address).await.read_input_registers(0, 1).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymodbus_reads_and_writes_the_plant() {
    let Some(python) = std::env::var_os("GANGLION_PYTHON") else {
        println!("skipped: GANGLION_PYTHON does not name a python with pymodbus");
        return;
    };
    let address = start(&Options::new(PlantKind::Hvac)).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let run = move || std::process::Command::new(python).arg(script).arg(address.port().to_string()).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.trim(), "ok", "{error}");
}
