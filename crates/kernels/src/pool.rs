//! A pool of persistent workers: fork and join in about a microsecond, no allocation per call.
//!
//! Workers spin for a while after each job and then sleep, so that a request runs at spin latency and an idle
//! process costs nothing. Where the pool has a thread for every processor that the process may use, each worker stays on one of
//! them, and a caller that wakes them first goes to the one that is left, where it would otherwise share one of theirs until the
//! system moves it, which takes milliseconds. A pool that leaves processors free leaves the choice to the system too.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::KernelError;
use crate::limits::{SHARES_MAX, SPINS_BEFORE_SLEEP, SPINS_BEFORE_YIELD, THREADS_MAX};
use crate::shared::SharedSlice;

type Job = *const (dyn Fn(usize) + Sync);

struct State {
    /// The shares of the current job that nobody has taken yet, see [`Ticket`].
    ticket: AtomicU64,
    /// Shares of the current job that are not finished.
    pending: AtomicUsize,
    /// Workers that sleep or are about to; raised under `bed`.
    asleep: AtomicUsize,
    /// Workers that run; what their start allocates is allocated by then.
    started: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
    job: UnsafeCell<Option<Job>>,
    bed: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the caller that holds `Pool::caller`, while no share is pending; a thread reads it
// only after taking a share, which the caller then waits for. The job itself is `Sync`.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

/// `count` shares, of which `next..count` are free, in one word: taking a share is one compare-and-swap, and a thread
/// that comes late finds nothing to take instead of a job that is gone.
struct Ticket;

impl Ticket {
    const NEXT_BITS: u32 = 32;

    fn fresh(count: usize) -> u64 {
        (count as u64) << Self::NEXT_BITS
    }

    fn has_share(ticket: u64) -> bool {
        (ticket & u64::from(u32::MAX)) < ticket >> Self::NEXT_BITS
    }

    fn next(ticket: u64) -> usize {
        (ticket & u64::from(u32::MAX)) as usize
    }
}

impl State {
    /// Takes a share of the current job and runs it; false if there is none.
    fn run_share(&self) -> bool {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            if !Ticket::has_share(ticket) {
                return false;
            }
            match self.ticket.compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(current) => ticket = current,
            }
        }
        // SAFETY: the share just taken is pending, so the caller keeps the job alive and does not write the cell.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| job(Ticket::next(ticket)))).is_err()
        {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.pending.fetch_sub(1, Ordering::Release);
        true
    }
}

/// A fixed set of threads that run one job at a time together with the caller.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
    /// The process's processors, the caller's first, if each thread has one of its own; else none.
    processors: Vec<usize>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    // The mutexes guard no data, so a panic while one was held leaves nothing half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads, the caller included: 1 starts none.
    ///
    /// # Errors
    /// If `threads` is 0 or above [`THREADS_MAX`], or the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        if threads == 0 || threads > THREADS_MAX {
            return Err(KernelError::Threads { found: threads, max: THREADS_MAX });
        }
        let state = Arc::new(State {
            ticket: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            bed: Mutex::new(()),
            wake: Condvar::new(),
        });
        let allowed = affinity::allowed();
        let processors = if allowed.len() == threads { allowed } else { Vec::new() };
        let workers = Vec::with_capacity(threads - 1);
        let mut pool = Self { state, workers, caller: Mutex::new(()), processors };
        for index in 1..threads {
            let state = Arc::clone(&pool.state);
            let home = pool.processors.get(index).copied();
            let worker = std::thread::Builder::new()
                .name(format!("kernel-{index}"))
                .spawn(move || {
                    home.inspect(|processor| affinity::stay_on(&[*processor]));
                    work(&state);
                })
                .map_err(|e| KernelError::Spawn { reason: e.to_string() })?;
            pool.workers.push(worker);
        }
        while pool.state.started.load(Ordering::Acquire) < pool.workers.len() {
            std::thread::yield_now();
        }
        Ok(pool)
    }

    /// Threads that share a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(index)` once for every index below [`Pool::threads`]: see [`Pool::run_shares`].
    ///
    /// # Panics
    /// If the job panics on any thread.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        self.run_shares(self.threads(), job);
    }

    /// Runs `job(index)` once for every index below `shares` and returns when all are done. Which thread runs which index
    /// is open: whoever is free takes the next one, the caller too, so a worker that the system does not schedule delays
    /// one share at most. Callers on different threads take turns; a job must not call `run` of its own pool.
    ///
    /// # Panics
    /// If the job panics on any thread, or there are more than [`SHARES_MAX`] shares.
    pub fn run_shares(&self, shares: usize, job: &(dyn Fn(usize) + Sync)) {
        assert!(shares <= SHARES_MAX, "{shares} shares");
        if self.workers.is_empty() {
            return (0..shares).for_each(job);
        }
        let turn = lock(&self.caller);
        let state = &*self.state;
        // SAFETY: only the lifetime is erased. A thread uses the pointer only for a share it has taken, and this
        // function neither returns nor unwinds before all shares are finished.
        let erased = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job) };
        // SAFETY: nobody reads the cell now: no share is pending or free.
        unsafe { *state.job.get() = Some(erased) };
        state.pending.store(shares, Ordering::Relaxed);
        // SeqCst on ticket and asleep: either this thread sees the sleeper, or the sleeper sees the shares.
        state.ticket.store(Ticket::fresh(shares), Ordering::SeqCst);
        if state.asleep.load(Ordering::SeqCst) > 0 {
            affinity::go_to_first(&self.processors);
            let _bed = lock(&state.bed);
            state.wake.notify_all();
        }
        while state.run_share() {}
        let mut spins = 0;
        while state.pending.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        let panicked = state.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        assert!(!panicked, "a kernel job panicked");
    }

    /// Splits `0..count` into one contiguous range per thread and runs `job(range)` on each non-empty one.
    pub fn split(&self, count: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let threads = self.threads();
        if threads == 1 || count <= 1 {
            if count > 0 {
                job(0..count);
            }
            return;
        }
        self.run(&|index| {
            let range = count * index / threads..count * (index + 1) / threads;
            if !range.is_empty() {
                job(range);
            }
        });
    }

    /// Runs `job(row index, row)` for every row of `rows`, a (count, length) matrix, shared among the threads.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn for_each_row(&self, rows: &mut [f32], length: usize, job: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        assert!(length > 0 && rows.len().is_multiple_of(length), "not whole rows");
        let count = rows.len() / length;
        let shared = SharedSlice::new(rows);
        self.split(count, &|range| {
            for index in range {
                // SAFETY: `split` gives every index to one thread, and rows do not overlap.
                job(index, unsafe { shared.part(index * length, length) });
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        {
            let _bed = lock(&self.state.bed);
            self.state.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so there is nothing to learn from this result.
            let _ = worker.join();
        }
    }
}

/// Which processors this process may use (`sched_setaffinity(2)`); elsewhere than on Linux, nothing is known and nothing done.
mod affinity {
    #[cfg(target_os = "linux")]
    pub(super) fn allowed() -> Vec<usize> {
        let mut set = empty();
        // SAFETY: `set` is a valid, writable set of the size given; pid 0 is the calling thread.
        let known = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } == 0;
        let count = if known { 8 * size_of_val(&set) } else { 0 };
        // SAFETY: every index is inside the set.
        (0..count).filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) }).collect()
    }

    /// Keeps the calling thread on these processors. A refusal costs speed only.
    #[cfg(target_os = "linux")]
    pub(super) fn stay_on(processors: &[usize]) {
        let mut set = empty();
        // SAFETY: the processors came from such a set; pid 0 is the calling thread.
        unsafe {
            processors.iter().for_each(|processor| libc::CPU_SET(*processor, &mut set));
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }

    /// Moves the calling thread to the first of these processors, if it is not there; it may go on to any of them.
    #[cfg(target_os = "linux")]
    pub(super) fn go_to_first(processors: &[usize]) {
        let Some(first) = processors.first() else { return };
        // SAFETY: a question without arguments.
        let here = unsafe { libc::sched_getcpu() };
        if usize::try_from(here).is_ok_and(|here| here != *first) {
            stay_on(&[*first]);
            stay_on(processors);
        }
    }

    #[cfg(target_os = "linux")]
    fn empty() -> libc::cpu_set_t {
        // SAFETY: a set is plain bits.
        unsafe { std::mem::zeroed() }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn stay_on(_processors: &[usize]) {}

    #[cfg(not(target_os = "linux"))]
    pub(super) fn go_to_first(_processors: &[usize]) {}
}

fn work(state: &State) {
    state.started.fetch_add(1, Ordering::Release);
    while !state.stop.load(Ordering::SeqCst) {
        while state.run_share() {}
        wait_for_share(state);
    }
}

fn wait_for_share(state: &State) {
    for _ in 0..SPINS_BEFORE_SLEEP {
        if Ticket::has_share(state.ticket.load(Ordering::Acquire)) {
            return;
        }
        std::hint::spin_loop();
    }
    let mut bed = lock(&state.bed);
    state.asleep.fetch_add(1, Ordering::SeqCst);
    while !Ticket::has_share(state.ticket.load(Ordering::SeqCst)) && !state.stop.load(Ordering::SeqCst) {
        bed = state.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
    }
    state.asleep.fetch_sub(1, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once_for_any_thread_count() {
        for threads in 1..=5 {
            let pool = Pool::new(threads).unwrap();
            for count in [0usize, 1, 2, 3, 7, 64] {
                let mut rows = vec![0.0; count * 3];
                for _ in 0..50 {
                    pool.for_each_row(&mut rows, 3, &|i, row| row.iter_mut().for_each(|v| *v += i as f32));
                }
                let expected: Vec<f32> = (0..count * 3).map(|i| (i / 3) as f32 * 50.0).collect();
                assert_eq!(rows, expected, "{threads} threads, {count} rows");
            }
        }
    }

    #[test]
    fn every_share_is_run_once_however_many_there_are() {
        for threads in 1..=3 {
            let pool = Pool::new(threads).unwrap();
            for shares in [0, 1, 2, 5, 64] {
                let counts: Vec<AtomicUsize> = (0..shares).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..100 {
                    pool.run_shares(shares, &|index| {
                        counts[index].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 100), "{threads} {shares}");
            }
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            pool.run(&|index| {
                sum.fetch_add(index + 1, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 5 * 6);
    }

    #[test]
    fn a_panic_in_a_job_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        for bad in 0..2 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(&|index| assert_ne!(index, bad))));
            assert!(result.is_err());
        }
        pool.run(&|_| ());
    }

    #[test]
    fn absurd_thread_counts_are_refused() {
        assert!(matches!(Pool::new(0), Err(KernelError::Threads { found: 0, .. })));
        assert!(Pool::new(THREADS_MAX + 1).is_err());
    }
}
