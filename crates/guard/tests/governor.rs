//! Which variant answers, from a machine made of files; and a brain that is followed by another without a gap.

use ganglion_guard::*;
use ganglion_site::{BrainMessage, DECISION_FRAME_BYTES, Decision, Event, SwitchSpec};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A machine with two thermal zones, a battery, a charger and four cores.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("ganglion-host-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let machine = Self(root);
        machine.set("sys/class/thermal/thermal_zone0/temp", "41000\n");
        machine.set("sys/class/thermal/thermal_zone1/temp", "45500\n");
        machine.set("sys/class/thermal/cooling_device0/temp", "99000\n");
        machine.set("sys/class/power_supply/BAT0/type", "Battery\n");
        machine.set("sys/class/power_supply/BAT0/status", "Charging\n");
        machine.set("sys/class/power_supply/BAT0/capacity", "12\n");
        machine.set("sys/class/power_supply/AC/type", "Mains\n");
        machine.set("sys/devices/system/cpu/online", "0-2,5\n");
        machine.set("proc/loadavg", "2.00 1.50 1.20 2/345 6789\n");
        machine
    }

    fn set(&self, file: &str, text: &str) {
        let file = self.0.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self) -> HostReading {
        SysHost::new(&self.0).read()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_machine_is_read_from_its_files() {
    let machine = Machine::new("read");
    let well = HostReading { temperature_c: Some(45.5), load: Some(0.5), battery_percent: None };
    assert_eq!(machine.read(), well);
    machine.set("sys/class/power_supply/BAT0/status", "Discharging\n");
    assert_eq!(machine.read().battery_percent, Some(12.0));
    for (file, text) in [
        ("sys/class/thermal/thermal_zone1/temp", "-273200"),
        ("sys/class/thermal/thermal_zone0/temp", "hot"),
        ("sys/class/power_supply/BAT0/capacity", "4000"),
        ("proc/loadavg", "nan 1 1"),
    ] {
        machine.set(file, text);
    }
    assert_eq!(machine.read(), HostReading::default(), "nonsense is no reading");
    machine.set("proc/loadavg", "-2 1 1");
    assert_eq!(machine.read().load, None);
    machine.set("proc/loadavg", "8 1 1");
    machine.set("sys/devices/system/cpu/online", "3-1");
    assert_eq!(machine.read().load, None);
    machine.set("sys/devices/system/cpu/online", "0");
    assert_eq!(machine.read().load, Some(8.0));
    assert_eq!(SysHost::new(Path::new("/nonexistent")).read(), HostReading::default());
}

const SPEC: SwitchSpec = SwitchSpec {
    temperature_c: Some((85.0, 70.0)),
    load: None,
    battery_percent: Some((20.0, 40.0)),
    misses: Some(3),
    dwell_s: 10,
};

/// A governor, its machine and a clock in seconds.
struct Bench {
    governor: Governor,
    host: HostReading,
    missed: u64,
    second: u64,
}

impl Bench {
    fn new(variants: usize) -> Self {
        let host = HostReading { temperature_c: Some(50.0), load: Some(0.1), battery_percent: None };
        Self { governor: Governor::new(SPEC, variants), host, missed: 0, second: 100 }
    }

    /// The switches of so many seconds: after how many, to which level, and why.
    fn run(&mut self, seconds: u64) -> Vec<(u64, u8, String)> {
        let mut found = Vec::new();
        for after in 1..=seconds {
            self.second += 1;
            if let Some(switch) = self.governor.step(self.second * 1_000_000, &self.host, self.missed) {
                found.push((after, switch.level, switch.reason.as_str().to_owned()));
            }
        }
        found
    }
}

#[test]
fn heat_leads_down_one_step_a_time_and_back_after_the_dwell() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.run(30), []);
    bench.host.temperature_c = Some(85.0);
    let down = bench.run(40);
    assert_eq!(down[0], (1, 1, "temperature 85 C, at or above 85 C".into()), "at once");
    assert_eq!(
        (down[1].0, down[1].1, down.len()),
        (11, 2, 2),
        "the next one not before the dwell; then none is left"
    );
    // Between the thresholds it stays where it is.
    bench.host.temperature_c = Some(77.0);
    assert_eq!(bench.run(100), []);
    bench.host.temperature_c = Some(70.0);
    assert_eq!(bench.run(100), [], "nor at the threshold itself");
    bench.host.temperature_c = Some(69.9);
    let back = bench.run(40);
    let shown: Vec<_> = back.iter().map(|(after, level, _)| (*after, *level)).collect();
    assert_eq!(shown, [(11, 1), (22, 0)], "well for the dwell time, each");
    assert_eq!(back[0].2, "all has been well for 10 s");
}

#[test]
fn a_short_relief_starts_the_time_anew() {
    let mut bench = Bench::new(1);
    bench.host.temperature_c = Some(90.0);
    assert_eq!(bench.run(1).len(), 1);
    for _ in 0..20 {
        bench.host.temperature_c = Some(60.0);
        assert_eq!(bench.run(9), []);
        bench.host.temperature_c = Some(75.0);
        assert_eq!(bench.run(1), []);
    }
    // A sensor that is gone is not well either.
    bench.host.temperature_c = None;
    assert_eq!(bench.run(100), []);
}

#[test]
fn battery_load_and_missed_deadlines_count_too() {
    let mut bench = Bench::new(1);
    bench.host.battery_percent = Some(20.0);
    assert_eq!(bench.run(1)[0].2, "battery 20 %, at or below 20 %");
    bench.host.battery_percent = Some(40.0);
    assert_eq!(bench.run(60), []);
    bench.host.battery_percent = Some(40.5);
    assert_eq!(bench.run(60).len(), 1, "charged beyond its threshold");
    bench.host.battery_percent = Some(19.5);
    assert_eq!(bench.run(1).len(), 1);
    bench.host.battery_percent = None;
    assert_eq!(bench.run(60).len(), 1, "on mains again");
    bench.missed += 2;
    assert_eq!(bench.run(30), []);
    bench.missed += 2;
    bench.run(1);
    bench.missed += 1;
    assert_eq!(bench.run(1)[0].2, "3 deadlines missed in 10 s, at or above 3");
    let mut bench = Bench::new(1);
    bench.governor = Governor::new(SwitchSpec { load: Some((1.5, 0.8)), ..SwitchSpec::NEVER }, 1);
    bench.host.load = Some(1.5);
    assert_eq!(bench.run(1)[0].2, "load 1.5 per core, at or above 1.5");
    assert_eq!(bench.governor.level(), 1);
}

#[test]
fn what_came_to_nothing_is_tried_again_after_the_dwell() {
    let mut bench = Bench::new(1);
    bench.host.temperature_c = Some(90.0);
    assert_eq!(bench.run(1).len(), 1);
    bench.governor.stays(bench.second * 1_000_000, 0);
    assert_eq!(bench.governor.level(), 0);
    assert_eq!(bench.run(12).iter().map(|(after, ..)| *after).collect::<Vec<_>>(), [10]);
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A brain in a few lines of shell: a sign of life after a while, then a decision for each event, its level as confidence.
/// `level` 9 ends at once. What waits for an event outlives a killed shell: not for long, and holding nobody's standard error.
fn brain(folder: &Path, level: u8) -> Command {
    let frame = |decision: &Decision, name: &str| {
        let mut bytes = [0; DECISION_FRAME_BYTES];
        decision.encode(&mut bytes);
        let file = folder.join(name);
        fs::write(&file, bytes).unwrap();
        file
    };
    let life = frame(&Decision::SIGN_OF_LIFE, "life");
    let answer = Decision { epoch: 7, confidence: f32::from(level) / 10.0, ..Decision::SIGN_OF_LIFE };
    let answer = frame(&answer, &format!("answer{level}"));
    let size = DECISION_FRAME_BYTES;
    let script = format!(
        "exec 2>/dev/null; sleep 0.2; dd if={} bs={size} count=1 >&0\n\
         while true; do timeout 30 head -c 1 <&0 >/dev/null || exit; sleep 0.1; dd if={} bs={size} count=1 >&0; done",
        life.display(),
        answer.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", if level == 9 { "exit 3" } else { &script }]);
    command
}

fn decision(channel: &mut BrainChannel) -> Option<Decision> {
    match channel.receive()? {
        BrainMessage::Decision(decision) => Some(decision),
        BrainMessage::Progress(_) => None,
    }
}

#[test]
fn a_successor_takes_over_without_a_word_to_the_guard_and_late_answers_arrive() {
    let machine = Machine::new("successor");
    let folder = machine.0.clone();
    let (supervisor, mut channel) =
        Supervisor::start_variants(move |level| brain(&folder, level), 1000).unwrap();
    let running = BrainProcess::Running { generation: 1 };
    wait_for("the first one runs", || channel.process() == running);
    wait_for("it is heard", || channel.receive().is_some());
    assert_eq!((channel.switch(), channel.level()), (None, 0));
    let first = supervisor.pid().unwrap();
    supervisor.want(3);
    let mut level = None;
    wait_for("the successor is ready", || {
        assert_eq!(channel.process(), running, "never a gap");
        assert!(decision(&mut channel).is_none_or(|decision| decision.epoch == 0));
        if level.is_none() && supervisor.generation() == 1 {
            // Asked just before the change: the one that is asked answers.
            level = channel.switch();
        }
        level.is_some()
    });
    assert_eq!((level, channel.level()), (Some(3), 3));
    assert_eq!(channel.process(), running, "it goes by its predecessor's number");
    wait_for("the supervisor follows", || supervisor.level() == 3);
    let second = supervisor.pid().unwrap();
    assert_ne!(first, second);
    channel.send(&Event::new(7, 0));
    let mut answer = None;
    wait_for("it answers", || {
        answer = answer.or(decision(&mut channel).filter(|decision| decision.epoch == 7));
        answer.is_some()
    });
    assert_eq!(answer.unwrap().confidence, 0.3);
    wait_for("the first one is gone", || !Path::new(&format!("/proc/{first}")).exists());
    // Killed under the number that the guard knows.
    channel.kill(1);
    wait_for("another start", || channel.process() == BrainProcess::Running { generation: 3 });
    assert_eq!(supervisor.level(), 3, "of the same variant");
    assert_ne!(supervisor.pid(), Some(second));
    // Another variant by death: nobody is switched to, and yet it is known who is asked.
    supervisor.want(1);
    channel.kill(3);
    wait_for(
        "the wanted variant",
        || matches!(channel.process(), BrainProcess::Running { generation } if generation > 3),
    );
    assert_eq!(channel.level(), 1);
    wait_for("the supervisor follows", || supervisor.level() == 1);
}

#[test]
fn what_the_old_one_was_asked_it_still_answers() {
    let machine = Machine::new("late");
    let folder = machine.0.clone();
    let (supervisor, mut channel) =
        Supervisor::start_variants(move |level| brain(&folder, level), 3000).unwrap();
    wait_for("it runs", || channel.process() == BrainProcess::Running { generation: 1 });
    wait_for("it is heard", || channel.receive().is_some());
    supervisor.want(2);
    wait_for("the change", || {
        let _ = channel.process();
        // A question in the very cycle of the change, before it.
        channel.send(&Event::new(7, 0));
        channel.switch().is_some()
    });
    let mut from = Vec::new();
    wait_for("the old one's answer", || {
        from.extend(
            decision(&mut channel).filter(|decision| decision.epoch == 7).map(|decision| decision.confidence),
        );
        !from.is_empty()
    });
    assert_eq!(from[0], 0.0, "level 0 answered");
}

/// A brain that never stops saying that it lives, its level as confidence; where it is heard it is seen.
fn chatter(folder: &Path, level: u8) -> Command {
    let mut bytes = [0; DECISION_FRAME_BYTES];
    Decision { confidence: f32::from(level) / 10.0, ..Decision::SIGN_OF_LIFE }.encode(&mut bytes);
    let file = folder.join(format!("life{level}"));
    fs::write(&file, bytes).unwrap();
    let script = format!(
        "exec 2>/dev/null; while dd if={} bs={DECISION_FRAME_BYTES} count=1 >&0; do sleep 0.02; done",
        file.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    command
}

#[test]
fn a_retired_brains_signs_of_life_say_nothing_about_its_successor() {
    let machine = Machine::new("chatter");
    let folder = machine.0.clone();
    let (supervisor, mut channel) =
        Supervisor::start_variants(move |level| chatter(&folder, level), 3000).unwrap();
    assert_eq!((supervisor.level(), supervisor.start_failures(), supervisor.garbage()), (0, 0, 0));
    assert_eq!(supervisor.successor_failures(), 0);
    wait_for("it runs", || channel.process() == BrainProcess::Running { generation: 1 });
    wait_for("it is heard", || channel.receive().is_some());
    supervisor.want(4);
    wait_for("the change", || {
        while channel.receive().is_some() {}
        channel.switch().is_some()
    });
    wait_for("the supervisor follows", || supervisor.generation() == 2);
    // Both go on talking for a while.
    let mut heard = Vec::new();
    wait_for("the successor is heard", || {
        heard.extend(decision(&mut channel).map(|decision| decision.confidence));
        heard.len() > 10
    });
    assert!(heard.iter().all(|confidence| *confidence == 0.4), "{heard:?}");
    assert_eq!(supervisor.garbage(), 0);
}

/// Switches to another variant; the process that is retired by it.
fn retire(supervisor: &Supervisor, channel: &mut BrainChannel) -> u32 {
    wait_for("it runs", || matches!(channel.process(), BrainProcess::Running { .. }));
    wait_for("it is heard", || channel.receive().is_some());
    let (pid, level) = (supervisor.pid().unwrap(), supervisor.level());
    supervisor.want(level + 1);
    wait_for("the change", || {
        while channel.receive().is_some() {}
        channel.switch().is_some()
    });
    wait_for("the supervisor follows", || supervisor.level() == level + 1);
    pid
}

#[test]
fn a_retired_brain_has_its_time_and_no_more() {
    let exists = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    let machine = Machine::new("retired");
    let folder = machine.0.clone();
    let (supervisor, mut channel) =
        Supervisor::start_variants(move |level| chatter(&folder, level), 400).unwrap();
    let (pid, begun) = (retire(&supervisor, &mut channel), Instant::now());
    wait_for("it is ended", || !exists(pid));
    // The supervisor counts in its own rounds, none of which is shorter than it says.
    assert!(begun.elapsed() > Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(20));
    // One that ends by itself is not waited for.
    let machine = Machine::new("retired-early");
    let folder = machine.0.clone();
    let (supervisor, mut channel) =
        Supervisor::start_variants(move |level| chatter(&folder, level), 60_000).unwrap();
    let pid = retire(&supervisor, &mut channel);
    assert!(exists(pid));
    Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap();
    wait_for("it is reaped", || !exists(pid));
}

#[test]
fn each_failed_start_is_followed_by_a_longer_pause() {
    let begun = Instant::now();
    let (supervisor, _channel) =
        Supervisor::start_variants(|_| Command::new("/nonexistent/brain"), 100).unwrap();
    wait_for("the fourth failure", || supervisor.start_failures() == 4);
    // 100, 200 and 400 ms.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[test]
fn a_successor_that_does_not_start_leaves_everything_as_it_was() {
    let machine = Machine::new("stillborn");
    let folder = machine.0.clone();
    let (supervisor, mut channel) =
        Supervisor::start_variants(move |level| brain(&folder, level), 100).unwrap();
    let running = BrainProcess::Running { generation: 1 };
    wait_for("it runs", || channel.process() == running);
    supervisor.want(9);
    wait_for("it is noticed", || {
        assert_eq!((channel.process(), channel.switch()), (running, None));
        supervisor.successor_failures() == 1
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((supervisor.successor_failures(), supervisor.level()), (1, 0), "not wanted any more");
    // If the old one dies while the successor loads, the successor is what starts next.
    supervisor.want(1);
    wait_for("the successor is there", || {
        let _ = channel.process();
        fs::read_dir("/proc/self/task").is_ok() && supervisor.generation() == 1 && supervisor.level() == 0
    });
    std::thread::sleep(Duration::from_millis(50));
    channel.kill(1);
    wait_for(
        "it takes the place",
        || matches!(channel.process(), BrainProcess::Running { generation } if generation > 1),
    );
    assert_eq!(channel.level(), 1);
    wait_for("the supervisor follows", || supervisor.level() == 1);
    assert_eq!(channel.process(), BrainProcess::Running { generation: 3 });
}
