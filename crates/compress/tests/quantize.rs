//! Whole files: mixtures as llama.cpp chooses them, resuming, folding, calibration, importance matrices.

mod common;

use std::path::Path;

use common::{TEXT, divergence, folder, nano, one_thread};
use ganglion_compress::{
    Calibrator, FileType, Knowledge, Method, Mix, QuantizeOptions, QuantizeReport, Windows, quantize_file,
    read_imatrix, write_imatrix,
};
use ganglion_gguf::Gguf;
use ganglion_llm::{Config, Model};
use ganglion_tokenizer::Tokenizer;

fn options(file_type: &str, method: Method) -> QuantizeOptions {
    let mix = Mix::new(FileType::from_name(file_type).unwrap());
    QuantizeOptions { mix, method, threads: 1, range: None, key: String::new() }
}

fn text(gguf: &Gguf, bytes: usize) -> (Knowledge, Windows) {
    let windows = Windows::new(&Tokenizer::from_gguf(gguf).unwrap(), &TEXT[..bytes], 128).unwrap();
    let model = Model::load(gguf, one_thread()).unwrap();
    (Knowledge::Text(Box::new(Calibrator::new(model, &windows).unwrap())), windows)
}

fn quantized(path: &Path, options: &QuantizeOptions, knowledge: Knowledge) -> QuantizeReport {
    quantize_file(&nano(), path, options, knowledge, &mut |_| ()).unwrap()
}

#[test]
fn mixtures_are_those_of_llama_cpp() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/mixtures.json")).unwrap();
    let nano = nano();
    let config = Config::from_header(nano.header()).unwrap();
    for (name, expected) in golden.as_object().unwrap() {
        let mix = Mix::new(FileType::from_name(name).unwrap());
        for info in nano.tensors() {
            let expected = expected["others"].get(&info.name).unwrap_or(&expected["most"]).as_str();
            let found = mix.choose(info, &config, false).map(|format| format.name());
            if info.shape.len() > 1 {
                assert_eq!(found, expected, "{name}: {}", info.name);
            } else {
                assert_eq!(found, None, "{name}: {}", info.name);
            }
        }
    }
}

#[test]
fn an_interrupted_run_goes_on_and_gives_the_same_file() {
    let folder = folder("resume");
    let options = options("q4_0", Method::Gptq);
    let (whole, resumed) = (folder.join("whole.gguf"), folder.join("resumed.gguf"));
    let source = nano();
    quantized(&whole, &options, text(&source, 1500).0);
    let mut finished = 0;
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        quantize_file(&source, &resumed, &options, text(&source, 1500).0, &mut |progress| {
            assert!(progress.done < 2_000_000, "the power fails");
            finished += 1;
        })
    }));
    assert!(stopped.is_err() && finished > 10 && !resumed.exists());
    let again = quantized(&resumed, &options, text(&source, 1500).0);
    assert!(again.types.iter().any(|(dtype, count)| dtype.name() == "Q4_0" && *count > 30));
    assert!(std::fs::read(&whole).unwrap() == std::fs::read(&resumed).unwrap(), "the files differ");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "nothing else is left");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn factors_that_move_change_nothing_but_the_rounding() {
    let folder = folder("fold");
    let source = nano();
    let path = folder.join("model.gguf");
    let plain = folder.join("plain.gguf");
    // At 8 bits the source's own grid cannot be improved on, so that AWQ would move nothing.
    for (method, file_type) in [(Method::SmoothQuant, "q8_0"), (Method::Awq, "q4_0")] {
        quantized(&plain, &options(file_type, Method::Rtn), Knowledge::None);
        quantized(&path, &options(file_type, method), text(&source, 1500).0);
        let gguf = Gguf::open(&path).unwrap();
        let norm = |gguf: &Gguf| gguf.tensor_bytes("blk.1.attn_norm.weight").unwrap().to_vec();
        assert!(norm(&gguf) != norm(&source), "{}: nothing moved", method.name());
        let (found, rounded) = (divergence(&path), divergence(&plain));
        println!("{}: {found}, plain {rounded}", method.name());
        assert!(found < 1.25 * rounded + 0.01, "{}: {found}, plain {rounded}", method.name());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn calibrated_methods_stay_nearer_at_three_bits() {
    let folder = folder("methods");
    let path = folder.join("model.gguf");
    let mut pure = options("q3_k_s", Method::Rtn);
    pure.mix.overrides = vec![("token_embd".into(), ganglion_kernels::BlockFormat::Q8_0)];
    quantized(&path, &pure, Knowledge::None);
    let plain = divergence(&path);
    let source = nano();
    pure.method = Method::Gptq;
    quantized(&path, &pure, text(&source, 8000).0);
    let fed = divergence(&path);
    println!("rtn {plain}, gptq {fed}");
    assert!(fed < 0.9 * plain, "error feedback {fed}, rounding {plain}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn importance_matrices_are_written_read_and_used() {
    let folder = folder("imatrix");
    let (file, path) = (folder.join("imatrix.gguf"), folder.join("model.gguf"));
    let source = nano();
    let (knowledge, windows) = text(&source, 1500);
    let options = options("q4_0", Method::Imatrix);
    let report = quantized(&path, &options, knowledge);
    let matrices =
        source.tensors().iter().filter(|info| info.shape.len() > 1 && info.name != "token_embd.weight");
    assert_eq!(report.imatrix.len(), matrices.count());
    write_imatrix(&file, &report.imatrix, "prompts.txt", windows.count(), windows.length()).unwrap();
    let read = read_imatrix(&file).unwrap();
    assert_eq!(read.len(), report.imatrix.len());
    for (name, statistics) in &read {
        let expected = &report.imatrix[name];
        assert_eq!(statistics.count, expected.count, "{name}");
        let pairs = statistics.sum_squares.iter().zip(&expected.sum_squares);
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{name}");
    }
    let again = folder.join("again.gguf");
    quantized(&again, &options, Knowledge::Imatrix(read));
    assert!(divergence(&again) < 2.0 * divergence(&path));
    let refused = read_imatrix(&path).unwrap_err().to_string();
    assert!(refused.contains("expected \"imatrix\""), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn metadata_is_kept_and_says_what_was_done() {
    let folder = folder("metadata");
    let path = folder.join("model.gguf");
    quantized(&path, &options("q6_k", Method::Rtn), Knowledge::None);
    let (source, gguf) = (nano(), Gguf::open(&path).unwrap());
    assert_eq!(gguf.get_u32("general.file_type").unwrap(), 18);
    assert_eq!(gguf.get_str("ganglion.quantize.method").unwrap(), "rtn");
    for (key, value) in source.metadata().filter(|(key, _)| *key != "general.file_type") {
        let kept = gguf.metadata().find(|(other, _)| *other == key).map(|(_, value)| value);
        assert!(key == "general.quantization_version" || kept == Some(value), "{key}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
