//! The optimiser on a tiny model: limits are kept, single choices are no better, an interrupted run goes on.

mod common;

use std::path::{Path, PathBuf};

use ganglion_compress::{
    Budget, CompressError, Device, FactorizeOptions, Goal, LayerTime, Method, OptimizeOptions,
    OptimizeReport, ProductTime, PruneOptions, Reshape, TokenWeight, Verdict, Windows, Workload,
    optimize_file,
};
use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Model, SessionOptions};

const FORMATS: [BlockFormat; 3] = [BlockFormat::Q8_0, BlockFormat::Q5_0, BlockFormat::Q4_0];
const WINDOW: usize = 16;

/// Two layers, F32.
fn source() -> Gguf {
    Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/golden/tiny-f32.gguf")).unwrap()
}

/// Tokens without a pattern.
fn windows(count: usize, seed: u32) -> Windows {
    let tokens = (0..(count * WINDOW) as u32).map(|i| (i * 37 + seed * 11 + i * i % 7) % 64);
    Windows::of_tokens(tokens.collect(), WINDOW, 1).unwrap()
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ganglion-optimize-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A device on which every weight takes as long as it has bits.
fn device() -> Device {
    let formats = [
        BlockFormat::F32,
        BlockFormat::Q8_0,
        BlockFormat::Q5_0,
        BlockFormat::Q4_0,
        BlockFormat::T4,
        BlockFormat::T3,
    ];
    let time = |format: BlockFormat| {
        let (rows, columns, tokens, from_memory) = (32, 32, 1, false);
        let ns = f64::from(format.bits_per_weight()) * 100.0;
        ProductTime { format, rows, columns, tokens, from_memory, ns }
    };
    Device {
        threads: 1,
        available_bytes: 1 << 30,
        cache_bytes: 1 << 30,
        int8_macs_per_s: 1e9,
        products: formats.map(time).to_vec(),
        layers: vec![LayerTime { embedding_length: 32, tokens: 1, ns: 40_000.0 }],
        ..Device::default()
    }
}

fn options(budget: Budget, goal: Goal) -> OptimizeOptions {
    let workload = Workload { context_tokens: 64, prompt_tokens: 8, answer_tokens: 4 };
    OptimizeOptions {
        formats: FORMATS.to_vec(),
        method: Method::Imatrix,
        budget,
        goal,
        workload,
        weights: TokenWeight::Equal,
        reshapes: Vec::new(),
        swaps: 4,
        threads: 1,
        key: String::new(),
    }
}

const NO_LIMIT: Budget = Budget { size_bytes: None, memory_bytes: u64::MAX, latency_ns: None };

fn optimized(path: &Path, options: &OptimizeOptions) -> Result<OptimizeReport, CompressError> {
    let texts = (&windows(12, 1), windows(6, 2));
    optimize_file(&source(), path, options, &device(), texts, &mut |_| ())
}

#[test]
fn limits_are_kept_and_the_report_is_about_the_file() {
    let folder = folder("limits");
    let path = folder.join("out.gguf");
    let size = source().bytes().len() as u64;
    let pruning = PruneOptions { layers: 1, ..PruneOptions::default() };
    let budget = Budget { size_bytes: Some(size / 4), latency_ns: Some(2e6), ..NO_LIMIT };
    let reshapes = vec![Reshape::Prune(pruning)];
    let options = OptimizeOptions { reshapes, ..options(budget, Goal::Divergence) };
    let report = optimized(&path, &options).unwrap();
    let written = Gguf::open(&path).unwrap();
    assert_eq!(report.size_bytes, (size, written.bytes().len() as u64));
    assert!(report.size_bytes.1 <= size / 4, "{:?}", report.size_bytes);
    assert!(
        report.latency_ns.1 <= 2e6 && report.latency_ns.1 < report.latency_ns.0,
        "{:?}",
        report.latency_ns
    );
    let plan = Model::memory_plan(written.header(), &SessionOptions::new(64), 1).unwrap().total_bytes();
    assert_eq!(report.memory_bytes.1, plan);
    for tensor in &report.tensors {
        assert_eq!(written.tensor(&tensor.tensor).unwrap().dtype.name(), tensor.chosen.format.name());
        assert!(tensor.sensitivity.is_some() || tensor.chosen.format == tensor.source);
    }
    assert_eq!(report.tensors.len(), 16);
    let mut formats: Vec<_> = report.tensors.iter().map(|tensor| tensor.chosen.format.name()).collect();
    formats.sort_unstable();
    formats.dedup();
    assert!(formats.len() > 1, "one type for all: {formats:?}");
    assert_eq!(report.reshapes.len(), 1);
    assert_eq!(report.reshapes[0].verdict, Verdict::CostsTooMuch);
    assert!(report.reshapes[0].kl.unwrap() > report.kl, "{:?}", report.reshapes);
    assert!(report.front.windows(2).all(|pair| pair[0].kl_predicted > pair[1].kl_predicted));
    assert!(report.kl > 0.0 && report.kl.is_finite());
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["out.gguf"]);

    // A wider limit comes nearer, and a limit on time alone is kept too.
    let wide = Budget { size_bytes: Some(size / 2), ..NO_LIMIT };
    let nearer = optimized(&path, &self::options(wide, Goal::Divergence)).unwrap();
    assert!(nearer.kl < report.kl, "{} {}", nearer.kl, report.kl);
    let quick = Budget { latency_ns: Some(report.latency_ns.1), ..NO_LIMIT };
    let quick = optimized(&path, &self::options(quick, Goal::Divergence)).unwrap();
    assert!(quick.latency_ns.1 <= report.latency_ns.1);

    // Without one, a type that makes an answer much slower is not taken.
    let mut device = device();
    device.products.iter_mut().filter(|p| p.format == BlockFormat::Q5_0).for_each(|p| p.ns *= 1e4);
    let options = self::options(budget, Goal::Divergence);
    let options = OptimizeOptions { budget: Budget { latency_ns: None, ..options.budget }, ..options };
    let texts = (&windows(12, 1), windows(6, 2));
    let report = optimize_file(&source(), &path, &options, &device, texts, &mut |_| ()).unwrap();
    assert_eq!(report.latency_limit_ns, 1.5 * report.latency_ns.0);
    assert!(report.tensors.iter().all(|tensor| tensor.chosen.format != BlockFormat::Q5_0));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_wanted_divergence_gives_the_smallest_file_and_an_impossible_one_says_how_near_it_came() {
    let folder = folder("kl");
    let path = folder.join("out.gguf");
    let size = source().bytes().len() as u64;
    let all = |format: BlockFormat| {
        let options = OptimizeOptions { formats: vec![format], ..options(NO_LIMIT, Goal::Divergence) };
        let least = Budget { size_bytes: Some(size / 3), ..NO_LIMIT };
        optimized(&path, &OptimizeOptions { budget: least, ..options })
    };
    let eight = all(BlockFormat::Q8_0).unwrap();
    let loose = Goal::Size { kl_max: eight.kl * 20.0 };
    let report = optimized(&path, &options(NO_LIMIT, loose)).unwrap();
    assert!(report.kl <= eight.kl * 20.0, "{} {}", report.kl, eight.kl);
    assert!(report.size_bytes.1 < eight.size_bytes.1, "{:?} {:?}", report.size_bytes, eight.size_bytes);

    std::fs::remove_file(&path).unwrap();
    let (budget, nothing) = (Budget { size_bytes: Some(size / 4), ..NO_LIMIT }, Goal::Size { kl_max: 1e-9 });
    let refused = optimized(&path, &options(budget, nothing)).unwrap_err().to_string();
    assert!(refused.contains("--max-kl") && refused.contains("nats"), "{refused}");
    let tiny = Budget { size_bytes: Some(1000), ..NO_LIMIT };
    let refused = optimized(&path, &options(tiny, Goal::Divergence)).unwrap_err().to_string();
    assert!(refused.contains("--size allows 0.00"), "{refused}");
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_interrupted_search_goes_on_and_finds_the_same() {
    let folder = folder("resume");
    let (whole, resumed) = (folder.join("whole.gguf"), folder.join("resumed.gguf"));
    let budget = Budget { size_bytes: Some(source().bytes().len() as u64 / 4), ..NO_LIMIT };
    let options = options(budget, Goal::Divergence);
    let expected = optimized(&whole, &options).unwrap();
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let texts = (&windows(12, 1), windows(6, 2));
        optimize_file(&source(), &resumed, &options, &device(), texts, &mut |stage| {
            assert!(stage.name != "divergence of each choice" || stage.done < 30, "the power fails");
        })
    }));
    assert!(stopped.is_err() && !resumed.exists());
    let journal = std::fs::read_to_string(folder.join("resumed.gguf.optimize/journal")).unwrap();
    assert!(journal.lines().filter(|line| line.starts_with("divergence")).count() > 10);
    let found = optimized(&resumed, &options).unwrap();
    assert_eq!(found, expected);
    assert!(std::fs::read(&whole).unwrap() == std::fs::read(&resumed).unwrap(), "the files differ");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn another_shape_is_taken_where_types_alone_do_not_meet_the_limits() {
    let folder = folder("shape");
    let path = folder.join("out.gguf");
    let size = source().bytes().len() as u64;
    let factors = |ratio| Reshape::Factorize(FactorizeOptions { ratio, multiple: 4, threads: 1 });
    let impossible = Reshape::Prune(PruneOptions { layers: 2, ..PruneOptions::default() });
    let budget = Budget { size_bytes: Some(size - 2000), ..NO_LIMIT };
    let options = OptimizeOptions {
        formats: Vec::new(),
        reshapes: vec![impossible, factors(0.5), factors(0.25)],
        ..options(budget, Goal::Divergence)
    };
    let report = optimized(&path, &options).unwrap();
    let verdicts: Vec<_> = report.reshapes.iter().map(|reshape| reshape.verdict.clone()).collect();
    assert!(matches!(&verdicts[0], Verdict::Impossible(reason) if reason.contains("layer")), "{verdicts:?}");
    assert_eq!(verdicts[1..], [Verdict::Taken, Verdict::CostsTooMuch]);
    assert_eq!(report.reshapes[1].name, "factors=0.5");
    assert!(report.size_bytes.1 <= size - 2000 && report.kl > 0.0);
    assert!(Gguf::open(&path).unwrap().tensor("blk.0.ffn_up.first.weight").is_ok());

    // Where types do meet them, what a shape alone costs shows that it is of no use.
    let goal = Goal::Size { kl_max: report.kl * 1.05 };
    let options = OptimizeOptions { formats: FORMATS.to_vec(), budget: NO_LIMIT, goal, ..options };
    let report = optimized(&path, &options).unwrap();
    assert_eq!(report.reshapes[1].verdict, Verdict::NoHope);
    assert_eq!(report.reshapes[1].found, None);
    assert!(report.size_bytes.1 < size / 3, "{:?}", report.size_bytes);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn types_of_our_own_are_chosen_where_they_lose_less() {
    let folder = folder("own");
    let path = folder.join("out.gguf");
    // No room for four bits and a half a weight.
    let fits = |formats: &[BlockFormat], size| {
        let budget = Budget { size_bytes: Some(size), ..NO_LIMIT };
        let options = OptimizeOptions { formats: formats.to_vec(), ..options(budget, Goal::Divergence) };
        optimized(&path, &OptimizeOptions { method: Method::Gptq, ..options })
    };
    let least = fits(&[BlockFormat::Q4_0], source().bytes().len() as u64 / 3).unwrap().front[0].size_bytes;
    let wanted = least - 500;
    assert!(matches!(fits(&[BlockFormat::Q4_0], wanted), Err(CompressError::Budget { .. })));
    let report =
        fits(&[BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::T4, BlockFormat::T3], wanted).unwrap();
    assert!(report.size_bytes.1 <= wanted, "{:?}", report.size_bytes);
    let own = |format| report.tensors.iter().any(|tensor| tensor.chosen.format == format);
    assert!(own(BlockFormat::T4) || own(BlockFormat::T3), "{:?}", report.tensors);
    // Looking up one row would take as long as turning back all rows that it was rotated with.
    let embedding = report.tensors.iter().find(|tensor| tensor.tensor == "token_embd.weight").unwrap();
    let tried = embedding.others.iter().chain([&embedding.chosen]);
    assert!(tried.into_iter().all(|tried| tried.format.trellis_bits().is_none()), "{embedding:?}");
    let written = Gguf::open(&path).unwrap();
    for tensor in &report.tensors {
        assert_eq!(written.tensor(&tensor.tensor).unwrap().dtype.name(), tensor.chosen.format.name());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tokens_can_count_by_how_probable_the_source_finds_them() {
    let folder = folder("weights");
    let path = folder.join("out.gguf");
    let budget = Budget { size_bytes: Some(source().bytes().len() as u64 / 4), ..NO_LIMIT };
    let equal = options(budget, Goal::Divergence);
    let believed = OptimizeOptions { weights: TokenWeight::Believed, ..equal.clone() };
    let all = optimized(&path, &equal).unwrap();
    // Six windows, of which the second half is scored.
    assert_eq!((all.counted_tokens, all.kl_mean), (6.0 * 7.0, all.kl));
    let some = optimized(&path, &believed).unwrap();
    assert!(some.counted_tokens > 0.0 && some.counted_tokens < 42.0 / 4.0, "{}", some.counted_tokens);

    // Both means are what `measure` finds.
    let found = common::divergence_from(&source(), &Gguf::open(&path).unwrap(), &windows(6, 2));
    assert!((some.kl_mean / found.kl_mean - 1.0).abs() < 0.02, "{} {}", some.kl_mean, found.kl_mean);
    assert!((some.kl / found.kl_weighted - 1.0).abs() < 0.05, "{} {}", some.kl, found.kl_weighted);
    assert!((found.kl_mean / found.kl_weighted - 1.0).abs() > 0.05, "nothing is weighted: {found:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_source_that_meets_every_limit_is_not_searched() {
    let folder = folder("unchanged");
    let path = folder.join("out.gguf");
    let found = optimized(&path, &options(NO_LIMIT, Goal::Divergence));
    assert!(matches!(found, Err(CompressError::Unchanged)), "{found:?}");
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_profile_without_the_sources_type_is_refused_by_it() {
    let folder = folder("profile");
    let path = folder.join("out.gguf");
    let mut device = device();
    device.products.remove(0);
    let (options, texts) = (options(NO_LIMIT, Goal::Divergence), (&windows(12, 1), windows(6, 2)));
    let found = optimize_file(&source(), &path, &options, &device, texts, &mut |_| ());
    let refused = found.unwrap_err().to_string();
    assert!(refused.contains("F32") && refused.contains("bench device"), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}
