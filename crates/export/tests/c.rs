//! The C file: the engine's logits bit for bit, on this machine and on emulated Cortex-M boards.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::folder::{Temporary, converted};
use common::stored::with_matrices;
use common::{factored, golden, greedy, nano, session, stories};
use ganglion_export::{COptions, CReport, write_c};
use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, exp};
use ganglion_llm::KvType;

/// What strict compilers are asked for; a warning is an error.
const STRICT: [&str; 14] = [
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wdouble-promotion",
    "-Wshadow",
    "-Wundef",
    "-Wcast-qual",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wimplicit-fallthrough",
    "-Werror",
];
const SANITISED: [&str; 4] =
    ["-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cortex_m").join(name)
}

fn exists(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

fn output(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command:?}\n{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// A model as C in a folder of its own, with the prompt that it is driven with.
struct Exported {
    folder: Temporary,
    report: CReport,
    prompt: Vec<u32>,
    steps: usize,
}

impl Exported {
    fn new(gguf: &Gguf, options: COptions, prompt: &[u32], steps: usize) -> Self {
        let folder = Temporary::new();
        let report = write_c(gguf, &folder.0.join("model.c"), options, &mut |_| ()).unwrap();
        Self { folder, report, prompt: prompt.to_vec(), steps }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// Compiles `names` from the folder and from the tests into one object each.
    fn compile(&self, compiler: &str, flags: &[&str], name: &Path, object: &str) -> PathBuf {
        let object = self.path(object);
        let prompt: Vec<_> = self.prompt.iter().map(|token| format!("{token}u")).collect();
        output(
            Command::new(compiler)
                .args(flags)
                .arg(format!("-I{}", self.folder.0.display()))
                .arg(format!("-DPROMPT={}", prompt.join(",")))
                .arg(format!("-DSTEPS={}", self.steps))
                .arg("-c")
                .arg(name)
                .arg("-o")
                .arg(&object),
        );
        object
    }

    fn on_host(&self, more: &[&str]) -> String {
        self.on_host_by("cc", more)
    }

    fn on_host_by(&self, compiler: &str, more: &[&str]) -> String {
        let drive = [source("drive.c"), source("host.c")];
        output(&mut Command::new(self.program(compiler, more, &drive)))
    }

    /// The model and other sources as a program of this machine.
    fn program(&self, compiler: &str, more: &[&str], others: &[PathBuf]) -> PathBuf {
        let flags: Vec<&str> = STRICT.iter().chain(more).copied().collect();
        let sources = [self.path("model.c")].into_iter().chain(others.iter().cloned());
        let objects: Vec<PathBuf> = sources
            .enumerate()
            .map(|(index, source)| self.compile(compiler, &flags, &source, &format!("{index}.o")))
            .collect();
        let program = self.path("program");
        output(Command::new(compiler).args(more).args(&objects).arg("-o").arg(&program));
        program
    }
}

/// What `drive.c` prints for the engine's tokens and logits.
fn expected(gguf: &Gguf, kv: KvType, prompt: &[u32], steps: usize) -> String {
    let hash = |logits: &[f32]| {
        logits.iter().flat_map(|logit| logit.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    greedy(&mut session(gguf, kv, prompt.len() + steps), prompt, steps)
        .iter()
        .map(|(token, logits)| format!("{token} {:x}\n", hash(logits)))
        .collect()
}

fn options(kv: KvType, context: usize) -> COptions {
    COptions { format: None, context_tokens: Some(context), kv }
}

/// Tokens that are no text: what matters is that both sides see the same.
fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13) % vocab) as u32).collect()
}

#[test]
fn every_supported_architecture_has_the_engines_bits() {
    if !exists("cc") {
        return;
    }
    let names = [
        "llama",
        "llama-bias",
        "llama-yarn",
        "mistral",
        "qwen2",
        "qwen3",
        "olmo2",
        "gemma2",
        "gemma3",
        "phi3",
        "phi3-longrope",
    ];
    for (index, name) in names.into_iter().enumerate() {
        for (format, kv) in [
            (BlockFormat::Q8_0, KvType::Int8),
            (BlockFormat::Q8_0, KvType::F32),
            (BlockFormat::Q4_0, KvType::Int8),
        ] {
            let gguf = converted(&golden(name), Some(format));
            let prompt = tokens(70, 96);
            let exported = Exported::new(&gguf, options(kv, 80), &prompt, 10);
            // The sanitisers once for each model; they take long to compile.
            let flags = if index % 3 == 0 { &SANITISED[..] } else { &["-O2"] };
            let found = exported.on_host(flags);
            assert_eq!(found, expected(&gguf, kv, &prompt, 10), "{name}, {}, {}", format.name(), kv.name());
        }
    }
}

#[test]
fn matrices_in_two_factors_have_the_engines_bits() {
    if !exists("cc") {
        return;
    }
    for (name, format) in
        [("qwen3", BlockFormat::Q8_0), ("mistral", BlockFormat::Q4_0), ("gemma3", BlockFormat::F32)]
    {
        let gguf = factored(&converted(&golden(name), Some(format)), format);
        let (prompt, kv) = (tokens(20, 96), KvType::Int8);
        let kept = (format == BlockFormat::F32).then_some(format);
        let exported = Exported::new(&gguf, COptions { format: kept, ..options(kv, 40) }, &prompt, 8);
        assert_eq!(exported.on_host(&SANITISED), expected(&gguf, kv, &prompt, 8), "{name}");
    }
}

/// A board of qemu-system-arm.
struct Board {
    name: &'static str,
    flags: &'static [&'static str],
    /// Lengths of the memories at 0 and 0x20000000, and where the constants go.
    memory: [&'static str; 3],
}

const BOARDS: [Board; 3] = [
    Board { name: "mps2-an385", flags: &["-mcpu=cortex-m3", "-mthumb"], memory: ["4M", "4M", "0x21000000"] },
    Board {
        name: "mps2-an500",
        flags: &["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
        memory: ["4M", "4M", "0x60000000"],
    },
    Board {
        name: "mps3-an547",
        flags: &["-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
        memory: ["512K", "512K", "0x60000000"],
    },
];

/// What a board did: what it printed, and how many instructions a token took.
struct Ran {
    text: String,
    instructions_per_token: u64,
    /// Code without constants, in bytes.
    code_bytes: u64,
    /// What the stack took at most, the test's own calls and its interrupt included.
    stack_bytes: u64,
}

impl Exported {
    fn on_board(&self, board: &Board) -> Ran {
        const COMPILER: &str = "arm-none-eabi-gcc";
        let own: Vec<&str> =
            STRICT.iter().chain(["-O2", "-ffunction-sections"].iter()).chain(board.flags).copied().collect();
        let plain: Vec<&str> = ["-std=gnu11", "-Wall", "-O2"].iter().chain(board.flags).copied().collect();
        let objects = [
            self.compile(COMPILER, &own, &self.path("model.c"), "model-arm.o"),
            self.compile(COMPILER, &own, &source("drive.c"), "drive-arm.o"),
            self.compile(COMPILER, &plain, &source("board.c"), "board-arm.o"),
        ];
        let program = self.path("program.elf");
        let [code, data, constants] = board.memory;
        let defined = |name: &str, value: &str| format!("-Wl,--defsym={name}={value}");
        output(
            Command::new(COMPILER)
                .args(board.flags)
                .args(["-nostartfiles", "-Wl,--gc-sections", "-Wl,--fatal-warnings"])
                .args([defined("CODE_BYTES", code), defined("DATA_BYTES", data)])
                .arg(defined("CONSTANTS_ORIGIN", constants))
                .arg("-T")
                .arg(source("board.ld"))
                .args(&objects)
                .arg("-o")
                .arg(&program),
        );
        let sizes = output(Command::new("arm-none-eabi-size").arg("-A").arg(&program));
        let code_bytes = sizes.lines().find(|line| line.starts_with(".text")).unwrap();
        let code_bytes = code_bytes.split_whitespace().nth(1).unwrap().parse().unwrap();
        // With `-icount shift=0` an instruction takes a nanosecond; the boards' SysTick counts 25 MHz.
        let printed = output(
            Command::new("qemu-system-arm")
                .args(["-M", board.name, "-display", "none", "-monitor", "none", "-serial", "none"])
                .args([
                    "-chardev",
                    "stdio,id=out",
                    "-semihosting-config",
                    "enable=on,target=native,chardev=out",
                ])
                .args(["-icount", "shift=0", "-kernel"])
                .arg(&program),
        );
        let (text, ticks) = printed.split_once("ticks ").unwrap_or_else(|| panic!("no end: {printed}"));
        let (ticks, stack_bytes) = ticks.trim().split_once(" stack ").unwrap();
        let (ticks, stack_bytes): (u64, u64) = (ticks.parse().unwrap(), stack_bytes.parse().unwrap());
        let instructions_per_token = ticks * 40 / self.steps as u64;
        Ran { text: text.to_owned(), instructions_per_token, code_bytes, stack_bytes }
    }
}

fn has_boards() -> bool {
    exists("arm-none-eabi-gcc") && exists("qemu-system-arm")
}

fn on_boards(name: &str, gguf: &Gguf, options: COptions, prompt: &[u32], steps: usize, boards: &[Board]) {
    let exported = Exported::new(gguf, options, prompt, steps);
    let expected = expected(gguf, options.kv, prompt, steps);
    for board in boards {
        let ran = exported.on_board(board);
        println!(
            "{name} on {}: {} bytes of constants, {} of code, {} of memory, {} of stack, {} instructions a token",
            board.name,
            exported.report.flash_bytes,
            ran.code_bytes,
            exported.report.ram_bytes,
            ran.stack_bytes,
            ran.instructions_per_token
        );
        assert_eq!(ran.text, expected, "{name} on {}", board.name);
        assert!((64..1024).contains(&ran.stack_bytes), "the header says less than 1 KiB");
    }
}

#[test]
fn boards_tell_the_engines_tokens() {
    if has_boards() {
        let gguf = converted(&golden("qwen3"), Some(BlockFormat::Q8_0));
        on_boards("qwen3", &gguf, options(KvType::Int8, 40), &tokens(20, 96), 12, &BOARDS);
    }
}

#[test]
fn a_story_is_told_on_boards() {
    if let Some(gguf) = stories().filter(|_| has_boards()) {
        on_boards("stories260k", &gguf, options(KvType::Int8, 64), &[1, 403, 407], 40, &BOARDS);
    }
}

/// Five and a half million weights: more than most boards have flash for, but not this one's.
#[test]
fn the_default_model_runs_on_a_board() {
    if has_boards() {
        let prompt = [1534, 277, 1354, 95, 456, 32, 333];
        on_boards("nano", &nano(), options(KvType::Int8, 64), &prompt, 8, &BOARDS[1..]);
    }
}

#[test]
fn what_has_no_code_is_refused_by_name() {
    let folder = Temporary::new();
    let path = folder.0.join("model.c");
    let refused = |name: &str, options| {
        let gguf = converted(&golden(name), Some(BlockFormat::F32));
        write_c(&gguf, &path, options, &mut |_| ()).unwrap_err().to_string()
    };
    for (name, what) in [
        ("olmoe", "a mixture of 8 experts"),
        ("gpt2", "LayerNorm"),
        ("gptneox", "LayerNorm"),
        ("phi2", "LayerNorm"),
        ("qwen2moe", "a mixture of"),
    ] {
        let error = refused(name, COptions::default());
        assert!(error.contains(what) && error.contains("a C file cannot hold"), "{name}: {error}");
    }
    let half = COptions { format: Some(BlockFormat::F16), ..COptions::default() };
    assert!(refused("llama", half).contains("Q8_0, Q4_0 or F32"));
    assert!(refused("llama", COptions { kv: KvType::F16, ..COptions::default() }).contains("int8 or f32"));
    assert!(
        refused("llama", COptions { context_tokens: Some(0), ..COptions::default() })
            .contains("context of 0")
    );
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "nothing is left behind");
}

/// Floats that are hard to round: near halves of the last place, in all magnitudes, subnormal ones too.
fn hard_floats() -> impl Iterator<Item = f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bits = (state >> 32) as u32;
        Some(match state % 4 {
            0 => f32::from_bits(bits),
            1 => f32::from_bits(bits & 0xff80_0003),
            2 => f32::from_bits(0x3f80_0000 | bits & 0x8000_0fff),
            _ => (bits as i32 >> 8) as f32,
        })
    })
    .filter(|value| value.is_finite())
}

#[test]
fn the_c_files_arithmetic_is_that_of_the_kernels() {
    if !exists("cc") {
        return;
    }
    let exported = Exported::new(
        &converted(&golden("llama"), Some(BlockFormat::Q8_0)),
        options(KvType::Int8, 8),
        &[1],
        1,
    );
    let mut flags: Vec<&str> = STRICT.iter().chain(&["-O2", "-Wno-unused-function"]).copied().collect();
    let mut floats = hard_floats();
    let mut next = || floats.next().unwrap();
    let (mut input, mut expected) = (String::new(), String::new());
    for _ in 0..200_000 {
        let [a, b, c] = [next(), next(), next()];
        // A third factor that nearly cancels the product is the hardest.
        let c = if c.to_bits().is_multiple_of(2) { c } else { -(a * b) * (1.0 + f32::EPSILON) };
        let root = if c.abs() < f32::MIN_POSITIVE { 1.0 } else { c.abs() };
        if !(a * b).is_finite() || !c.is_finite() {
            continue;
        }
        let exponent = a % 100.0;
        input.push_str(&format!(
            "{:x} {:x} {:x} {:x} {:x}\n",
            a.to_bits(),
            b.to_bits(),
            c.to_bits(),
            root.to_bits(),
            exponent.to_bits()
        ));
        let [fused, root, exponential] = [a.mul_add(b, c), root.sqrt(), exp(exponent)].map(f32::to_bits);
        expected.push_str(&format!("{fused:x} {root:x} {exponential:x}\n"));
    }
    exported.folder.write("input", &input);
    // By its own code, and by the processor's instruction where the compiler may use one.
    for way in ["-DGANGLION_SOFT_FMA", "-march=native"] {
        flags.push(way);
        let object = exported.compile("cc", &flags, &source("arithmetic.c"), "arithmetic.o");
        flags.pop();
        let program = exported.path("arithmetic");
        output(Command::new("cc").arg(&object).arg("-o").arg(&program));
        let input = std::fs::File::open(exported.path("input")).unwrap();
        let found = output(Command::new(program).stdin(input));
        let differs =
            found.lines().zip(expected.lines()).zip(input_lines(&exported)).find(|((a, b), _)| a != b);
        assert!(differs.is_none() && found.lines().count() == expected.lines().count(), "{way}: {differs:?}");
    }
}

fn input_lines(exported: &Exported) -> Vec<String> {
    std::fs::read_to_string(exported.path("input")).unwrap().lines().map(str::to_owned).collect()
}

/// What the header says of memory, and that nothing but two functions of the library is called.
#[test]
fn an_object_needs_what_its_header_says() {
    if !exists("arm-none-eabi-gcc") {
        return;
    }
    let gguf = converted(&golden("gemma2"), Some(BlockFormat::Q4_0));
    let exported = Exported::new(&gguf, options(KvType::Int8, 40), &[1], 1);
    for board in &BOARDS {
        let flags: Vec<&str> = STRICT.iter().chain(&["-O2"]).chain(board.flags).copied().collect();
        let object = exported.compile("arm-none-eabi-gcc", &flags, &exported.path("model.c"), "model.o");
        let undefined = output(Command::new("arm-none-eabi-nm").arg("-u").arg(&object));
        for name in undefined.split_whitespace().filter(|word| *word != "U") {
            // The compiler's own: floats where there is no unit for them, and division.
            let known = ["memcpy", "memset"].contains(&name) || name.starts_with("__aeabi_");
            assert!(known, "{name} on {}", board.name);
        }
        let sizes = output(Command::new("arm-none-eabi-size").arg("-A").arg(&object));
        let total = |section: &str| -> u64 {
            let rows = sizes.lines().filter(|line| line.starts_with(section));
            rows.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
        };
        let (data, bss, constants) = (total(".data"), total(".bss"), total(".rodata"));
        assert_eq!(data, 0, "on {}", board.name);
        // The position and whether there are logits.
        assert_eq!(bss, exported.report.ram_bytes + 8, "on {}", board.name);
        // Beside the arrays there are a few records that point to them.
        let flash = exported.report.flash_bytes;
        assert!((flash..flash + 1024).contains(&constants), "{constants} on {}", board.name);
    }
}

#[test]
fn other_compilers_find_the_same() {
    for (compiler, more) in [("clang", "-O2"), ("clang", "-Os"), ("cc", "-O3")] {
        if exists(compiler) {
            for (name, format) in [("qwen3", BlockFormat::Q8_0), ("gemma3", BlockFormat::Q4_0)] {
                let gguf = converted(&golden(name), Some(format));
                let prompt = tokens(20, 96);
                let exported = Exported::new(&gguf, options(KvType::Int8, 40), &prompt, 12);
                let found = exported.on_host_by(compiler, &[more]);
                assert_eq!(found, expected(&gguf, KvType::Int8, &prompt, 12), "{name} by {compiler} {more}");
            }
        }
    }
}

/// The program that the documentation shows, on its serial line.
#[test]
fn the_example_answers_with_the_engines_tokens() {
    if !exists("cc") {
        return;
    }
    let gguf = nano();
    let exported = Exported::new(&gguf, options(KvType::Int8, 64), &[1], 1);
    let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/microcontroller/main.c");
    let program = exported.program("cc", &["-O2"], &[main]);
    let (prefix, event) = ([1534, 277, 1354], [95, 456, 32, 333]);
    let whole: Vec<u32> = prefix.iter().chain(&event).copied().collect();
    let next = greedy(&mut session(&gguf, KvType::Int8, 64), &whole, 3);
    let allowed = [17u32, 300, 1200];
    let best =
        *allowed.iter().max_by(|a, b| next[0].1[**a as usize].total_cmp(&next[0].1[**b as usize])).unwrap();
    let listed = |ids: &[u32]| ids.iter().map(|id| format!(" {id}")).collect::<String>();
    let (prefix, event, allowed) = (listed(&prefix), listed(&event), listed(&allowed));
    let lines = format!(
        "prefix{prefix}\nevent{event}\nchoose{allowed}\nevent{event}\r\nnext\nnext\n\nnext\nevent x\nevent 1536\nwhat\nchoose\n"
    );
    exported.folder.write("lines", &lines);
    let found = output(Command::new(program).stdin(std::fs::File::open(exported.path("lines")).unwrap()));
    let [a, b, c] = [0, 1, 2].map(|index| next[index].0);
    let expected = [
        "ok 3",
        "ok 7",
        &format!("token {best}"),
        "ok 7",
        &format!("token {a}"),
        &format!("token {b}"),
        &format!("token {c}"),
        "error expected token ids",
        "error no such token",
        "error expected prefix, event, choose or next",
        "error nothing to choose by",
    ];
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

/// A header of another export would state other sizes.
#[test]
fn a_header_of_another_export_does_not_compile() {
    if !exists("cc") {
        return;
    }
    let gguf = converted(&golden("llama"), Some(BlockFormat::Q8_0));
    let [one, other] = [8, 9].map(|context| Exported::new(&gguf, options(KvType::Int8, context), &[1], 1));
    std::fs::copy(other.path("model.h"), one.path("model.h")).unwrap();
    let out = Command::new("cc")
        .args(["-std=c99", "-c"])
        .arg(one.path("model.c"))
        .arg("-o")
        .arg(one.path("o"))
        .output();
    let out = out.unwrap();
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("belong together"), "{text}");
}

/// What has the names already is replaced if it is of an earlier export, and left alone otherwise.
#[test]
fn nothing_of_others_is_written_over() {
    let gguf = converted(&golden("llama"), Some(BlockFormat::Q8_0));
    let export = |path: &Path| write_c(&gguf, path, COptions::default(), &mut |_| ());
    let folder = Temporary::new();
    let path = folder.0.join("main.c");
    export(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    export(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same again");
    folder.write("main.h", "/* mine */\n");
    let error = export(&path).unwrap_err().to_string();
    assert!(error.contains("main.h is there already"), "{error}");
    assert_eq!(std::fs::read(folder.0.join("main.h")).unwrap(), b"/* mine */\n");
    std::fs::create_dir(folder.0.join("folder.c")).unwrap();
    let error = export(&folder.0.join("folder.c")).unwrap_err().to_string();
    assert!(error.contains("folder.c"), "{error}");
    let error = export(&folder.0.join("none/model.c")).unwrap_err().to_string();
    assert!(error.contains("none/model.c.part"), "{error}");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["folder.c", "main.c", "main.h"]);
}

/// Other types become Q8_0, which is stated to be what rounding the file would give.
#[test]
fn other_types_become_eight_bits() {
    if !exists("cc") {
        return;
    }
    let prompt = tokens(20, 96);
    for format in [BlockFormat::F32, BlockFormat::F16, BlockFormat::Bf16] {
        let exported =
            Exported::new(&converted(&golden("qwen2"), Some(format)), options(KvType::Int8, 40), &prompt, 8);
        let rounded = converted(&golden("qwen2"), Some(BlockFormat::Q8_0));
        assert_eq!(
            exported.on_host(&["-O2"]),
            expected(&rounded, KvType::Int8, &prompt, 8),
            "{}",
            format.name()
        );
    }
    let plain = converted(&golden("qwen2"), Some(BlockFormat::F32));
    for format in [BlockFormat::I8_ROW, BlockFormat::F8_E4M3, BlockFormat::T3, BlockFormat::SPARSE4] {
        let gguf = with_matrices(&plain, format);
        let exported = Exported::new(&gguf, options(KvType::Int8, 40), &prompt, 8);
        let rounded = with_matrices(&gguf, BlockFormat::Q8_0);
        assert_eq!(
            exported.on_host(&["-O2"]),
            expected(&rounded, KvType::Int8, &prompt, 8),
            "{}",
            format.name()
        );
    }
}
