//! A saved state is the whole state, and a policy is exchanged without a trace of the old one or a loss of what counts.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Outcome, Sentence, TagValues};
use proptest::prelude::*;

/// One cycle's input out of a few random numbers; everything that a guard can be given occurs.
struct Lot {
    tags: [TagSample; 2],
    link: Link,
    event: Option<Request>,
    decisions: Vec<ganglion_site::Decision>,
    brain: BrainProcess,
    operator: Option<OperatorCommand>,
    estop: bool,
    sole_writer: bool,
}

fn draw(bench: &Bench, now: u64, cycle: u64, epoch: u64, r: u64) -> Lot {
    let pick = |shift: u32, n: u64| (r >> shift) % n;
    let value = if pick(0, 40) == 0 { 60.0 } else { 10.0 + pick(1, 20) as f64 };
    let price = if pick(6, 50) == 0 { f64::NAN } else { 30.0 + pick(7, 60) as f64 };
    let json = [
        r#"{"action":"set_temperature","celsius":21.5}"#,
        r#"{"action":"set_temperature","celsius":45}"#,
        r#"{"action":"set_fan","room":"office","percent":90}"#,
    ][pick(13, 3) as usize];
    let mut decisions = vec![decision(0, None)];
    if pick(16, 3) > 0 {
        decisions.push(decision(epoch, Some(command(&bench.site, json))));
    }
    let mut tags = TagValues::NONE;
    if pick(18, 5) == 0 {
        tags.set(0, value + 5.0);
    }
    let event = (pick(21, 3) == 0).then(|| Request {
        tags,
        dry_run: pick(23, 9) == 0,
        stream: false,
        deadline_ms: (pick(27, 4) == 0).then_some(15),
        ..request(cycle, if pick(30, 7) == 0 { "is it warm?" } else { "warm it" })
    });
    let operators = [
        OperatorCommand::Reset,
        OperatorCommand::Start,
        OperatorCommand::Clear,
        OperatorCommand::Hold,
        OperatorCommand::Unhold,
        OperatorCommand::Stop,
        OperatorCommand::Abort,
    ];
    Lot {
        tags: [TagSample::good(value, now), TagSample::good(price, now)],
        link: Link { connected: pick(33, 60) > 0, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now },
        event,
        decisions: if pick(35, 9) == 0 { Vec::new() } else { decisions },
        brain: if pick(39, 90) == 0 {
            BrainProcess::Restarting
        } else {
            BrainProcess::Running { generation: (cycle / 300) as u32 + 1 }
        },
        operator: match pick(42, 12) {
            0 => operators.get(3 + pick(46, 4) as usize).copied(),
            n if n < 9 => operators.get(n as usize % 3).copied(),
            _ => None,
        },
        estop: pick(50, 200) == 0,
        sole_writer: pick(53, 100) > 0,
    }
}

impl Lot {
    fn input(&self) -> Input<'_> {
        Input {
            tags: &self.tags,
            link: self.link,
            sole_writer: self.sole_writer,
            event: self.event.as_ref(),
            decisions: &self.decisions,
            progress: &[],
            brain: self.brain,
            operator: self.operator,
            estop: self.estop,
        }
    }
}

const OVER_TIME: &str = r#"
[[limit]]
on = "set_temperature.celsius"
hi = 20
when = "price > 50 for 100 ms"
[[rule]]
when = "price > 40 within 1 s"
do = { action = "set_fan", room = "kitchen", percent = 0 }
ramp = { argument = "percent", per_s = 5 }
[[rule]]
do = { action = "set_fan", room = "kitchen", percent = 30 }
pi = { argument = "percent", tag = "temperature", setpoint = 22, kp = -4, ti_s = 10, every_ms = 50 }
"#;

/// Splits 64-bit numbers off a seed.
fn mix(seed: u64) -> u64 {
    let z = (seed ^ seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Invariant 28's second half: equal state and inputs, equal outputs; and the bytes hold the whole state, or the two
    /// would part sooner or later. `Debug` shows every field, those of structs in structs too.
    #[test]
    fn invariant_28_a_saved_state_goes_on_as_the_original(seed in any::<u64>(), at in 1u64..400) {
        let text = SITE.replace("safe = {", "commands = { burst = 5, per_minute = 600 }\nsafe = {") + OVER_TIME;
        let bench = Bench::of(parse(&text), &[20.0, 30.0]);
        let mut guard = Guard::new(&bench.site).unwrap();
        let mut bytes = vec![0; guard.state_bytes_max()];
        let mut replica = None;
        let mut epoch = 0;
        for cycle in 0..500u64 {
            let now = 1_000_000 + cycle * 10_000;
            let lot = draw(&bench, now, cycle, epoch, mix(seed.wrapping_add(cycle.wrapping_mul(0x9E37_79B9_7F4A_7C15))));
            if cycle == at {
                let size = guard.save(&mut bytes, true).expect("room");
                replica = Some(Replica::restore(&bench.site, &bytes[..size]).unwrap());
            }
            let seen = guard.cycle(now, &lot.input()).seen();
            epoch = seen.event.map_or(epoch, |event| event.epoch);
            let shown = format!("{seen:?}");
            if let Some(replica) = &mut replica {
                prop_assert_eq!(format!("{:?}", replica.cycle(now, &lot.input())), shown);
                prop_assert_eq!(format!("Replica({guard:?})"), format!("{replica:?}"), "cycle {}", cycle);
            }
        }
    }
}

#[test]
fn a_state_of_another_site_or_of_noise_is_refused() {
    let guard = Guard::new(&site()).unwrap();
    let mut bytes = vec![0; guard.state_bytes_max()];
    let size = guard.save(&mut bytes, true).unwrap();
    assert!(Replica::restore(&site(), &bytes[..size]).is_ok());
    assert!(Replica::restore(&parse(&(SITE.to_owned() + OVER_TIME)), &bytes[..size]).is_err());
    assert!(Replica::restore(&site(), &bytes[..size / 2]).is_err());
    assert!(Replica::restore(&site(), &[0xff; 4000]).is_err());
    assert!(guard.save(&mut bytes[..10], true).is_none());
}

#[test]
fn a_state_without_text_holds_none() {
    let mut bench = Bench::running();
    bench.go(Some(request(1, "a secret wish of the operator")), &[], None);
    let mut bytes = vec![0; bench.guard.state_bytes_max()];
    let find = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"secret");
    let size = bench.guard.save(&mut bytes, true).unwrap();
    assert!(find(&bytes[..size]), "this test looks at the right place");
    bytes.fill(0);
    let size = bench.guard.save(&mut bytes, false).unwrap();
    assert!(!find(&bytes[..size]));
    for (text, expected) in
        [("", ""), ("warm it", "(text)"), ("is it warm?", "(text?)"), ("\"warm?\"!", "(text?)")]
    {
        assert_eq!(stand_in(&Sentence::cut(text)).as_str(), expected);
    }
}

fn policy(bench: &Bench, text: &str) -> Result<Box<Policy>, GuardError> {
    Policy::new((&bench.site, [1; 32]), (&parse(text), [2; 32])).map(Box::new)
}

#[test]
fn invariant_31_a_policy_is_exchanged_in_one_step() {
    let mut bench = Bench::running();
    let hot = r#"{"action":"set_temperature","celsius":25}"#;
    assert!(bench.ask(hot).actuation.is_some());
    // Asked under the old policy, answered under the new one: judged by the new one, due when it was due.
    let epoch = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap().epoch;
    let mut new = policy(&bench, &SITE.replace("hi = 26", "hi = 22")).unwrap();
    bench.guard.adopt(&mut new);
    let answer = decision(epoch, Some(command(&bench.site, hot)));
    let got = bench.go(None, &[answer], None);
    assert!(got.actuation.is_none());
    assert_eq!(got.status.mode, Mode::Execute, "the mode goes on");
    let texts: Vec<_> = got.records.iter().map(|r| (r.kind, r.reason.as_str().to_owned())).collect();
    assert_eq!(texts[0].0, RecordKind::Policy);
    assert_eq!(texts[0].1, format!("policy {} in place of {}", "02".repeat(32), "01".repeat(32)));
    assert_eq!(texts[1].1, "set_temperature.celsius 25 C is above its limit 22 C");
    // The other way round, with what came back.
    bench.guard.adopt(&mut new);
    assert!(bench.ask(hot).actuation.is_some(), "the old policy is what the exchange left");
}

#[test]
fn invariant_31_what_was_sent_and_what_holds_goes_on() {
    let mut bench = Bench::running();
    let fan = |percent: u32| format!(r#"{{"action":"set_fan","room":"office","percent":{percent}}}"#);
    bench.ask(&fan(10));
    // 20 ms later 0.8 % more are allowed, under the old rate; 0.2 % under the new one: the last value is not forgotten.
    let mut new = policy(&bench, &SITE.replace("rate_per_s = 40", "rate_per_s = 10")).unwrap();
    bench.guard.adopt(&mut new);
    let got = bench.ask(&fan(90));
    assert_eq!(
        bench.json(&got).as_deref(),
        Some(fan(10).as_str()),
        "{:?}",
        got.decisions()[0].reason.as_str()
    );
    // A condition over time that both have has its history.
    let held = SITE.to_owned()
        + "[[limit]]\non = \"set_temperature.celsius\"\nhi = 20\nwhen = \"price > 50 for 1 s\"\n";
    let mut bench = Bench::of(parse(&held), &[20.0, 55.0]).started();
    for _ in 0..90 {
        bench.idle();
    }
    let mut new = policy(&bench, &held.replace("hi = 20", "hi = 18")).unwrap();
    bench.guard.adopt(&mut new);
    for _ in 0..12 {
        bench.idle();
    }
    let got = bench.ask(r#"{"action":"set_temperature","celsius":19}"#);
    assert_eq!(
        got.decisions()[0].reason.as_str(),
        "set_temperature.celsius 19 C is above its limit 18 C while price > 50 for 1000 ms"
    );
}

#[test]
fn invariant_31_breaker_and_budget_take_the_new_numbers_and_keep_their_state() {
    let mut bench = Bench::running();
    let miss = |bench: &mut Bench| {
        bench.go(Some(request(1, "warm it")), &[decision(0, None)], None);
        for _ in 0..3 {
            bench.idle();
        }
    };
    miss(&mut bench);
    miss(&mut bench);
    let mut new = policy(&bench, &SITE.replace("failures = 3", "failures = 4")).unwrap();
    bench.guard.adopt(&mut new);
    miss(&mut bench);
    assert_eq!(bench.guard.status().breaker, BreakerState::Closed, "three of four");
    miss(&mut bench);
    assert_eq!(bench.guard.status().breaker, BreakerState::Open, "two of before count");
    // From now on it rests 50 ms and takes one probe.
    let text =
        SITE.replace("failures = 3, open_ms = 100, probes = 2", "failures = 1, open_ms = 50, probes = 1");
    let mut bench = Bench::running();
    bench.guard.adopt(&mut policy(&bench, &text).unwrap());
    bench.go(Some(request(1, "x")), &[], None);
    while bench.idle().status.breaker == BreakerState::Closed {}
    let opened = bench.ms;
    let mut asked = None;
    while asked.is_none() {
        assert_eq!(bench.guard.status().breaker, BreakerState::Open);
        asked = bench.idle().event;
    }
    assert_eq!(bench.ms, opened + 50);
    let none = command(&bench.site, r#"{"action":"none"}"#);
    let got = bench.go(None, &[decision(asked.unwrap().epoch, Some(none))], None);
    assert_eq!(got.status.breaker, BreakerState::Closed);
    let budget = SITE.replace("safe = {", "commands = { burst = 1, per_minute = 1 }\nsafe = {");
    let mut bench = Bench::running();
    let mut new = policy(&bench, &budget).unwrap();
    bench.guard.adopt(&mut new);
    assert!(bench.ask(r#"{"action":"set_temperature","celsius":20}"#).actuation.is_some(), "begins full");
    assert!(bench.ask(r#"{"action":"set_temperature","celsius":21}"#).actuation.is_none());
    let mut more =
        Policy::new((&parse(&budget), [2; 32]), (&parse(&budget.replace("burst = 1", "burst = 9")), [3; 32]));
    bench.guard.adopt(more.as_mut().unwrap());
    assert!(
        bench.ask(r#"{"action":"set_temperature","celsius":22}"#).actuation.is_none(),
        "no gift of tokens"
    );
}

#[test]
fn invariant_31_the_rule_controller_chooses_anew() {
    let mut bench = Bench::of(parse(SITE), &[20.0, 80.0]).started();
    bench.brain = BrainProcess::Restarting;
    assert_eq!(bench.go(None, &[], None).actuation.unwrap().outcome, Outcome::Rule);
    assert!(bench.go(None, &[], None).actuation.is_none(), "sent once");
    let text = SITE.replace("when = \"price > 60\"", "when = \"price > 90\"");
    let mut new = policy(&bench, &text).unwrap();
    bench.guard.adopt(&mut new);
    assert_eq!(
        bench.go(None, &[], None).actuation.unwrap().outcome,
        Outcome::Safe,
        "no rule applies any more"
    );
}

#[test]
fn invariant_31_more_than_a_policy_and_a_bad_policy_are_refused() {
    let bench = Bench::running();
    for (from, to, what) in [
        ("name = \"test\"", "name = \"best\"", "name"),
        ("none.gguf", "other.gguf", "[model]"),
        ("period_ms = 10\n", "period_ms = 20\n", "[guard] period_ms or brain_timeout_ms"),
        ("brain_timeout_ms = 50", "brain_timeout_ms = 60", "[guard] period_ms or brain_timeout_ms"),
        ("tags = [\"temperature\", \"price\"]", "tags = [\"price\"]", "[prompt]"),
        ("watchdog_ms = 500", "watchdog_ms = 600", "[plant]"),
        ("range = [-20, 100]", "range = [-20, 90]", "[[tag]]"),
        ("about = \"fan\"", "about = \"wind\"", "[[command]]"),
        ("holding = 10", "holding = 11", "[[command]]"),
    ] {
        let refused = policy(&bench, &SITE.replace(from, to)).unwrap_err();
        assert!(matches!(refused, GuardError::NeedsRestart { what: found } if found == what), "{refused}");
    }
    let trigger = |name: &str| format!("{SITE}[[trigger]]\nname = \"{name}\"\nevery_ms = 1000\n");
    let of_triggers = |old: &str, new: &str| {
        Policy::new((&parse(&trigger(old)), [1; 32]), (&parse(&trigger(new)), [2; 32])).map(|_| ())
    };
    assert!(of_triggers("a", "a").is_ok());
    let refused = of_triggers("a", "b").unwrap_err();
    assert!(matches!(refused, GuardError::NeedsRestart { what: "[[trigger]] names" }), "{refused}");
    let http = SITE.to_owned() + "[http]\nlisten = \"127.0.0.1:8420\"\n";
    assert!(matches!(policy(&bench, &http), Err(GuardError::NeedsRestart { what: "[http]" })));
    for section in ["[record]\nfolder = \"tape\"\n", "[plan]\n"] {
        let what = section.lines().next().unwrap();
        let refused = policy(&bench, &(SITE.to_owned() + section)).unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    }
    let mut unsafe_one = site();
    unsafe_one.safe = command(&unsafe_one, r#"{"action":"set_temperature","celsius":40}"#);
    let refused = Policy::new((&bench.site, [1; 32]), (&unsafe_one, [2; 32])).unwrap_err();
    assert!(matches!(refused, GuardError::SafeCommand { .. }), "{refused}");
    for (from, to) in [("stale_ms = 200", "stale_ms = 900"), ("deadline_ms = 20", "deadline_ms = 30")] {
        assert!(policy(&bench, &SITE.replace(from, to)).is_ok());
    }
    // A timeout that the file leaves to the deadline goes with it; one that it names does not.
    let implied = SITE.replace("brain_timeout_ms = 50\n", "");
    let longer = implied.replace("deadline_ms = 20", "deadline_ms = 30");
    let change = |old: &str, new: &str| Policy::new((&parse(old), [1; 32]), (&parse(new), [2; 32]));
    assert!(change(&implied, &longer).is_ok() && change(SITE, &longer).is_err());
    let mut bench = Bench::running();
    bench.guard.note(Notice::refused("line 3: …"));
    let got = bench.idle();
    assert_eq!(
        got.records[0].reason.as_str(),
        "the policy stays as it was; the new one is refused: line 3: …"
    );
    assert!(bench.idle().records.is_empty(), "said once");
}

#[test]
fn invariant_28_a_replica_follows_policies_and_notices_too() {
    let mut bench = Bench::running();
    let mut bytes = vec![0; bench.guard.state_bytes_max()];
    let size = bench.guard.save(&mut bytes, true).unwrap();
    let mut replica = Replica::restore(&bench.site, &bytes[..size]).unwrap();
    assert_eq!(replica.state_bytes_max(), bench.guard.state_bytes_max());
    let text = SITE.replace("hi = 26", "hi = 21");
    let mut policies = [(); 2].map(|()| policy(&bench, &text).unwrap());
    bench.guard.adopt(&mut policies[0]);
    replica.adopt(&mut policies[1]);
    assert_eq!(replica.site(), &parse(&text));
    let now = bench.now() + 10_000;
    let tags = [TagSample::good(20.0, now), TagSample::good(30.0, now)];
    let mut both = |event: Option<&Request>, notice: Option<Notice>| {
        if let Some(notice) = notice {
            bench.guard.note(notice);
            replica.note(notice);
        }
        let input = Input {
            tags: &tags,
            link: Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now },
            sole_writer: true,
            event,
            decisions: &[],
            progress: &[],
            brain: BrainProcess::Running { generation: 1 },
            operator: None,
            estop: false,
        };
        let said = format!("{:?}", bench.guard.cycle(now, &input).seen());
        assert_eq!(said, format!("{:?}", replica.cycle(now, &input)));
        let mut again = vec![0; bytes.len()];
        let sizes = [bench.guard.save(&mut bytes, false).unwrap(), replica.save(&mut again, false).unwrap()];
        assert!(bytes[..sizes[0]] == again[..sizes[1]], "the same state, byte by byte");
        assert_eq!(bench.guard.status(), replica.status());
        said
    };
    let step = Request {
        command: Some(command(&parse(&text), r#"{"action":"set_temperature","celsius":22}"#)),
        ..request(1, "")
    };
    assert!(both(Some(&step), None).contains("above its limit 21 C"), "the new policy's limit");
    let notice = Notice { kind: RecordKind::Policy, reason: ganglion_site::Reason::cut("something") };
    assert!(both(None, Some(notice)).contains("something"));
}

/// As many events as may wait, with as much in them as there may be.
fn fill_pending(bench: &mut Bench) {
    let long = "x".repeat(ganglion_site::limits::SENTENCE_BYTES_MAX);
    let mut tags = TagValues::NONE;
    tags.set(0, 20.123_456_7);
    for id in 0..limits::PENDING_MAX as u64 {
        bench.ms -= 9;
        let request = Request { id: u64::MAX - id, client: u64::MAX, tags, ..request(0, &long) };
        assert!(bench.go(Some(request), &[], None).event.is_some());
    }
}

#[test]
fn a_state_fits_the_room_that_is_asked_for_and_wastes_little_of_it() {
    // Every history of many is filled, and every place for an event with the longest sentences.
    let choices: Vec<String> = (0..64).map(|i| format!("\"c{i}\"")).collect();
    let mut text = SITE.replace("deadline_ms = 20", "deadline_ms = 50");
    for number in 0..32 {
        text += &format!(
            "[[command]]\nname = \"m{number}\"\narguments = [{{ name = \"which\", choices = [{}] }}, {{ name = \"a\", number = [0, 9], step = 0.1 }}]\n\
             writes = [{{ holding = {}, select = \"which\", value = \"a\", scale = 0.1 }}]\n\
             [[limit]]\non = \"m{number}.a\"\nrate_per_s = 0.1\n",
            choices.join(", "),
            1000 + 64 * number
        );
    }
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    let room = bench.guard.state_bytes_max();
    for number in 0..32 {
        for choice in 0..64 {
            let json = format!(r#"{{"action":"m{number}","which":"c{choice}","a":3.3}}"#);
            let step = Request { command: Some(command(&bench.site, &json)), ..request(1, "") };
            let got = bench.go(Some(step), &[decision(0, None)], None);
            assert!(got.actuation.is_some(), "{}", got.decisions()[0].reason.as_str());
        }
    }
    fill_pending(&mut bench);
    let mut bytes = vec![0; room];
    let used = bench.guard.save(&mut bytes, true).expect("there is room");
    assert!(used * 4 > room, "{used} of {room}");
    assert!(bench.guard.save(&mut bytes[..used - 1], true).is_none(), "and no less would do");
    // Where there is little to remember, the events take the most of it.
    let mut small =
        Bench::of(parse(&SITE.replace("deadline_ms = 20", "deadline_ms = 50")), &[20.0, 30.0]).started();
    fill_pending(&mut small);
    let mut bytes = vec![0; small.guard.state_bytes_max()];
    assert!(small.guard.save(&mut bytes, true).is_some(), "{}", bytes.len());
}

#[test]
fn a_state_with_as_many_registers_as_a_site_can_have_fits_too() {
    let choices: Vec<String> = (0..64).map(|i| format!("\"c{i}\"")).collect();
    let mut text = SITE.to_owned();
    for number in 0..55u32 {
        let writes: Vec<String> = (0..8)
            .map(|i| {
                format!("{{ holding = {}, select = \"which\", value = \"a\" }}", 1000 + 64 * (8 * number + i))
            })
            .collect();
        text += &format!(
            "[[command]]\nname = \"m{number}\"\narguments = [{{ name = \"which\", choices = [{}] }}, {{ name = \"a\", integer = [0, 9] }}]\nwrites = [{}]\n",
            choices.join(", "),
            writes.join(", ")
        );
    }
    let guard = Guard::new(&parse(&text)).unwrap();
    let mut bytes = vec![0; guard.state_bytes_max()];
    assert!(guard.save(&mut bytes, true).is_some(), "{}", bytes.len());
}
