//! How far an account is used, and what each law makes of that.

use std::collections::BTreeMap;

use super::{Law, Mark, Micros, bucket::Bucket, fixed::Windows, sliding::Slices};

/// How far an account is used. What the numbers mean is the law's: see [`Mark`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// The window, or the newest slice.
    pub(super) of: Micros,
    /// What was granted in the window; of a bucket the instant at which it is full again.
    pub(super) level: u64,
    /// What was granted in each slice that counts, by its number.
    pub(super) slices: BTreeMap<u64, u64>,
    /// Of a bucket, the units and the microseconds of the rate that its level stands on; zeros before it stands on any.
    pub(super) rate: (u64, Micros),
}

/// The arithmetic of a law, on the store's clock.
pub(super) trait Count {
    /// Forgets what does not count at `now` any more.
    fn roll(&self, used: &mut Used, now: Micros);

    /// Takes over what a node saw of an earlier epoch: counts at least as much, at least as long.
    fn merge(&self, used: &mut Used, seen: Mark, life: Micros, now: Micros);

    /// Books `units` back that were granted in the window `of` and will not be spent.
    fn give_back(&self, used: &mut Used, units: u64, of: Micros, now: Micros);

    /// What can be granted at `now`, of `limit`.
    fn available(&self, used: &Used, limit: u64, now: Micros) -> u64;

    /// Books `units`, which are at most available, as granted at `now`.
    fn take(&self, used: &mut Used, units: u64, now: Micros);

    /// The window of credit that is granted at `now`, and until when it may be spent at most.
    fn credit(&self, used: &Used, life: Micros, now: Micros) -> (Micros, Micros);

    /// How long until `units` of `limit` can be granted, at most the largest grant; 0 for now.
    fn retry_in(&self, used: &Used, units: u64, limit: u64, now: Micros) -> Micros;

    /// How long until all can be granted again.
    fn reset_in(&self, used: &Used, now: Micros) -> Micros;

    /// What a node is told to remember.
    fn mark(&self, used: &Used) -> Mark;

    /// The clock went back from `at` to `now`, by more than a life of credit: counts on from there, as strictly.
    fn step_back(&self, used: &mut Used, life: Micros, at: Micros, now: Micros);

    /// Books up to `units` back wherever they were granted, for an operator.
    fn relieve(&self, used: &mut Used, units: u64, now: Micros);

    /// How much is used at `now`, of `limit`.
    fn used(&self, used: &Used, limit: u64, now: Micros) -> u64;
}

/// The arithmetic of one of the laws.
pub(super) enum Counting {
    Windows(Windows),
    Slices(Slices),
    Bucket(Bucket),
}

impl Counting {
    pub(super) fn of(law: Law) -> Self {
        match law {
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month => Self::Windows(Windows { law }),
            Law::Sliding { slice, slices } => Self::Slices(Slices { slice, slices }),
            Law::Bucket { count, period, burst, refill } => {
                Self::Bucket(Bucket { count, period, burst, refill })
            }
        }
    }
}

impl std::ops::Deref for Counting {
    type Target = dyn Count;

    fn deref(&self) -> &(dyn Count + 'static) {
        match self {
            Self::Windows(windows) => windows,
            Self::Slices(slices) => slices,
            Self::Bucket(bucket) => bucket,
        }
    }
}
