//! `bench engine`: what it prints is complete and fits together. How fast it is, is nobody's business here.

mod common;
use common::*;
use serde_json::Value;
use std::fs;

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().filter(|value| value.is_finite()).unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn the_report_has_all_figures() {
    let model = repository().join("models/nano/nano.gguf");
    let folder = Folder::new();
    let trace = folder.path().join("trace.json");
    let common = ["bench", "engine", text(&model), "-p", "12", "-n", "6", "-t", "2", "--repeat", "2"];
    let more = ["--latency-tokens", "20", "--json", "--profile", text(&trace)];
    let output = ganglion(&[&common[..], &more].concat());
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.json();
    for key in [
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "bandwidth_share",
        "peak_share",
        "load_ms",
        "first_token_ms",
        "resident_bytes",
        "token_p50_us",
        "token_p999_us",
        "bandwidth_gb_per_s",
        "peak_gmac_per_s",
        "bytes_per_token",
    ] {
        assert!(number(&report, key) > 0.0, "{key} in {report}");
    }
    assert!(number(&report, "token_p999_us") >= number(&report, "token_p50_us"));
    assert!(number(&report, "first_token_ms") > number(&report, "load_ms"));
    assert!(number(&report, "tokens_timed") == 24.0, "two runs of six, then two more: {report}");
    assert_eq!(report["threads"], 2);
    assert_eq!(report["decode_runs_tokens_per_s"].as_array().map(Vec::len), Some(2));
    let bytes = fs::metadata(&model).unwrap().len() as f64;
    assert!(number(&report, "bytes_per_token") < bytes && number(&report, "file_bytes") == bytes);
    let read = number(&report, "decode_tokens_per_s") * number(&report, "bytes_per_token") / 1e9;
    let share = read / number(&report, "bandwidth_gb_per_s");
    assert!((share / number(&report, "bandwidth_share") - 1.0).abs() < 1e-6, "{report}");

    for part in ["prefill_operations", "decode_operations"] {
        let operations = report[part].as_array().unwrap();
        let shares: f64 = operations.iter().map(|row| number(row, "share_percent")).sum();
        assert!(shares > 50.0 && shares < 100.1, "{shares} % of {part}: {report}");
    }
    check_trace(&serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap());
}

/// One prefill and six decoded tokens, and every operation inside one of them.
fn check_trace(trace: &Value) {
    let events: Vec<&Value> =
        trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").collect();
    let times = |event: &Value| (number(event, "ts"), number(event, "ts") + number(event, "dur"));
    let (passes, operations): (Vec<&Value>, Vec<&Value>) =
        events.into_iter().partition(|event| event["cat"] == "pass");
    let count = |name: &str| passes.iter().filter(|pass| pass["name"] == name).count();
    assert_eq!((count("prefill"), count("decode")), (1, 6));
    assert!(operations.len() > 7 * 10, "{}", operations.len());
    // Times are nanoseconds in microseconds, so sums are off by rounding only.
    const SLACK_US: f64 = 0.01;
    for operation in operations {
        let (start, end) = times(operation);
        let inside = passes.iter().any(|pass| {
            let (from, to) = times(pass);
            start >= from - SLACK_US && end <= to + SLACK_US
        });
        assert!(inside, "{operation}");
    }
}

#[test]
fn people_get_lines_and_a_table() {
    let model = repository().join("models/nano/nano.gguf");
    let folder = Folder::new();
    let trace = folder.path().join("trace.json");
    let arguments = ["-p", "8", "-n", "4", "--repeat", "1", "--profile", text(&trace)];
    let output = ganglion(&[&["bench", "engine", text(&model)][..], &arguments].concat());
    assert_eq!(output.code, 0, "{output:?}");
    for part in
        ["GMAC/s", "GB/s over", "p99.9", "first token after", "KV cache", "prefill, 8 tokens", "attention"]
    {
        assert!(output.out.contains(part), "{part} in {}", output.out);
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let model = repository().join("models/nano/nano.gguf");
    let small = ganglion(&["bench", "engine", text(&model), "-p", "8", "-n", "4", "-c", "7"]);
    assert_eq!((small.code, small.out.as_str()), (1, ""), "{small:?}");
    assert!(small.err.contains("--context 7") && small.err.contains("at least 8"), "{small:?}");
    assert_eq!(ganglion(&["bench", "engine", text(&model), "--repeat", "0"]).code, 2);
    let folder = Folder::new();
    let words = folder.write("words.gguf", "these are words, not weights");
    let output = ganglion(&["bench", "engine", text(&words)]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.err.contains("words.gguf"), "{output:?}");
}
