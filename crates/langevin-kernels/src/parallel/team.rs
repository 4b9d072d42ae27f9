//! Threads that wait for a step's many small jobs without going to sleep.
//!
//! A forward pass is a few hundred jobs of some tens of microseconds, one after another. Rayon's threads go to sleep between
//! them, and waking one takes as long as some of the jobs. Within [`lead`] the pool's other threads help: they look for the
//! leader's next job all the time, and leave after a millisecond in which there was none. A helper is a job of rayon's like any other, so that
//! there are no more threads than the pool has, and while it waits it does what else rayon has to do.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a waiting thread looks before it asks rayon for other work: about a microsecond.
const LOOKS: usize = 32;

/// How long a helper waits at a stretch without letting other programs have its processor.
const EAGER: Duration = Duration::from_micros(50);

/// How long a helper stays without a job.
const PATIENCE: Duration = Duration::from_millis(1);

thread_local! {
    /// The team that this thread leads.
    static TEAM: Cell<Option<Arc<Team>>> = const { Cell::new(None) };
}

/// What is shared between a leader and its helpers.
struct Team {
    /// Counts up twice for each job: it is odd while a job's parts are to be had.
    phase: Line<AtomicUsize>,
    /// The next part to be had.
    next: Line<AtomicUsize>,
    /// Helpers that may be looking at the job.
    active: Line<AtomicUsize>,
    /// Written by the leader while the phase is even and no helper is active.
    job: UnsafeCell<Job>,
    /// The first panic of a helper in the job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Helpers that have been asked, whether they have come or not, and have not left.
    helpers: AtomicUsize,
    is_over: AtomicBool,
    /// The leader's number among the pool's threads.
    leader: Option<usize>,
}

// SAFETY: `job` is the only part that is not shared freely. The leader alone writes it, while no helper is active; helpers read
// it while they are. What it points to is `Sync`, and there as long as the job is.
unsafe impl Sync for Team {}
// SAFETY: as above.
unsafe impl Send for Team {}

/// Alone on its cache lines, which processors fetch in pairs.
#[repr(align(128))]
struct Line<T>(T);

/// A borrowed `Fn(usize)`, called for each of `parts`.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    data: *const (),
    parts: usize,
}

/// Runs `work` on a thread of the current pool, whose other threads help with its jobs until it is done.
pub fn lead<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let team = TEAM.take();
        if team.is_some() || rayon::current_num_threads() == 1 {
            TEAM.set(team);
            return work();
        }
        let _leading = Leading::new();
        work()
    })
}

/// Calls `f(i)` for each `i < parts` on the threads of the team that this thread leads; `false`, and nothing is called, if it leads none or
/// is within a job already.
pub(super) fn for_each<F: Fn(usize) + Sync>(parts: usize, f: &F) -> bool {
    let Some(team) = TEAM.take() else { return false };
    // Without a team as long as the job runs: what a part wants done is done by rayon.
    let busy = Busy(Some(team));
    if let Some(team) = &busy.0 {
        team.run(parts, f);
    }
    true
}

/// Gives its team back to the thread, after a panic too.
struct Busy(Option<Arc<Team>>);

impl Drop for Busy {
    fn drop(&mut self) {
        TEAM.set(self.0.take());
    }
}

/// Leads until it is dropped.
struct Leading;

impl Leading {
    fn new() -> Self {
        TEAM.set(Some(Arc::new(Team {
            phase: Line(AtomicUsize::new(0)),
            next: Line(AtomicUsize::new(0)),
            active: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job::of(0, &|_| {})),
            panic: Mutex::new(None),
            helpers: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            leader: rayon::current_thread_index(),
        })));
        Self
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if let Some(team) = TEAM.take() {
            team.is_over.store(true, Ordering::Release);
        }
    }
}

impl Job {
    fn of<F: Fn(usize) + Sync>(parts: usize, f: &F) -> Self {
        /// # Safety
        /// `data` leads to an `F`.
        unsafe fn call<F: Fn(usize)>(data: *const (), part: usize) {
            // SAFETY: the caller's promise.
            unsafe { (*data.cast::<F>())(part) }
        }
        Self {
            call: call::<F>,
            data: std::ptr::from_ref(f).cast(),
            parts,
        }
    }
}

impl Team {
    /// Runs a job to its end, on the leader's thread.
    fn run<F: Fn(usize) + Sync>(self: &Arc<Self>, parts: usize, f: &F) {
        self.ask_for_helpers();
        // Where the last job's leader panicked, a helper's panic may have been left.
        drop(self.take_panic());
        // SAFETY: the last job ended when no helper was active any more, and none looks at the next before the phase is odd.
        unsafe { *self.job.get() = Job::of(parts, f) };
        self.next.0.store(0, Ordering::Relaxed);
        self.phase.0.fetch_add(1, Ordering::SeqCst);
        let close = Close(self);
        self.take_parts(parts, f);
        drop(close);
        if let Some(panic) = self.take_panic() {
            resume_unwind(panic);
        }
    }

    fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Calls `f` for the parts that are left.
    fn take_parts(&self, parts: usize, f: impl Fn(usize)) {
        loop {
            let part = self.next.0.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            f(part);
        }
    }

    /// As many as the pool has other threads.
    fn ask_for_helpers(self: &Arc<Self>) {
        let wanted = rayon::current_num_threads() - 1;
        for _ in self.helpers.load(Ordering::Relaxed)..wanted {
            self.helpers.fetch_add(1, Ordering::Relaxed);
            let team = Arc::clone(self);
            rayon::spawn(move || {
                team.help();
                team.helpers.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Takes part in jobs until the team's work is over, or there was none for a while.
    fn help(&self) {
        if rayon::current_thread_index() == self.leader {
            // It came to the leader itself, while that waits for another job of rayon's.
            return;
        }
        let mut last = 0;
        let mut since = Instant::now();
        while !self.is_over.load(Ordering::Acquire) {
            let phase = self.phase.0.load(Ordering::Acquire);
            if phase % 2 == 1 && phase != last {
                self.take_part(phase);
                (last, since) = (phase, Instant::now());
                continue;
            }
            if self.is_quiet() {
                let waited = since.elapsed();
                match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => since = Instant::now(),
                    _ if waited > PATIENCE => return,
                    _ if waited > EAGER => std::thread::yield_now(),
                    _ => {}
                }
            }
        }
    }

    /// Looks for a moment whether anything changes.
    fn is_quiet(&self) -> bool {
        let phase = self.phase.0.load(Ordering::Relaxed);
        for _ in 0..LOOKS {
            spin_loop();
            if self.phase.0.load(Ordering::Relaxed) != phase {
                return false;
            }
        }
        true
    }

    /// Takes parts of the job of an odd phase, if that is not over yet.
    fn take_part(&self, phase: usize) {
        self.active.0.fetch_add(1, Ordering::SeqCst);
        // Either this sees that the leader has closed the job, or the leader sees that there is somebody active.
        if self.phase.0.load(Ordering::SeqCst) == phase {
            // SAFETY: the leader waits until nobody is active before it writes another job or lets go of what this one borrows.
            let job = unsafe { *self.job.get() };
            let parts = AssertUnwindSafe(|| {
                // SAFETY: as above; `call` was made for this `data`.
                self.take_parts(job.parts, |part| unsafe { (job.call)(job.data, part) });
            });
            if let Err(panic) = catch_unwind(parts) {
                self.next.0.store(job.parts, Ordering::Relaxed);
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
        }
        self.active.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends a job, after a panic of the leader's too: nobody looks at it any more once this is dropped.
struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let Team { phase, active, .. } = self.0;
        phase.0.fetch_add(1, Ordering::SeqCst);
        let mut looks = 0;
        while active.0.load(Ordering::SeqCst) > 0 {
            looks += 1;
            if looks % 1024 == 0 {
                std::thread::yield_now();
            } else {
                spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::{Shared, for_each};
    use std::collections::HashSet;

    const JOBS: usize = if cfg!(miri) { 20 } else { 5000 };

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool of threads")
    }

    /// Jobs one after another, each of which reads what the one before wrote.
    fn chain(jobs: usize) {
        let mut values = vec![0usize; 67];
        for job in 0..jobs {
            let parts = job % values.len();
            let to = Shared::new(&mut values);
            for_each(parts, true, |i| {
                // SAFETY: every part has a value of its own.
                unsafe { *to.at(i) += i };
            });
        }
        let rounds = |i: usize| (0..jobs).filter(|job| job % 67 > i).count();
        for (i, &value) in values.iter().enumerate() {
            assert_eq!(value, i * rounds(i), "part {i}");
        }
    }

    #[test]
    fn every_part_is_done_once() {
        for threads in [1, 2, 4] {
            pool(threads).install(|| lead(|| chain(JOBS)));
        }
    }

    #[test]
    fn helpers_come_and_come_again() {
        pool(3).install(|| {
            lead(|| {
                for _ in 0..2 {
                    let seen = Mutex::new(HashSet::new());
                    // Until all three have had a part, which one that never comes would not let end.
                    while seen.lock().expect("no panic").len() < 3 {
                        for_each(8, true, |_| {
                            seen.lock().expect("no panic").insert(std::thread::current().id());
                            std::thread::sleep(Duration::from_micros(100));
                        });
                    }
                    // Longer than helpers wait.
                    std::thread::sleep(3 * PATIENCE);
                }
            });
        });
    }

    #[test]
    fn two_leaders_share_a_pool() {
        let pool = pool(2);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| pool.install(|| lead(|| chain(JOBS / 4))));
            }
        });
    }

    #[test]
    fn jobs_within_jobs_and_leaders_within_leaders() {
        let count = AtomicUsize::new(0);
        pool(2).install(|| {
            lead(|| {
                lead(|| chain(10));
                for_each(6, true, |_| {
                    for_each(5, true, |_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                    lead(|| chain(3));
                });
                // What rayon itself is asked for is done beside.
                let (a, b) = rayon::join(|| 1, || 2);
                assert_eq!(a + b, 3);
            });
        });
        assert_eq!(count.into_inner(), 30);
    }

    #[test]
    fn a_panic_reaches_the_leader_and_ends_nothing_else() {
        pool(2).install(|| {
            lead(|| {
                for round in 0..20 {
                    let all = catch_unwind(AssertUnwindSafe(|| {
                        for_each(50, true, |i| assert!(i != round, "part {i}"));
                    }));
                    let panic = all.expect_err("a part panics");
                    let message = panic.downcast_ref::<String>().expect("a message");
                    assert_eq!(*message, format!("part {round}"));
                    chain(4);
                }
            });
        });
    }
}
