//! Readings and their limits: what is an alarm, what is a trip, and how it is said.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::TagValues;

const LIMITS: &str = "lo = 5\nhi = 40\nhihi = 50\n";

fn bench(limits: &str) -> Bench {
    Bench::of(parse(&SITE.replace(LIMITS, limits)), &[20.0, 30.0]).started()
}

/// Whether the temperature alarms at this reading, and what is said of it.
fn alarm(bench: &mut Bench, celsius: f64) -> Option<String> {
    bench.values[0] = celsius;
    let status = bench.idle().status;
    (status.alarms & 1 == 1).then(|| status.reason.as_str().to_owned())
}

#[test]
fn an_alarm_is_beyond_its_limit_and_a_trip_at_it() {
    let mut bench = bench("lolo = -10\nlo = 5\nhi = 40\nhihi = 50\n");
    for (celsius, alarms) in [(5.0, false), (4.9, true), (40.0, false), (40.1, true), (20.0, false)] {
        assert_eq!(alarm(&mut bench, celsius).is_some(), alarms, "{celsius}");
        assert_eq!(bench.guard.status().severity, if alarms { Severity::Alarm } else { Severity::Nominal });
    }
    let high = "tag temperature reads 40.1 C, at or above its alarm limit 40 C";
    assert_eq!(alarm(&mut bench, 40.1).unwrap(), high);
    let low = "tag temperature reads 4 C, at or below its alarm limit 5 C";
    assert_eq!(alarm(&mut bench, 4.0).unwrap(), low);
    for (celsius, why) in [
        (-9.9, None),
        (49.9, None),
        (-10.0, Some("tag temperature reads -10 C, at or below its trip limit -10 C")),
        (50.0, Some("tag temperature reads 50 C, at or above its trip limit 50 C")),
    ] {
        let mut bench = self::bench("lolo = -10\nlo = 5\nhi = 40\nhihi = 50\n");
        bench.values[0] = celsius;
        let status = bench.idle().status;
        assert_eq!(
            (status.trips == 1, status.mode == Mode::Aborting),
            (why.is_some(), why.is_some()),
            "{celsius}"
        );
        assert!(why.is_none_or(|why| status.reason.as_str() == why), "{}", status.reason.as_str());
    }
}

#[test]
fn an_events_own_reading_trips_at_its_limit_too() {
    for (celsius, trips) in
        [(-10.0, true), (-9.9, false), (50.0, true), (49.9, false), (-300.0, true), (900.0, true)]
    {
        let mut bench = bench("lolo = -10\nhihi = 50\n");
        let mut tags = TagValues::NONE;
        tags.set(0, celsius);
        let got = bench.go(Some(Request { tags, ..request(1, "look") }), &[], None);
        let safe = got.actuation.is_some_and(|a| a.outcome == ganglion_site::Outcome::Safe);
        assert_eq!((safe, got.event.is_none()), (trips, trips), "{celsius}: {:?}", got.decisions());
        let side = if celsius < 0.0 { "below its trip limit -10 C" } else { "above its trip limit 50 C" };
        assert!(!trips || got.decisions()[0].reason.as_str().contains(side), "{:?}", got.decisions());
    }
}

#[test]
fn a_reading_that_jumps_is_an_alarm_for_as_long_as_it_jumps() {
    // 100 C/s: one degree in a cycle of 10 ms.
    let mut bench = bench("rate_per_s = 100\n");
    let fast = |celsius: f64| {
        Some(format!("tag temperature reads {celsius} C, a faster change than its rate limit"))
    };
    for (celsius, alarms) in [
        (21.0, false),
        (22.5, true),
        (22.5, false),
        (21.5, false),
        (20.0, true),
        (20.0, false),
        (20.5, false),
    ] {
        assert_eq!(alarm(&mut bench, celsius), if alarms { fast(celsius) } else { None }, "{celsius}");
    }
    // In three cycles three degrees.
    bench.ms += 20;
    assert_eq!(alarm(&mut bench, 23.5), None);
    bench.ms += 20;
    assert_eq!(alarm(&mut bench, 26.8), fast(26.8));
    // What could not be used is no point to measure from.
    assert_eq!(alarm(&mut bench, f64::NAN), None);
    assert_eq!(alarm(&mut bench, 28.5), None, "1.7 in 20 ms");
    // Another value under the same time is no newer reading.
    bench.frozen_tags = Some(bench.ms);
    assert_eq!(alarm(&mut bench, 60.0), None);
    // Also where there is a bound as well, which is not the one that is passed.
    for limits in ["lo = 5\nrate_per_s = 100\n", "hi = 40\nrate_per_s = 100\n"] {
        let mut bench = self::bench(limits);
        assert_eq!(alarm(&mut bench, 22.0), fast(22.0), "{limits}");
    }
    // The first reading ever has nothing to be compared with.
    let mut first = Bench::of(parse(&SITE.replace(LIMITS, "rate_per_s = 100\n")), &[20.0, 30.0]);
    first.values[0] = 80.0;
    assert_eq!(first.idle().status.alarms, 0);
}

#[test]
fn what_cannot_be_used_is_beyond_no_limit() {
    let mut bench = bench("lolo = -10\nlo = 5\nhi = 40\n");
    for celsius in [f64::NAN, 900.0, -900.0] {
        bench.values[0] = celsius;
        let status = bench.idle().status;
        assert_eq!((status.unusable, status.alarms, status.trips), (1, 0, 0), "{celsius}");
    }
}

#[test]
fn samples_as_far_apart_as_they_may_be_still_show_a_frozen_sensor() {
    // Site: 200 ms from one to the next. Each in a cycle of its own.
    let text = SITE.replace("stale_ms = 200\n", "stale_ms = 200\nfrozen_ms = 1000\n");
    for (pause, freezes) in [(190, true), (191, false)] {
        let mut bench = Bench::of(parse(&text), &[20.0, 30.0]);
        for _ in 0..8 {
            bench.ms += pause;
            bench.idle();
        }
        assert_eq!(bench.guard.status().unusable & 1 == 1, freezes, "{} ms between two", pause + 10);
    }
}

#[test]
fn a_reading_of_the_future_is_none_but_for_a_race_of_clocks() {
    let mut bench = Bench::new();
    for (ahead_ms, usable) in
        [(0, true), (limits::TAG_FUTURE_US_MAX / 1000, true), (limits::TAG_FUTURE_US_MAX / 1000 + 1, false)]
    {
        bench.frozen_tags = Some(bench.ms + 10 + ahead_ms);
        let status = bench.idle().status;
        assert_eq!(status.unusable == 0, usable, "{ahead_ms} ms");
        assert!(
            usable || status.reason.as_str().contains("carries a time that has not come yet"),
            "{:?}",
            status.reason
        );
    }
}

#[test]
fn a_table_of_tags_gives_back_what_was_put_in() {
    let table = TagTable::new(3);
    for (index, quality) in [Quality::Good, Quality::Uncertain, Quality::Bad].into_iter().enumerate() {
        // Twice, so that a sequence of its own stays even.
        for value in [1.5, -2.5] {
            let sample = TagSample { value, quality, time_us: 7 };
            table.write(index, sample);
            assert_eq!(table.read(index), sample);
        }
    }
    table.mark_bad(0);
    let bad = TagSample { value: -2.5, quality: Quality::Bad, time_us: 7 };
    assert_eq!(table.read(0), bad);
    table.write(3, TagSample::good(9.0, 9));
    let mut all = [TagSample::good(1.0, 1); 4];
    table.read_all(&mut all);
    let uncertain = TagSample { quality: Quality::Uncertain, ..bad };
    assert_eq!(all, [bad, uncertain, bad, TagSample::MISSING], "there is no fourth one");
}

#[test]
fn whatever_is_not_good_is_not_used() {
    for quality in [Quality::Uncertain, Quality::Bad] {
        let site = parse(SITE);
        let mut guard = Guard::new(&site).unwrap();
        let doubted = TagSample { value: 30.0, quality, time_us: 1_000_000 };
        let tags = [TagSample::good(20.0, 1_000_000), doubted];
        let input = Input {
            tags: &tags,
            link: Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: 1_000_000 },
            sole_writer: true,
            event: None,
            decisions: &[decision(0, None)],
            progress: &[],
            brain: BrainProcess::Running { generation: 1 },
            operator: None,
            estop: false,
        };
        let status = guard.cycle(1_000_000, &input).status;
        assert_eq!((status.unusable, status.severity), (0b10, Severity::Alarm));
        assert_eq!(status.reason.as_str(), "tag price has bad quality");
    }
}
