//! Permits of one limit: a word of atomics where nobody waits, a short lock and a line of waiters where somebody does.
//!
//! Its interleavings are explored by two model checkers:
//! `RUSTFLAGS="--cfg loom" cargo test -p tidegate --lib --target-dir target/loom permits` and
//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate --lib --target-dir target/shuttle permits`.

#[cfg(all(test, any(loom, shuttle)))]
mod models;

use std::task::{Poll, Waker};

use tidegate_core::{
    Instant,
    gate::{ADMITTED_MODULUS, Admission, Load, Order},
};

use super::waiters::{Fate, Left, Waiters};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, now};

/// Half a turn of the count in the word: each one is noted, so that a reader can tell whether one is being noted.
const HALF: u32 = ADMITTED_MODULUS / 2;

pub(crate) struct Permits {
    load: AtomicU64,
    /// Written under the lock only, so that whoever joins the line and whoever raises the limit see each other.
    limit: AtomicU32,
    /// Half turns of the count of admissions.
    turns: AtomicU64,
    /// Written under the lock only, as is the order.
    queue: AtomicU32,
    waiters: Mutex<Waiters>,
}

/// What [`Permits::join`] answers.
pub(crate) enum Joined {
    /// A permit was free after all.
    Admitted,
    /// The caller waits at this place.
    Waiting(usize),
    /// It would wait longer than it can.
    TooLong,
    /// The queue is full.
    Full,
    /// The limiter is closed.
    Closed,
}

/// What a waiter that went away left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departed {
    /// It was waiting still.
    Waiting,
    /// Its fate was decided already; a grant went on to the next.
    Decided,
}

impl Permits {
    pub(crate) fn new(limit: u32, queue: u32, order: Order) -> Self {
        Self {
            load: AtomicU64::new(Load::default().word()),
            limit: AtomicU32::new(limit),
            turns: AtomicU64::new(0),
            queue: AtomicU32::new(queue),
            waiters: Mutex::new(Waiters::new(order)),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load::from_word(self.load.load(Ordering::Acquire))
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn queue(&self) -> u32 {
        self.queue.load(Ordering::Relaxed)
    }

    /// Changes how many may wait and who of them goes first. Those who wait keep their places.
    pub(crate) fn reorder(&self, queue: u32, order: Order) {
        let mut waiters = self.waiters.lock();
        self.queue.store(queue, Ordering::Relaxed);
        waiters.order = order;
    }

    /// Admissions so far. The half turn in the word tells whether its note is still on the way.
    pub(crate) fn admitted(&self) -> u64 {
        let turns = self.turns.load(Ordering::Acquire);
        let count = self.load().admitted();
        let late = u64::from(count / HALF) ^ (turns & 1);
        (turns + late) * u64::from(HALF) + u64::from(count % HALF)
    }

    /// Takes a permit if one is free and nobody waits: no lock, no allocation. The load is as it is then.
    #[inline]
    pub(crate) fn try_enter(&self) -> Option<Load> {
        let limit = self.limit();
        self.step(|load| load.enter(limit))
    }

    /// Gives a permit back.
    #[inline]
    pub(crate) fn leave(&self) {
        let before = Load::from_word(self.load.fetch_sub(Load::LEAVE, Ordering::AcqRel));
        if before.is_watched() {
            self.look_after_others(before.is_closed());
        }
    }

    /// Joins the line until `until`, unless a permit is free or the wait would surely be too long.
    pub(crate) fn join(&self, until: Instant, now: Instant, waker: &Waker) -> Joined {
        let mut waiters = self.waiters.lock();
        let limit = self.limit();
        let mut load = self.load();
        loop {
            let next = match load.decide(limit, self.queue()) {
                Admission::Admit(next) => next,
                Admission::Wait(next) => {
                    let ahead = match waiters.order.next(next.queued(), limit) {
                        tidegate_core::gate::End::Oldest => load.queued(),
                        tidegate_core::gate::End::Newest => 0,
                    };
                    if waiters.pace.expected_wait(ahead, now).is_some_and(|wait| now + wait >= until) {
                        return Joined::TooLong;
                    }
                    next
                }
                Admission::Shed => return Joined::Full,
                Admission::Closed => return Joined::Closed,
            };
            match self.load.compare_exchange_weak(
                load.word(),
                next.word(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if next.queued() > load.queued() => {
                    waiters.pace.queued(now);
                    return Joined::Waiting(waiters.push(waker.clone(), until));
                }
                Ok(_) => {
                    self.note(next);
                    return Joined::Admitted;
                }
                Err(changed) => load = Load::from_word(changed),
            }
        }
    }

    /// The fate of the waiter at `place`, which is free again once it is known.
    pub(crate) fn poll(&self, place: usize, waker: &Waker) -> Poll<Fate> {
        match self.waiters.lock().poll(place, waker) {
            Some(fate) => Poll::Ready(fate),
            None => Poll::Pending,
        }
    }

    /// Frees the place of a waiter that goes away; a grant that was on its way to it goes on to the next.
    pub(crate) fn depart(&self, place: usize) -> Departed {
        let mut waiters = self.waiters.lock();
        match waiters.leave(place) {
            Left::Waiting => {
                let before = Load::from_word(self.load.fetch_sub(Load::GIVE_UP, Ordering::AcqRel));
                if before.queued() == 1 {
                    waiters.pace.emptied();
                }
                Departed::Waiting
            }
            Left::Decided(fate) => {
                drop(waiters);
                if fate == Fate::Granted {
                    self.leave();
                }
                Departed::Decided
            }
        }
    }

    /// How long a caller that came now would probably wait for a permit.
    pub(crate) fn expected_wait(&self, now: Instant) -> Option<std::time::Duration> {
        let waiters = self.waiters.lock();
        waiters.pace.expected_wait(self.load().queued(), now)
    }

    /// Sets the limit. More permits go to waiters at once; fewer are reached as permits come back.
    pub(crate) fn resize(&self, limit: u32) {
        {
            let _waiters = self.waiters.lock();
            self.limit.store(limit, Ordering::Relaxed);
        }
        self.look_after_others(false);
    }

    /// Lets nobody in any more and tells those who wait.
    pub(crate) fn close(&self) {
        self.load.fetch_or(Load::CLOSED, Ordering::AcqRel);
        loop {
            let waker = {
                let mut waiters = self.waiters.lock();
                let Some((at, _)) = waiters.next(tidegate_core::gate::End::Oldest) else { break };
                self.load.fetch_sub(Load::GIVE_UP, Ordering::AcqRel);
                waiters.decide(at, Fate::Closed)
            };
            waker.wake();
        }
    }

    /// Whether the last call has left; else `waker` is woken when it has.
    pub(crate) fn poll_drained(&self, waker: &Waker) -> Poll<()> {
        let mut waiters = self.waiters.lock();
        if self.load().in_flight() == 0 {
            return Poll::Ready(());
        }
        if !waiters.drains.iter().any(|known| known.will_wake(waker)) {
            waiters.drains.push(waker.clone());
        }
        Poll::Pending
    }

    #[cold]
    fn look_after_others(&self, closed: bool) {
        if closed {
            let drained = {
                let mut waiters = self.waiters.lock();
                if self.load().in_flight() > 0 {
                    return;
                }
                std::mem::take(&mut waiters.drains)
            };
            drained.into_iter().for_each(Waker::wake);
            return;
        }
        let now = now();
        // The lock is taken at least once: reading the limit and the load outside it could miss both a limit just
        // raised and a call that has just left.
        while let Some(waker) = self.hand_over(now) {
            waker.wake();
        }
    }

    /// Hands a free permit to the waiter whose turn it is; or tells it that its time is over.
    fn hand_over(&self, now: Instant) -> Option<Waker> {
        let mut waiters = self.waiters.lock();
        let limit = self.limit();
        let load = self.load();
        let (at, until) = waiters.next(waiters.order.next(load.queued(), limit))?;
        if load.in_flight() < limit && until <= now {
            let before = Load::from_word(self.load.fetch_sub(Load::GIVE_UP, Ordering::AcqRel));
            if before.queued() == 1 {
                waiters.pace.emptied();
            }
            return Some(waiters.decide(at, Fate::Expired));
        }
        let granted = self.step(|load| load.hand_over(limit))?;
        waiters.pace.handed_over(granted.queued(), now);
        Some(waiters.decide(at, Fate::Granted))
    }

    #[inline]
    fn step(&self, decide: impl Fn(Load) -> Option<Load>) -> Option<Load> {
        let mut load = Load::from_word(self.load.load(Ordering::Relaxed));
        loop {
            let next = decide(load)?;
            match self.load.compare_exchange_weak(
                load.word(),
                next.word(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.note(next);
                    return Some(next);
                }
                Err(changed) => load = Load::from_word(changed),
            }
        }
    }

    #[inline]
    fn note(&self, load: Load) {
        if load.admitted().is_multiple_of(HALF) {
            self.turns.fetch_add(1, Ordering::Release);
        }
    }
}
