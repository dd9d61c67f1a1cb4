//! One subject under the clock: batches of an operation on one shared object, from one thread or from several.

use std::{
    fs,
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::allocations;

/// Operations between two looks at the clock or at the stop flag: enough to hide the look, few enough to stop soon.
const BATCH: u32 = 256;

/// Operations over which allocations are counted.
const COUNTED: u32 = 1024;

/// How to run a subject once.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Nanoseconds per operation and thread, over a slice of time.
    Time { threads: usize, slice: Duration },
    /// Allocations per operation.
    Allocations,
}

/// Something that can be run: the operation is compiled into it, so that only the loop's edge is dynamic.
pub(super) type Subject = Box<dyn Fn(Run) -> f64>;

pub(super) fn subject<S, T, R>(
    shared: S,
    each: impl Fn(&S) -> T + Sync + 'static,
    operation: impl Fn(&mut T) -> R + Sync + 'static,
) -> Subject
where
    S: Sync + 'static,
{
    Box::new(move |run| match run {
        Run::Time { threads, slice } => {
            let stop = AtomicBool::new(false);
            let start = Barrier::new(threads + 1);
            thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut own = each(&shared);
                            batch(&mut own, &operation, BATCH);
                            start.wait();
                            timed(&mut own, &operation, &stop)
                        })
                    })
                    .collect();
                start.wait();
                #[expect(clippy::disallowed_methods, reason = "the length of a slice, not synchronisation")]
                thread::sleep(slice);
                stop.store(true, Relaxed);
                let per_thread =
                    workers.into_iter().map(|worker| worker.join().expect("the operation panicked"));
                per_thread.sum::<f64>() / threads as f64
            })
        }
        Run::Allocations => {
            let mut own = each(&shared);
            batch(&mut own, &operation, COUNTED);
            allocations::during(|| batch(&mut own, &operation, COUNTED)) as f64 / f64::from(COUNTED)
        }
    })
}

fn timed<T, R>(own: &mut T, operation: &impl Fn(&mut T) -> R, stop: &AtomicBool) -> f64 {
    let mut batches = 0_u64;
    let (begin, waited) = (Instant::now(), waited_for_a_core());
    while !stop.load(Relaxed) {
        batch(own, operation, BATCH);
        batches += 1;
    }
    let took = begin.elapsed().saturating_sub(waited_for_a_core().saturating_sub(waited));
    took.as_nanos() as f64 / (batches.max(1) * u64::from(BATCH)) as f64
}

/// How long this thread has stood ready without a core to run on: neighbours' doing, not the subject's. What the
/// subject waits for by itself (a lock, a wake-up) stays counted. Zero where the system does not tell.
fn waited_for_a_core() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

#[inline(never)]
fn batch<T, R>(own: &mut T, operation: &impl Fn(&mut T) -> R, count: u32) {
    for _ in 0..count {
        black_box(operation(black_box(own)));
    }
}
