//! `bench decide`, `bench masks` and `model calibrate`: what they print and write is complete and fits together.

mod common;
use common::*;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().filter(|value| value.is_finite()).unwrap_or_else(|| panic!("{key} in {report}"))
}

fn check_percentiles(report: &Value) {
    let values = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"].map(|key| number(report, key));
    assert!(values[0] > 0.0 && values.is_sorted(), "{report}");
}

#[test]
fn decisions_are_counted_and_written_in_every_form() {
    let site = repository().join("examples/hvac");
    let folder = Folder::new();
    let prefix = folder.path().join("out");
    let arguments = ["bench", "decide", text(&site), "-n", "45", "--json", "--deadline-ms", "60000"];
    let output = ganglion(&[&arguments[..], &["--out", text(&prefix)]].concat());
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.json();
    check_percentiles(&report);
    // Thirty sentences: three of them before the first that counts, the others once, then all once more.
    assert_eq!((number(&report, "decisions"), number(&report, "memo_hits")), (45.0, 18.0), "{report}");
    assert_eq!(number(&report, "commands") + number(&report, "declined"), 45.0);
    let passes = number(&report, "forward_passes_per_command");
    assert!(passes >= 1.0 && passes < number(&report, "tokens_per_command"), "{report}");
    assert_eq!((number(&report, "late"), number(&report, "deadline_ms")), (0.0, 60_000.0));
    assert!(number(&report["repeat"], "p50_us") < 1000.0 * number(&report, "max_ms"));
    assert!(number(&report["machine"], "wake_ups") >= 100.0);
    assert_eq!(report["peer"], Value::Null);

    let read = |ending: &str| fs::read_to_string(folder.path().join(format!("out.{ending}"))).unwrap();
    let written: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(written, report);
    assert!(read("md").contains("| p99.9 |") && read("md").contains("* repeats, from memory: p50 "));
    assert!(read("svg").starts_with("<svg ") && read("svg").trim_end().ends_with("</svg>"));
    let hgrm = read("hgrm");
    assert!(hgrm.contains(&format!("Total count    = {:12}]", 45)), "{hgrm}");

    let output = ganglion(&["bench", "decide", text(&site), "-n", "40", "--no-memo"]);
    assert!(output.out.contains("| event to command, ms | ganglion |"), "{output:?}");
    assert!(output.out.contains(", 0 answered from memory,"), "{output:?}");
}

/// Answers as a llama-server does; every second answer is another command than `{"action":"none"}`, and it ends the
/// connection after each fifth.
fn serve(listener: &TcpListener, requests: usize) -> Vec<Value> {
    let mut asked = Vec::new();
    while asked.len() < requests {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        loop {
            let (path, body) = request(&mut reader);
            let closes = asked.len() % 5 == 4;
            let answer = if path == "/props" {
                json!({"build_info": "b1-test"})
            } else {
                let content = ["{\"action\":\"none\"}", "{\"action\":\"all_off\"}", "[]"][asked.len() % 3];
                let (prompt_n, cache_n) = if body["cache_prompt"] == true { (9, 150) } else { (159, 0) };
                json!({"content": content, "tokens_predicted": 7, "timings": {"prompt_n": prompt_n, "cache_n": cache_n}})
            };
            asked.push(body);
            let body = answer.to_string();
            let connection = if closes { "close" } else { "keep-alive" };
            let size = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: {size}\r\n\r\n");
            let stream: &mut TcpStream = reader.get_mut();
            stream.write_all((head + &body).as_bytes()).unwrap();
            if closes || asked.len() == requests {
                break;
            }
        }
    }
    asked
}

fn request(reader: &mut BufReader<TcpStream>) -> (String, Value) {
    let (mut first, mut line, mut size) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).unwrap();
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            size = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; size];
    reader.read_exact(&mut body).unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    (path, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[test]
fn a_peer_is_asked_in_turn_with_the_same_prompt() {
    const ROUNDS: usize = 12;
    const COLD: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The properties, three requests to warm up, the rounds.
    let server = std::thread::spawn(move || serve(&listener, 1 + 3 + ROUNDS + 2 * COLD));
    let site = repository().join("examples/hvac");
    let output = ganglion(&[
        "bench",
        "decide",
        text(&site),
        "-n",
        "40",
        "--json",
        "--peer",
        &url,
        "--peer-count",
        "12",
        "--cold-count",
        "4",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let asked = server.join().unwrap();
    let report = output.json();
    assert_eq!(number(&report, "memo_hits"), 0.0, "a server has no memory of answers");
    let peer = &report["peer"];
    check_percentiles(&peer["ours"]);
    for side in ["warm", "cold", "free"] {
        check_percentiles(&peer[side]);
        let ratio = number(&peer[side], "p50_ms") / number(&peer["ours"], "p50_ms");
        assert!((number(peer, &format!("{side}_over_ours")) / ratio - 1.0).abs() < 1e-9, "{peer}");
        assert_eq!(number(&peer[side], "tokens_per_command"), 7.0);
    }
    assert_eq!((number(&peer["warm"], "count"), number(&peer["cold"], "count")), (12.0, 4.0));
    assert_eq!(
        (number(&peer["warm"], "prompt_tokens_evaluated"), number(&peer["cold"], "prompt_tokens_evaluated")),
        (9.0, 159.0)
    );
    assert_eq!((number(peer, "compared"), peer["build"].as_str()), (12.0, Some("b1-test")));
    assert!(number(peer, "same_commands") < 12.0 && number(peer, "invalid_commands") > 0.0, "{peer}");
    assert_eq!(number(&peer["prompt_tokens"], "peer"), 159.0);

    let prompts: Vec<&str> = asked.iter().skip(1).map(|body| body["prompt"].as_str().unwrap()).collect();
    assert!(prompts.iter().all(|prompt| prompt.starts_with("site hvac\ndo ") && prompt.contains("\nsay ")));
    assert_eq!(asked.iter().filter(|body| body["cache_prompt"] == false).count(), COLD);
    for body in &asked[1..] {
        assert_eq!((&body["temperature"], &body["id_slot"]), (&json!(0), &json!(0)));
        assert!(body["json_schema"]["anyOf"].is_array() || body["ignore_eos"] == true);
    }
    let free: Vec<_> = asked.iter().filter(|body| body["ignore_eos"] == true).collect();
    assert!(free.len() == COLD && free.iter().all(|body| body["n_predict"].as_u64().unwrap() > 3));
    assert!(number(peer, "free_over_ours") > 0.0);
    let output = ganglion(&["bench", "decide", text(&site), "-n", "4", "--peer", &format!("{url}/v1")]);
    assert!(output.code == 1 && output.err.contains("expected http://HOST:PORT"), "{output:?}");
}

#[test]
fn masks_are_timed_for_any_vocabulary() {
    let site = repository().join("examples/hvac");
    let output = ganglion(&["bench", "masks", text(&site), "-n", "2000", "--repeat", "2", "--json"]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.json();
    assert_eq!((report["by_table"].as_bool(), number(&report, "vocabulary")), (Some(true), 1536.0));
    assert!(number(&report, "lookups") >= 2000.0 && number(&report, "compile_ms") > 0.0);
    assert!(number(&report, "p50_us") <= number(&report, "p9999_us"), "{report}");
    let Some(shared) = shared_folder() else {
        println!("skipped: the large vocabulary is not there");
        return;
    };
    let large = shared.join("data/vocab/ggml-vocab-qwen2.gguf");
    let output = ganglion(&[
        "bench",
        "masks",
        text(&site),
        "-n",
        "2000",
        "--repeat",
        "1",
        "--vocabulary",
        text(&large),
    ]);
    assert!(output.out.contains("masks by a table") && output.out.contains("p99.99"), "{output:?}");
}

#[test]
fn thresholds_are_chosen_on_one_half_and_judged_on_the_other() {
    let folder = Folder::new();
    let site = repository().join("examples/hvac");
    // What the model should say, and sentences whose right answer is declared to be another: those are wrong for certain.
    let mut lines = Vec::new();
    for celsius in 15..=26 {
        for room in ["kitchen", "office", "hall"] {
            let expect = json!({"action": "set_temperature", "room": room, "celsius": celsius});
            let case = json!({"site": "hvac", "text": format!("set the {room} to {celsius} degrees"), "expect": expect});
            lines.push(case.to_string());
        }
    }
    for index in 0..6 {
        let wrong = json!({"site": "hvac", "text": format!("fan in the hall {index} percent"), "expect": {"action": "all_off"}});
        lines.push(wrong.to_string());
    }
    let suite = folder.write("own.jsonl", lines.join("\n"));
    let svg = folder.path().join("risk.svg");
    let common = ["model", "calibrate", text(&site), "--suite", text(&suite), "--risk", "0.5"];
    let output = ganglion(&[&common[..], &["--json", "--svg", text(&svg)]].concat());
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.json();
    assert_eq!((number(&report, "cases"), report["split_by"].as_str()), (42.0, Some("case")));
    for score in ["margin", "certainty", "feasible_mass"] {
        let score = &report["scores"][score];
        let curve = score["curve"].as_array().unwrap();
        let coverages: Vec<f64> = curve.iter().map(|point| number(point, "coverage")).collect();
        assert!(coverages.is_sorted() && coverages.last() == Some(&1.0), "{score}");
        assert!((0.0..=1.0).contains(&number(score, "aurc")));
        assert!(curve.iter().all(|point| number(point, "wrong") <= number(point, "covered")));
    }
    let (before, after) = (&report["before"], &report["after"]);
    assert!(number(before, "wrong") > 0.0 && number(after, "wrong") <= number(before, "wrong"), "{report}");
    let line = report["line"].as_str().unwrap();
    assert!(fs::read_to_string(&svg).unwrap().contains("wanted risk"));

    // The line is one that the site file takes, and makes the model decline what it is unsure of.
    let own = TestSite::new("hvac");
    own.replace("context_tokens = 1024\n", &format!("context_tokens = 1024\n{line}\n"));
    let output = ganglion(&["check", text(&own.file())]);
    assert_eq!(output.code, 0, "{line}: {output:?}");
    own.replace(line, "confidence = 1");
    let output = ganglion(&["ask", text(&own.file()), "--json", "make it nice"]);
    let answer = output.json();
    assert_eq!(answer["command"]["action"], "none", "{answer}");
    assert!(answer["reason"].as_str().unwrap().starts_with("the model is unsure: confidence 0."), "{answer}");

    let strict = ganglion(&[&common[..6], &["0.000001"]].concat());
    assert!(strict.code == 0 && strict.out.contains("no threshold gives"), "{strict:?}");
    assert_eq!(ganglion(&[&common[..6], &["2"]].concat()).code, 2);
}
