//! `ganglion doctor` as a user runs it.

use std::process::Command;

#[test]
fn it_measures_and_prints_cyclictests_form() {
    let hgrm = std::env::temp_dir().join(format!("ganglion-doctor-{}.hgrm", std::process::id()));
    let arguments = ["doctor", "--seconds", "1", "--interval-us", "2000", "--histogram", "--hgrm"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_ganglion"));
    let output = command.args(arguments).arg(&hgrm).output().unwrap();
    let percentiles = std::fs::read_to_string(&hgrm).unwrap();
    std::fs::remove_file(&hgrm).unwrap();
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
    assert!(percentiles.contains("Total count    =          500]"), "{percentiles}");
    let rows: Vec<_> = percentiles.lines().skip(2).take_while(|line| !line.starts_with('#')).collect();
    assert!(rows.last().is_some_and(|row| row.contains(" 1.000000000000        500")), "{percentiles}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_the_measurement() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ganglion"));
    let output =
        command.args(["doctor", "--seconds", "20", "--hgrm", "/nowhere/at/all.hgrm"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"".as_slice()));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot write /nowhere/at/all.hgrm"), "{error}");
}
