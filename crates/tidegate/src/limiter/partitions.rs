//! One limit shared by weighted partitions, which borrow from each other what is idle.

mod acquire;
mod builder;
#[cfg(all(test, shuttle))]
mod models;
mod permit;
mod state;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tidegate_core::{gate::MOST, limit::Fixed};

use self::{
    builder::Checked,
    state::{Line, State},
};
pub use self::{
    builder::{Builder, InvalidPartitions},
    permit::PartitionPermit,
};
use super::{Inside, Nested, Snapshot, nested, permit::Ages, stats::Stats, tuner::Tuner, watch::Watch};
use crate::{By, Call, Gate, Instant, Outcome, Refused, clock, sync::Mutex};

/// A limit whose calls belong to partitions: methods, tenants, priorities.
///
/// A partition uses what the others leave idle, up to its ceiling. When permits are scarce, those that come back go to
/// the partition that has least for its weight: what was lent returns first, and nobody starves. The limit is exact at
/// every moment.
///
/// ```
/// # use tidegate::{Call, clock, limiter::Partitions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let partitions = Partitions::builder().limit(40).partition("web", 3).partition("batch", 1).build()?;
/// let batch = partitions.get("batch").ok_or("no such partition")?;
/// let _permit = batch.try_acquire(&Call::at(clock::now()))?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Partitions {
    shared: Arc<Shared>,
}

struct Shared {
    names: Vec<String>,
    nested: Nested,
    watch: Watch,
    /// Of each partition.
    stats: Vec<(Stats, Ages)>,
    tuner: Tuner,
    state: Mutex<State>,
}

impl Partitions {
    /// Begins a limit with partitions; both must be given.
    pub fn builder() -> Builder {
        Builder::of(super::Builder::default())
    }

    /// Begins a limit with partitions that has the other settings of a limiter: its limit, fixed or adaptive, is that of
    /// all partitions together, its queue that of each.
    pub fn with(settings: super::Builder) -> Builder {
        Builder::of(settings)
    }

    /// The partition of this name.
    pub fn get(&self, name: &str) -> Option<Partition> {
        let at = self.shared.names.iter().position(|known| known == name)?;
        Some(Partition { shared: Arc::clone(&self.shared), at })
    }

    /// Every partition, in the order they were given.
    pub fn all(&self) -> impl Iterator<Item = Partition> {
        (0..self.shared.names.len()).map(|at| Partition { shared: Arc::clone(&self.shared), at })
    }

    /// Calls in flight in all partitions.
    pub fn in_flight(&self) -> u32 {
        self.shared.state.lock().in_flight
    }

    /// The limit of all partitions together; `None` when it is off.
    pub fn limit(&self) -> Option<u32> {
        Some(self.shared.state.lock().limit).filter(|limit| *limit < MOST)
    }

    /// Changes the limit; see [`Limiter::resize`](super::Limiter::resize).
    pub fn resize(&self, limit: Fixed) {
        self.shared.resize(limit.count());
    }

    /// Takes over other settings and weights while calls go on: permits, places in line and counts stay. Settings without
    /// a limit leave the limit, and the law that moves it, alone.
    ///
    /// # Errors
    /// [`InvalidPartitions`] as of any settings, or [`InvalidPartitions::Others`] when the names are not the same, in the
    /// same order; nothing is changed then.
    pub fn reconfigure(&self, settings: Builder) -> Result<(), InvalidPartitions> {
        let Checked { limit, queue, settings, names, parts } = settings.into_checked()?;
        if names != self.shared.names {
            return Err(InvalidPartitions::Others);
        }
        {
            let mut state = self.shared.state.lock();
            state.queue = queue;
            for (line, part) in state.lines.iter_mut().zip(parts) {
                (line.part.weight, line.part.ceiling) = (part.weight, part.ceiling);
                line.waiters.order = settings.order;
            }
        }
        if let Some((limit, law)) = limit {
            self.shared.tuner.replace(law, || self.shared.resize(limit));
        }
        self.shared.watch.set(settings, &self.shared.tuner);
        Ok(())
    }

    /// What happened so far in all partitions together, for pages and metrics.
    pub fn snapshot(&self) -> Snapshot {
        let limit = self.limit();
        let all = self.all().map(|partition| partition.snapshot()).reduce(|mut all, partition| {
            all.add(&partition);
            all
        });
        Snapshot { limit, ..all.expect("there is at least one partition") }
    }
}

/// One partition of a limit.
#[derive(Clone)]
pub struct Partition {
    shared: Arc<Shared>,
    at: usize,
}

impl Partition {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.names[self.at]
    }

    /// Its calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.shared.state.lock().lines[self.at].part.in_flight
    }

    /// Its calls in line.
    pub fn queued(&self) -> u32 {
        self.shared.state.lock().lines[self.at].part.queued
    }

    /// What happened in it so far. Its limit is its share: what it has when all are busy.
    pub fn snapshot(&self) -> Snapshot {
        let (stats, ages) = &self.shared.stats[self.at];
        let counted = stats.read();
        let state = self.shared.state.lock();
        let line = &state.lines[self.at];
        Snapshot {
            in_flight: line.part.in_flight,
            limit: (state.limit < MOST).then(|| state.share(self.at)),
            queued: line.part.queued,
            queue: state.queue,
            admitted: line.admitted,
            held_long: self.shared.watch.held_long().map(|age| ages.longer_than(age, clock::now())),
            ..counted
        }
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    /// [`Refused`] by `in-flight` or `deadline`.
    pub fn try_acquire(&self, call: &Call) -> Result<PartitionPermit, Refused> {
        match self.enter_now(call)? {
            Some(permit) => Ok(permit),
            None => Err(self.refuse(By::InFlight, None)),
        }
    }

    /// Runs `future` under a permit, and counts its end, whatever it returns, as a success.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); the future is not polled then.
    ///
    /// # Cancel safety
    /// Dropping it drops `future` and gives the permit back as abandoned.
    pub async fn run<F: Future>(&self, call: &Call, future: F) -> Result<F::Output, Refused> {
        let permit = self.acquire(call).await?;
        let mut future = pin!(future);
        let output = poll_fn(|cx| {
            let _inside = Inside::of(self.whole());
            future.as_mut().poll(cx)
        })
        .await;
        crate::Permit::settle_now(permit, Outcome::Success);
        Ok(output)
    }

    /// The part of admission that needs no waiting; none when it would have to wait.
    fn enter_now(&self, call: &Call) -> Result<Option<PartitionPermit>, Refused> {
        if call.deadline.is_some_and(|deadline| deadline <= call.now) {
            return Err(self.refuse(By::Deadline, None));
        }
        if self.shared.nested == Nested::CountOnce && self.is_inside() {
            return Ok(Some(PartitionPermit::counted_already()));
        }
        let entered = self.shared.state.lock().enter(self.at);
        Ok(entered.then(|| PartitionPermit::new(&self.shared, self.at, call.now)))
    }

    fn expected_wait(&self, now: Instant) -> Option<Duration> {
        let state = self.shared.state.lock();
        let Line { part, waiters, .. } = &state.lines[self.at];
        waiters.pace.expected_wait(part.queued, now)
    }

    fn refuse(&self, by: By, retry_after: Option<Duration>) -> Refused {
        self.stats().refused(by);
        Refused { by, retry_after }
    }

    /// What tells the limit that it is a part of from others.
    fn whole(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Whether this is a call inside one of any partition: all wait for the same permits.
    fn is_inside(&self) -> bool {
        nested::is_inside(self.whole())
    }

    fn stats(&self) -> &Stats {
        &self.shared.stats[self.at].0
    }
}

impl<K: ?Sized + Sync> Gate<K> for Partition {
    type Permit = PartitionPermit;

    fn try_enter(&self, call: &Call, _key: &K) -> Result<PartitionPermit, Refused> {
        self.try_acquire(call)
    }

    async fn enter(&self, call: &Call, _key: &K) -> Result<PartitionPermit, Refused> {
        self.acquire(call).await
    }
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partitions").field("names", &self.shared.names).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("name", &self.name()).finish_non_exhaustive()
    }
}
