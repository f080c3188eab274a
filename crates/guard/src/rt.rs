//! Clock, sleep and scheduling: the guard's only `unsafe`.
#![allow(
    unsafe_code,
    reason = "design.md gives the runner one file for the system calls that std does not wrap"
)]

use crate::limits::FIFO_PRIORITY;
use ganglion_site::Micros;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the system granted the guard's thread.
#[derive(Debug)]
pub struct RtStatus {
    /// SCHED_FIFO, or why not.
    pub fifo: Result<(), io::Error>,
    /// `mlockall`, or why not.
    pub memory_locked: Result<(), io::Error>,
}

impl RtStatus {
    /// What is missing and how to get it, one sentence each; empty when everything was granted.
    pub fn advice(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let Err(error) = &self.fifo {
            out.push(format!(
                "SCHED_FIFO {FIFO_PRIORITY} refused ({error}): cycles may start late under load; give the binary \
                 CAP_SYS_NICE (setcap cap_sys_nice,cap_ipc_lock+ep) or set LimitRTPRIO in the service"
            ));
        }
        if let Err(error) = &self.memory_locked {
            out.push(format!(
                "mlockall refused ({error}): a page fault may delay a cycle; give the binary CAP_IPC_LOCK or set \
                 LimitMEMLOCK=infinity in the service"
            ));
        }
        out
    }
}

/// The host's monotonic clock, which guard and brain share.
pub fn monotonic_us() -> Micros {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec; CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = Micros::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + Micros::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

/// Sleeps until an absolute time; a signal does not shorten it.
pub(crate) fn sleep_until(at: Micros) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(at / 1_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (at % 1_000_000) as libc::c_long * 1000,
    };
    loop {
        // SAFETY: `time` is a valid timespec below one second of nanoseconds; the remainder pointer may be null.
        let result = unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const time,
                std::ptr::null_mut(),
            )
        };
        if result != libc::EINTR {
            return;
        }
    }
}

/// Sleeps until an absolute time, or less when `fd` becomes readable: then `true`.
pub(crate) fn sleep_until_readable(at: Micros, fd: BorrowedFd<'_>) -> bool {
    loop {
        let left_us = at.saturating_sub(monotonic_us());
        let left = libc::timespec {
            tv_sec: libc::time_t::try_from(left_us / 1_000_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: (left_us % 1_000_000) as libc::c_long * 1000,
        };
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd of an open descriptor (borrowed for the call), a valid timespec, no signal mask.
        let ready = unsafe { libc::ppoll(&raw mut poll, 1, &raw const left, std::ptr::null()) };
        if ready > 0 && poll.revents & libc::POLLIN != 0 {
            return true;
        }
        // A signal must not make the rest of the sleep deaf.
        if ready < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        sleep_until(at);
        return false;
    }
}

/// Has the kernel kill this process when the thread that started it ends: a brain that is stopped or loops sees no closed
/// socket and would outlive a guard that was killed.
///
/// # Errors
/// The system's refusal.
pub fn die_with_parent() -> io::Result<()> {
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: this option takes a number only.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for SCHED_FIFO for the calling thread and locks the process's memory.
pub fn go_real_time() -> RtStatus {
    let parameter = libc::sched_param { sched_priority: FIFO_PRIORITY };
    // SAFETY: pid 0 is the calling thread; `parameter` is a valid sched_param.
    let fifo = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    let fifo = if fifo == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    RtStatus { fifo, memory_locked: lock_memory() }
}

/// Reads all memory of the process in and keeps it there, mapped files included.
///
/// # Errors
/// The system's refusal: usually that the limit on locked memory is too low.
pub fn lock_memory() -> io::Result<()> {
    // With a finite limit, MCL_FUTURE would turn a later allocation into a failure; then only today's pages are locked.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    let unlimited = known && limit.rlim_cur == libc::RLIM_INFINITY;
    let flags = if unlimited { libc::MCL_CURRENT | libc::MCL_FUTURE } else { libc::MCL_CURRENT };
    // SAFETY: takes flags only.
    let locked = unsafe { libc::mlockall(flags) };
    if locked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
