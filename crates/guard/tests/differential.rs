//! The limit checker against a second one, written apart from it and as plainly as possible: random sites, random
//! commands, random histories of readings. The model keeps every reading and every command it ever saw and looks them
//! all up again each time; it shares neither tables nor code with the guard, and not even the site's parsed form.

mod common;
use common::*;
use ganglion_guard::*;
use std::fmt::Write as _;

const SITES: u64 = 150;
const ASKS: usize = 120;
const CYCLE_MS: u64 = 10;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
struct Compare {
    tag: usize,
    op: &'static str,
    value: f64,
}

#[derive(Clone)]
enum Over {
    Now,
    For(u64),
    Within(u64),
    Since(Compare),
}

#[derive(Clone)]
struct Term {
    compare: Compare,
    over: Over,
}

/// A limit on one of the two number arguments.
#[derive(Clone)]
struct Limit {
    argument: usize,
    lo: Option<f64>,
    hi: Option<f64>,
    rate: Option<f64>,
    dwell_ms: Option<u64>,
    when: Vec<Term>,
    clamp: bool,
}

/// `act` has a choice that selects the register, a number in steps of `step`, and a whole number.
struct Spec {
    step: f64,
    scale: f64,
    limits: Vec<Limit>,
}

const TAGS: [&str; 3] = ["flag", "heat", "flow"];
const ROOMS: [&str; 2] = ["a", "b"];

impl Compare {
    fn random(random: &mut Random) -> Self {
        let tag = random.below(3) as usize;
        if tag == 0 {
            let op = if random.one_in(2) { "==" } else { "!=" };
            return Self { tag, op, value: random.below(2) as f64 };
        }
        let op = ["<", "<=", ">", ">=", "==", "!="][random.below(6) as usize];
        Self { tag, op, value: random.below(11) as f64 }
    }

    fn text(&self) -> String {
        let value = match (self.tag, self.value == 0.0) {
            (0, true) => "no".to_string(),
            (0, false) => "yes".to_string(),
            _ => self.value.to_string(),
        };
        format!("{} {} {value}", TAGS[self.tag], self.op)
    }

    fn of(&self, reading: Option<f64>) -> Option<bool> {
        let reading = reading?;
        Some(match self.op {
            "<" => reading < self.value,
            "<=" => reading <= self.value,
            ">" => reading > self.value,
            ">=" => reading >= self.value,
            "==" => reading == self.value,
            _ => reading != self.value,
        })
    }
}

impl Term {
    fn random(random: &mut Random) -> Self {
        let compare = Compare::random(random);
        let over = match random.below(6) {
            0 => Over::For((1 + random.below(20)) * 5),
            1 => Over::Within((1 + random.below(20)) * 5),
            2 => Over::Since(Compare::random(random)),
            _ => Over::Now,
        };
        Self { compare, over }
    }

    fn text(&self) -> String {
        let compare = self.compare.text();
        match &self.over {
            Over::Now => compare,
            Over::For(ms) => format!("{compare} for {ms} ms"),
            Over::Within(ms) => format!("{compare} within {ms} ms"),
            Over::Since(other) => format!("{compare} since {}", other.text()),
        }
    }

    /// By looking at every cycle from the latest backwards. `None`: a tag cannot be read now.
    fn holds(&self, history: &[(u64, Vec<Option<f64>>)]) -> Option<bool> {
        let (now, latest) = history.last().unwrap();
        let here = self.compare.of(latest[self.compare.tag])?;
        let at = |row: &Vec<Option<f64>>| self.compare.of(row[self.compare.tag]) == Some(true);
        match &self.over {
            Over::Now => Some(here),
            Over::For(ms) => {
                let unbroken: Vec<_> = history.iter().rev().take_while(|(_, row)| at(row)).collect();
                Some(unbroken.last().is_some_and(|(first, _)| now - first >= *ms))
            }
            Over::Within(ms) => Some(history.iter().any(|(time, row)| at(row) && now - time <= *ms)),
            Over::Since(other) => {
                other.of(latest[other.tag])?;
                for (_, row) in history.iter().rev() {
                    let (held, began) = (self.compare.of(row[self.compare.tag]), other.of(row[other.tag]));
                    match (held, began) {
                        (None, _) | (_, None) => return Some(false),
                        (_, Some(true)) => return Some(true),
                        (Some(false), _) => return Some(false),
                        (Some(true), Some(false)) => {}
                    }
                }
                Some(false)
            }
        }
    }
}

impl Spec {
    fn random(random: &mut Random) -> Self {
        let step = [0.5, 1.0, 0.1][random.below(3) as usize];
        let scale = [0.1, 0.01, 1.0, 0.3][random.below(4) as usize];
        let limits = (0..1 + random.below(5)).map(|_| Self::limit(random)).collect();
        Self { step, scale, limits }
    }

    fn limit(random: &mut Random) -> Limit {
        let lo = random.one_in(2).then(|| random.below(8) as f64);
        let hi = random.one_in(2).then(|| (9 + random.below(12)) as f64);
        let rate = random.one_in(3).then(|| (1 + random.below(60)) as f64);
        let none_yet = lo.is_none() && hi.is_none() && rate.is_none();
        let dwell_ms = (none_yet || random.one_in(5)).then(|| 20 + random.below(20) * 10);
        let count = if random.one_in(2) { 0 } else { 1 + random.below(2) };
        let when = (0..count).map(|_| Term::random(random)).collect();
        let argument = 1 + random.below(2) as usize;
        Limit { argument, lo, hi, rate, dwell_ms, when, clamp: random.one_in(2) }
    }

    fn text(&self) -> String {
        let mut text = SITE.split("[prompt]").next().unwrap().to_string();
        for (name, kind) in TAGS.iter().zip(["kind = \"bool\"", "range = [0, 10]", "range = [0, 10]"]) {
            write!(text, "[[tag]]\nname = \"{name}\"\n{kind}\nstale_ms = 100\n").unwrap();
        }
        let (step, scale) = (self.step, self.scale);
        write!(
            text,
            "[[command]]\nname = \"act\"\nabout = \"act\"\narguments = [\n{{ name = \"room\", choices = [\"a\", \"b\"] }},\n\
             {{ name = \"amount\", number = [0, 20], step = {step} }},\n{{ name = \"count\", integer = [0, 20] }}]\n\
             writes = [{{ holding = 0, select = \"room\", value = \"amount\", scale = {scale} }}, \
             {{ holding = 5, value = \"count\" }}]\n\
             [[command]]\nname = \"all_off\"\nabout = \"off\"\nwrites = [{{ holding = 10, constant = 0 }}]\n"
        )
        .unwrap();
        for limit in &self.limits {
            let name = ["", "amount", "count"][limit.argument];
            write!(text, "[[limit]]\non = \"act.{name}\"\n").unwrap();
            let bounds = [("lo", limit.lo), ("hi", limit.hi), ("rate_per_s", limit.rate)];
            for (key, value) in bounds.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
                writeln!(text, "{key} = {value}").unwrap();
            }
            if let Some(ms) = limit.dwell_ms {
                writeln!(text, "dwell_ms = {ms}").unwrap();
            }
            if !limit.when.is_empty() {
                let terms: Vec<String> = limit.when.iter().map(Term::text).collect();
                writeln!(text, "when = \"{}\"", terms.join(" and ")).unwrap();
            }
            if limit.clamp {
                writeln!(text, "do = \"clamp\"").unwrap();
            }
        }
        text
    }
}

/// What the model says of a command.
#[derive(Debug, Clone, PartialEq)]
enum Expected {
    Reject,
    /// The values sent.
    Send(f64, i64),
}

struct Model<'a> {
    spec: &'a Spec,
    history: Vec<(u64, Vec<Option<f64>>)>,
    /// (time in ms, room, amount as the register has it, count).
    sent: Vec<(u64, usize, f64, f64)>,
}

impl Model<'_> {
    /// As the device reads it.
    fn encoded(&self, argument: usize, value: f64) -> f64 {
        if argument == 1 { (value / self.spec.scale).round() * self.spec.scale } else { value }
    }

    /// Values of one argument that were sent, newest first, with their times.
    fn past(&self, argument: usize, room: usize) -> Vec<(u64, f64)> {
        let of = |s: &(u64, usize, f64, f64)| (s.0, if argument == 1 { s.2 } else { s.3 });
        // The room selects the register of the amount; the count has one for all.
        self.sent.iter().rev().filter(|s| argument == 2 || s.1 == room).map(of).collect()
    }

    /// Whether each limit holds now; `None` = it cannot be told.
    fn in_force(&self, limit: &Limit) -> Option<bool> {
        let truths: Vec<Option<bool>> = limit.when.iter().map(|term| term.holds(&self.history)).collect();
        if truths.contains(&Some(false)) {
            return Some(false);
        }
        if truths.contains(&None) { None } else { Some(true) }
    }

    /// Lowest and highest value that `limit` leaves.
    fn bounds(&self, limit: &Limit, room: usize) -> (f64, f64) {
        let now = self.history.last().unwrap().0;
        let (mut lo, mut hi) = (limit.lo.unwrap_or(f64::NEG_INFINITY), limit.hi.unwrap_or(f64::INFINITY));
        let past = self.past(limit.argument, room);
        let Some((time, last)) = past.first().copied() else { return (lo, hi) };
        if let Some(rate) = limit.rate {
            let reach = rate * (now - time) as f64 / 1000.0;
            (lo, hi) = (lo.max(last - reach), hi.min(last + reach));
        }
        if let Some(dwell_ms) = limit.dwell_ms {
            let same = past.iter().take_while(|(_, value)| close(*value, last));
            let (since, _) = same.last().unwrap();
            if now - since < dwell_ms {
                (lo, hi) = (lo.max(last), hi.min(last));
            }
        }
        (lo, hi)
    }

    fn judge(&self, room: usize, amount: f64, count: i64) -> Expected {
        if self.spec.limits.iter().any(|limit| self.in_force(limit).is_none()) {
            return Expected::Reject;
        }
        let limits: Vec<&Limit> =
            self.spec.limits.iter().filter(|limit| self.in_force(limit) == Some(true)).collect();
        let mut values = [amount, count as f64];
        for argument in 1..=2 {
            let step = if argument == 1 { self.spec.step } else { 1.0 };
            let of = || limits.iter().filter(|limit| limit.argument == argument);
            let value = values[argument - 1];
            let broken: Vec<_> = of().filter(|l| !inside(value, self.bounds(l, room))).collect();
            if broken.iter().any(|limit| !limit.clamp) {
                return Expected::Reject;
            }
            let all = of().map(|l| self.bounds(l, room)).chain([(0.0, 20.0)]);
            let all = all.fold((f64::NEG_INFINITY, f64::INFINITY), |a, b| (a.0.max(b.0), a.1.min(b.1)));
            if !broken.is_empty() {
                // Of all values of the grid, the allowed one that is nearest.
                let grid = (0..=400).map(|i| f64::from(i) * step).filter(|v| *v <= 20.0 + 1e-9);
                let allowed = grid.filter(|v| inside(*v, all));
                let Some(best) = allowed.min_by(|a, b| (a - value).abs().total_cmp(&(b - value).abs()))
                else {
                    return Expected::Reject;
                };
                values[argument - 1] = best;
            }
            // What the device will understand lies inside, too.
            if !inside(self.encoded(argument, values[argument - 1]), all) {
                return Expected::Reject;
            }
        }
        Expected::Send(values[0], values[1] as i64)
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-7
}

fn inside(value: f64, (lo, hi): (f64, f64)) -> bool {
    value >= lo - 1e-7 && value <= hi + 1e-7
}

#[test]
fn the_limit_checker_agrees_with_an_independent_model() {
    let (mut rejected, mut sent, mut moved) = (0, 0, 0);
    for seed in 0..SITES {
        let mut random = Random(seed);
        let spec = Spec::random(&mut random);
        let text = spec.text();
        let mut bench = Bench::of(parse(&text), &[0.0, 5.0, 5.0]);
        let mut model = Model { spec: &spec, history: Vec::new(), sent: Vec::new() };
        let step = |bench: &mut Bench, model: &mut Model<'_>, random: &mut Random, with: Step| {
            if random.one_in(3) {
                let tag = random.below(3) as usize;
                let value = if tag == 0 { random.below(2) } else { random.below(11) } as f64;
                bench.values[tag] = if random.one_in(12) { f64::NAN } else { value };
            }
            let readings = bench.values.iter().map(|v| v.is_finite().then_some(*v)).collect();
            model.history.push((bench.ms + CYCLE_MS, readings));
            match with {
                Step::Operator(command) => bench.go(None, &[decision(0, None)], command),
                Step::Ask => bench.go(Some(request(1, "act")), &[], None),
                Step::Answer(decision) => bench.go(None, &[*decision], None),
            }
        };
        for operator in [Some(OperatorCommand::Reset), Some(OperatorCommand::Start), None] {
            step(&mut bench, &mut model, &mut random, Step::Operator(operator));
        }
        assert_eq!(bench.guard.status().mode, Mode::Execute);
        for _ in 0..ASKS {
            for _ in 0..random.below(4) {
                step(&mut bench, &mut model, &mut random, Step::Operator(None));
            }
            let event = step(&mut bench, &mut model, &mut random, Step::Ask).event;
            let epoch = event.expect("no tag is needed to ask").epoch;
            let (room, count) = (random.below(2) as usize, random.below(21) as i64);
            let places = (20.0 / spec.step).round() as u64 + 1;
            let amount = random.below(places) as f64 * spec.step;
            let json = format!(
                r#"{{"action":"act","room":"{}","amount":{amount:.1},"count":{count}}}"#,
                ROOMS[room]
            );
            let answer = decision(epoch, Some(command(&bench.site, &json)));
            let got = step(&mut bench, &mut model, &mut random, Step::Answer(Box::new(answer)));
            let expected = model.judge(room, amount, count);
            let record = got.decisions()[0];
            let found = match bench.json(&got) {
                None => Expected::Reject,
                Some(json) => {
                    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                    Expected::Send(json["amount"].as_f64().unwrap(), json["count"].as_i64().unwrap())
                }
            };
            let agree = match (&expected, &found) {
                (Expected::Reject, Expected::Reject) => true,
                (Expected::Send(a, i), Expected::Send(b, j)) => close(*a, *b) && i == j,
                _ => false,
            };
            let why = record.reason.as_str();
            assert!(agree, "seed {seed}: {json}\nexpected {expected:?}, found {found:?}: {why}\n{text}");
            if let Expected::Send(to, whole) = expected {
                sent += 1;
                let changed = !close(to, amount) || whole != count;
                assert_eq!(record.verdict == Some(Verdict::Clamped), changed, "{json} {why}");
                moved += u64::from(changed);
                model.sent.push((bench.ms, room, model.encoded(1, to), whole as f64));
            } else {
                rejected += 1;
                assert!(!why.is_empty());
            }
        }
    }
    assert!(
        rejected > 2000 && sent > 2000 && moved > 500,
        "{rejected} rejected, {sent} sent, {moved} of them moved"
    );
}

/// What one cycle is given.
enum Step {
    Operator(Option<OperatorCommand>),
    Ask,
    Answer(Box<ganglion_site::Decision>),
}
