//! Decides, from the calls in flight and in the queue, whether one more is admitted, waits or is shed.

use std::{fmt, time::Duration};

use crate::{Instant, nanos};

const FIELD: u32 = 20;
const MASK: u64 = (1 << FIELD) - 1;
const QUEUED: u64 = 1 << FIELD;
const CLOSED: u64 = 1 << (2 * FIELD);
const ADMITTED_AT: u32 = 2 * FIELD + 1;
const ADMITTED: u64 = 1 << ADMITTED_AT;

/// The largest limit, and the longest queue, that a gate counts: 1 048 575.
pub const MOST: u32 = MASK as u32;
/// What [`Load::admitted`] counts up to before it starts again at 0.
pub const ADMITTED_MODULUS: u32 = 1 << (64 - ADMITTED_AT);

/// Calls in flight and calls in the queue, packed in one word so that a driver can change both with one atomic
/// operation, with a mark of being closed and the low bits of a count of admissions on top.
///
/// A step is a plain number: shrinking a limit changes no load, it only lets less in.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Load(u64);

/// What becomes of a call that asks to go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It goes; the load is now this.
    Admit(Load),
    /// It waits at the end of the queue; the load is now this.
    Wait(Load),
    /// The queue is full: it is refused, the load stays.
    Shed,
    /// The gate is closed: it is refused, the load stays.
    Closed,
}

impl Load {
    /// Reads a load from its word.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word that holds this load.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Calls in flight.
    pub const fn in_flight(self) -> u32 {
        (self.0 & MASK) as u32
    }

    /// Calls in the queue.
    pub const fn queued(self) -> u32 {
        (self.0 >> FIELD & MASK) as u32
    }

    /// Admissions so far, modulo [`ADMITTED_MODULUS`].
    pub const fn admitted(self) -> u32 {
        (self.0 >> ADMITTED_AT) as u32
    }

    /// Whether nobody is let in any more.
    pub const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// Whether a call that leaves has to look after others: somebody waits, or the gate is closed and being drained.
    pub const fn is_watched(self) -> bool {
        self.0 & (MASK << FIELD | CLOSED) != 0
    }

    /// What a driver sets to close the gate, with one atomic "or".
    pub const CLOSED: u64 = CLOSED;
    /// What a driver subtracts when a call leaves.
    pub const LEAVE: u64 = 1;
    /// What a driver subtracts when a waiter gives up its place.
    pub const GIVE_UP: u64 = QUEUED;

    /// Decides about a call: nobody overtakes the queue, and the queue has a bound.
    pub const fn decide(self, limit: u32, queue: u32) -> Admission {
        match self.enter(limit) {
            Some(load) => Admission::Admit(load),
            None if self.is_closed() => Admission::Closed,
            None if self.queued() < queue => Admission::Wait(Self(self.0 + QUEUED)),
            None => Admission::Shed,
        }
    }

    /// The load after a call came in without waiting; `None` when it cannot.
    pub const fn enter(self, limit: u32) -> Option<Self> {
        if !self.is_watched() && self.in_flight() < limit { Some(self.admit()) } else { None }
    }

    /// The load after a waiter was let in; `None` when nobody waits or no permit is free.
    pub const fn hand_over(self, limit: u32) -> Option<Self> {
        if self.queued() > 0 && self.in_flight() < limit && !self.is_closed() {
            Some(Self(self.admit().0 - QUEUED))
        } else {
            None
        }
    }

    /// The count of admissions is the top field, so that what overflows falls off the word.
    const fn admit(self) -> Self {
        Self(self.0.wrapping_add(ADMITTED | 1))
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("in_flight", &self.in_flight())
            .field("queued", &self.queued())
            .field("admitted", &self.admitted())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// In which order waiters are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First come, first served.
    #[default]
    Fifo,
    /// First come, first served, until more wait than may run at once; then the newest goes first, because the
    /// oldest have waited so long that their callers are about to leave ("adaptive LIFO").
    LifoWhenBusy,
}

/// Which end of the queue goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that waited longest.
    Oldest,
    /// The one that came last.
    Newest,
}

impl Order {
    /// Decides who goes next when `queued` wait for `limit` permits.
    pub const fn next(self, queued: u32, limit: u32) -> End {
        match self {
            Self::LifoWhenBusy if queued > limit => End::Newest,
            Self::Fifo | Self::LifoWhenBusy => End::Oldest,
        }
    }
}

/// How long a waiter will probably wait, learnt from the pace at which waiters are let in.
///
/// Only waiting teaches it, so that calls which need not wait pay nothing for it. What it knows is forgotten after a
/// second without a sample: a slow phase cannot close the queue for good.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Nanoseconds from one hand-over to the next, smoothed.
    interval: Option<u64>,
    sampled: Instant,
    /// The last hand-over, or the first waiter's arrival: the queue has not been empty since.
    waiting_since: Option<Instant>,
}

/// How long a [`Pace`] is believed without a new sample.
pub const PACE_LIFE: Duration = Duration::from_secs(1);

impl Pace {
    /// Learns that somebody waits.
    pub fn queued(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Learns that a waiter was let in, and how many wait on.
    pub fn handed_over(&mut self, still_queued: u32, now: Instant) {
        if let Some(since) = self.waiting_since {
            let sample = nanos(now.since(since));
            self.interval = Some(match self.known(now) {
                Some(known) => known - known / 8 + sample / 8,
                None => sample,
            });
            self.sampled = now;
        }
        self.waiting_since = (still_queued > 0).then_some(now);
    }

    /// Learns that nobody waits any more, though nobody was let in.
    pub fn emptied(&mut self) {
        self.waiting_since = None;
    }

    /// The time that a caller with `ahead` others before it will probably wait; `None` when nothing is known.
    pub fn expected_wait(&self, ahead: u32, now: Instant) -> Option<Duration> {
        let stalled = self.waiting_since.map(|since| nanos(now.since(since)));
        let known = self.known(now);
        let first = known.max(stalled)?;
        let rest = known.unwrap_or(0).saturating_mul(u64::from(ahead));
        Some(Duration::from_nanos(first.saturating_add(rest)))
    }

    fn known(&self, now: Instant) -> Option<u64> {
        self.interval.filter(|_| now.since(self.sampled) <= PACE_LIFE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::EPOCH + Duration::from_millis(millis)
    }

    fn load(in_flight: u32, queued: u32) -> Load {
        Load(u64::from(in_flight) | u64::from(queued) << FIELD)
    }

    #[test]
    fn a_call_goes_waits_or_is_shed() {
        for (in_flight, queued, limit, queue, expected) in [
            (0, 0, 1, 0, "admit"),
            (1, 0, 1, 0, "shed"),
            (1, 0, 1, 1, "wait"),
            (1, 1, 1, 1, "shed"),
            (0, 1, 1, 2, "wait"), // a free permit belongs to whoever waits
            (5, 0, 3, 9, "wait"), // the limit shrank below what is in flight
            (0, 0, 0, 9, "wait"),
            (MOST - 1, 0, MOST, 0, "admit"),
            (MOST, 0, MOST, 0, "shed"),
        ] {
            let decided = match load(in_flight, queued).decide(limit, queue) {
                Admission::Admit(after) => {
                    assert_eq!((after.in_flight(), after.queued()), (in_flight + 1, queued));
                    "admit"
                }
                Admission::Wait(after) => {
                    assert_eq!((after.in_flight(), after.queued()), (in_flight, queued + 1));
                    "wait"
                }
                Admission::Shed => "shed",
                Admission::Closed => "closed",
            };
            assert_eq!(
                decided, expected,
                "{in_flight} in flight, {queued} queued, limit {limit}, queue {queue}"
            );
        }
    }

    #[test]
    fn the_count_of_admissions_wraps_without_touching_the_other_fields() {
        let last = Load(Load::default().0 | u64::from(ADMITTED_MODULUS - 1) << ADMITTED_AT).decide(2, 0);
        assert_eq!(last, Admission::Admit(load(1, 0)));
    }

    #[test]
    fn a_closed_gate_lets_nobody_in_and_keeps_its_counts() {
        let closed = Load(load(1, 1).0 | Load::CLOSED);
        assert_eq!(closed.decide(9, 9), Admission::Closed);
        assert_eq!(Load(Load::CLOSED).decide(9, 9), Admission::Closed);
        assert_eq!(closed.hand_over(9), None);
        assert_eq!((closed.in_flight(), closed.queued(), closed.admitted()), (1, 1, 0));
        assert!(!load(1, 0).is_watched() && load(1, 1).is_watched() && Load(Load::CLOSED).is_watched());
    }

    proptest! {
        #[test]
        fn a_load_never_exceeds_its_limit_and_never_forgets_a_call(
            steps in prop::collection::vec((0u8..4, 0u32..6), 1..200), queue in 0u32..5,
        ) {
            let (mut now, mut in_flight, mut queued, mut admitted) = (Load::default(), 0u32, 0u32, 0u32);
            for (step, limit) in steps {
                match step {
                    0 => match now.decide(limit, queue) {
                        Admission::Admit(next) => { now = next; in_flight += 1; admitted += 1; prop_assert!(in_flight <= limit) }
                        Admission::Wait(next) => { now = next; queued += 1; prop_assert!(queued <= queue) }
                        Admission::Closed => prop_assert!(false, "nobody closed it"),
                        Admission::Shed => prop_assert!(queued == queue && (in_flight >= limit || queued > 0)),
                    },
                    1 if in_flight > 0 => { now = Load(now.0 - Load::LEAVE); in_flight -= 1 }
                    2 if queued > 0 => { now = Load(now.0 - Load::GIVE_UP); queued -= 1 }
                    _ => match now.hand_over(limit) {
                        Some(next) => {
                            now = next; queued -= 1; in_flight += 1; admitted += 1;
                            prop_assert!(in_flight <= limit);
                        }
                        None => prop_assert!(queued == 0 || in_flight >= limit),
                    },
                }
                prop_assert_eq!((now.in_flight(), now.queued(), now.admitted()), (in_flight, queued, admitted));
            }
        }
    }

    #[test]
    fn the_newest_goes_first_only_while_more_wait_than_may_run() {
        assert_eq!(Order::Fifo.next(1000, 1), End::Oldest);
        assert_eq!(Order::LifoWhenBusy.next(4, 4), End::Oldest);
        assert_eq!(Order::LifoWhenBusy.next(5, 4), End::Newest);
    }

    #[test]
    fn the_expected_wait_grows_with_the_queue_and_with_a_stall() {
        let mut pace = Pace::default();
        assert_eq!(pace.expected_wait(3, at(0)), None);
        pace.queued(at(0));
        for step in 1..=5 {
            pace.handed_over(2, at(step * 10));
        }
        let millis = |ahead, now| pace.expected_wait(ahead, at(now)).unwrap().as_millis();
        assert_eq!((millis(0, 50), millis(9, 50)), (10, 100));
        assert_eq!((millis(0, 450), millis(9, 450)), (400, 490), "nothing has moved for 400 ms");
    }

    #[test]
    fn a_pace_is_forgotten_so_that_a_slow_phase_does_not_close_the_queue() {
        let mut pace = Pace::default();
        pace.queued(at(0));
        pace.handed_over(0, at(9000));
        assert_eq!(pace.expected_wait(0, at(9000)), Some(Duration::from_secs(9)));
        assert_eq!(pace.expected_wait(0, at(10_001)), None);
    }

    #[test]
    fn a_queue_that_nobody_left_alive_teaches_nothing() {
        let mut pace = Pace::default();
        pace.queued(at(0));
        pace.emptied();
        assert_eq!(pace.expected_wait(0, at(5000)), None);
    }
}
