//! Events that come by themselves, together, in parts, or as a longer text: over real processes.

mod common;
use common::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

const SENTENCE: &str = "set the kitchen to 21 degrees";

fn post(site: &TestSite, body: &Value) -> Value {
    let (status, answer) = http(site.http, "POST", "/v1/decide", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    answer
}

fn append(site: &TestSite, text: &str) {
    let old = std::fs::read_to_string(site.file()).unwrap();
    std::fs::write(site.file(), format!("{old}\n{text}")).unwrap();
}

#[test]
fn triggers_ask_by_themselves_and_are_recorded_by_name() {
    let site = TestSite::new("hvac");
    append(
        &site,
        "[[trigger]]\nname = \"price\"\nwhen = \"power_price > 1\"\nsay = \"set the kitchen to 21 degrees\"\n\
         [[trigger]]\nname = \"watch\"\nevery_ms = 300\n",
    );
    let checked = ganglion(&["check", text(site.path())]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.out.contains("power_price > 1"), "{}", checked.out);
    let mut run = site.run(&[]);
    let asked = run.wait_for("the condition's event", |line| {
        line["kind"] == "decision" && line["source"] == "trigger" && line["trigger"] == "price"
    });
    check_answer(&asked);
    assert_eq!(asked["text"], SENTENCE);
    assert_eq!(asked["command"]["action"], "set_temperature", "{asked}");
    assert_eq!(asked["actuated"], true, "{asked}");
    for _ in 0..3 {
        run.wait_for("the period's event", |line| line["trigger"] == "watch");
    }
    let prices = run.seen.iter().filter(|line| line["trigger"] == "price").count();
    assert_eq!(prices, 1, "it holds without a break and asks once");
    eventually("the counters are published", || {
        let status = http(site.http, "GET", "/v1/status", "").1;
        let counters = &status["counters"]["triggers"];
        counters["price"] == 1 && counters["watch"].as_u64().is_some_and(|count| count >= 3)
    });
    eventually("the plant has it", || site.modbus().holding(0) == 210);
    run.press_ctrl_c();
    run.end();
    let shown = ganglion(&["audit", "show", text(&site.audit())]);
    assert!(shown.out.contains("\"trigger\":\"price\""), "{shown:?}");
}

#[test]
fn many_clients_are_answered_at_once() {
    let site = TestSite::new("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let rooms = ["kitchen", "office", "hall"];
    let clients: Vec<_> = (0..6)
        .map(|i| {
            let (port, room) = (site.http, rooms[i % 3]);
            let body = json!({ "text": format!("set the {room} to {} degrees", 18 + i), "cache_salt": i.to_string() });
            std::thread::spawn(move || (i, http(port, "POST", "/v1/decide", &body.to_string())))
        })
        .collect();
    for client in clients {
        let (i, (status, answer)) = client.join().unwrap();
        assert_eq!(status, 200, "{answer}");
        check_answer(&answer);
        let command = json!({ "action": "set_temperature", "room": rooms[i % 3], "celsius": 18 + i });
        assert_eq!((&answer["command"], &answer["verdict"]), (&command, &json!("approved")), "{answer}");
    }
    let status = http(site.http, "GET", "/v1/status", "").1;
    assert_eq!(status["counters"]["busy"], 0, "{status}");
}

#[test]
fn nobody_learns_from_the_cache_what_others_asked() {
    let site = TestSite::new("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let ask = |salt: Option<&str>| {
        let mut body = json!({ "text": SENTENCE, "dry_run": true });
        if let Some(salt) = salt {
            body["cache_salt"] = json!(salt);
        }
        let answer = post(&site, &body);
        assert_eq!(answer["command"]["celsius"], 21, "the command is the same for everybody: {answer}");
        answer["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!([ask(Some("tom")), ask(Some("tom"))], ["model", "cache"]);
    assert_eq!([ask(Some("ann")), ask(Some("ann"))], ["model", "cache"]);
    assert_eq!([ask(None), ask(None)], ["model", "model"], "each connection by itself");
    run.type_line(SENTENCE);
    let typed = run.wait_for("the line's answer", |line| line["source"] == "operator");
    assert_eq!(typed["outcome"], "model", "the site itself shares with no client");
}

/// Events of a streamed answer.
fn stream(site: &TestSite, text: &str) -> Vec<(String, Value)> {
    let body = json!({ "text": text, "stream": true }).to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", site.http)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("text/event-stream"), "{answer}");
    answer
        .split("\n\n")
        .filter_map(|event| {
            let (name, data) = event.split_once("event: ")?.1.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data.lines().next()?).ok()?))
        })
        .collect()
}

#[test]
fn a_streamed_answer_gives_its_fields_in_order() {
    let site = TestSite::new("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let events = stream(&site, SENTENCE);
    let (last, fields) = events.split_last().unwrap();
    assert_eq!(last.0, "answer", "{events:?}");
    check_answer(&last.1);
    let fields: Vec<&Value> =
        fields.iter().map(|(name, data)| (name == "field").then_some(data).unwrap()).collect();
    let action = json!("set_temperature");
    assert_eq!(fields.len(), 3, "{events:?}");
    assert_eq!(fields[0], &json!({ "action": action }));
    assert_eq!(fields[1], &json!({ "action": action, "argument": "room", "value": "kitchen" }));
    assert_eq!((&fields[2]["argument"], fields[2]["value"].as_f64()), (&json!("celsius"), Some(21.0)));
}

#[test]
fn an_announced_command_reaches_the_plant_first() {
    let site = TestSite::new("hvac");
    site.replace("name = \"set_temperature\"", "name = \"set_temperature\"\nannounce = \"all_off\"");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    // The answer may come before the guard has looked at its beginning; then nothing is announced.
    for celsius in 16..=26 {
        for room in ["kitchen", "office", "hall"] {
            run.type_line(&format!("set the {room} to {celsius} degrees"));
            let mut ahead = None;
            let answer = run.wait_for("an answer", |line| {
                if line["kind"] == "announcement" {
                    ahead = Some(line.clone());
                }
                line["kind"] == "decision" && line["source"] == "operator"
            });
            assert_eq!(answer["command"]["action"], "set_temperature", "{answer}");
            let Some(ahead) = ahead else { continue };
            assert_eq!((&ahead["command"]["action"], &ahead["actuated"]), (&json!("all_off"), &json!(true)));
            run.wait_for("the plant took the command, too", |line| {
                line["took"]["action"] == "set_temperature"
                    && line["took"]["celsius"] == answer["command"]["celsius"]
            });
            let took: Vec<_> = run.seen.iter().filter_map(|line| line["took"]["action"].as_str()).collect();
            assert_eq!(took[took.len() - 2..], ["all_off", "set_temperature"]);
            return;
        }
    }
    panic!("nothing was announced in 33 tries");
}

const MINUTES: &str = "Facility meeting, building two.\n\
    All agreed that the entrance looks better since the plants were moved.\n\
    set the kitchen to 21 degrees\n";

/// Much that asks for nothing, and one order at each end.
fn minutes() -> String {
    let talk = "The minutes of the last meeting were read and approved without a change.\n".repeat(30);
    format!("{MINUTES}{talk}switch the office fan to 40 percent\n")
}

fn has(commands: &Value, wanted: &Value) -> bool {
    commands.as_array().unwrap().iter().any(|one| &one["command"] == wanted)
}

#[test]
fn sentences_are_decided_together_and_answered_in_order() {
    let site = TestSite::new("hvac");
    let others = ["switch the office fan to 40 percent", ""];
    let alone: Vec<Value> = [SENTENCE, others[0]]
        .iter()
        .map(|s| ganglion(&["ask", text(site.path()), s, "--json"]).json())
        .collect();
    let together = ganglion(&["ask", text(site.path()), SENTENCE, others[0], others[1], "--json"]);
    assert_eq!(together.code, 1, "the empty one is refused");
    let parts = together.json()["parts"].as_array().unwrap().clone();
    assert_eq!(parts.len(), 3);
    for (part, alone) in parts.iter().zip(&alone) {
        check_answer(part);
        for key in ["command", "verdict", "confidence"] {
            assert_eq!(part[key], alone[key], "{key}");
        }
    }
    assert_eq!(parts[2]["verdict"], "rejected");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let answer = post(&site, &json!({ "parts": [SENTENCE, others[0]] }));
    let over_http = answer["parts"].as_array().unwrap();
    assert_eq!(over_http.len(), 2);
    for (part, alone) in over_http.iter().zip(&alone) {
        check_answer(part);
        assert_eq!(part["command"], alone["command"]);
    }
    eventually("the plant has both", || {
        let mut plant = site.modbus();
        (plant.holding(0), plant.holding(21)) == (210, 40) || over_http[1]["verdict"] == "clamped"
    });
}

#[test]
fn a_document_is_read_window_by_window() {
    let site = TestSite::new("hvac");
    let file = site.folder.write("minutes.txt", minutes());
    let answer = ganglion(&["ask", text(site.path()), "--document", text(&file), "--json"]).json();
    let warm = json!({ "action": "set_temperature", "room": "kitchen", "celsius": 21 });
    let fan = json!({ "action": "set_fan", "room": "office", "percent": 40 });
    let document = &answer["document"];
    assert_eq!(document["bytes"].as_u64(), Some(minutes().len() as u64));
    assert!(document["windows"].as_u64().unwrap() >= minutes().len() as u64 / 512, "{document}");
    assert!(answer["commands"].is_array() && answer["overruled"].is_array(), "{answer}");
    for one in answer["commands"].as_array().unwrap().iter().chain(answer["overruled"].as_array().unwrap()) {
        for range in one["bytes"].as_array().unwrap() {
            let (from, to) = (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
            assert!(from < to && to <= minutes().len() as u64, "{one}");
        }
    }
    // Short windows, as the default model likes them: both orders are found, each where it stands.
    let answer =
        ganglion(&["ask", text(site.path()), "--document", text(&file), "--window", "64", "--json"]).json();
    for (wanted, sentence) in [(&warm, SENTENCE), (&fan, "switch the office fan to 40 percent")] {
        let found = answer["commands"].as_array().unwrap().iter().find(|one| &one["command"] == wanted);
        let found = found.unwrap_or_else(|| panic!("{wanted} is missing in {answer}"));
        let at = minutes().find(sentence).unwrap() as u64;
        let holds = |range: &Value| range[0].as_u64() <= Some(at) && range[1].as_u64() > Some(at);
        assert!(found["bytes"].as_array().unwrap().iter().any(holds), "{found}");
    }
    // What one window says is what `ask` says about its text.
    let short = site.folder.write("short.txt", format!("{SENTENCE}\n"));
    let answer = ganglion(&["ask", text(site.path()), "--document", text(&short), "--json"]).json();
    assert!(has(&answer["commands"], &warm), "{answer}");
    assert_eq!(answer["commands"][0]["bytes"], json!([[0, SENTENCE.len() + 1]]));
    assert_eq!(answer["commands"][0]["verdict"], "approved");
    let shown = ganglion(&["ask", text(site.path()), "--document", text(&short)]);
    assert!(shown.out.contains("set_temperature") && shown.out.contains("1 windows"), "{shown:?}");
    let empty = site.folder.write("empty.txt", "\n");
    let refused = ganglion(&["ask", text(site.path()), "--document", text(&empty)]);
    assert!(refused.code == 1 && refused.err.contains("the document is empty"), "{refused:?}");
    let both = ganglion(&["ask", text(site.path()), "x", "--document", text(&empty)]);
    assert_eq!(both.code, 2, "{both:?}");
    // Over HTTP: the same, and nothing is sent to the plant.
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let before = site.modbus().holding(0);
    let over_http = post(&site, &json!({ "document": format!("{SENTENCE}\n") }));
    assert!(has(&over_http["commands"], &warm), "{over_http}");
    assert_eq!(over_http["commands"][0]["bytes"], answer["commands"][0]["bytes"]);
    assert_eq!(site.modbus().holding(0), before, "what stands in a document is no order");
    let long = post(&site, &json!({ "document": minutes() }));
    assert_eq!(long["document"]["undecided"], 0, "{long}");
}

#[test]
fn a_stop_does_not_wait_for_whoever_should_read_the_rejections() {
    let site = TestSite::new("hvac");
    // Nobody reads standard error; a pipe holds 64 KiB.
    let (kept, full) = std::io::pipe().unwrap();
    let mut command = std::process::Command::new(GANGLION);
    command.args(["run", text(site.path()), "--json", "--audit", text(&site.audit())]);
    let mut run = Run::with_errors(command, full.into());
    run.wait_for_execute();
    let rejected = format!("{}=1", "x".repeat(200));
    for _ in 0..600 {
        run.type_line(&rejected);
    }
    run.type_line("!stop");
    run.wait_for("stopped", |line| line["kind"] == "status" && line["mode"] == "Stopped");
    assert!(run.seen.iter().any(|line| line["kind"] == "input"), "they are on standard output");
    drop(kept);
}
