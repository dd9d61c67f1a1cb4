//! One limit shared by weighted partitions, which borrow from each other what is idle.

mod builder;
mod permit;
mod state;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tidegate_core::{
    gate::{End, MOST},
    limit::Fixed,
};

use self::{
    builder::Checked,
    state::{Line, State},
};
pub use self::{
    builder::{Builder, InvalidPartitions},
    permit::PartitionPermit,
};
use super::{Snapshot, permit::Ages, stats::Stats, tuner::Tuner, waiters::Fate, watch::Watch};
use crate::{By, Call, Gate, Instant, Outcome, Refused, clock};

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

    /// Takes a permit, waiting in its partition's line for at most `max_wait` and to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`] by `queue-full`, `wait-too-long` (at once when the expected wait is longer than the call can wait) or
    /// `deadline`; by `in-flight` where no queue is wished for.
    ///
    /// # Cancel safety
    /// Dropping the future frees its place; a permit that was on its way goes to the next.
    pub async fn acquire(&self, call: &Call) -> Result<PartitionPermit, Refused> {
        if let Some(permit) = self.enter_now(call)? {
            return Ok(permit);
        }
        let since = clock::now();
        let patience = since + self.shared.watch.max_wait();
        let (until, by) = match call.deadline {
            Some(deadline) if deadline <= since => return Err(self.refuse(By::Deadline, None)),
            Some(deadline) if deadline < patience => (deadline, By::Deadline),
            _ => (patience, By::WaitTooLong),
        };
        let mut timer = pin!(tokio::time::sleep_until(clock::timer_at(until)));
        let mut waiting = Waiting { partition: self, place: None };
        let mut waited = false;
        let fate = poll_fn(|cx| {
            if waiting.place.is_none() {
                match waiting.join(until, since, cx.waker()) {
                    Ok(true) => return Poll::Ready(Ok(Some(Fate::Granted))),
                    Ok(false) => waited = true,
                    Err(refused) => return Poll::Ready(Err(refused)),
                }
            } else if let Some(fate) = waiting.poll(cx.waker()) {
                return Poll::Ready(Ok(Some(fate)));
            }
            timer.as_mut().poll(cx).map(|()| Ok(None))
        })
        .await?;
        match fate {
            Some(Fate::Granted) => {
                let now = clock::now();
                let permit = PartitionPermit::new(&self.shared, self.at, now);
                if call.deadline.is_some_and(|deadline| deadline <= now) {
                    // The grant came in time, the caller was polled too late: the permit goes on, unsent.
                    crate::Permit::settle(permit, Outcome::Unsent, now);
                    return Err(self.refuse(By::Deadline, None));
                }
                if waited {
                    self.stats().waited(now.since(since));
                }
                Ok(permit)
            }
            Some(Fate::Expired | Fate::Closed) | None => {
                waiting.give_up();
                Err(self.refuse(by, self.expected_wait(clock::now())))
            }
        }
    }

    /// The part of admission that needs no waiting; none when it would have to wait.
    fn enter_now(&self, call: &Call) -> Result<Option<PartitionPermit>, Refused> {
        if call.deadline.is_some_and(|deadline| deadline <= call.now) {
            return Err(self.refuse(By::Deadline, None));
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

    fn stats(&self) -> &Stats {
        &self.shared.stats[self.at].0
    }
}

/// A place in a partition's line, given up when dropped.
struct Waiting<'a> {
    partition: &'a Partition,
    place: Option<usize>,
}

impl Waiting<'_> {
    /// Whether it was let in at once.
    fn join(&mut self, until: Instant, now: Instant, waker: &Waker) -> Result<bool, Refused> {
        let Partition { shared, at } = self.partition;
        let mut state = shared.state.lock();
        if state.enter(*at) {
            return Ok(true);
        }
        let (queue, share) = (state.queue, state.share(*at));
        let Line { part, waiters, .. } = &mut state.lines[*at];
        if part.queued >= queue {
            let expected = waiters.pace.expected_wait(part.queued, now);
            drop(state);
            // Where no queue was wished for there is none to be full.
            let (by, after) = if queue == 0 { (By::InFlight, None) } else { (By::QueueFull, expected) };
            return Err(self.partition.refuse(by, after));
        }
        let ahead = match waiters.order.next(part.queued + 1, share) {
            End::Oldest => part.queued,
            End::Newest => 0,
        };
        if let Some(expected) = waiters.pace.expected_wait(ahead, now).filter(|wait| now + *wait >= until) {
            drop(state);
            return Err(self.partition.refuse(By::WaitTooLong, Some(expected)));
        }
        part.queued += 1;
        waiters.pace.queued(now);
        self.place = Some(waiters.push(waker.clone(), until));
        Ok(false)
    }

    fn poll(&mut self, waker: &Waker) -> Option<Fate> {
        let Partition { shared, at } = self.partition;
        let fate = shared.state.lock().lines[*at].waiters.poll(self.place?, waker)?;
        self.place = None;
        Some(fate)
    }

    /// Leaves the line because its time is over; what was granted meanwhile goes on to the next.
    fn give_up(mut self) {
        if let Some(place) = self.place.take() {
            self.partition.shared.depart(self.partition.at, place);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.partition.stats().cancelled();
            self.partition.shared.depart(self.partition.at, place);
        }
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
