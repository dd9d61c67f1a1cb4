//! One limit shared by weighted partitions, which borrow from each other what is idle.

mod builder;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tidegate_core::{
    gate::End,
    limit::Fixed,
    share::{self, Part},
};

pub use self::builder::{Builder, InvalidPartitions};
use super::waiters::{Fate, Left, Waiters};
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
    queue: u32,
    max_wait: Duration,
    state: Mutex<State>,
}

struct State {
    limit: u32,
    in_flight: u32,
    parts: Vec<(Part, Waiters)>,
}

impl Partitions {
    /// Begins a limit with partitions; both must be given.
    pub fn builder() -> Builder {
        Builder { limit: None, queue: 1000, max_wait: Duration::from_millis(500), parts: Vec::new() }
    }

    /// The partition of this name.
    pub fn get(&self, name: &str) -> Option<Partition> {
        let at = self.shared.names.iter().position(|known| known == name)?;
        Some(Partition { shared: Arc::clone(&self.shared), at })
    }

    /// Calls in flight in all partitions.
    pub fn in_flight(&self) -> u32 {
        self.shared.state.lock().in_flight
    }

    /// Changes the limit; see [`Limiter::resize`](super::Limiter::resize).
    pub fn resize(&self, limit: Fixed) {
        self.shared.state.lock().limit = limit.count();
        self.shared.hand_over();
    }
}

impl Shared {
    /// Hands free permits to waiters, one at a time, and wakes each outside the lock.
    fn hand_over(&self) {
        while let Some(waker) = self.state.lock().hand_over(clock::now()) {
            waker.wake();
        }
    }

    fn leave(&self, at: usize) {
        // Given back and handed over under one lock, so that no newcomer overtakes those who wait elsewhere.
        let next = {
            let mut state = self.state.lock();
            state.in_flight -= 1;
            state.parts[at].0.in_flight -= 1;
            if state.parts.iter().all(|(part, _)| part.queued == 0) {
                None
            } else {
                state.hand_over(clock::now())
            }
        };
        if let Some(waker) = next {
            waker.wake();
            // That one may have been too late, and the permit is free still.
            self.hand_over();
        }
    }
}

impl State {
    fn free(&self) -> u32 {
        self.limit.saturating_sub(self.in_flight)
    }

    fn enter(&mut self, at: usize) -> bool {
        let goes = self.parts[at].0.goes(self.free());
        if goes {
            self.admit(at);
        }
        goes
    }

    fn admit(&mut self, at: usize) {
        self.in_flight += 1;
        self.parts[at].0.in_flight += 1;
    }

    fn hand_over(&mut self, now: Instant) -> Option<Waker> {
        if self.free() == 0 {
            return None;
        }
        let at = share::next(self.parts.iter().map(|(part, _)| *part))?;
        let (part, waiters) = &mut self.parts[at];
        let (place, until) = waiters.next(End::Oldest).expect("who is queued stands in line");
        part.queued -= 1;
        if until <= now {
            if part.queued == 0 {
                waiters.pace.emptied();
            }
            return Some(waiters.decide(place, Fate::Expired));
        }
        waiters.pace.handed_over(part.queued, now);
        let waker = waiters.decide(place, Fate::Granted);
        self.admit(at);
        Some(waker)
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
        self.shared.state.lock().parts[self.at].0.in_flight
    }

    /// Its calls in line.
    pub fn queued(&self) -> u32 {
        self.shared.state.lock().parts[self.at].0.queued
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    /// [`Refused`] by `in-flight` or `deadline`.
    pub fn try_acquire(&self, call: &Call) -> Result<PartitionPermit, Refused> {
        if call.deadline.is_some_and(|deadline| deadline <= call.now) {
            return Err(Refused::new(By::Deadline));
        }
        if self.shared.state.lock().enter(self.at) {
            Ok(self.permit())
        } else {
            Err(Refused::new(By::InFlight))
        }
    }

    /// Takes a permit, waiting in its partition's line for at most `max_wait` and to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`] by `queue-full`, `wait-too-long` (at once when the partition's line moves too slowly) or `deadline`.
    ///
    /// # Cancel safety
    /// Dropping the future frees its place; a permit that was on its way goes to the next.
    pub async fn acquire(&self, call: &Call) -> Result<PartitionPermit, Refused> {
        match self.try_acquire(call) {
            Err(Refused { by: By::InFlight, .. }) => {}
            decided => return decided,
        }
        let now = clock::now();
        let patience = now + self.shared.max_wait;
        let (until, by) = match call.deadline {
            Some(deadline) if deadline < patience => (deadline, By::Deadline),
            _ => (patience, By::WaitTooLong),
        };
        let mut timer = pin!(tokio::time::sleep_until(clock::timer_at(until)));
        let mut waiting = Waiting { partition: self, place: None };
        let fate = poll_fn(|cx| {
            if waiting.place.is_none() {
                match waiting.join(now, until, cx.waker()) {
                    Ok(true) => return Poll::Ready(Ok(Some(Fate::Granted))),
                    Ok(false) => {}
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
                let permit = self.permit();
                if call.deadline.is_some_and(|deadline| deadline <= clock::now()) {
                    return Err(Refused::new(By::Deadline));
                }
                Ok(permit)
            }
            Some(Fate::Expired | Fate::Closed) | None => Err(Refused::new(by)),
        }
    }

    fn permit(&self) -> PartitionPermit {
        PartitionPermit { shared: Arc::clone(&self.shared), at: self.at }
    }
}

/// A place in a partition's line, given up when dropped.
struct Waiting<'a> {
    partition: &'a Partition,
    place: Option<usize>,
}

impl Waiting<'_> {
    /// Whether it was let in at once.
    fn join(&mut self, now: Instant, until: Instant, waker: &Waker) -> Result<bool, Refused> {
        let Partition { shared, at } = self.partition;
        let mut state = shared.state.lock();
        if state.enter(*at) {
            return Ok(true);
        }
        let (part, waiters) = &mut state.parts[*at];
        if part.queued >= shared.queue {
            return Err(Refused::new(if shared.queue == 0 { By::InFlight } else { By::QueueFull }));
        }
        // Refused at the door: who would wait longer than it can is better told now.
        if let Some(wait) = waiters.pace.expected_wait(part.queued, now)
            && now + wait >= until
        {
            return Err(Refused::after(By::WaitTooLong, wait));
        }
        waiters.pace.queued(now);
        part.queued += 1;
        self.place = Some(waiters.push(waker.clone(), until));
        Ok(false)
    }

    fn poll(&mut self, waker: &Waker) -> Option<Fate> {
        let Partition { shared, at } = self.partition;
        let fate = shared.state.lock().parts[*at].1.poll(self.place?, waker)?;
        self.place = None;
        Some(fate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let Partition { shared, at } = self.partition;
        let left = {
            let mut state = shared.state.lock();
            let (part, waiters) = &mut state.parts[*at];
            let left = waiters.leave(place);
            if matches!(left, Left::Waiting) {
                part.queued -= 1;
                if part.queued == 0 {
                    waiters.pace.emptied();
                }
            }
            left
        };
        if matches!(left, Left::Decided(Fate::Granted)) {
            shared.leave(*at);
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

/// One call in flight in a partition; it goes back once, by drop.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct PartitionPermit {
    shared: Arc<Shared>,
    at: usize,
}

impl crate::Permit for PartitionPermit {
    fn settle(self, _outcome: Outcome, _now: Instant) {}

    fn settle_now(self, _outcome: Outcome) {}
}

impl Drop for PartitionPermit {
    fn drop(&mut self) {
        self.shared.leave(self.at);
    }
}
