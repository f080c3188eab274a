//! What a review would only repeat: sizes, leftovers, homes of `unsafe`, layers, what is in the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 800;
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files, or folders of files, that may hold `unsafe` (ARCHITECTURE invariant); the last is the tests' counting allocator.
const UNSAFE_HOMES: [&str; 4] = [
    "crates/kernels/src/",
    "crates/gguf/src/mmap.rs",
    "crates/guard/src/rt.rs",
    "crates/kernels/tests/common/counting.rs",
];
/// Crates by layer; a dependency points to a lower layer or, within `SAME_LAYER`, to its own.
const LAYERS: [&[&str]; 5] = [
    &["kernels", "gguf", "tokenizer", "site"],
    &["llm", "grammar", "audit"],
    &["decide", "guard", "compress", "export", "plan"],
    &["server", "io", "plant", "record"],
    &["ganglion"],
];
/// Dependencies inside one layer: the tokenizer and the model code read GGUF files, the server and the plant use io's tables.
const SAME_LAYER: [(&str, &str); 3] = [("tokenizer", "gguf"), ("server", "io"), ("plant", "io")];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Files that git tracks, or would: relative paths. Without git (a source archive), what the folders hold.
fn files() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output();
    match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let list = String::from_utf8(output.stdout).unwrap();
            list.lines().map(str::to_owned).filter(|file| repository().join(file).is_file()).collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(&repository(), &mut found);
            found
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if !name.starts_with("target") && name != ".git" && name != "audit" {
                walk(&path, found);
            }
        } else {
            found.push(path.strip_prefix(repository()).unwrap().to_string_lossy().into_owned());
        }
    }
}

fn text(file: &str) -> Option<String> {
    let bytes = std::fs::read(repository().join(file)).unwrap();
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn sources() -> impl Iterator<Item = (String, String)> {
    files()
        .into_iter()
        .filter(|file| file.ends_with(".rs"))
        .filter_map(|file| Some((file.clone(), text(&file)?)))
}

/// A line's code, without comment and what stands in quotes (on that line).
fn code(line: &str) -> String {
    let line = line.replace("'\"'", "").replace("\\\"", "");
    let outside: String = line.split('"').step_by(2).collect();
    outside.split("//").next().unwrap_or("").to_owned()
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn no_source_file_is_too_long() {
    let problems: Vec<_> = sources()
        .filter(|(_, text)| text.lines().count() > LINES_MAX)
        .map(|(file, text)| format!("{file}: {} lines, expected at most {LINES_MAX}", text.lines().count()))
        .collect();
    none(&problems);
}

#[test]
fn nothing_is_left_half_done() {
    // Put together here, so that this file does not find itself.
    let marks = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!"));
    let mut problems = Vec::new();
    for (file, text) in sources() {
        for (line, number) in text.lines().zip(1..) {
            if let Some(mark) = marks.iter().find(|mark| code(line).contains(mark.as_str())) {
                problems.push(format!("{file}:{number}: {mark}"));
            }
        }
    }
    none(&problems);
}

#[test]
fn unsafe_stays_in_its_homes() {
    let word = ["un", "safe"].concat();
    let is_used =
        |line: &str| code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word);
    let mut problems = Vec::new();
    let mut homes = 0;
    for (file, text) in sources() {
        let at_home = UNSAFE_HOMES.iter().any(|home| file.starts_with(home));
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| is_used(line)) {
            homes += usize::from(at_home);
            if !at_home {
                problems.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(homes > 0, "this test looks for the right word");
    none(&problems);
}

#[test]
fn dependencies_point_down_only() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let short = |name: &str| name.strip_prefix("ganglion-").unwrap_or(name).to_owned();
    let layer_of: BTreeMap<&str, usize> = LAYERS
        .iter()
        .zip(0..)
        .flat_map(|(names, layer)| names.iter().map(move |name| (*name, layer)))
        .collect();
    let mut problems = Vec::new();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() >= layer_of.len(), "all crates are seen");
    for package in packages {
        let name = short(package["name"].as_str().unwrap());
        let Some(layer) = layer_of.get(name.as_str()) else {
            problems
                .push(format!("{name} is in no layer: give it one in this test and in the documentation"));
            continue;
        };
        let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        for dependency in normal.map(|d| d["name"].as_str().unwrap()).filter(|d| d.starts_with("ganglion-")) {
            let below = short(dependency);
            let same = SAME_LAYER.contains(&(name.as_str(), below.as_str()));
            match layer_of.get(below.as_str()) {
                Some(other) if other < layer || (other == layer && same) => {}
                _ => problems.push(format!("{name} (layer {layer}) depends on {below}")),
            }
        }
    }
    none(&problems);
}

/// ARCHITECTURE invariant: there is no random number on the way from an event to a command.
#[test]
fn only_free_text_is_sampled() {
    let homes = ["crates/llm/", "crates/ganglion/src/commands/generate.rs"];
    let names = ["Sampler", "SamplingOptions", "sampling::", "generate_text"];
    let mut problems = Vec::new();
    let mut found_at_home = false;
    for (file, text) in sources().filter(|(file, _)| !file.ends_with("tests/tidy.rs")) {
        let at_home = homes.iter().any(|home| file.starts_with(home));
        for (line, number) in text.lines().zip(1..) {
            if names.iter().any(|name| code(line).contains(name)) {
                found_at_home |= at_home;
                if !at_home {
                    problems.push(format!("{file}:{number}: {}", line.trim()));
                }
            }
        }
    }
    assert!(found_at_home, "this test looks for the right names");
    none(&problems);
}

#[test]
fn the_repository_holds_no_big_files_and_no_paths_of_one_machine() {
    let roots = ["home", "tmp", "work", "root", "Users"].map(|root| format!("/{root}/"));
    let mut problems = Vec::new();
    for file in files() {
        let size = std::fs::metadata(repository().join(&file)).unwrap().len();
        if size > FILE_BYTES_MAX {
            problems.push(format!("{file}: {size} bytes, expected at most {FILE_BYTES_MAX}"));
        }
        let Some(text) = text(&file) else { continue };
        for (line, number) in text.lines().zip(1..) {
            for root in &roots {
                // A path begins there: `../work/` and `https://host/home/` are others.
                let begins = line.match_indices(root.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| {
                        !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '/' | '}' | '*')
                    })
                });
                if begins {
                    problems.push(format!("{file}:{number}: {root} is a path of one machine"));
                }
            }
        }
    }
    none(&problems);
}

#[test]
fn the_service_writes_where_it_may_and_is_stopped_by_its_guard() {
    let unit = text("packaging/systemd/ganglion.service").unwrap();
    let value = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    assert_eq!((value("ProtectSystem"), value("StateDirectory")), ("strict".into(), "ganglion".into()));
    let mut folders = Vec::new();
    for option in ["--audit ", "--record ", "folder = \""] {
        folders
            .extend(unit.split(option).skip(1).filter_map(|rest| rest.split([' ', '"', '`', '\n']).next()));
    }
    assert!(folders.len() >= 3 && folders.iter().all(|f| f.starts_with("/var/lib/ganglion/")), "{folders:?}");
    assert_eq!((value("KillMode"), value("ExecReload")), ("mixed".into(), "/bin/kill -HUP $MAINPID".into()));
}

#[test]
fn the_changelog_says_what_is_new() {
    let changelog = text("CHANGELOG.md").expect("CHANGELOG.md");
    let version = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.contains("## [Unreleased]") || changelog.contains(&version),
        "no section for {version}"
    );
}
