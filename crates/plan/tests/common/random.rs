//! Random sites and plans from a seed: every kind of effect, rule and limit, with and without a map.
#![allow(dead_code, reason = "each test binary uses a part")]

use ganglion_plan::{Start, Step};
use ganglion_site::plan::Span;
use ganglion_site::{ArgumentKind, Command, Site, Value};
use std::fmt::Write;
use std::sync::Arc;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub fn odds(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn inside(&mut self, span: Span) -> f64 {
        match self.below(6) {
            0 => span.lo,
            1 => span.hi,
            _ => (span.lo + (span.hi - span.lo) * self.part()).clamp(span.lo, span.hi),
        }
    }

    /// A multiple of 0.25.
    fn quarter(&mut self, lo: i64, hi: i64) -> f64 {
        (lo * 4 + (self.next() % ((hi - lo) * 4 + 1) as u64) as i64) as f64 / 4.0
    }

    fn span(&mut self, lo: i64, hi: i64) -> String {
        let (a, b) = (self.quarter(lo, hi), self.quarter(lo, hi));
        if self.odds(40) { format!("{a}") } else { format!("[{}, {}]", a.min(b), a.max(b)) }
    }
}

const NUMBERS: [&str; 4] = ["level", "heat", "charge", "load"];
const BOOLS: [&str; 2] = ["left_open", "right_open"];
const PLACES: usize = 5;

fn condition(random: &mut Random, terms: usize) -> String {
    let one = |random: &mut Random| match random.below(5) {
        0 => format!("{} == {}", BOOLS[random.below(2)], ["yes", "no"][random.below(2)]),
        1 => format!("{} <= {}", NUMBERS[random.below(4)], random.quarter(60, 100)),
        2 => format!("{} < {}", NUMBERS[random.below(4)], random.quarter(60, 100)),
        3 => format!("{} > {}", NUMBERS[random.below(4)], random.quarter(0, 35)),
        _ => format!("{} >= {}", NUMBERS[random.below(4)], random.quarter(0, 35)),
    };
    (0..terms).map(|_| one(random)).collect::<Vec<_>>().join(" and ")
}

fn number_condition(random: &mut Random) -> String {
    let name = NUMBERS[random.below(4)];
    match random.odds(50) {
        true => format!("{name} <= {}", random.quarter(70, 100)),
        false => format!("{name} >= {}", random.quarter(0, 25)),
    }
}

fn effects(random: &mut Random, moves: bool) -> String {
    let mut parts = Vec::new();
    for name in NUMBERS {
        if random.odds(60) {
            continue;
        }
        let until =
            if random.odds(30) { format!(", until = {}", random.quarter(30, 70)) } else { String::new() };
        parts.push(match random.below(6) {
            0 => format!("{{ tag = \"{name}\", set = {} }}", random.span(30, 70)),
            1 => format!("{{ tag = \"{name}\", add = {} }}", random.span(-10, 10)),
            2 => format!("{{ tag = \"{name}\", during = {} }}", random.span(20, 90)),
            3 => format!("{{ tag = \"{name}\", per_s = {}{until} }}", random.span(-1, 1)),
            4 if moves => format!("{{ tag = \"{name}\", per_m = {}{until} }}", random.span(-2, 2)),
            _ => format!("{{ tag = \"{name}\", per_min = {}{until} }}", random.span(-20, 20)),
        });
    }
    if random.odds(40) {
        parts.push(format!("{{ tag = \"{{side}}_open\", set = \"{}\" }}", ["yes", "no"][random.below(2)]));
    }
    parts.join(", ")
}

/// A site of this seed.
pub fn site(seed: u64) -> Arc<Site> {
    let mut random = Random(seed);
    let random = &mut random;
    let with_map = random.odds(60);
    let mut text =
        String::from("name = \"r\"\n[model]\npath = \"m\"\n[guard]\nsafe = { action = \"off\" }\n");
    for name in NUMBERS {
        let _ = writeln!(text, "[[tag]]\nname = \"{name}\"\nrange = [-1000, 1000]");
    }
    text += "[[tag]]\nname = \"place\"\nrange = [0, 100]\n";
    for name in BOOLS {
        let _ = writeln!(text, "[[tag]]\nname = \"{name}\"\nkind = \"bool\"");
    }
    text += "[[command]]\nname = \"off\"\n";
    let side = "{ name = \"side\", choices = [\"left\", \"right\"] }";
    for index in 0..3 + random.below(3) {
        let takes = match random.below(3) {
            0 => "\"seconds\"".to_string(),
            1 => format!("\"{} min\"", 1 + random.below(3)),
            _ => format!("[{}, {}]", 5 + random.below(20), 25 + random.below(60)),
        };
        let needs =
            if random.odds(25) { format!(", needs = \"{}\"", condition(random, 1)) } else { String::new() };
        let at = if with_map && random.odds(30) {
            format!(", at = \"p{}\"", random.below(PLACES))
        } else {
            String::new()
        };
        let seconds = "{ name = \"seconds\", integer = [0, 120], unit = \"s\" }";
        let _ = writeln!(
            text,
            "[[command]]\nname = \"do_{index}\"\narguments = [{side}, {seconds}]\n\
             plan = {{ takes = {takes}, effects = [{}]{needs}{at} }}",
            effects(random, false)
        );
        if random.odds(40) {
            let bound = ["rate_per_s = 0.5", "dwell_ms = 60000", "hi = 110", "lo = 5"][random.below(4)];
            let when = if random.odds(40) {
                format!("when = \"{}\"\n", condition(random, 1))
            } else {
                String::new()
            };
            let _ = writeln!(text, "[[limit]]\non = \"do_{index}.seconds\"\n{bound}\n{when}");
        }
    }
    if with_map {
        let places: Vec<String> = (0..PLACES).map(|place| format!("\"p{place}\"")).collect();
        let _ = writeln!(
            text,
            "[[command]]\nname = \"go\"\narguments = [{{ name = \"to\", choices = [{}] }}, {side}]\n\
             plan = {{ moves = \"to\", effects = [{}] }}",
            places.join(", "),
            effects(random, true)
        );
    }
    if random.odds(50) {
        let bound = ["hi = 90", "lo = 5", "hihi = 95", "lolo = 2", "lo = 1\nhi = 99\nmodes = [\"Held\"]"]
            [random.below(5)];
        let _ = writeln!(text, "[[limit]]\non = \"{}\"\n{bound}", NUMBERS[random.below(4)]);
    }
    text += "[plan]\n";
    if random.odds(50) {
        let _ = writeln!(text, "time_max = {}", 60 + random.below(900));
    }
    let always: Vec<String> =
        (0..random.below(3)).map(|_| format!("\"{}\"", number_condition(random))).collect();
    let never: Vec<String> = (0..random.below(2)).map(|_| format!("\"{}\"", condition(random, 2))).collect();
    let _ = writeln!(text, "always = [{}]\nnever = [{}]", always.join(", "), never.join(", "));
    if random.odds(40) {
        let _ = writeln!(text, "end = \"{}\"", number_condition(random));
    }
    if random.odds(50) {
        let _ = writeln!(
            text,
            "drift = [{{ tag = \"{}\", per_min = {} }}]",
            NUMBERS[random.below(4)],
            random.span(-2, 2)
        );
    }
    if with_map {
        map(random, &mut text);
    }
    Arc::new(Site::parse(&text, "site.toml".as_ref()).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

fn map(random: &mut Random, text: &mut String) {
    let mut places = Vec::new();
    for place in 0..PLACES {
        let avoid =
            if random.odds(25) { format!(", avoid = \"{}\"", condition(random, 1)) } else { String::new() };
        let (x, y) = (random.quarter(0, 10), place * 3);
        places.push(format!("{{ name = \"p{place}\", number = {}, at = [{x}, {y}]{avoid} }}", place * 2));
    }
    let mut roads = Vec::new();
    for a in 0..PLACES {
        for b in a + 1..PLACES {
            if random.odds(25) {
                continue;
            }
            let avoid = if random.odds(20) {
                format!(", avoid = \"{}\"", condition(random, 2))
            } else {
                String::new()
            };
            let length = if random.odds(30) { ", length = 20" } else { "" };
            roads.push(format!("{{ between = [\"p{a}\", \"p{b}\"]{length}{avoid} }}"));
        }
    }
    let slow = random.quarter(5, 20);
    let fast = slow + random.quarter(0, 20);
    let _ = writeln!(
        text,
        "[plan.map]\ntag = \"place\"\nm_per_min = [{slow}, {fast}]\nplaces = [{}]\nroads = [{}]",
        places.join(", "),
        roads.join(", ")
    );
}

/// Readings before a plan; now and then an interval, or nothing.
pub fn start(random: &mut Random, site: &Site) -> Start {
    let mut start = Start::UNKNOWN;
    for (index, tag) in site.tags.iter().enumerate() {
        let value = match tag.name.as_str() {
            "place" => (random.below(PLACES) * 2) as f64,
            name if BOOLS.contains(&name) => random.below(2) as f64,
            _ => random.quarter(35, 65),
        };
        start.set(index, value);
        if NUMBERS.contains(&tag.name.as_str()) && random.odds(20) {
            start.tags[index] = Some(Span { lo: value, hi: value + random.quarter(0, 5) });
        }
        if random.odds(1) {
            start.tags[index] = None;
        }
    }
    start
}

/// A plan of `count` steps that mostly goes where roads lead.
pub fn plan(random: &mut Random, site: &Site, start: &Start, count: usize) -> Vec<Step> {
    let map = site.plan.as_ref().and_then(|plan| plan.map.as_ref());
    let reading = map.and_then(|map| start.tags[map.tag]);
    let mut here = reading.and_then(|span| map?.place_of(span.lo)).unwrap_or(0);
    let mut steps = Vec::new();
    while steps.len() < count {
        let verb = 1 + random.below(site.commands.len() - 2);
        let spec = &site.commands[verb];
        let action = site.plan.as_ref().unwrap().actions[verb].as_ref().unwrap();
        let mut command = Command { verb: verb as u16, values: [Value::Absent; 8] };
        for (value, argument) in command.values.iter_mut().zip(&spec.arguments) {
            *value = match &argument.kind {
                ArgumentKind::Enum(choices) => Value::Choice(random.below(choices.len()) as u16),
                _ => Value::Integer([0, 10, 30, 60, 100, 120][random.below(6)]),
            };
        }
        let lost = random.odds(2);
        if action.at.as_ref().is_some_and(|at| at.of(&command) != Some(here)) && !lost {
            continue;
        }
        if let (Some(map), Some(moves)) = (map, &action.moves) {
            let to = moves.of(&command).unwrap();
            if to != here && map.road(here, to).is_none() && !lost {
                continue;
            }
            here = to;
        }
        let duration_s = random.odds(10).then(|| random.quarter(0, 200));
        steps.push(Step { command, duration_s });
    }
    steps
}
