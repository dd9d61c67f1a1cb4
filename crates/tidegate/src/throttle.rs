//! Calls per time: a limit by key, bounded in memory, decided in process.

mod all;
mod key;
mod operate;
mod permit;
mod shard;
mod table;

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use tidegate_core::{Algorithm, InvalidQuota, Quota, QuotaBuilder};
use tidegate_core::{By, Call, Counter, Decision, Fixed, Gcra, Instant, Refused, Sliding};

pub use self::{
    all::{Grants, MAX_LIMITS, Receipts, Refusal, Ruling, Standing, Verdict, enter_all, enter_all_at},
    key::{Key, KeyHasher, Seed},
    operate::{Changed, SharedCounter},
    permit::Permit,
};
use self::{
    permit::{Receipt, Waiting},
    shard::{Ended, Shard},
    table::WAYS,
};
use crate::{Gate, clock};

/// Does something with the shards of whichever algorithm.
macro_rules! shards {
    ($tables:expr, $shards:ident => $then:expr) => {
        match $tables {
            Tables::Gcra($shards) => $then,
            Tables::Fixed($shards) => $then,
            Tables::Sliding($shards) => $then,
        }
    };
}

use shards;

/// A limit on calls per time and key: a [`Gate`] that is exact in one process and bounded in memory.
///
/// Each key has a counter of its own, 37 to 92 bytes each and nothing before its first call, as long as there is
/// room for [`max_keys`](ThrottleBuilder::max_keys); idle counters make room for new keys. Past that, keys without a
/// counter share one with a few others and may be refused early, never admitted beyond the quota. Keys are not
/// stored, only their hashes.
///
/// ```
/// # use tidegate::{Call, clock, throttle::{Key, Quota, Throttle}};
/// let throttle = Throttle::new(Quota::of("2/s".parse()?).build()?);
/// let call = Call::at(clock::now());
/// assert!(throttle.try_enter(&call, &Key::of(b"alice")).is_ok());
/// assert!(throttle.try_enter(&call, &Key::of(b"alice")).is_ok());
/// assert!(throttle.try_enter(&call, &Key::of(b"alice")).is_err());
/// assert!(throttle.try_enter(&call, &Key::of(b"bob")).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Throttle {
    /// The place in the order in which shards of several throttles are locked.
    id: u64,
    max_wait: Duration,
    tables: Tables,
}

enum Tables {
    Gcra(Box<[Shard<Gcra>]>),
    Fixed(Box<[Shard<Fixed>]>),
    Sliding(Box<[Shard<Sliding>]>),
}

/// Whether a limit refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It refuses.
    #[default]
    Enforce,
    /// It decides and counts, but never refuses.
    Shadow,
}

/// A throttle in the making.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ThrottleBuilder {
    quota: Quota,
    mode: Mode,
    max_keys: NonZeroU32,
    max_wait: Duration,
}

/// What a throttle has done and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that have a counter of their own, idle ones included.
    pub keys: usize,
    /// Counters there may be: an eighth more than `max_keys`, so that nearly every one of so many finds a place.
    pub capacity: usize,
    /// Bytes of all tables as they are now.
    pub bytes: usize,
    /// Calls admitted.
    pub admitted: u64,
    /// Calls refused.
    pub refused: u64,
    /// Calls that would have been refused, had the limit been enforced.
    pub shadow_refused: u64,
    /// Calls that this limit admitted and another one refused; nothing was charged.
    pub undone: u64,
    /// Calls admitted whose cost was given back, as they were not sent.
    pub refunded: u64,
    /// Decisions on a counter shared with other keys, for want of room.
    pub shared: u64,
}

/// A running throttle cannot change its algorithm: make another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmChanged;

impl fmt::Display for AlgorithmChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a running throttle cannot change its algorithm; make another throttle")
    }
}

impl std::error::Error for AlgorithmChanged {}

impl ThrottleBuilder {
    /// Sets how many keys have room for a counter of their own. Default: 1 000 000.
    pub const fn max_keys(mut self, max_keys: NonZeroU32) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// Sets whether the limit refuses. Default: it does.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the longest wait of [`Throttle::enter`] for a call without a nearer deadline. Default: 1 min.
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Makes the throttle. It takes no memory for keys until they come.
    pub fn build(self) -> Throttle {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Self { quota, mode, max_keys, max_wait } = self;
        let keys = max_keys.get() as usize;
        // A thousand keys a shard and more, so that chance fills them evenly.
        let shards = (keys / 1024).clamp(1, 256).next_power_of_two();
        let buckets = (keys.div_ceil(shards) * 9).div_ceil(8 * WAYS);
        fn made<C: Counter>(quota: Quota, mode: Mode, shards: usize, buckets: usize) -> Box<[Shard<C>]> {
            (0..shards).map(|_| Shard::new(quota, mode, buckets)).collect()
        }
        let tables = match quota.algorithm() {
            Algorithm::TokenBucket => Tables::Gcra(made(quota, mode, shards, buckets)),
            Algorithm::FixedWindow => Tables::Fixed(made(quota, mode, shards, buckets)),
            Algorithm::SlidingWindow => Tables::Sliding(made(quota, mode, shards, buckets)),
        };
        Throttle { id: NEXT.fetch_add(1, Ordering::Relaxed), max_wait, tables }
    }
}

impl Throttle {
    /// Makes a throttle with the defaults of its builder.
    pub fn new(quota: Quota) -> Self {
        Self::builder(quota).build()
    }

    /// Begins a throttle.
    pub const fn builder(quota: Quota) -> ThrottleBuilder {
        let max_keys = NonZeroU32::new(1_000_000).expect("a million is not zero");
        ThrottleBuilder { quota, mode: Mode::Enforce, max_keys, max_wait: Duration::from_secs(60) }
    }

    /// Decides without waiting and without allocating, but to make room for a new key.
    ///
    /// # Errors
    /// [`By::Quota`] when the quota is used up; without `retry_after` when the call costs more than the quota ever
    /// admits. Nothing was taken then.
    #[inline]
    pub fn try_enter(&self, call: &Call, key: &Key) -> Result<Permit<&Self>, Refused> {
        self.receipt(call, key).map(|receipt| Permit::new(self, *key, receipt))
    }

    /// Waits for admission, at most to the call's deadline and [`max_wait`](ThrottleBuilder::max_wait). The place in
    /// line is reserved at once, so a waiter is polled twice: when it comes, and when its turn has come.
    ///
    /// # Errors
    /// [`By::Quota`] as for [`try_enter`](Self::try_enter), [`By::WaitTooLong`] at once when the turn would come too late.
    ///
    /// # Cancel safety
    /// Dropping the future gives the reservation back. A hole it leaves in front of other waiters is filled only
    /// where the quota allows a burst, as they keep the instants they were given.
    pub async fn enter(&self, call: &Call, key: &Key) -> Result<Permit<&Self>, Refused> {
        enter(self, call, key).await
    }

    /// The quota now in force.
    pub fn quota(&self) -> Quota {
        shards!(&self.tables, shards => shards[0].lock().quota)
    }

    /// Whether the limit refuses.
    pub fn mode(&self) -> Mode {
        shards!(&self.tables, shards => shards[0].lock().mode)
    }

    /// Changes the quota, and keeps what was counted.
    ///
    /// From then on the new limit holds. A token bucket keeps what it has yet to regenerate as time: a half full one
    /// is half full under the new quota. A window keeps its count, so a span that begins before the change admits
    /// at most what the old limit had admitted in it, or the new limit, whichever is more; where the period grows,
    /// what the old period had forgotten comes on top.
    ///
    /// # Errors
    /// [`AlgorithmChanged`] when the new quota counts in another way.
    pub fn update(&self, quota: Quota) -> Result<(), AlgorithmChanged> {
        if quota.algorithm() != self.quota().algorithm() {
            return Err(AlgorithmChanged);
        }
        shards!(&self.tables, shards => for shard in shards {
            shard.lock().update(quota);
        });
        Ok(())
    }

    /// Changes whether the limit refuses.
    pub fn set_mode(&self, mode: Mode) {
        shards!(&self.tables, shards => for shard in shards {
            shard.lock().mode = mode;
        });
    }

    /// What was done so far and is held now.
    pub fn stats(&self) -> Stats {
        let shards: Vec<Stats> =
            shards!(&self.tables, shards => shards.iter().map(|shard| shard.lock().stats()).collect());
        shards.into_iter().fold(Stats::default(), |sum, shard| Stats {
            keys: sum.keys + shard.keys,
            capacity: sum.capacity + shard.capacity,
            bytes: sum.bytes + shard.bytes,
            admitted: sum.admitted + shard.admitted,
            refused: sum.refused + shard.refused,
            shadow_refused: sum.shadow_refused + shard.shadow_refused,
            undone: sum.undone + shard.undone,
            refunded: sum.refunded + shard.refunded,
            shared: sum.shared + shard.shared,
        })
    }

    #[inline]
    fn shards(&self) -> usize {
        shards!(&self.tables, shards => shards.len())
    }

    /// Takes without waiting.
    #[inline(always)]
    fn receipt(&self, call: &Call, key: &Key) -> Result<Receipt, Refused> {
        self.take(call, key, call.now).map_err(|retry_at| {
            let retry_after = retry_at.map(|at| at.since(call.now));
            Refused { by: By::Quota, retry_after }
        })
    }

    /// Takes what a call needs to go no later than `by`, or says when it could, if ever.
    #[inline(always)]
    fn take(&self, call: &Call, key: &Key, by: Instant) -> Result<Receipt, Option<Instant>> {
        shards!(&self.tables, shards => {
            let mut shard = shards[shard_of(*key, shards.len())].lock();
            let shadow = shard.mode == Mode::Shadow;
            let place = shard.locate(*key, call.now);
            let (ended, answer) = match shard.reserve(place, call.cost, if shadow { call.now } else { by }) {
                Decision::Admit(grant) => (Ended::Admitted, Ok(Receipt { grant, charged: place.into() })),
                Decision::Deny { .. } | Decision::Impossible if shadow => (Ended::Shadowed, Ok(Receipt::default())),
                Decision::Deny { retry_at } => (Ended::Refused, Err(Some(retry_at))),
                Decision::Impossible => (Ended::Refused, Err(None)),
            };
            shard.count(ended);
            answer
        })
    }

    /// Gives back what was taken.
    fn refund(&self, key: Key, receipt: Receipt, now: Instant) {
        if receipt.grant.cost() > 0 {
            shards!(&self.tables, shards => {
                let mut shard = shards[shard_of(key, shards.len())].lock();
                shard.refund(key, receipt.grant, receipt.charged, now);
            });
        }
    }
}

#[inline]
fn shard_of(key: Key, shards: usize) -> usize {
    key.check as usize & (shards - 1)
}

async fn enter<T: AsRef<Throttle>>(throttle: T, call: &Call, key: &Key) -> Result<Permit<T>, Refused> {
    let most = call.now + throttle.as_ref().max_wait;
    let by = call.deadline.map_or(most, |deadline| deadline.min(most));
    let receipt = throttle.as_ref().take(call, key, by).map_err(|retry_at| Refused {
        by: if retry_at.is_some() { By::WaitTooLong } else { By::Quota },
        retry_after: retry_at.map(|at| at.since(call.now)),
    })?;
    let turn = receipt.at();
    let waiting = Waiting::new(Permit::new(throttle, *key, receipt));
    if turn > call.now {
        tokio::time::sleep_until(clock::timer_at(turn)).await;
    }
    Ok(waiting.over())
}

impl AsRef<Throttle> for Throttle {
    fn as_ref(&self) -> &Throttle {
        self
    }
}

impl<'a> Gate<Key> for &'a Throttle {
    type Permit = Permit<&'a Throttle>;

    fn try_enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        Throttle::try_enter(self, call, key)
    }

    async fn enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        enter(*self, call, key).await
    }
}

impl Gate<Key> for Arc<Throttle> {
    type Permit = Permit<Arc<Throttle>>;

    fn try_enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        self.receipt(call, key).map(|receipt| Permit::new(Arc::clone(self), *key, receipt))
    }

    async fn enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        enter(Arc::clone(self), call, key).await
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("quota", &self.quota())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
