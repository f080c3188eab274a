//! What the system grants: where it says yes it has to be true, and where it says no a sentence says what to do.

use ganglion_guard::*;
use std::io::{BufRead, BufReader, Error, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A field of this thread's line in `/proc` (`proc_pid_stat(5)`), counted from 1.
fn of_this_thread(field: usize) -> String {
    let line = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name, in brackets, may hold blanks.
    let (_, rest) = line.rsplit_once(") ").unwrap();
    rest.split(' ').nth(field - 3).unwrap().to_owned()
}

fn locked_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn what_is_granted_holds_and_what_is_not_is_explained() {
    // On a thread of its own: the priority stays with it.
    let (status, policy, priority) = std::thread::spawn(|| {
        let status = go_real_time();
        (status, of_this_thread(41), of_this_thread(40))
    })
    .join()
    .unwrap();
    let fifo = status.fifo.is_ok();
    assert_eq!(policy == "1", fifo, "SCHED_FIFO");
    assert_eq!(priority == limits::FIFO_PRIORITY.to_string(), fifo);
    assert_eq!(locked_kib() > 0, status.memory_locked.is_ok());
    assert_eq!(lock_memory().is_ok(), status.memory_locked.is_ok());
    assert_eq!(status.advice().len(), usize::from(!fifo) + usize::from(status.memory_locked.is_err()));
}

#[test]
fn advice_names_what_is_missing_and_how_to_get_it() {
    let no = || Err(Error::from(ErrorKind::PermissionDenied));
    let neither = RtStatus { fifo: no(), memory_locked: no() }.advice();
    assert_eq!(neither.len(), 2);
    assert!(neither[0].starts_with("SCHED_FIFO 60 refused (permission denied)"), "{}", neither[0]);
    assert!(neither[0].contains("CAP_SYS_NICE") && neither[1].contains("CAP_IPC_LOCK"), "{neither:?}");
    assert!(neither[1].starts_with("mlockall refused (permission denied)"), "{}", neither[1]);
    assert_eq!(RtStatus { fifo: Ok(()), memory_locked: no() }.advice(), neither[1..]);
    assert!(RtStatus { fifo: Ok(()), memory_locked: Ok(()) }.advice().is_empty());
}

#[test]
fn the_clock_is_the_systems_monotonic_one() {
    // The first number of /proc/uptime is that clock's, in hundredths of a second, but for time asleep.
    let before = monotonic_us();
    std::thread::sleep(Duration::from_millis(30));
    let after = monotonic_us();
    assert!((30_000..5_000_000).contains(&(after - before)), "{before} {after}");
    let (read, instant) = (monotonic_us(), Instant::now());
    std::thread::sleep(Duration::from_millis(20));
    let (passed, measured) = (monotonic_us() - read, instant.elapsed().as_micros() as u64);
    assert!(passed.abs_diff(measured) < 10_000, "{passed} {measured}");
    // Not the wall clock, which is decades ahead; and finer than the ticks that /proc shows.
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    let up_s: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(monotonic_us() as f64 / 1e6 <= up_s + 5.0, "{up_s} s up");
    assert!((0..200).any(|_| !monotonic_us().is_multiple_of(1_000)));
}

const CHILD: &str = "GANGLION_TEST_DIES_WITH_ITS_PARENT";

/// The other half of the next test, in a process of its own.
#[test]
fn a_child_that_waits() {
    if std::env::var_os(CHILD).is_some() {
        die_with_parent().unwrap();
        println!("\nready");
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_child_dies_when_the_thread_that_started_it_ends() {
    let mut child = std::thread::spawn(|| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_child_that_waits", "--nocapture"]).env(CHILD, "1");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
        child
    })
    .join()
    .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let in_time = begun.elapsed() < Duration::from_secs(20);
    let _ = child.kill();
    assert_eq!((child.wait().unwrap().signal(), in_time), (Some(9), true));
}

const LOCKS: &str = "GANGLION_TEST_LOCKS_ITS_MEMORY";

/// The other half of the next test: how much more is locked once new memory was taken.
#[test]
fn a_child_that_locks() {
    if std::env::var_os(LOCKS).is_some() {
        lock_memory().unwrap();
        let before = locked_kib();
        let more = vec![1u8; 32 << 20];
        let after = locked_kib();
        println!(
            "\nlocked {before} and {} more for {}",
            after - before,
            more.iter().filter(|b| **b == 1).count()
        );
    }
}

/// With a finite limit, locking what comes later would turn an allocation into a failure.
#[test]
fn later_memory_is_locked_only_where_there_is_no_limit() {
    for (limit, later) in [("unlimited", true), ("536870912", false)] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--memlock={limit}")).arg(std::env::current_exe().unwrap());
        let done = command.args(["--exact", "a_child_that_locks", "--nocapture"]).env(LOCKS, "1").output();
        let text = done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("locked ")) else {
            println!("skipped: this system lets us set no limit, or lock no memory");
            return;
        };
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert!(numbers[0] > 0, "{line}");
        assert_eq!(numbers[1] >= 32 << 10, later, "{limit}: {line}");
    }
}
