//! The server from outside: requests written by hand on a real socket.

use ganglion_server::limits::{BODY_BYTES_MAX, IDLE_MS_MAX, MISSION_EVENTS_WAITING_MAX, REQUESTS_MAX};
use ganglion_server::{
    DecideError, DecideRequest, Decider, Fields, Mission, MissionEvent, MissionRequest, Server, Subject,
};
use ganglion_site::Site;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// Echoes what it was asked; `wait` holds the answer back until it is told to go on.
#[derive(Default)]
struct Echo {
    go_on: Arc<Notify>,
}

impl Decider for Echo {
    async fn decide(&self, request: DecideRequest, fields: Option<Fields>) -> Result<Value, DecideError> {
        let text = match &request.subject {
            Subject::Text(text) => text.clone(),
            other => return Ok(json!({ "subject": format!("{other:?}"), "client": request.client })),
        };
        if let Some(fields) = fields {
            fields.send(json!({ "action": "set_fan" }));
            self.go_on.notified().await;
            fields.send(json!({ "action": "set_fan", "argument": "percent", "value": 20 }));
        }
        match text.as_str() {
            "wait" => self.go_on.notified().await,
            "fail" => return Err(DecideError::Unavailable("no brain".to_owned())),
            _ => {}
        }
        Ok(json!({
            "text": text, "client": request.client, "tags": request.tags, "deadline_ms": request.deadline_ms, "dry_run": request.dry_run
        }))
    }

    /// Says what it was asked, and ends when it is told to go on; `never` is dropped without an end.
    fn mission(&self, request: MissionRequest) -> Result<Mission, DecideError> {
        if request.text == "busy" {
            return Err(DecideError::Busy("one is under way".to_owned()));
        }
        let (teller, mission) = Mission::new();
        let go_on = Arc::clone(&self.go_on);
        tokio::spawn(async move {
            teller.say(MissionEvent::State(json!({ "state": "Parse", "text": request.text })));
            teller.say(MissionEvent::Plan(json!({ "plan": [], "dry_run": request.dry_run })));
            go_on.notified().await;
            if request.text != "never" {
                // More than wait for a client: the answer comes all the same.
                for _ in 0..2 * MISSION_EVENTS_WAITING_MAX {
                    teller.say(MissionEvent::State(json!({ "state": "Monitor" })));
                }
                teller.end(json!({ "outcome": "complete" }));
            }
        });
        Ok(mission)
    }

    fn status(&self) -> Value {
        json!({ "mode": "idle" })
    }

    fn site(&self) -> Value {
        json!({ "name": "hvac" })
    }
}

struct Running {
    address: SocketAddr,
    go_on: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), ganglion_server::Error>>,
}

async fn start() -> Running {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac");
    let site = Arc::new(Site::load(&folder).unwrap());
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = server.local_address();
    let echo = Echo::default();
    let go_on = Arc::clone(&echo.go_on);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(site, echo, async {
        let _ = stopped.await;
    }));
    Running { address, go_on, stop, task }
}

/// Sends a request, returns status and body.
async fn exchange(address: SocketAddr, request: &[u8]) -> Option<(u16, String)> {
    exchange_with(address, request, false).await
}

/// With `end_input` the server sees the end of a request that promises more than it holds; it takes that as a
/// client that left, so a decision under way is dropped.
async fn exchange_with(address: SocketAddr, request: &[u8], end_input: bool) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has already refused may close before all is sent.
    let _ = stream.write_all(request).await;
    if end_input {
        let _ = stream.shutdown().await;
    }
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("no answer");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn post(body: &[u8], headers: &str) -> Vec<u8> {
    post_to("/v1/decide", body, headers)
}

fn post_to(path: &str, body: &[u8], headers: &str) -> Vec<u8> {
    let length = body.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    request.extend_from_slice(body);
    request
}

const USUAL: &str = "Host: localhost\r\nContent-Type: application/json\r\n";

async fn decide(address: SocketAddr, body: &str) -> (u16, Value) {
    let (status, body) = exchange(address, &post(body.as_bytes(), USUAL)).await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_request_reaches_the_decider_checked_and_typed() {
    let running = start().await;
    let body =
        r#"{"text":" warmer ","tags":{"power_price":"70ct/kWh","office_occupied":true},"deadline_ms":80}"#;
    let expected =
        json!({"text": "warmer", "tags": [[4, 70.0], [3, 1.0]], "deadline_ms": 80, "dry_run": false});
    let (status, mut answer) = decide(running.address, body).await;
    answer.as_object_mut().unwrap().remove("client");
    assert_eq!((status, answer), (200, expected));
    let (status, answer) = decide(running.address, r#"{"tags":{"power_price":70},"dry_run":true}"#).await;
    assert_eq!((status, &answer["text"], &answer["dry_run"]), (200, &json!(""), &json!(true)));
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:80\r\nConnection: close\r\n\r\n");
        exchange(running.address, request.as_bytes()).await.unwrap()
    };
    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get("/v1/status").await, (200, r#"{"mode":"idle"}"#.to_owned()));
    assert_eq!(get("/v1/site").await, (200, r#"{"name":"hvac"}"#.to_owned()));
    assert_eq!(get("/v1/nothing").await.0, 404);
    assert_eq!(get("/v1/decide").await.0, 405);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let running = start().await;
    let check = async |body: &str, status: u16, code: &str, expected: &str| {
        let (found, answer) = decide(running.address, body).await;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    };
    check("{", 400, "bad_json", "EOF").await;
    check("[]", 400, "bad_json", "invalid").await;
    check(r#"{"text":"a","txet":1}"#, 400, "bad_json", "unknown field `txet`").await;
    check(r#"{"text":"a","text":"b"}"#, 400, "bad_json", "duplicate field").await;
    check(r#"{"text":5}"#, 400, "bad_json", "expected a string").await;
    check(r#"{"text":"a","tags":{"attic":1}}"#, 400, "unknown_tag", "unknown tag `attic`").await;
    check(r#"{"text":"a","tags":{"power_price":900}}"#, 400, "bad_tag", "from 0 to 200 in ct/kWh").await;
    check(r#"{"text":"a","tags":{"power_price":1,"power_price":2}}"#, 400, "bad_tag", "twice").await;
    check(r#"{"text":"a","deadline_ms":0}"#, 400, "bad_deadline", "expected 1 to").await;
    check(r#"{"text":"a","deadline_ms":-1}"#, 400, "bad_json", "invalid value").await;
    check(r#"{"text":"  "}"#, 422, "bad_text", "empty").await;
    check(r#"{"text":"fail"}"#, 503, "unavailable", "no brain").await;
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(513));
    check(&long, 422, "bad_text", "at most 512").await;
    let huge = format!(r#"{{"text":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    check(&huge, 413, "body_too_large", "65536").await;
    let deep = format!(r#"{{"text":"a","tags":{{"power_price":{}}}}}"#, "[".repeat(30_000));
    check(&deep, 400, "bad_json", "recursion limit").await;
}

#[tokio::test]
async fn other_types_hosts_and_origins_are_refused() {
    let running = start().await;
    let check = async |headers: &str, expected: u16| {
        let (status, body) = exchange(running.address, &post(b"{\"text\":\"a\"}", headers)).await.unwrap();
        assert_eq!(status, expected, "{headers} {body}");
    };
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    check(&format!("Host: 127.0.0.1:1\r\n{json}"), 200).await;
    check(&format!("Host: localhost\r\nOrigin: http://localhost\r\n{json}"), 200).await;
    check("Host: localhost\r\n", 415).await;
    check("Host: localhost\r\nContent-Type: text/plain\r\n", 415).await;
    check(&format!("Host: evil.example\r\n{json}"), 403).await;
    check(&format!("Host: localhost\r\nHost: evil.example\r\n{json}"), 403).await;
    check(json, 403).await;
    check(&format!("Host: localhost\r\nOrigin: http://evil.example\r\n{json}"), 403).await;
    check(&format!("Host: localhost\r\nOrigin: http://localhost:3000\r\n{json}"), 403).await;
    check(&format!("Host: localhost\r\nOrigin: null\r\n{json}"), 403).await;
    let foreign = format!(
        "POST http://evil.example/v1/decide HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{json}\r\n"
    );
    assert_eq!(exchange(running.address, foreign.as_bytes()).await.unwrap().0, 403);
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let error = Server::bind(address.parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("only loopback addresses are allowed"), "{error}");
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_so_and_shutdown_lets_the_others_finish() {
    let Running { address, go_on, stop, task } = start().await;
    let waiting: Vec<_> = (0..REQUESTS_MAX)
        .map(|_| tokio::spawn(async move { decide(address, r#"{"text":"wait"}"#).await.0 }))
        .collect();
    let busy = async {
        while decide(address, r#"{"text":"a"}"#).await.0 != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), busy).await.expect("never busy");
    let alive =
        exchange(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(alive, Some((200, "ok\n".to_owned())), "a supervisor's question finds no full house");
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    go_on.notify_waiters();
    for request in waiting {
        assert_eq!(request.await.unwrap(), 200);
    }
    timeout(Duration::from_secs(20), task).await.expect("does not end").unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_clients_that_say_nothing() {
    let Running { address, stop, task, .. } = start().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"POST /v1/de").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    timeout(Duration::from_secs(20), task).await.expect("does not end").unwrap().unwrap();
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

    fn request(&mut self) -> Vec<u8> {
        let seed =
            br#"{"text":"set the hall to 21","tags":{"power_price":3},"deadline_ms":50,"dry_run":true}"#;
        let mut body = seed.to_vec();
        for _ in 0..1 + self.next() % 8 {
            let at = (self.next() as usize) % body.len();
            match self.next() % 3 {
                0 => body[at] = self.next() as u8,
                1 => body.truncate(at.max(1)),
                _ => body.insert(at, b"{}[]\",:0e"[(self.next() % 9) as usize]),
            }
        }
        let mut request = post(&body, USUAL);
        if self.next().is_multiple_of(8) {
            let at = (self.next() as usize) % request.len();
            request[at] = self.next() as u8;
        }
        request
    }
}

#[tokio::test]
async fn ten_thousand_random_requests_get_an_answer_or_a_closed_connection() {
    let running = start().await;
    let mut random = Random(42);
    let (mut good, mut bad, mut closed) = (0, 0, 0);
    for _ in 0..10_000 {
        match exchange_with(running.address, &random.request(), true).await {
            Some((200, _)) => good += 1,
            Some((400..=499, _)) => bad += 1,
            Some((status, body)) => panic!("{status} {body}"),
            None => closed += 1,
        }
    }
    assert!(good > 50 && bad > 5_000, "{good} good, {bad} bad, {closed} closed");
    assert_eq!(decide(running.address, r#"{"text":"still there"}"#).await.0, 200);
}

/// An answer's events as (name, data); `so_far` is told of each as it comes.
async fn events(stream: &mut TcpStream, mut so_far: impl FnMut(usize)) -> Vec<(String, Value)> {
    let (mut text, mut found) = (String::new(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let size =
            timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.expect("no event").unwrap();
        if size == 0 {
            return found;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..size]));
        found = text
            .split("\n\n")
            .filter_map(|event| {
                let (_, event) = event.split_once("event: ")?;
                let (name, data) = event.split_once("\ndata: ")?;
                Some((name.to_owned(), serde_json::from_str(data.trim()).ok()?))
            })
            .collect();
        so_far(found.len());
    }
}

#[tokio::test]
async fn a_streamed_answer_comes_in_parts() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&post(br#"{"text":"fan","stream":true}"#, USUAL)).await.unwrap();
    let go_on = Arc::clone(&running.go_on);
    // The second field is not decided before the first has arrived.
    let mut told = false;
    let found = events(&mut stream, |count| {
        if count == 1 && !told {
            told = true;
            go_on.notify_one();
        }
    })
    .await;
    assert!(told);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["field", "field", "answer"]);
    assert_eq!(found[0].1, json!({ "action": "set_fan" }));
    assert_eq!(found[1].1["value"], 20);
    assert_eq!(found[2].1["text"], "fan");
    // A failure comes as one, too.
    running.go_on.notify_one();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&post(br#"{"text":"fail","stream":true}"#, USUAL)).await.unwrap();
    let found = events(&mut stream, |_| {}).await;
    let (name, data) = found.last().unwrap();
    assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("unavailable")));
}

#[tokio::test]
async fn streamed_answers_are_bounded_like_others() {
    let running = start().await;
    let mut open = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&post(br#"{"text":"fan","stream":true}"#, USUAL)).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        open.push(stream);
    }
    let (status, answer) = decide(running.address, r#"{"text":"a"}"#).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("busy")));
    // Clients that leave give their places back.
    drop(open);
    for _ in 0..200 {
        if decide(running.address, r#"{"text":"a"}"#).await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still busy");
}

/// A mission's stream, and what it says until it ends; it is told to go on after its plan.
async fn mission(running: &Running, body: &str) -> Vec<(String, Value)> {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&post_to("/v1/mission", body.as_bytes(), USUAL)).await.unwrap();
    let go_on = Arc::clone(&running.go_on);
    let mut told = false;
    events(&mut stream, |count| {
        if count == 2 && !told {
            told = true;
            go_on.notify_one();
        }
    })
    .await
}

#[tokio::test]
async fn a_mission_is_told_as_it_goes_and_its_answer_is_not_lost() {
    let running = start().await;
    let found = mission(&running, r#"{"text":" go there, then home ","dry_run":true}"#).await;
    let name = |index: usize| found[index].0.as_str();
    assert_eq!((name(0), &found[0].1["text"]), ("state", &json!("go there, then home")));
    assert_eq!((name(1), &found[1].1["dry_run"]), ("plan", &json!(true)));
    let states = found[2..found.len() - 1].iter().filter(|(name, _)| name == "state").count();
    assert_eq!(states, MISSION_EVENTS_WAITING_MAX, "what nobody could take any more is left out");
    assert_eq!(found.last().unwrap(), &("answer".to_owned(), json!({ "outcome": "complete" })));
    // One whose end nobody tells, because the run is over.
    let found = mission(&running, r#"{"text":"never"}"#).await;
    let (name, data) = found.last().unwrap();
    assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("unavailable")));
}

#[tokio::test]
async fn a_mission_has_the_bounds_of_other_requests() {
    let running = start().await;
    let ask = async |body: &[u8], headers: &str| {
        let (status, body) = exchange(running.address, &post_to("/v1/mission", body, headers)).await.unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap()["error"]["code"].clone())
    };
    let huge = format!(r#"{{"text":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(513));
    for (body, status, code) in [
        ("{", 400, "bad_json"),
        (r#"{"dry_run":true}"#, 400, "bad_json"),
        (r#"{"text":"go","tags":{}}"#, 400, "bad_json"),
        (r#"{"text":" "}"#, 422, "bad_text"),
        (long.as_str(), 422, "bad_text"),
        (huge.as_str(), 413, "body_too_large"),
        (r#"{"text":"busy"}"#, 409, "busy"),
    ] {
        assert_eq!(ask(body.as_bytes(), USUAL).await, (status, json!(code)), "{:.40}", body);
    }
    let go = br#"{"text":"go"}"#;
    assert_eq!(ask(go, "Host: localhost\r\n").await, (415, json!("bad_content_type")));
    let foreign = "Host: localhost\r\nOrigin: http://evil.example\r\nContent-Type: application/json\r\n";
    assert_eq!(ask(go, foreign).await, (403, json!("foreign_origin")));
    // A mission that is listened to has a place among the requests.
    let mut open = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&post_to("/v1/mission", go, USUAL)).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        open.push(stream);
    }
    assert_eq!(ask(go, USUAL).await, (503, json!("busy")));
}

/// Time is the runtime's own here, and passes when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_mission_may_say_nothing_for_longer_than_a_connection_may_idle() {
    let running = start().await;
    let begin = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&post_to("/v1/mission", br#"{"text":"go"}"#, USUAL)).await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains("event: answer") {
        let size = stream.read(&mut buffer).await.unwrap();
        assert!(size > 0, "closed: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..size]));
        if begin.elapsed() > Duration::from_millis(3 * IDLE_MS_MAX) {
            running.go_on.notify_one();
        }
    }
    assert!(begin.elapsed() > Duration::from_millis(3 * IDLE_MS_MAX));
}

#[tokio::test]
async fn parts_and_documents() {
    let running = start().await;
    let (status, answer) = decide(running.address, r#"{"parts":["a "," b"]}"#).await;
    assert_eq!((status, &answer["subject"]), (200, &json!(r#"Parts(["a", "b"])"#)));
    let (status, answer) = decide(running.address, r#"{"document":"one\ntwo\n"}"#).await;
    assert_eq!((status, &answer["subject"]), (200, &json!(r#"Document("one\ntwo\n")"#)));
    for (body, status, code) in [
        (r#"{"parts":[]}"#, 400, "bad_parts"),
        (r#"{"parts":["a","b","c","d","e","f","g","h","i"]}"#, 400, "bad_parts"),
        (r#"{"parts":["a",""]}"#, 422, "bad_text"),
        (r#"{"document":" \n"}"#, 422, "bad_text"),
        (r#"{"text":"a","parts":["b"]}"#, 400, "bad_subject"),
        (r#"{"document":"a","parts":["b"]}"#, 400, "bad_subject"),
        (r#"{"parts":["a"],"stream":true}"#, 400, "bad_stream"),
        (r#"{"text":"a","cache_salt":""}"#, 400, "bad_salt"),
        (r#"{"text":"a","cache_salt":7}"#, 400, "bad_json"),
    ] {
        let (found, answer) = decide(running.address, body).await;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{body}: {answer}");
    }
}

#[tokio::test]
async fn clients_are_told_apart_by_their_salt_or_else_by_their_connection() {
    let running = start().await;
    let client = async |body: &str| decide(running.address, body).await.1["client"].as_u64().unwrap();
    let salted = client(r#"{"text":"a","cache_salt":"tom's"}"#).await;
    assert_eq!(salted, client(r#"{"text":"b","cache_salt":"tom's"}"#).await);
    assert_ne!(salted, client(r#"{"text":"a","cache_salt":"ann's"}"#).await);
    let (first, second) = (client(r#"{"text":"a"}"#).await, client(r#"{"text":"a"}"#).await);
    assert_ne!(first, second, "two connections, two clients");
    assert!([salted, first, second].iter().all(|client| *client != 0), "0 is the site");
    // One connection that is kept open is one client.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut numbers = Vec::new();
    for text in ["a", "b"] {
        let body = format!(r#"{{"text":"{text}"}}"#);
        let head = format!("POST /v1/decide HTTP/1.1\r\n{USUAL}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let size = stream.read(&mut buffer).await.unwrap();
        let answer = String::from_utf8_lossy(&buffer[..size]).into_owned();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        numbers.push(serde_json::from_str::<Value>(body).unwrap()["client"].as_u64().unwrap());
    }
    assert_eq!(numbers[0], numbers[1]);
}
