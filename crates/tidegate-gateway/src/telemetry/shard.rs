//! Which copy of a counter a thread writes to, so that workers never fight over a cache line.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most copies of a counter. Threads beyond it share.
const MOST_SHARDS: usize = 64;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: usize = NEXT.fetch_add(1, Relaxed);
}

/// The number of the calling thread, counted from the first that asked.
fn thread_number() -> usize {
    // While a thread is being torn down its number is gone; any shard is right then, only slower.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// A value in as many copies as there are threads that write it, each on cache lines of its own.
#[derive(Debug)]
pub struct Sharded<T> {
    shards: Box<[Padded<T>]>,
}

/// Two cache lines: x86 prefetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Sharded<T> {
    /// Makes copies for `threads` threads, at most 64.
    pub fn new(threads: usize) -> Self {
        let shards = threads.clamp(1, MOST_SHARDS).next_power_of_two();
        Self { shards: (0..shards).map(|_| Padded::default()).collect() }
    }
}

impl<T> Sharded<T> {
    /// The copy of the calling thread.
    #[inline]
    pub fn here(&self) -> &T {
        // The length is a power of two, so that this is a mask and in bounds.
        &self.shards[thread_number() & (self.shards.len() - 1)].0
    }

    /// Every copy.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().map(|shard| &shard.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn threads_write_different_copies_and_nothing_is_lost() {
        let counter = Sharded::<AtomicU64>::new(4);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counter.here().fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(counter.all().map(|copy| copy.load(Relaxed)).sum::<u64>(), 8000);
        assert!(counter.all().filter(|copy| copy.load(Relaxed) > 0).count() > 1);
    }

    #[test]
    fn the_number_of_copies_is_a_bounded_power_of_two() {
        for (threads, shards) in [(0, 1), (1, 1), (3, 4), (64, 64), (1000, 64)] {
            assert_eq!(Sharded::<AtomicU64>::new(threads).all().count(), shards);
        }
    }
}
