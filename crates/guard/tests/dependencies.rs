//! No model code, and no async runtime, beneath the guard.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

#[test]
fn the_normal_dependency_tree_holds_no_model_code() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // One platform only, so that packages of others need not be there.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            &platform,
            "--manifest-path",
            manifest,
        ])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name_of: BTreeMap<_, _> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let nodes: BTreeMap<_, _> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["id"].as_str().unwrap(), n["deps"].as_array().unwrap()))
        .collect();
    let guard = *name_of.iter().find(|(_, n)| **n == "ganglion-guard").unwrap().0;
    let (mut open, mut closure) = (vec![guard], BTreeSet::new());
    while let Some(id) = open.pop() {
        if closure.insert(id) {
            let normal = nodes[id]
                .iter()
                .filter(|d| d["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"].is_null()));
            open.extend(normal.map(|d| d["pkg"].as_str().unwrap()));
        }
    }
    let names: BTreeSet<_> = closure.iter().map(|id| name_of[id]).collect();
    assert!(names.contains("ganglion-site") && names.contains("libc"), "{names:?}");
    for part in ["llm", "kernels", "grammar", "decide", "tokenizer", "gguf"] {
        assert!(!names.contains(format!("ganglion-{part}").as_str()), "{part} is beneath the guard");
    }
    for foreign in ["tokio", "llguidance", "toktrie", "axum"] {
        assert!(!names.contains(foreign), "{foreign} is beneath the guard");
    }
}
