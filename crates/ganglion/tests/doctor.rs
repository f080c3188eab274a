//! `ganglion doctor` as a user runs it.

use std::process::Command;

#[test]
fn it_measures_and_prints_cyclictests_form() {
    let arguments = ["doctor", "--seconds", "1", "--interval-us", "2000", "--histogram"];
    let output = Command::new(env!("CARGO_BIN_EXE_ganglion")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|line| line.starts_with("T: 0 (")).expect("a line for the thread");
    for part in [" P:", " I:2000 ", " C:    500 ", " Min:", " Act:", " Avg:", " Max:"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let total = text.lines().find_map(|line| line.strip_prefix("# Total: ")).expect("the histogram's total");
    let beyond = text.lines().find_map(|line| line.strip_prefix("# Histogram Overflows: ")).unwrap();
    assert_eq!(total.parse::<u64>().unwrap() + beyond.parse::<u64>().unwrap(), 500);
    assert!(text.contains("kernel: "), "{text}");
}
