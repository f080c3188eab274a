//! The brain's process against what no guard would send.

mod common;
use common::*;
use ganglion_site::{DECISION_FRAME_BYTES, Decision, EVENT_FRAME_BYTES, Event, Sentence};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A brain with the test as its guard; all that it says arrives in the queue.
fn start(site: &TestSite, arguments: &[&str]) -> (Process, UnixDatagram, Receiver<Decision>) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut command = Command::new(GANGLION);
    command.arg("brain").arg(site.path()).args(arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
    let process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let (sender, said) = channel();
    let socket = ours.try_clone().unwrap();
    // The command held a copy of the brain's end; without it the socket closes when the brain ends.
    drop(command);
    std::thread::spawn(move || {
        let mut frame = [0; DECISION_FRAME_BYTES + 1];
        // A socket that was shut down gives empty messages.
        while let Some(size) = socket.recv(&mut frame).ok().filter(|&size| size > 0) {
            let decision =
                Decision::decode(&frame[..size]).expect("whatever comes in, only decisions come out");
            if sender.send(decision).is_err() {
                break;
            }
        }
    });
    let first = said.recv_timeout(PATIENCE).expect("a sign of life when the model is loaded");
    assert_eq!(first.epoch, 0);
    (process, ours, said)
}

fn event(epoch: u64) -> [u8; EVENT_FRAME_BYTES] {
    let mut event = Event::new(epoch, ganglion_guard::monotonic_us() + 60_000_000);
    event.sentence = Sentence::new("set the kitchen to 21 degrees").unwrap();
    let mut frame = [0; EVENT_FRAME_BYTES];
    event.encode(&mut frame);
    frame
}

fn answer_to(epoch: u64, said: &Receiver<Decision>) -> Decision {
    loop {
        let decision = said.recv_timeout(PATIENCE).expect("an answer");
        if decision.epoch == epoch {
            return decision;
        }
        assert_eq!(decision.epoch, 0, "only what was asked is answered");
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn ten_thousand_random_datagrams_and_then_a_proper_one() {
    let site = TestSite::new("hvac");
    let (mut process, socket, said) = start(&site, &[]);
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let good = event(7);
    for count in 0..10_000 {
        let mut frame: Vec<u8> = match count % 4 {
            // Noise of any size, also of the right one.
            0 => vec![0; random(&mut state) as usize % 3000],
            1 => vec![0; EVENT_FRAME_BYTES],
            // A good frame, cut or with some bytes changed.
            2 => good[..random(&mut state) as usize % EVENT_FRAME_BYTES].to_vec(),
            _ => good.to_vec(),
        };
        match count % 4 {
            0 | 1 => frame.iter_mut().for_each(|byte| *byte = random(&mut state) as u8),
            2 => {}
            _ => {
                for _ in 0..1 + random(&mut state) % 8 {
                    let place = random(&mut state) as usize % frame.len();
                    frame[place] ^= 1 + (random(&mut state) % 255) as u8;
                }
                // Changes can cancel each other out.
                if frame == good {
                    continue;
                }
            }
        }
        socket.send(&frame).unwrap();
    }
    assert!(process.0.try_wait().unwrap().is_none(), "alive");
    socket.send(&event(8)).unwrap();
    let answer = answer_to(8, &said);
    assert!(answer.command.is_some(), "{answer:?}");
}

#[test]
fn it_ends_when_its_guard_does() {
    let site = TestSite::new("hvac");
    let (mut process, socket, said) = start(&site, &[]);
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    drop((socket, said));
    eventually("the brain ends", || process.0.try_wait().unwrap().is_some());
}

#[test]
fn an_injected_loop_is_one() {
    let site = TestSite::new("hvac");
    let (mut process, socket, said) = start(&site, &["--fault", "loop-after=1"]);
    socket.send(&event(1)).unwrap();
    assert!(answer_to(1, &said).command.is_some());
    socket.send(&event(2)).unwrap();
    // Signs of life from before the loop may still come; none from within.
    while said.recv_timeout(Duration::from_secs(3)).is_ok_and(|decision| decision.epoch != 2) {}
    assert!(said.try_recv().is_err() && process.0.try_wait().unwrap().is_none(), "silent and alive");
    let refused = ganglion(&["run", text(site.path()), "--brain-fault", "sulk"]);
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[test]
fn a_person_who_starts_it_is_told_who_does() {
    let site = TestSite::new("hvac");
    let output = ganglion(&["brain", text(site.path())]);
    assert_eq!(output.code, 1);
    assert!(output.err.contains("started by `ganglion run`"), "{output:?}");
}
