//! As much HTTP/1.1 as talking to a llama-server takes: one connection that is kept open, JSON both ways. Where the server
//! says that it closes the connection (it does so after a hundred requests), the next one is opened at once, outside of
//! what anybody measures.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes of an answer's head and of its body.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const HEADERS_MAX: usize = 64;
/// A cold prompt on a slow machine takes seconds.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A connection to `http://HOST:PORT`.
pub struct Client {
    authority: String,
    stream: TcpStream,
    received: Vec<u8>,
    /// Whether the server keeps this connection open.
    fresh: bool,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
    closes: bool,
}

fn connect(authority: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(authority)
        .with_context(|| format!("http://{authority}: is a llama-server there?"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

impl Client {
    /// Connects.
    pub fn open(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://");
        let authority = rest.map(|rest| rest.trim_end_matches('/')).filter(|rest| !rest.contains('/'));
        let authority = authority.with_context(|| format!("--peer is {url}, expected http://HOST:PORT"))?;
        let stream = connect(authority)?;
        Ok(Self { authority: authority.to_owned(), stream, received: Vec::new(), fresh: true })
    }

    /// Opens another connection where the server has announced the end of this one.
    pub fn refresh(&mut self) -> Result<()> {
        if !self.fresh {
            self.stream = connect(&self.authority)?;
            self.fresh = true;
        }
        Ok(())
    }

    /// One request; `body` makes it a POST.
    pub fn ask(&mut self, path: &str, body: Option<&Value>) -> Result<Value> {
        let (method, body) = body.map_or(("GET", String::new()), |body| ("POST", body.to_string()));
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.authority,
            body.len()
        );
        request.push_str(&body);
        self.stream.write_all(request.as_bytes())?;
        let (status, body) = self.answer().with_context(|| format!("{method} {path}"))?;
        let text = String::from_utf8_lossy(&body);
        ensure!(
            status == 200,
            "{method} {path}: status {status}: {}",
            text.chars().take(300).collect::<String>()
        );
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: the answer is no JSON"))
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        self.received.clear();
        let Head { status, head_bytes, body_bytes, closes } = loop {
            if let Some(head) = parse_head(&self.received)? {
                break head;
            }
            ensure!(
                self.received.len() <= HEAD_BYTES_MAX,
                "the answer's head is longer than {HEAD_BYTES_MAX} bytes"
            );
            self.receive()?;
        };
        ensure!(
            body_bytes <= BODY_BYTES_MAX,
            "the answer has {body_bytes} bytes, expected at most {BODY_BYTES_MAX}"
        );
        while self.received.len() < head_bytes + body_bytes {
            self.receive()?;
        }
        self.fresh = !closes;
        Ok((status, self.received.split_off(head_bytes)))
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer)?;
        ensure!(count > 0, "the server closed the connection");
        self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }
}

/// What the head says, once it is whole.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.context("the answer has no status")?;
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let Some(length) = header("content-length") else { bail!("the answer has no Content-Length") };
    let body_bytes = length.parse().with_context(|| format!("Content-Length is {length:?}"))?;
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head { status, head_bytes, body_bytes, closes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// A server that gives each of `answers` in turn, in pieces, and returns what was asked.
    fn server(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut asked = Vec::new();
            for answer in answers {
                let (mut line, mut length) = (String::new(), 0);
                reader.read_line(&mut line).unwrap();
                let mut header = String::new();
                while reader.read_line(&mut header).unwrap() > 2 {
                    if let Some(value) = header.strip_prefix("Content-Length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    header.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                asked.push(format!("{}{}", line.trim_end(), String::from_utf8(body).unwrap()));
                for piece in answer.as_bytes().chunks(7) {
                    reader.get_mut().write_all(piece).unwrap();
                }
            }
            asked
        });
        (url, thread)
    }

    fn whole(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nServer: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn asks_and_reads_what_is_answered() {
        let answers =
            vec![whole("200 OK", "{\"a\":1}"), whole("200 OK", "[\"ä\"]"), whole("503 Busy", "loading")];
        let (url, thread) = server(answers);
        let mut client = Client::open(&format!("{url}/")).unwrap();
        assert_eq!(client.ask("/props", None).unwrap()["a"], 1);
        assert_eq!(client.ask("/completion", Some(&serde_json::json!({"n": 2}))).unwrap()[0], "ä");
        let error = client.ask("/completion", None).unwrap_err().to_string();
        assert_eq!(error, "GET /completion: status 503: loading");
        assert_eq!(
            thread.join().unwrap(),
            ["GET /props HTTP/1.1", "POST /completion HTTP/1.1{\"n\":2}", "GET /completion HTTP/1.1"]
        );
        assert!(client.ask("/", None).is_err());
    }

    #[test]
    fn opens_another_connection_where_one_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1";
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut client = Client::open(&url).unwrap();
        for _ in 0..2 {
            client.refresh().unwrap();
            assert_eq!(client.ask("/", None).unwrap(), 1);
        }
        thread.join().unwrap();
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for url in ["127.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1:80/v1"] {
            let error = Client::open(url).err().unwrap().to_string();
            assert!(error.contains("expected http://HOST:PORT"), "{error}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX);
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n{}".into(),
            "nonsense\r\n\r\n".into(),
            endless,
            format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX * 2)),
        ] {
            let (url, thread) = server(vec![answer]);
            assert!(Client::open(&url).unwrap().ask("/", None).is_err());
            let _ = thread.join();
        }
    }
}
