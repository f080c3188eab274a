//! The cycle allocates nothing after start: a counting allocator watches.

mod common;
#[path = "../../kernels/tests/common/counting.rs"]
mod counting;
use common::*;
use counting::operations_here;
use ganglion_guard::*;
use ganglion_site::{Progress, Value};

#[test]
fn no_cycle_touches_the_heap() {
    let site = site();
    let mut guard = Guard::new(&site).unwrap();
    let good = command(&site, r#"{"action":"set_temperature","celsius":21.5}"#);
    let hot = command(&site, r#"{"action":"set_temperature","celsius":45}"#);
    let fan = command(&site, r#"{"action":"set_fan","room":"office","percent":90}"#);
    let before = operations_here();
    let (mut epoch, mut seen_actuations, mut seen_records) = (0, 0, 0);
    for cycle in 0..3_000u64 {
        let now = 1_000_000 + cycle * 10_000;
        // Through start, answers, rejections, clamps, silence, trips, link loss and recovery.
        let value = if cycle % 500 == 499 { 60.0 } else { 20.0 + (cycle % 30) as f64 };
        let tags =
            [TagSample::good(value, now), TagSample::good(if cycle % 97 < 4 { f64::NAN } else { 80.0 }, now)];
        let connected = cycle % 211 > 3;
        let link = Link { connected, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now };
        let event = (cycle % 2 == 0).then(|| request(cycle, "a sentence"));
        let answer = decision(epoch, Some([good, hot, fan][(cycle % 3) as usize]));
        let decisions = [answer, decision(0, None)];
        let silent = cycle % 400 > 350;
        let operator = match cycle % 5 {
            0 => Some(OperatorCommand::Clear),
            1 => Some(OperatorCommand::Reset),
            3 => Some(OperatorCommand::Start),
            _ => None,
        };
        let input = Input {
            tags: &tags,
            link,
            sole_writer: true,
            event: event.as_ref(),
            decisions: if silent { &[] } else { &decisions },
            progress: &[],
            brain: BrainProcess::Running { generation: (cycle / 400) as u32 + 1 },
            operator,
            estop: false,
        };
        let output = guard.cycle(now, &input);
        if let Some(event) = output.event {
            epoch = event.epoch;
        }
        seen_actuations += u64::from(output.actuation.is_some());
        seen_records += output.records.len();
    }
    assert_eq!(operations_here() - before, 0, "heap operations in 3000 cycles");
    assert!(seen_actuations > 50 && seen_records > 500, "{seen_actuations} {seen_records}");
    let counters = guard.status().counters;
    assert!(counters.rejected > 0 && counters.approved > 0 && counters.brain_losses > 0, "{counters:?}");
}

#[test]
fn nor_do_triggers_announcements_and_several_events_at_once() {
    let text = SITE.replace("deadline_ms = 20", "deadline_ms = 50").replace(
        "[[command]]\nname = \"all_off\"",
        "announce = \"hello\"\n[[command]]\nname = \"hello\"\nwrites = [{ holding = 61, constant = 1 }]\n[[command]]\nname = \"all_off\"",
    ) + r#"
[[trigger]]
name = "price"
change = "price"
by = 3
say = "the price changed"
pause_ms = 40
[[trigger]]
name = "hot"
when = "temperature > 25 for 30 ms"
until = "temperature < 20"
[[trigger]]
name = "watch"
every_ms = 200
"#;
    let site = parse(&text);
    let mut guard = Guard::new(&site).unwrap();
    let fan = command(&site, r#"{"action":"set_fan","room":"office","percent":50}"#);
    let warm = command(&site, r#"{"action":"set_temperature","celsius":21.5}"#);
    let mut waiting = Vec::with_capacity(64);
    let mut parts = Vec::with_capacity(64);
    let mut decisions = Vec::with_capacity(64);
    let before = operations_here();
    for cycle in 0..3_000u64 {
        let now = 1_000_000 + cycle * 10_000;
        let price = 20.0 + (cycle / 7 % 30) as f64;
        let tags = [TagSample::good(18.0 + (cycle % 90) as f64 / 10.0, now), TagSample::good(price, now)];
        let event = (cycle % 3 != 0).then(|| Request { stream: true, ..request(cycle, "a sentence") });
        decisions.clear();
        parts.clear();
        if cycle % 4 == 3 {
            let answers =
                waiting.drain(..).map(|epoch| decision(epoch, Some([fan, warm][(epoch % 2) as usize])));
            decisions.extend(answers.take(7));
        } else if cycle % 4 == 1 {
            parts.extend(waiting.iter().take(8).map(|epoch| Progress {
                epoch: *epoch,
                verb: 1,
                argument: None,
                value: Value::Absent,
            }));
        }
        decisions.push(decision(0, None));
        let operator = match cycle {
            0 => Some(OperatorCommand::Reset),
            2 => Some(OperatorCommand::Start),
            _ => None,
        };
        let input = Input {
            tags: &tags,
            link: Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now },
            sole_writer: true,
            event: event.as_ref(),
            decisions: &decisions,
            progress: &parts,
            brain: BrainProcess::Running { generation: 1 },
            operator,
            estop: false,
        };
        let output = guard.cycle(now, &input);
        waiting.extend(output.event.map(|event| event.epoch).filter(|_| waiting.len() < 60));
    }
    assert_eq!(operations_here() - before, 0, "heap operations in 3000 cycles");
    let counters = guard.status().counters;
    assert!(counters.triggers[..3].iter().all(|count| *count > 0), "{counters:?}");
    assert!(counters.announced > 10 && counters.actuated > 100, "{counters:?}");
}

#[test]
fn nor_do_conditions_over_time_ramps_and_loops() {
    let site = parse(
        &(SITE.replace("stale_ms = 300", "stale_ms = 300\nfrozen_ms = 3000")
            + r#"
[[limit]]
on = "set_temperature.celsius"
hi = 20
when = "price > 50 for 100 ms and temperature < 30 since price < 10"
[[limit]]
on = "set_fan.percent"
dwell_ms = 30
do = "clamp"
[[rule]]
when = "price > 40 within 1 s"
do = { action = "set_fan", room = "kitchen", percent = 0 }
ramp = { argument = "percent", per_s = 5 }
[[rule]]
do = { action = "set_fan", room = "kitchen", percent = 30 }
pi = { argument = "percent", tag = "temperature", setpoint = 22, kp = -4, ti_s = 10, every_ms = 50 }
"#),
    );
    let mut guard = Guard::new(&site).unwrap();
    let good = command(&site, r#"{"action":"set_temperature","celsius":21.5}"#);
    let before = operations_here();
    let (mut epoch, mut rules) = (0, 0);
    for cycle in 0..3_000u64 {
        let now = 1_000_000 + cycle * 10_000;
        let price = if cycle % 400 < 100 { 45.0 } else { 5.0 + (cycle % 7) as f64 };
        let tags = [TagSample::good(18.0 + (cycle % 90) as f64 / 10.0, now), TagSample::good(price, now)];
        let event = (cycle % 3 == 0).then(|| request(cycle, "a sentence"));
        let decisions = [decision(epoch, Some(good)), decision(0, None)];
        let operator = match cycle {
            0 => Some(OperatorCommand::Reset),
            2 => Some(OperatorCommand::Start),
            _ => None,
        };
        let gone = cycle % 1000 > 300;
        let input = Input {
            tags: &tags,
            link: Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now },
            sole_writer: true,
            event: event.as_ref(),
            decisions: if gone { &[] } else { &decisions },
            progress: &[],
            brain: if gone { BrainProcess::Restarting } else { BrainProcess::Running { generation: 1 } },
            operator,
            estop: false,
        };
        let output = guard.cycle(now, &input);
        if let Some(event) = output.event {
            epoch = event.epoch;
        }
        rules += u64::from(output.actuation.is_some_and(|a| a.outcome == ganglion_site::Outcome::Rule));
    }
    assert_eq!(operations_here() - before, 0, "heap operations in 3000 cycles");
    assert!(rules > 50, "{rules}");
}
