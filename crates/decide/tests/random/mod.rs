//! Random sites, random events, and a random model small enough to decide a million of them.

// Each program that includes this uses some of it.
#![allow(dead_code)]

pub mod campaign;

use ganglion_gguf::{Gguf, GgufWriter, TensorType};
use ganglion_site::limits::SENTENCE_BYTES_MAX;
use ganglion_site::{Event, Sentence, Site};
use std::fmt::Write;
use std::path::Path;

/// Marsaglia's xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// From `lo` to `hi`, both included.
    pub fn between(&mut self, lo: i64, hi: i64) -> i64 {
        lo + self.below(hi.abs_diff(lo) + 1) as i64
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

const WORDS: [&str; 28] = [
    "set",
    "fan",
    "arm",
    "speed",
    "room",
    "hall",
    "kitchen",
    "dock",
    "gate",
    "left",
    "right",
    "x",
    "a1",
    "no",
    "on",
    "off",
    "mode",
    "grip",
    "zone",
    "north",
    "level",
    "valve",
    "pump",
    "temperature",
    "go",
    "zz",
    "7",
    "k-9",
];

/// A name that is not among `taken`, which it joins.
fn name(random: &mut Random, taken: &mut Vec<String>) -> String {
    loop {
        let parts = 1 + random.below(3);
        let joint = random.pick(&["_", "-", "."]);
        let parts: Vec<_> = (0..parts).map(|_| random.pick(&WORDS)).collect();
        let name = parts.join(joint);
        if !taken.contains(&name) {
            taken.push(name.clone());
            return name;
        }
    }
}

/// The text of a site file: commands of all kinds of arguments, tags, notes. Text arguments only where `with_text`.
fn site_text(random: &mut Random, with_text: bool) -> String {
    let mut out =
        format!("name = \"random\"\n[model]\npath = \"m.gguf\"\nparallel = {}\n", 1 + random.below(4));
    let mut taken = Vec::new();
    let tags: Vec<_> = (0..random.below(4)).map(|_| name(random, &mut taken)).collect();
    let shown: Vec<_> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
    let _ = writeln!(out, "[prompt]\ntags = [{}]", shown.join(", "));
    for tag in &tags {
        if random.one_in(3) {
            let _ = writeln!(out, "[[tag]]\nname = \"{tag}\"\nkind = \"bool\"\nread = {{ discrete = 0 }}");
        } else {
            let _ = writeln!(out, "[[tag]]\nname = \"{tag}\"\nrange = [-1000, 1000]\nread = {{ input = 0 }}");
        }
    }
    let mut verbs = vec!["none".to_owned(), "action".to_owned()];
    for _ in 0..1 + random.below(6) {
        let _ = writeln!(out, "[[command]]\nname = \"{}\"", name(random, &mut verbs));
        if random.one_in(2) {
            let _ = writeln!(out, "about = \"{} the {}\"", random.pick(&WORDS), random.pick(&WORDS));
        }
        let mut keys = vec!["action".to_owned()];
        let arguments: Vec<_> =
            (0..random.below(5)).map(|_| argument(random, &mut keys, with_text)).collect();
        let _ = writeln!(out, "arguments = [{}]", arguments.join(", "));
    }
    out
}

fn argument(random: &mut Random, keys: &mut Vec<String>, with_text: bool) -> String {
    let key = name(random, keys);
    let (kind, default) = match random.below(if with_text { 5 } else { 4 }) {
        0 => {
            let mut taken = Vec::new();
            let count = 1 + random.below(12);
            let choices: Vec<_> = (0..count).map(|_| format!("\"{}\"", name(random, &mut taken))).collect();
            (format!("choices = [{}]", choices.join(", ")), choices[0].clone())
        }
        1 => {
            let size = 10_i64.pow(random.below(7) as u32);
            let lo = random.between(-size, size);
            (format!("integer = [{lo}, {}]", lo + random.between(1, 2 * size)), lo.to_string())
        }
        2 => {
            let (step, decimals) =
                [(1.0, 0), (0.5, 1), (0.1, 1), (0.05, 2), (0.01, 2), (0.005, 3), (10.0, 0), (5.0, 0)]
                    [random.below(8) as usize];
            let lo = random.between(-400, 400);
            let hi = lo + random.between(1, 600);
            let (lo, hi) = (lo as f64 * step, hi as f64 * step);
            (
                format!("number = [{lo:.decimals$}, {hi:.decimals$}], step = {step}"),
                format!("{lo:.decimals$}"),
            )
        }
        3 => ("bool = true".into(), "false".into()),
        _ => (format!("text = {}", 1 + random.below(16)), "\"x\"".into()),
    };
    let default = if random.one_in(2) { format!(", default = {default}") } else { String::new() };
    format!("{{ name = \"{key}\", {kind}{default} }}")
}

/// A site that is valid. Not all that are drawn are: a name may end with a dot's neighbour, a range may be too fine.
pub fn site(random: &mut Random, with_text: bool) -> Site {
    for _ in 0..100 {
        if let Ok(site) = Site::parse(&site_text(random, with_text), Path::new("site.toml")) {
            return site;
        }
    }
    let text = site_text(random, with_text);
    let error = Site::parse(&text, Path::new("site.toml")).err();
    panic!("a hundred random sites are refused: {error:?}\n{text}")
}

/// Words, numbers, symbols and foreign letters; sometimes nothing, sometimes all that fits. With some of the tags.
pub fn event(random: &mut Random, site: &Site, epoch: u64) -> Event {
    let mut event = Event::new(epoch, u64::MAX);
    let mut text = String::new();
    let words = if random.one_in(50) { 200 } else { random.below(12) };
    for _ in 0..words {
        match random.below(8) {
            0 => text.push_str(&format!("{} ", random.between(-1000, 1000))),
            1 => text.push_str(&format!("{:.2} ", random.share() * 100.0)),
            2 => text.extend(char::from_u32(random.below(0x3000) as u32)),
            3 => text.push_str(random.pick(&[
                "{\"action\":\"",
                "}",
                "none",
                "do ",
                "say ",
                "\n",
                "<eos>",
                "真",
            ])),
            4 => {
                let command = &site.commands[random.below(site.commands.len() as u64) as usize];
                text.push_str(&command.name);
                text.push(' ');
            }
            _ => {
                text.push_str(random.pick(&WORDS));
                text.push(' ');
            }
        }
    }
    event.sentence = Sentence::cut(text.get(..SENTENCE_BYTES_MAX.min(text.len())).unwrap_or(&text));
    for tag in 0..site.tags.len() {
        if random.one_in(2) {
            event.set_tag(tag, random.between(-100_000, 100_000) as f64 / 100.0);
        }
    }
    event
}

/// Lengths of a random model.
#[derive(Clone, Copy)]
pub struct Shape {
    pub layers: u32,
    pub width: u32,
}

/// A Llama decoder of random weights with the default model's vocabulary and prompt form.
pub fn model(random: &mut Random, shape: Shape) -> Gguf {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/nano.gguf");
    let nano = Gguf::open(nano).unwrap();
    let (width, feed_forward) = (u64::from(shape.width), 2 * u64::from(shape.width));
    let vocabulary = nano.get_u32("llama.vocab_size").unwrap();
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", "llama").unwrap();
    for (key, value) in
        nano.metadata().filter(|(key, _)| key.starts_with("tokenizer.") || *key == "ganglion.prompt_form")
    {
        writer.metadata(key, value.clone()).unwrap();
    }
    for (key, value) in [
        ("context_length", 2048),
        ("embedding_length", shape.width),
        ("block_count", shape.layers),
        ("feed_forward_length", 2 * shape.width),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", shape.width / 2),
        ("vocab_size", vocabulary),
    ] {
        writer.metadata(format!("llama.{key}"), value).unwrap();
    }
    writer.metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32).unwrap();
    let mut matrix = |writer: &mut GgufWriter<'static>, name: &str, columns: u64, rows: u64, spread: f64| {
        let scale = spread / (columns as f64).sqrt();
        // A sum of uniform numbers is near enough to a normal one.
        let value =
            |random: &mut Random| ((0..3).map(|_| random.share() - 0.5).sum::<f64>() * 2.0 * scale) as f32;
        let bytes: Vec<u8> = (0..columns * rows).flat_map(|_| value(random).to_le_bytes()).collect();
        writer.tensor(format!("{name}.weight"), &[columns, rows], TensorType::F32, bytes).unwrap();
    };
    let norm = |writer: &mut GgufWriter<'static>, name: &str| {
        let bytes: Vec<u8> = (0..width).flat_map(|_| 1_f32.to_le_bytes()).collect();
        writer.tensor(format!("{name}.weight"), &[width], TensorType::F32, bytes).unwrap();
    };
    matrix(&mut writer, "token_embd", width, u64::from(vocabulary), 8.0);
    for layer in 0..shape.layers {
        let at = |name: &str| format!("blk.{layer}.{name}");
        norm(&mut writer, &at("attn_norm"));
        matrix(&mut writer, &at("attn_q"), width, width, 3.0);
        matrix(&mut writer, &at("attn_k"), width, width / 2, 3.0);
        matrix(&mut writer, &at("attn_v"), width, width / 2, 1.0);
        matrix(&mut writer, &at("attn_output"), width, width, 1.0);
        norm(&mut writer, &at("ffn_norm"));
        matrix(&mut writer, &at("ffn_gate"), width, feed_forward, 1.0);
        matrix(&mut writer, &at("ffn_up"), width, feed_forward, 1.0);
        matrix(&mut writer, &at("ffn_down"), feed_forward, width, 1.0);
    }
    norm(&mut writer, "output_norm");
    matrix(&mut writer, "output", width, u64::from(vocabulary), 3.0);
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Gguf::parse(bytes).unwrap()
}
