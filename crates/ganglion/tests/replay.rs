//! A real run, recorded, and run again by another process.

mod common;
use common::*;
use std::fs;
use std::path::Path;

fn model() -> String {
    text(&repository().join("models/nano/nano.gguf")).to_owned()
}

/// A few sentences and mode words, typed.
fn live(run: &mut Run, site: &TestSite) {
    run.wait_for_execute();
    for sentence in
        ["set the kitchen to 21 degrees", "is it warm in the office?", "set the hall fan to 30 percent"]
    {
        decide(site, sentence);
    }
    decide(site, "set the kitchen to 21 degrees");
}

#[test]
fn invariant_28_a_run_replays_bit_for_bit_with_its_model() {
    let site = TestSite::new("hvac");
    let tape = site.path().join("tape");
    let text_kept = "[record]\nfolder = \"tape\"\nkeep_text = true\n[http]";
    site.replace("[http]", text_kept);
    let mut run = site.run(&[]);
    live(&mut run, &site);
    signal("KILL", run.brain());
    run.wait_for("the brain is lost", |line| line["kind"] == "brain");
    run.press_ctrl_c();
    assert!(run.end().0.success());
    let report = ganglion(&["replay", text(&tape), "--model", &model(), "--json"]);
    assert_eq!(report.code, 0, "{report:?}");
    let report = report.json();
    assert_eq!(report["same"], true, "{report}");
    assert!(report["cycles"].as_u64().unwrap() > 10 && report["events"] == 4, "{report}");
    assert_eq!((&report["gaps"], &report["lost_cycles"]), (&0.into(), &0.into()));
    // The probe of a half-open breaker is one more.
    assert!(report["model"]["same"].as_u64().is_some_and(|same| same >= 4), "{report}");
    assert!(report["faults"].to_string().contains("brain lost"), "{report}");
    // The flight recorder wrote down the same fault, and that file stands for itself.
    let fault = ganglion(&["replay", text(&tape.join("fault-000001.grec")), "--model", &model(), "--json"]);
    assert_eq!((fault.code, &fault.json()["same"]), (0, &true.into()), "{fault:?}");
    // Nor does it matter whose processor computes it, on how many threads.
    for (isa, threads) in ganglion_kernels::Isa::available().into_iter().zip([1u32, 3, 2].into_iter().cycle())
    {
        let (isa, threads) = (isa.name(), threads.to_string());
        let there = ganglion(&[
            "replay",
            text(&tape),
            "--model",
            &model(),
            "--json",
            "--isa",
            isa,
            "--threads",
            &threads,
        ]);
        assert_eq!((there.code, &there.json()), (0, &report), "{isa} on {threads} threads");
    }
    let unknown = ganglion(&["replay", text(&tape), "--model", &model(), "--isa", "abacus"]);
    assert!(
        unknown.code == 2 && unknown.err.contains("expected one of this processor's: scalar"),
        "{unknown:?}"
    );
    let words = ganglion(&["replay", text(&tape)]);
    assert!(words.out.ends_with("everything is the same, bit for bit\n"), "{words:?}");
    // Another model than the one that answered is refused, not compared.
    let other = site.folder.write(
        "other.gguf",
        fs::read(model())
            .map(|mut bytes| {
                bytes.push(0);
                bytes
            })
            .unwrap(),
    );
    let refused = ganglion(&["replay", text(&tape), "--model", text(&other)]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("its SHA-256 is") && refused.err.contains("expected a model of the recording"),
        "{refused:?}"
    );
}

#[test]
fn without_keep_text_the_guard_is_replayed_and_no_sentence_is_on_disk() {
    let site = TestSite::new("hvac");
    let tape = site.path().join("tape");
    let mut run = site.run(&["--record", text(&tape)]);
    live(&mut run, &site);
    run.press_ctrl_c();
    assert!(run.end().0.success());
    let report = ganglion(&["replay", text(&tape), "--model", &model(), "--json"]).json();
    assert_eq!(report["same"], true, "{report}");
    assert_eq!(
        (&report["model"]["same"], &report["model"]["without_text"]),
        (&0.into(), &4.into()),
        "{report}"
    );
    for file in fs::read_dir(&tape).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(13).any(|window| window == b"kitchen to 21"));
    }
}

#[test]
fn a_folder_with_two_runs_is_the_same() {
    let site = TestSite::new("hvac");
    let tape = site.path().join("tape");
    for _ in 0..2 {
        let mut run = site.run(&["--record", text(&tape)]);
        live(&mut run, &site);
        run.press_ctrl_c();
        assert!(run.end().0.success());
    }
    let both = ganglion(&["replay", text(&tape), "--json"]);
    let report = both.json();
    assert_eq!((both.code, &report["same"], &report["runs"]), (0, &true.into(), &2.into()), "{report}");
    assert_eq!((&report["events"], &report["gaps"]), (&8.into(), &0.into()), "{report}");
}

/// The one file of a recording, as another that `change` has been at, and what a replay says to it.
fn changed(tape: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Output {
    let mut bytes = fs::read(tape.join("record-000001.grec")).unwrap();
    change(&mut bytes);
    let file = tape.join("changed.grec");
    fs::write(&file, bytes).unwrap();
    ganglion(&["replay", text(&file)])
}

#[test]
fn a_damaged_recording_is_never_the_same() {
    let site = TestSite::new("hvac");
    let tape = site.path().join("tape");
    let mut run = site.run(&["--record", text(&tape)]);
    live(&mut run, &site);
    run.press_ctrl_c();
    assert!(run.end().0.success());
    let sound = changed(&tape, |_| {});
    assert_eq!(
        (sound.code, sound.out.ends_with("everything is the same, bit for bit\n")),
        (0, true),
        "{sound:?}"
    );
    for part in [2, 3, 10] {
        let flipped = changed(&tape, |bytes| {
            let at = bytes.len() * (part - 1) / part;
            bytes[at] ^= 4;
        });
        assert_eq!(flipped.code, 1, "{flipped:?}");
        assert!(
            flipped.out.contains("DAMAGED at byte ") && !flipped.out.contains("everything"),
            "{flipped:?}"
        );
    }
    let torn = changed(&tape, |bytes| bytes.truncate(bytes.len() - 3));
    assert!(torn.code == 0 && torn.out.contains("torn end") && !torn.out.contains("everything"), "{torn:?}");
    let none = changed(&tape, |bytes| {
        let size = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        bytes.truncate(16 + size);
    });
    assert!(
        none.code == 1 && none.out.ends_with("nothing to compare: no cycle can be run again\n"),
        "{none:?}"
    );
    let unbegun = changed(&tape, Vec::clear);
    assert!(unbegun.code == 1 && unbegun.err.contains("interrupted before the first cycle"), "{unbegun:?}");
}

#[test]
fn a_folder_that_cannot_be_recorded_in_is_refused_before_anything_starts() {
    let site = TestSite::new("hvac");
    let refused = ganglion(&["run", text(site.path()), "--record", text(&site.file())]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains("cannot record in ") && refused.err.contains("see --record"), "{refused:?}");
    assert!(!site.path().join("audit").exists(), "nothing had begun");
}

#[test]
fn what_is_no_recording_is_refused_by_name() {
    let folder = Folder::new();
    let empty = ganglion(&["replay", text(folder.path())]);
    assert_eq!(empty.code, 1);
    assert!(empty.err.contains("no recording there; expected files named record-000001.grec"), "{empty:?}");
    let wrong = ganglion(&["replay", text(&folder.write("x.grec", "no"))]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("does not begin with GANGREC1"), "{wrong:?}");
}
