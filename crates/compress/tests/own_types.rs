//! Whole files in types that ggml does not have: how far they are from the model, and that fixed scales of activations are what the
//! engine multiplies with.

mod common;

use std::path::{Path, PathBuf};

use common::{TEXT, divergence, folder, nano, one_thread};
use ganglion_compress::{
    Calibrator, FileType, Knowledge, Method, Mix, QuantizeOptions, QuantizeReport, Range, Windows,
    quantize_file,
};
use ganglion_gguf::Gguf;
use ganglion_llm::{Config, Model};
use ganglion_tokenizer::Tokenizer;

fn quantized(
    source: &Gguf,
    path: &Path,
    (file_type, method): (&str, Method),
    range: Option<Range>,
) -> QuantizeReport {
    let mix = Mix::new(FileType::from_name(file_type).unwrap());
    let options = QuantizeOptions { mix, method, threads: 1, range, key: String::new() };
    let knowledge = match method {
        Method::Rtn => Knowledge::None,
        _ => {
            let tokenizer = Tokenizer::from_gguf(source).unwrap();
            let windows = Windows::new(&tokenizer, &TEXT[..3000], 128).unwrap();
            let model = Model::load(source, one_thread()).unwrap();
            Knowledge::Text(Box::new(Calibrator::new(model, &windows).unwrap()))
        }
    };
    quantize_file(source, path, &options, knowledge, &mut |_| ()).unwrap()
}

#[test]
fn types_of_our_own_run_and_become_ordinary_ones_again() {
    let folder = folder("own-types");
    let (path, again) = (folder.join("model.gguf"), folder.join("again.gguf"));
    for (name, dtype, most) in [("nf4", "NF4", 0.2), ("fp8", "F8_E4M3", 0.05), ("int8", "I8_ROW", 0.02)] {
        let report = quantized(&nano(), &path, (name, Method::Rtn), None);
        assert!(
            report.types.iter().any(|(found, count)| found.name() == dtype && *count >= 42),
            "{name}: {:?}",
            report.types
        );
        let gguf = Gguf::open(&path).unwrap();
        assert!(gguf.get_u32("general.file_type").unwrap() > 0x474e_4700);
        let found = divergence(&path);
        println!("{name}: {found}");
        assert!(found < most, "{name}: {found}");
        quantized(&gguf, &again, ("q8_0", Method::Rtn), None);
        assert!((divergence(&again) - found).abs() < 0.02, "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A copy of a file whose fixed scales have been multiplied by `factor`.
fn with_scales_times(path: &Path, factor: f32) -> PathBuf {
    let mut bytes = std::fs::read(path).unwrap();
    let key = Config::ACTIVATION_SCALES.as_bytes();
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    // Behind the key: the types of the value and of its elements (u32 each), and their number (u64).
    let count = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap()) as usize;
    for scale in bytes[at + 16..at + 16 + 4 * count].as_chunks_mut::<4>().0 {
        *scale = (f32::from_le_bytes(*scale) * factor).to_le_bytes();
    }
    let changed = path.with_extension(format!("{factor}.gguf"));
    std::fs::write(&changed, bytes).unwrap();
    changed
}

#[test]
fn fixed_scales_of_activations_cost_little_and_are_what_the_engine_uses() {
    let folder = folder("static-int8");
    let (path, source) = (folder.join("model.gguf"), nano());
    quantized(&source, &path, ("int8", Method::SmoothQuant), None);
    let dynamic = divergence(&path);
    assert!(dynamic < 0.02, "one scale a token: {dynamic}");
    for range in Range::ALL {
        quantized(&source, &path, ("int8", Method::SmoothQuant), Some(range));
        let config = Config::from_header(Gguf::open(&path).unwrap().header()).unwrap();
        assert_eq!(config.activation_scales.len(), config.layer_count);
        assert!(config.activation_scales.iter().flatten().all(|scale| *scale > 0.0), "{range:?}");
        let found = divergence(&path);
        println!("int8, scales fixed by {}: {found}, one a token: {dynamic}", range.name());
        assert!(found > dynamic, "{range:?}: {found}, one scale a token {dynamic}");
        assert!(found < 0.1, "{range:?}: {found}");
        if range == Range::Mse {
            // No scale is one a token: the same bits as the file that has none.
            assert_eq!(divergence(&with_scales_times(&path, 0.0)), dynamic);
            // A quarter cuts off most of what is large, four times leaves five bits.
            for factor in [0.25, 4.0] {
                let other = divergence(&with_scales_times(&path, factor));
                println!("scales times {factor}: {other}");
                assert!(other > 2.0 * found, "scales times {factor}: {other}, as they were {found}");
            }
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}
