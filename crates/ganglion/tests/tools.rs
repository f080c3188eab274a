//! `model`, `generate`, `audit`, and what they all share.

mod common;
use common::*;
use std::fs;
use std::path::Path;

/// Every command has an example, also those that only group others.
#[test]
fn every_help_has_an_example() {
    let mut open = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = ganglion(&arguments);
        assert_eq!(output.code, 0, "{output:?}");
        if !path.is_empty() {
            assert!(output.out.contains("Example"), "{path:?}: {}", output.out);
            assert!(output.out.contains("  ganglion "), "{path:?}: {}", output.out);
            assert!(!output.out.contains("-fault"), "failure injection is for tests: {}", output.out);
            seen += 1;
        }
        let below = output.out.split("\nCommands:\n").nth(1).unwrap_or("");
        for line in below.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" {
                open.push([path.clone(), vec![name.to_owned()]].concat());
            }
        }
    }
    assert!(seen >= 14, "{seen} commands");
}

#[test]
fn inspect_shows_metadata_and_tensors() {
    let model = repository().join("models/nano/nano.gguf");
    let output = ganglion(&["model", "inspect", text(&model)]);
    assert_eq!(output.code, 0, "{output:?}");
    for part in
        ["general.architecture", "llama", "token_embd.weight", "ganglion.prompt_form", "Q8_0", "sha256"]
    {
        assert!(output.out.contains(part), "{part} in {}", output.out);
    }
    let report = ganglion(&["model", "inspect", "--json", text(&model)]).json();
    assert_eq!(report["sha256"].as_str().unwrap().len(), 64);
    assert!(!report["tensors"].as_array().unwrap().is_empty());
    assert!(fs::metadata(&model).unwrap().len() <= 16 << 20, "the default model stays small");
}

#[test]
fn garbage_is_no_model_to_any_command() {
    let folder = Folder::new();
    let nano = fs::read(repository().join("models/nano/nano.gguf")).unwrap();
    let mut wrong_version = nano[..4096].to_vec();
    wrong_version[4] = 99;
    let mut huge_count = nano[..4096].to_vec();
    huge_count[8..16].fill(0xff);
    for (name, content, parts) in [
        ("empty.gguf", &[] as &[u8], vec!["offset 0"]),
        ("words.gguf", b"these are words, not weights", vec!["offset 0", "GGUF"]),
        ("version.gguf", &wrong_version, vec!["offset 4", "version"]),
        ("count.gguf", &huge_count, vec!["offset 8"]),
        ("header.gguf", &nano[..200], vec!["offset "]),
        ("tail.gguf", &nano[..nano.len() / 2], vec!["tensor"]),
    ] {
        let file = folder.write(name, content);
        let commands: [&[&str]; 3] = [
            &["model", "inspect", text(&file)],
            &["generate", "--model", text(&file), "Once"],
            &["model", "eval", text(&file), "--suite", text(folder.path())],
        ];
        for command in commands {
            let output = ganglion(command);
            assert_eq!((output.code, output.out.as_str()), (1, ""), "{command:?}: {output:?}");
            assert!(output.err.contains(name), "{output:?}");
            for part in &parts {
                assert!(output.err.contains(part), "{part} in {output:?}");
            }
        }
    }
    let missing = ganglion(&["model", "inspect", "no-such.gguf"]);
    assert_eq!(missing.code, 1);
    assert_eq!(missing.err.matches("No such file").count(), 1, "said once: {missing:?}");
}

#[test]
fn a_converted_model_tells_its_story() {
    let Some(shared) = shared_folder() else {
        println!("skipped: no shared folder with data/stories260k");
        return;
    };
    let data = shared.join("data/stories260k");
    let folder = Folder::new();
    let model = folder.path().join("stories.gguf");
    let (weights, vocabulary) = (data.join("stories260K.bin"), data.join("tok512.bin"));
    let converted =
        ganglion(&["model", "convert", text(&weights), text(&model), "--tokenizer", text(&vocabulary)]);
    assert_eq!(converted.code, 0, "{converted:?}");
    let tell = || ganglion(&["generate", "--model", text(&model), "-n", "40", "Once upon a time"]);
    let told = tell();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.starts_with("Once upon a time, there was a little girl named Lily."), "{told:?}");
    assert_eq!(told.out, tell().out);
    text_by_chance_depends_on_its_seed(&model);
    a_saved_prompt_changes_nothing(&model, folder.path());
    let refused =
        ganglion(&["model", "convert", text(&vocabulary), "x.gguf", "--tokenizer", text(&vocabulary)]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!Path::new("x.gguf").exists());
}

fn text_by_chance_depends_on_its_seed(model: &Path) {
    let tell = |more: &[&str]| {
        let all = [&["generate", "--model", text(model), "-n", "30"], more, &["Once upon a time"]].concat();
        ganglion(&all)
    };
    let chance =
        ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.02", "--repeat-penalty"];
    let seeded = |seed| tell(&[&chance[..], &["1.1", "--seed", seed]].concat());
    let told = seeded("7");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(told.out, seeded("7").out);
    assert_ne!(told.out, seeded("8").out);
    for (option, value, message) in
        [("--top-p", "0", "top_p is 0"), ("--temperature", "-1", "temperature is -1")]
    {
        let refused = tell(&[&format!("{option}={value}")]);
        assert!(refused.code == 1 && refused.err.contains(message), "{refused:?}");
    }
    assert_eq!(tell(&["--kv", "f8"]).code, 2);
}

fn a_saved_prompt_changes_nothing(model: &Path, folder: &Path) {
    let saved = folder.join("prompt.kv");
    let tell = |more: &[&str], prompt: &str| {
        ganglion(&[&["generate", "--model", text(model), "-n", "20"], more, &[prompt]].concat())
    };
    let beginning = "Once upon a time, there was a";
    let longer = "Once upon a time, there was a big dog named Max.";
    let told = tell(&["--save-kv", text(&saved)], beginning);
    assert_eq!((told.code, &told.out), (0, &tell(&[], beginning).out), "{told:?}");
    for prompt in [beginning, longer, "Lily"] {
        let told = tell(&["--load-kv", text(&saved)], prompt);
        assert_eq!((told.code, &told.out), (0, &tell(&[], prompt).out), "{told:?}");
        assert!(told.err.contains("of the prompt's"), "{told:?}");
    }
    let other = tell(&["--kv", "int8", "--load-kv", text(&saved)], longer);
    assert!(other.code == 1 && other.err.contains("expected \"int8\""), "{other:?}");
    let mut bytes = fs::read(&saved).unwrap();
    bytes.push(0);
    fs::write(&saved, &bytes).unwrap();
    let longer_file = tell(&["--load-kv", text(&saved)], longer);
    assert!(longer_file.code == 1 && longer_file.err.contains("damaged"), "{longer_file:?}");
    let nowhere = tell(&["--save-kv", text(&folder.join("no/such.kv"))], longer);
    assert!(nowhere.code == 1 && nowhere.err.contains("--save-kv"), "{nowhere:?}");
}

#[test]
fn a_model_folder_becomes_a_file() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/golden/hf/qwen2");
    let folder = Folder::new();
    let model = folder.path().join("qwen2.gguf");
    let convert =
        |rest: &[&str]| ganglion(&[&["model", "convert", text(&source), text(&model)], rest].concat());
    let refused = convert(&[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("tokenizer.json: is missing"), "{refused:?}");
    assert!(!model.exists());
    let unknown = convert(&["--type", "q9"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.err.contains("expected one of f32, f16, bf16, q8_0"), "{unknown:?}");
    let converted = convert(&["--type", "q8_0", "--no-tokenizer"]);
    assert_eq!(converted.code, 0, "{converted:?}");
    assert!(converted.err.contains("qwen2 model, tensors: 15 Q8_0, 11 F32"), "{converted:?}");
    let inspected = ganglion(&["model", "inspect", text(&model)]);
    assert!(inspected.out.contains("qwen2.attention.head_count_kv"), "{inspected:?}");
}

/// The form follows from the name of the result, and what a form has not got is refused before anything is written.
#[test]
fn models_go_out_in_the_forms_of_others() {
    let folder = Folder::new();
    let nano = repository().join("models/nano/nano.gguf");
    let export = |out: &Path, more: &[&str]| {
        ganglion(&[&["model", "export", text(&nano), text(out)][..], more].concat())
    };
    let [onnx, c, hugging] = ["nano.onnx", "nano.c", "nano"].map(|name| folder.path().join(name));
    for (out, more, part) in [
        (&onnx, &["--dtype", "q4_0"][..], "43 int4"),
        (&c, &["--context", "32"], "memory for 32 tokens"),
        (&hugging, &["--dtype", "bf16"], "LlamaForCausalLM"),
    ] {
        let output = export(out, more);
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.out.contains(part), "{}", output.out);
    }
    assert!(fs::read_to_string(folder.path().join("nano.h")).unwrap().contains("GANGLION_CONTEXT 32u"));
    // A folder is a source too; what it was made of is not left behind.
    let again = folder.path().join("again.onnx");
    let output = ganglion(&["model", "export", text(&hugging), text(&again)]);
    assert_eq!(output.code, 0, "{output:?}");
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["again.onnx", "nano", "nano.c", "nano.h", "nano.onnx"]);
    let output =
        ganglion(&["model", "export", text(&hugging), &format!("{}/", text(&folder.path().join("copy")))]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(folder.path().join("copy/model.safetensors").exists());
    for (name, more, part) in [
        ("a.onnx", &["--kv", "int8"][..], "--kv is for c only"),
        ("a.c", &["--no-tokenizer"], "safetensors and gguf only"),
        ("a.c", &["--dtype", "q4_k"], "Q8_0, Q4_0 or F32"),
        ("a.gguf", &[], "GGUF already"),
        ("model.safetensors", &[], "the name of a folder"),
        ("nano", &[], "is there already"),
        ("nano/", &[], "is there already"),
    ] {
        let output = export(&folder.path().join(name), more);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.err.contains(part), "{name}: {}", output.err);
    }
    // A result under the source's name would take its place.
    let output = ganglion(&["model", "export", text(&onnx), text(&onnx)]);
    assert!(output.code == 1 && output.err.contains("both source and result"), "{output:?}");
}

#[test]
fn a_model_is_never_pruned_into_its_own_place() {
    let folder = Folder::new();
    let nano = fs::read(repository().join("models/nano/nano.gguf")).unwrap();
    let model = folder.write("model.gguf", &nano);
    let words = folder.write("text.txt", "set the kitchen to 21 degrees\n".repeat(50));
    let run = |command: &str, out: &Path, options: &[&str]| {
        let arguments = ["model", command, text(&model), text(out), "--calibrate", text(&words)];
        ganglion(&[&arguments[..], options].concat())
    };
    // By another name it is the same file.
    let again = folder.path().join(".").join("model.gguf");
    let other = folder.path().join("other.gguf");
    for (command, out, options, part) in [
        ("prune", &model, ["--ffn", "0.3"], "both source and result"),
        ("prune", &again, ["--sparsity", "2:4"], "both source and result"),
        ("factorize", &model, ["--ratio", "0.7"], "both source and result"),
        ("prune", &other, ["--ffn", "-0.5"], "the share of channels is -0.5"),
        ("prune", &other, ["--layers", "6"], "the model has 6"),
        ("factorize", &other, ["--ratio", "-1"], "the ratio is -1"),
    ] {
        let output = run(command, out, &options);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.err.contains(part), "{command} {options:?}: {}", output.err);
    }
    assert!(fs::read(&model).unwrap() == nano, "the source is as it was");
    assert!(!other.exists());
}

/// A log of a real run.
fn logged() -> TestSite {
    let site = TestSite::new("hvac");
    let script = site.folder.write("script.txt", "set the kitchen to 21 degrees\ntell me a joke\n");
    let (status, _) = site.run(&["--script", text(&script)]).end();
    assert!(status.success());
    site
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let files = fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file());
    for entry in files {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_log_that_was_touched_is_told_by_file_and_line() {
    let site = logged();
    let name = "audit-000001.jsonl";
    let original = fs::read_to_string(site.audit().join(name)).unwrap();
    let lines: Vec<String> = original.lines().map(str::to_owned).collect();
    assert!(lines.len() > 8, "{original}");
    let whole = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let edited = {
        let place = lines.iter().position(|line| line.contains("\"kitchen\"")).expect("a command in the log");
        let mut lines = lines.clone();
        lines[place] = lines[place].replacen("\"kitchen\"", "\"office\"", 1);
        (whole(&lines), format!("{name}:{}: ", place + 1))
    };
    let deleted = {
        let mut lines = lines.clone();
        lines.remove(4);
        (whole(&lines), format!("{name}:5: "))
    };
    let swapped = {
        let mut lines = lines.clone();
        lines.swap(5, 6);
        (whole(&lines), format!("{name}:6: "))
    };
    let repeated = {
        let mut lines = lines.clone();
        lines.insert(3, lines[2].clone());
        (whole(&lines), format!("{name}:4: "))
    };
    let torn = (original[..original.len() - 20].to_owned(), format!("{name}:{}: ", lines.len()));
    // A clean cut leaves nothing wrong in the file itself; the sealed head knows how many there were.
    let cut = (whole(&lines[..lines.len() - 1]), format!("ends at record {}", lines.len() - 1));
    for (what, (content, place)) in [
        ("edited", edited),
        ("deleted", deleted),
        ("swapped", swapped),
        ("repeated", repeated),
        ("torn", torn),
        ("cut", cut),
    ] {
        let touched = site.path().join(what);
        copy(&site.audit(), &touched);
        fs::write(touched.join(name), content).unwrap();
        let output = ganglion(&["audit", "verify", text(&touched)]);
        assert_eq!((output.code, output.out.as_str()), (1, ""), "{what}: {output:?}");
        assert!(output.err.contains(&place), "{what}: {place} in {output:?}");
    }
    let untouched = ganglion(&["audit", "verify", text(&site.audit())]);
    assert_eq!(untouched.code, 0, "{untouched:?}");
    assert!(untouched.out.contains(&format!("{} records", lines.len())), "{untouched:?}");
    let nothing = ganglion(&["audit", "verify", text(&site.path().join("nowhere"))]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("no audit log here"), "{nothing:?}");
}

#[test]
fn a_second_run_continues_the_log() {
    let site = logged();
    let script = site.folder.write("more.txt", "set the office to 20\n");
    let (status, _) = site.run(&["--script", text(&script)]).end();
    assert!(status.success());
    let output = ganglion(&["audit", "verify", text(&site.audit())]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.out.contains("in 2 files"), "{output:?}");
}
