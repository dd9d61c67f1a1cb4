//! A counter in the hands of an operator: read, adjusted, reset. Decisions are not counted here.

use std::fmt;

use tidegate_core::{Counter, Instant, Quota};

use super::{
    Ruling, Standing, Tables, Throttle,
    key::Key,
    shard::{Shard, State},
    shard_of, shards,
    table::Place,
};

/// A counter before and after it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Before.
    pub before: Standing,
    /// After.
    pub after: Standing,
}

/// The key shares its counter with others for want of room, and what is given to one would be taken by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCounter;

impl fmt::Display for SharedCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this key shares its counter with others for want of room; raise max_keys")
    }
}

impl std::error::Error for SharedCounter {}

impl Throttle {
    /// Where a key stands at `now`. It takes nothing and makes no counter.
    pub fn standing(&self, key: &Key, now: Instant) -> Standing {
        shards!(&self.tables, shards => standing(&shards[shard_of(*key, shards.len())], *key, now))
    }

    /// Gives a key `units` more, or takes as many from it when they are negative: at most up to the whole limit and
    /// at least down to nothing. What it has yet to regenerate then counts as taken at `now`.
    ///
    /// # Errors
    /// [`SharedCounter`], and nothing was changed.
    pub fn adjust(&self, key: &Key, units: i64, now: Instant) -> Result<Changed, SharedCounter> {
        self.change(key, now, |left| left.saturating_add(units))
    }

    /// Gives a key the whole limit.
    ///
    /// # Errors
    /// [`SharedCounter`], and nothing was changed.
    pub fn reset(&self, key: &Key, now: Instant) -> Result<Changed, SharedCounter> {
        self.change(key, now, |_| i64::MAX)
    }

    fn change(&self, key: &Key, now: Instant, left: impl Fn(i64) -> i64) -> Result<Changed, SharedCounter> {
        shards!(&self.tables, shards => change(&shards[shard_of(*key, shards.len())], *key, now, left))
    }
}

fn standing<C: Counter>(shard: &Shard<C>, key: Key, now: Instant) -> Standing {
    let mut state = shard.lock();
    let counter = state.known(key).unwrap_or_default();
    told(&state.quota, counter, now.max(state.latest()))
}

fn change<C: Counter>(
    shard: &Shard<C>,
    key: Key,
    now: Instant,
    left: impl Fn(i64) -> i64,
) -> Result<Changed, SharedCounter> {
    let mut state: parking_lot::MutexGuard<'_, State<C>> = shard.lock();
    let place = state.locate(key, now);
    if let Place::Shared { .. } = place {
        return Err(SharedCounter);
    }
    let (quota, now) = (state.quota, state.latest());
    let before = told(&quota, state.counter(place), now);
    let limit = i64::from(quota.limit());
    let taken = limit - left(i64::from(before.remaining())).clamp(0, limit);
    let mut counter = C::default();
    if let Ok(taken @ 1..) = u32::try_from(taken) {
        // A fresh counter has room for the limit, and no more than that was taken.
        let _ = counter.take(&quota, taken, now);
    }
    state.put(place, counter);
    Ok(Changed { before, after: told(&quota, counter, now) })
}

fn told<C: Counter>(quota: &Quota, counter: C, now: Instant) -> Standing {
    let left = counter.standing(quota, now);
    let ruling = if left.remaining > 0 { Ruling::Admits } else { Ruling::Refuses };
    Standing {
        limit: quota.limit(),
        remaining: left.remaining,
        reset_in: left.reset_at.as_nanos().saturating_sub(now.as_nanos()),
        window: quota.window().as_nanos() as u64,
        ruling,
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use tidegate_core::{Algorithm, Call};

    use super::*;

    const EACH: [Algorithm; 3] = [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];

    fn throttle(algorithm: Algorithm) -> Throttle {
        let quota = Quota::of("10/h".parse().unwrap()).algorithm(algorithm).build().unwrap();
        Throttle::builder(quota).max_keys(NonZeroU32::MIN).build()
    }

    fn now() -> Instant {
        Instant::EPOCH + Duration::from_secs(7200)
    }

    fn admits(throttle: &Throttle, key: &Key) -> u32 {
        let call = Call::at(now());
        (0..100).map(|_| u32::from(throttle.try_enter(&call, key).is_ok())).sum()
    }

    #[test]
    fn a_counter_is_read_without_being_touched() {
        for algorithm in EACH {
            let (throttle, key) = (throttle(algorithm), Key::of(b"alice"));
            assert_eq!(throttle.standing(&key, now()).remaining(), 10, "{algorithm:?}");
            assert_eq!(throttle.stats().keys, 0, "a look makes no counter");
            let _ = throttle.try_enter(&Call::at(now()).cost(4), &key);
            let standing = throttle.standing(&key, now());
            assert_eq!((standing.remaining(), standing.limit()), (6, 10), "{algorithm:?}");
            assert!(standing.reset_in() > Duration::ZERO);
            assert_eq!(throttle.stats().admitted, 1, "a look is no decision");
        }
    }

    #[test]
    fn what_is_given_and_taken_counts_at_once_and_stays_within_the_limit() {
        for algorithm in EACH {
            let (throttle, key) = (throttle(algorithm), Key::of(b"alice"));
            assert_eq!(admits(&throttle, &key), 10);
            let changed = throttle.adjust(&key, 3, now()).unwrap();
            assert_eq!((changed.before.remaining(), changed.after.remaining()), (0, 3), "{algorithm:?}");
            assert_eq!(admits(&throttle, &key), 3, "{algorithm:?}");
            assert_eq!(throttle.adjust(&key, i64::MAX, now()).unwrap().after.remaining(), 10);
            assert_eq!(throttle.adjust(&key, -4, now()).unwrap().after.remaining(), 6);
            assert_eq!(throttle.adjust(&key, i64::MIN, now()).unwrap().after.remaining(), 0);
            assert_eq!(admits(&throttle, &key), 0, "{algorithm:?}");
            assert_eq!(throttle.reset(&key, now()).unwrap().after.remaining(), 10);
            assert_eq!(admits(&throttle, &key), 10, "{algorithm:?}");
        }
    }

    #[test]
    fn a_counter_that_others_share_is_not_changed() {
        let throttle = throttle(Algorithm::FixedWindow);
        let keys: Vec<Key> = (0..100_u32).map(|n| Key::of(&n.to_le_bytes())).collect();
        let shared = keys.iter().filter(|key| throttle.adjust(key, -1, now()) == Err(SharedCounter)).count();
        assert_eq!(shared, keys.len() - throttle.stats().keys);
        assert!(shared > 0);
    }
}
