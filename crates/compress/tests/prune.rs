//! Whole files: what is taken out, what is left, and that it is what was measured on the way.

mod common;

use std::path::Path;

use common::{TEXT, divergence, folder, nano, windows};
use ganglion_compress::{
    CompressError, FactorizeOptions, FileType, Knowledge, Method, Mix, Pattern, PruneOptions, PruneReport,
    QuantizeOptions, SparseMethod, SparseOptions, factorize_file, prune_file, quantize_file, sparsify_file,
};
use ganglion_gguf::{Gguf, TensorType};
use ganglion_kernels::dequantize;
use ganglion_llm::{Config, block_format};

const NOTHING: PruneOptions = PruneOptions {
    layers: 0,
    heads: 0,
    queries: 0,
    feed_forward: 0.0,
    hidden: 0.0,
    multiple: 32,
    importance: ganglion_compress::Importance::Reconstruction,
    threads: 2,
};

fn pruned(path: &Path, options: PruneOptions) -> (PruneReport, Config) {
    let source = nano();
    let windows = windows(&source, &TEXT[..3000]);
    let report = prune_file(&source, path, options, &windows, &mut |_, _| ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    assert_eq!(report.size_bytes, gguf.bytes().len() as u64);
    let left: u64 = gguf.tensors().iter().map(|info| info.element_count()).sum();
    assert_eq!(report.parameters.1, left);
    (report, Config::from_header(gguf.header()).unwrap())
}

#[test]
fn every_kind_of_pruning_leaves_an_ordinary_smaller_model_near_the_source() {
    let folder = folder("kinds");
    let path = folder.join("model.gguf");
    let check = |name: &str, options: PruneOptions, divergence_max: f64| {
        let (report, config) = pruned(&path, options);
        assert!(report.parameters.1 < report.parameters.0, "{name}");
        let found = divergence(&path);
        println!("{name}: {} of {} parameters, divergence {found}", report.parameters.1, report.parameters.0);
        assert!(found < divergence_max, "{name}: {found}");
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["model.gguf"], "{name}");
        config
    };
    let config = check("channels", PruneOptions { feed_forward: 0.3, ..NOTHING }, 0.1);
    assert_eq!((config.layer_count, config.feed_forward_length), (6, 544));
    let config = check("layers", PruneOptions { layers: 1, ..NOTHING }, 0.3);
    assert_eq!((config.layer_count, config.feed_forward_length), (5, 768));
    let config = check("groups", PruneOptions { heads: 1, ..NOTHING }, 3.0);
    assert_eq!((config.head_count, config.head_count_kv, config.head_dim), (2, 1, 64));
    let config = check("queries", PruneOptions { queries: 1, ..NOTHING }, 3.0);
    assert_eq!((config.head_count, config.head_count_kv, config.head_dim), (2, 2, 64));
    let config = check("stream", PruneOptions { hidden: 0.13, ..NOTHING }, 1.0);
    assert_eq!((config.embedding_length, config.head_count, config.head_dim), (224, 4, 64));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_interrupted_pruning_goes_on_and_gives_the_same_file() {
    let folder = folder("resume");
    let (whole, resumed) = (folder.join("whole.gguf"), folder.join("resumed.gguf"));
    let options = PruneOptions { layers: 1, queries: 1, feed_forward: 0.2, hidden: 0.13, ..NOTHING };
    let (source, windows) = (nano(), windows(&nano(), &TEXT[..1500]));
    let report = prune_file(&source, &whole, options, &windows, &mut |_, _| ()).unwrap();
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        prune_file(&source, &resumed, options, &windows, &mut |done, all| {
            assert!(done + 3 < all, "the power fails");
        })
    }));
    assert!(stopped.is_err() && !resumed.exists());
    let again = prune_file(&source, &resumed, options, &windows, &mut |_, _| ()).unwrap();
    assert_eq!(report, again);
    assert!(std::fs::read(&whole).unwrap() == std::fs::read(&resumed).unwrap(), "the files differ");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "nothing else is left");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let folder = folder("refused");
    let path = folder.join("model.gguf");
    let source = nano();
    let windows = windows(&source, &TEXT[..1000]);
    let message = |source: &Gguf, options: PruneOptions| {
        let refused = prune_file(source, &path, options, &windows, &mut |_, _| ());
        assert!(matches!(refused, Err(CompressError::Prune { .. })), "{refused:?}");
        refused.unwrap_err().to_string()
    };
    assert!(message(&source, PruneOptions { layers: 6, ..NOTHING }).contains("leave one"));
    assert!(message(&source, PruneOptions { heads: 2, ..NOTHING }).contains("2 with 2 each"));
    assert!(message(&source, PruneOptions { queries: 2, ..NOTHING }).contains("leave one"));
    assert!(message(&source, PruneOptions { feed_forward: 1.0, ..NOTHING }).contains("share of channels"));
    assert!(message(&source, PruneOptions { hidden: -0.1, ..NOTHING }).contains("share of the stream"));
    assert!(message(&source, PruneOptions { feed_forward: 0.01, ..NOTHING }).contains("multiple of 32"));
    let factors = folder.join("factors.gguf");
    let options = FactorizeOptions { ratio: 0.7, multiple: 32, threads: 2 };
    factorize_file(&source, &factors, options, &windows, &mut |_, _| ()).unwrap();
    let factors = Gguf::open(&factors).unwrap();
    assert!(message(&factors, PruneOptions { hidden: 0.3, ..NOTHING }).contains("first.weight"));
    assert!(message(&factors, PruneOptions { feed_forward: 0.3, ..NOTHING }).contains("is a factor"));
    let again = factorize_file(&factors, &path, options, &windows, &mut |_, _| ());
    assert!(matches!(again, Err(CompressError::Factorize { .. })), "{again:?}");
    for ratio in [0.0, 1.0, f64::NAN] {
        let wrong =
            factorize_file(&source, &path, FactorizeOptions { ratio, ..options }, &windows, &mut |_, _| ());
        assert!(matches!(wrong, Err(CompressError::Factorize { .. })), "{ratio}: {wrong:?}");
    }
    let too_little = FactorizeOptions { ratio: 0.1, ..options };
    let wrong = factorize_file(&source, &path, too_little, &windows, &mut |_, _| ()).unwrap_err().to_string();
    assert!(wrong.contains("ranks of 32 leave a share of 0.198"), "{wrong}");
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Zeros among a layer's weights, by matrix.
fn zeros(gguf: &Gguf, pattern: &dyn Fn(&[f32]) -> bool) -> bool {
    let matrices =
        gguf.tensors().iter().filter(|info| info.name.starts_with("blk.") && info.shape.len() == 2);
    matrices.into_iter().all(|info| {
        let mut values = vec![0.0; info.element_count() as usize];
        dequantize(block_format(info).unwrap(), gguf.tensor_bytes(&info.name).unwrap(), &mut values).unwrap();
        pattern(&values)
    })
}

#[test]
fn sparse_models_hold_their_pattern_and_error_feedback_stays_nearest() {
    let folder = folder("sparse");
    let path = folder.join("model.gguf");
    let (source, calibration) = (nano(), windows(&nano(), &TEXT[..3000]));
    let mut found = Vec::new();
    for method in SparseMethod::ALL {
        let options = SparseOptions { pattern: Pattern::from_name("2:4").unwrap(), method, threads: 2 };
        let report = sparsify_file(&source, &path, options, &calibration, &mut |_, _| ()).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let two_of_four =
            |values: &[f32]| values.chunks(4).all(|group| group.iter().filter(|v| **v == 0.0).count() >= 2);
        assert!(zeros(&gguf, &two_of_four), "{}", method.name());
        assert_eq!((report.matrices, report.zeros.1), (42, 4_718_592));
        // Weights that were zero before count too.
        let share = report.zeros.0 as f64 / report.zeros.1 as f64;
        assert!((0.5..0.52).contains(&share), "{}: {share}", method.name());
        found.push(divergence(&path));
    }
    println!("magnitude, wanda, sparsegpt: {found:?}");
    assert!(found[2] < found[1] && found[1] < found[0], "{found:?}");
    // Stored in 8 bits, zeros are still zeros.
    let eight = folder.join("eight.gguf");
    let mix = Mix::new(FileType::from_name("q8_0").unwrap());
    let options = QuantizeOptions { mix, method: Method::Rtn, threads: 1, range: None, key: String::new() };
    let gguf = Gguf::open(&path).unwrap();
    quantize_file(&gguf, &eight, &options, Knowledge::None, &mut |_| ()).unwrap();
    let half = |values: &[f32]| values.iter().filter(|v| **v == 0.0).count() * 2 >= values.len();
    assert!(zeros(&Gguf::open(&eight).unwrap(), &half));
    // And take no room in the format for them; what was not pruned stays in Q8_0, and answers are as near as those of Q8_0.
    let sparse = folder.join("sparse8.gguf");
    let options = |name: &str, pure| {
        let mut mix = Mix::new(FileType::from_name(name).unwrap());
        mix.pure = pure;
        QuantizeOptions { mix, method: Method::Rtn, threads: 1, range: None, key: String::new() }
    };
    let report =
        quantize_file(&gguf, &sparse, &options("sparse8", false), Knowledge::None, &mut |_| ()).unwrap();
    let count = |dtype| report.types.iter().find(|(found, _)| *found == dtype).map(|(_, count)| *count);
    assert_eq!(count(TensorType::SPARSE8), Some(42), "{:?}", report.types);
    assert!(zeros(&Gguf::open(&sparse).unwrap(), &half));
    let (sparse, eight) = (divergence(&sparse), divergence(&eight));
    assert!((sparse / eight - 1.0).abs() < 0.02, "{sparse}, as Q8_0 {eight}");
    // Asked for with dense tensors, it is refused by their name.
    let all = folder.join("all.gguf");
    let error =
        quantize_file(&gguf, &all, &options("sparse8", true), Knowledge::None, &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("tensor token_embd.weight: a block of 32 has"), "{error}");
    let error =
        quantize_file(&nano(), &all, &options("sparse4", false), Knowledge::None, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("tensor blk.0.") && error.to_string().contains("prune"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn factors_run_keep_their_budget_and_can_be_quantised() {
    let folder = folder("factors");
    let path = folder.join("model.gguf");
    let (source, calibration) = (nano(), windows(&nano(), &TEXT[..3000]));
    let mut before = 0.0;
    for ratio in [0.9, 0.7] {
        let options = FactorizeOptions { ratio, multiple: 32, threads: 2 };
        let report = factorize_file(&source, &path, options, &calibration, &mut |_, _| ()).unwrap();
        let (all, left) = report.parameters;
        assert!(
            left as f64 <= ratio * all as f64 && left as f64 > (ratio - 0.05) * all as f64,
            "{left} of {all}"
        );
        let gguf = Gguf::open(&path).unwrap();
        let stored =
            gguf.tensors().iter().filter(|info| info.name.starts_with("blk.") && info.shape.len() == 2);
        assert_eq!(stored.map(|info| info.element_count()).sum::<u64>(), left);
        for matrix in &report.matrices {
            let name = matrix.name.strip_suffix(".weight").unwrap();
            let first = gguf.tensor(&format!("{name}.first.weight"));
            assert_eq!(first.ok().map(|info| info.shape[1] as usize), matrix.rank, "{name}");
        }
        let found = divergence(&path);
        println!("{ratio}: divergence {found}");
        assert!(before < found && found < 2.0, "{ratio}: {found} after {before}");
        before = found;
        if ratio == 0.7 {
            let eight = folder.join("eight.gguf");
            for method in [Method::Rtn, Method::Gptq] {
                let mix = Mix::new(FileType::from_name("q8_0").unwrap());
                let options = QuantizeOptions { mix, method, threads: 1, range: None, key: String::new() };
                let knowledge = match method {
                    Method::Rtn => Knowledge::None,
                    _ => {
                        let model = ganglion_llm::Model::load(&gguf, common::one_thread()).unwrap();
                        let calibrator =
                            ganglion_compress::Calibrator::new(model, &windows(&gguf, &TEXT[..1500]));
                        Knowledge::Text(Box::new(calibrator.unwrap()))
                    }
                };
                let report = quantize_file(&gguf, &eight, &options, knowledge, &mut |_| ()).unwrap();
                let second = |name: &String| name.ends_with(".second.weight");
                assert_eq!(method == Method::Gptq, report.imatrix.keys().any(second));
                let rounded = divergence(&eight);
                assert!(
                    (rounded - found).abs() < 0.2 * found,
                    "{}: {rounded}, before {found}",
                    method.name()
                );
            }
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}
