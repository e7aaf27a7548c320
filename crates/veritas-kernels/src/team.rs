//! The thread team: our own threads, which share the tasks of one operation after the other.
//!
//! An operation is a number of independent tasks. The caller is thread 0 and works too; whoever is free takes the
//! next number from a counter. Threads spin briefly between operations, because the next one usually follows within
//! microseconds, and then park. A worker that is still asleep is not waited for: when the caller finds no task left,
//! it closes the operation and waits only for the workers that have entered it. So more threads than processors cost
//! little, and a single task costs nothing but the call.
//!
//! Results never depend on which thread ran a task, because tasks write disjoint outputs.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::tile::DisjointChunks;

/// Rounds of `spin_loop` that a worker waits for the next operation before it parks: about 50 µs, longer than the
/// serial stretches inside a step, shorter than anyone would notice in a profile of an idle process.
const SPIN_ROUNDS: u32 = 2000;

/// Rounds for which the caller spins before it yields its processor to a worker that may need it to finish.
const CLOSE_SPIN_ROUNDS: u32 = 2000;

/// Most threads that a team may have: beyond any machine that the project knows, and small enough for the counter.
pub const THREADS_MAX: usize = 1024;

// The state word: the number of the operation, whether it is open, whether the team ends, and how many workers are in.
const ACTIVE_MASK: u64 = 0xFFFF;
const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const EPOCH_SHIFT: u32 = 32;

/// An operation's closure; `Task<'static>` is one whose lifetime has been forgotten.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    state: AtomicU64,
    next: AtomicUsize,
    n_tasks: AtomicUsize,
    /// The operation's closure; valid while the operation is open or a worker is inside.
    task: UnsafeCell<Option<*const Task<'static>>>,
    panicked: AtomicBool,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    spin_rounds: u32,
}

// SAFETY: `task` is the one field that is not Sync by itself. It is written by the caller of `Team::run` alone, and only
// while no operation is open and no worker is inside (state has neither OPEN nor active workers), and read by workers
// only between entering (acquire on state) and leaving (release on state) an open operation.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `task` is dereferenced only as described above, whichever thread owns the Shared.
unsafe impl Send for Shared {}

/// A team of threads. The one that calls [`Team::run`] is thread 0; the others belong to the team and end with it.
///
/// Where the operating system allows and there are no more threads than processors, the team's own threads are pinned
/// to processors of their own; the caller is never pinned, because its thread is not ours.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

thread_local! {
    /// Whether this thread is executing a task of some team.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

impl Team {
    /// A team of `n_threads` threads, the caller included; 0 counts as 1. It may exceed the number of processors.
    ///
    /// # Panics
    /// If `n_threads` exceeds [`THREADS_MAX`] or the system refuses a thread.
    pub fn new(n_threads: usize) -> Self {
        assert!(
            n_threads <= THREADS_MAX,
            "a team has at most {THREADS_MAX} threads, {n_threads} were asked for"
        );
        let n_threads = n_threads.max(1);
        let cpus = cpus_to_pin(n_threads);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            n_tasks: AtomicUsize::new(0),
            task: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            payload: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            // With more threads than processors, a spinning worker would keep one that has work from running.
            spin_rounds: if cpus.is_empty() { 0 } else { SPIN_ROUNDS },
        });
        let workers = (1..n_threads)
            .map(|thread| {
                let shared = Arc::clone(&shared);
                let cpu = cpus.get(thread).copied();
                std::thread::Builder::new()
                    .name(format!("veritas-{thread}"))
                    .spawn(move || {
                        if let Some(cpu) = cpu {
                            pin_to(cpu);
                        }
                        shared.work(thread);
                    })
                    .expect("the system refused a thread of the compute team")
            })
            .collect();
        Self { shared, workers, caller: Mutex::new(()) }
    }

    /// Threads of the team, the caller included.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(number, thread)` once for each number below `n_tasks`, on several threads at once, and returns when
    /// all have ended. `thread` is below [`Team::n_threads`], and no two calls with the same thread run at the same
    /// time. Callers on several threads take turns.
    ///
    /// # Panics
    /// With the payload of a task that panicked (tasks not yet started are dropped then), and if a task calls it.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        assert!(!IN_TASK.get(), "a task may not start another operation of a team");
        if n_tasks == 0 {
            return;
        }
        let turn = lock(&self.caller);
        if n_tasks == 1 || self.workers.is_empty() {
            let _in_task = InTask::enter();
            for number in 0..n_tasks {
                task(number, 0);
            }
            drop(turn);
            return;
        }
        let shared = &*self.shared;
        shared.open(n_tasks, task);
        shared.take_tasks(task, 0);
        shared.close();
        let payload =
            if shared.panicked.load(Ordering::Acquire) { lock(&shared.payload).take() } else { None };
        drop(turn);
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    /// Cuts `slice` into chunks of `chunk_len` (the last may be shorter) and calls `task(number of the chunk, chunk)`
    /// for each, on several threads at once.
    ///
    /// # Panics
    /// As [`Team::run`], and if `chunk_len` is 0.
    pub fn chunks_mut<T: Send>(
        &self,
        slice: &mut [T],
        chunk_len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks = DisjointChunks::new(slice, chunk_len);
        self.run(chunks.count(), &|number, _thread| {
            // SAFETY: `run` calls this once for each number, so that no chunk is borrowed twice.
            task(number, unsafe { chunks.chunk(number) });
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOP, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks and hands them to the caller of `run`; it has none of its own.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("n_threads", &self.n_threads()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Publishes an operation. The caller holds the team's turn, so that the previous one is closed and left.
    fn open(&self, n_tasks: usize, task: &Task<'_>) {
        let state = self.state.load(Ordering::Acquire);
        debug_assert_eq!(state & (OPEN | ACTIVE_MASK), 0);
        // SAFETY: the previous operation is closed and no worker is inside, hence nobody reads the field; it forgets the
        // closure's lifetime, and `close` returns only when no worker can use it any more.
        unsafe {
            let task = std::ptr::from_ref(task);
            *self.task.get() = Some(std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task));
        }
        self.panicked.store(false, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.n_tasks.store(n_tasks, Ordering::Relaxed);
        let epoch = ((state >> EPOCH_SHIFT) + 1) & u64::from(u32::MAX);
        // SeqCst with the sleepers' count: either the worker sees the operation before it sleeps, or we see the sleeper.
        self.state.store(epoch << EPOCH_SHIFT | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Lets no more workers in and waits until those inside have left.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut rounds = 0;
        while self.state.load(Ordering::Acquire) & ACTIVE_MASK != 0 {
            rounds += 1;
            if rounds < CLOSE_SPIN_ROUNDS && self.spin_rounds > 0 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Takes tasks until none is left.
    fn take_tasks(&self, task: &Task<'_>, thread: usize) {
        let n_tasks = self.n_tasks.load(Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _in_task = InTask::enter();
            loop {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                if number >= n_tasks {
                    break;
                }
                task(number, thread);
            }
        }));
        if let Err(payload) = outcome {
            self.next.store(n_tasks, Ordering::Relaxed);
            lock(&self.payload).get_or_insert(payload);
            self.panicked.store(true, Ordering::Release);
        }
    }

    /// The life of a worker.
    fn work(&self, thread: usize) {
        let mut seen_epoch = 0;
        loop {
            let state = self.await_operation(seen_epoch);
            if state & STOP != 0 {
                return;
            }
            seen_epoch = state >> EPOCH_SHIFT;
            if self.enter(state) {
                // SAFETY: this worker is inside an open operation, whose closure is valid until the worker leaves.
                let task = unsafe { &*(*self.task.get()).expect("an open operation has a task") };
                self.take_tasks(task, thread);
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Enters the operation of `state`, unless it has been closed meanwhile.
    fn enter(&self, mut state: u64) -> bool {
        let epoch = state >> EPOCH_SHIFT;
        while state & OPEN != 0 && state >> EPOCH_SHIFT == epoch {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return true,
                Err(changed) => state = changed,
            }
        }
        false
    }

    /// Waits for an open operation other than the one that has been seen, or for the team's end.
    fn await_operation(&self, seen_epoch: u64) -> u64 {
        let ready =
            |state: u64| state & STOP != 0 || (state & OPEN != 0 && state >> EPOCH_SHIFT != seen_epoch);
        for _ in 0..self.spin_rounds {
            let state = self.state.load(Ordering::Acquire);
            if ready(state) {
                return state;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            let state = self.state.load(Ordering::SeqCst);
            if ready(state) {
                break state;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        state
    }
}

/// Marks the thread as executing a task, also while a panic unwinds.
struct InTask;

impl InTask {
    fn enter() -> Self {
        IN_TASK.set(true);
        Self
    }
}

impl Drop for InTask {
    fn drop(&mut self) {
        IN_TASK.set(false);
    }
}

/// The lock's value whether or not a panic passed while it was held: no invariant rests on these locks' contents.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processors to pin `n_threads` threads to, one each; empty where there are fewer, or where nobody can say.
#[cfg(target_os = "linux")]
fn cpus_to_pin(n_threads: usize) -> Vec<usize> {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    let mut cpus: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    if cpus.len() < n_threads {
        cpus.clear();
    }
    cpus
}

/// Pins the calling thread. A refusal costs speed alone and is no error.
#[cfg(target_os = "linux")]
fn pin_to(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Elsewhere threads are not pinned; the numbers only say that there are processors enough to spin.
#[cfg(not(target_os = "linux"))]
fn cpus_to_pin(n_threads: usize) -> Vec<usize> {
    let n_cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if n_cpus < n_threads { Vec::new() } else { (0..n_cpus).collect() }
}

#[cfg(not(target_os = "linux"))]
fn pin_to(_cpu: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_exactly_once_whatever_the_number_of_threads() {
        for n_threads in [0, 1, 2, 5] {
            let team = Team::new(n_threads);
            for n_tasks in [0, 1, 2, 3, 100] {
                let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..50 {
                    team.run(n_tasks, &|task, thread| {
                        assert!(thread < team.n_threads());
                        counts[task].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 50));
            }
        }
    }

    #[test]
    fn chunks_cover_the_slice_and_the_last_may_be_short() {
        let team = Team::new(3);
        let mut numbers = vec![0usize; 1000];
        team.chunks_mut(&mut numbers, 7, |chunk, slice| {
            for (place, number) in slice.iter_mut().enumerate() {
                *number = chunk * 7 + place;
            }
        });
        assert!(numbers.iter().enumerate().all(|(place, &number)| place == number));
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3);
        for _ in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.run(64, &|task, _| assert!(task != 33, "task 33 fails"));
            }));
            let payload = caught.unwrap_err();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"task 33 fails"));
            let count = AtomicUsize::new(0);
            team.run(64, &|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 64);
        }
    }

    #[test]
    fn a_task_that_starts_another_operation_panics_instead_of_hanging() {
        let team = Team::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| team.run(4, &|_, _| team.run(1, &|_, _| ()))));
        assert!(caught.is_err());
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let team = Team::new(2);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        team.run(8, &|_, _| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 4 * 100 * 8);
    }

    #[test]
    fn a_team_can_be_dropped_at_once_and_after_it_went_to_sleep() {
        for n_threads in [1, 2, 5] {
            drop(Team::new(n_threads));
            let team = Team::new(n_threads);
            team.run(10, &|_, _| ());
            while team.shared.sleepers.load(Ordering::SeqCst) < team.workers.len() {
                std::thread::yield_now();
            }
            drop(team);
        }
    }
}
