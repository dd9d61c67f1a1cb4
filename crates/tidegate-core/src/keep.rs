//! What is known of one key: `Absent`, `Held`, or `Failing` with what is still held; and whether to fetch.

use std::time::Duration;

use crate::{Backoff, Dice, Freshness, Instant, Term};

/// A value that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<V> {
    /// The value.
    pub value: V,
    /// When it ages.
    pub term: Term,
    /// Of two values the one with the higher version is the later.
    pub version: u64,
}

/// What is known of a key. `W` says why fetching failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<V, W> {
    /// Nothing. Goes to `Held` or `Failing` by a fetch, to `Held` by a value from elsewhere.
    Absent,
    /// A value. Goes to `Failing` by a fetch, to `Absent` when it is dead or cleared.
    Held(Held<V>),
    /// Fetching failed. Goes to `Held` by a fetch or a value from elsewhere, to `Absent` when it is cleared.
    Failing {
        /// What was known before; nothing once it is dead.
        held: Option<Held<V>>,
        /// Failures in a row.
        tries: u32,
        /// When the last attempt ended.
        failed_at: Instant,
        /// When the next one may begin.
        not_before: Instant,
        /// Why the last one failed.
        why: W,
    },
}

/// Whether a fetch is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Not now.
    No,
    /// Yes, and nobody does it: [`begin`](Slot::begin).
    Begin,
    /// Somebody does it.
    UnderWay,
    /// Yes, and not before then.
    NotBefore(Instant),
}

/// What there is for one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A value that is good.
    Good(Fetch),
    /// A value that is stale.
    Stale(Fetch),
    /// None.
    Empty(Fetch),
}

/// The number of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a fetch that begins lands, or no other one begins"]
pub struct Run(u64);

/// What became of a value that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// It is what is known now.
    Taken,
    /// A later one was there already.
    Late,
    /// The key was cleared after the fetch began: what it brings is not wanted.
    Unwanted,
}

/// The slot of one key.
#[derive(Clone, Debug)]
pub struct Slot<V, W> {
    state: State<V, W>,
    /// The fetch that is out.
    out: Option<u64>,
    runs: u64,
}

impl<V, W> Default for Slot<V, W> {
    fn default() -> Self {
        Self { state: State::Absent, out: None, runs: 0 }
    }
}

impl<V, W> Slot<V, W> {
    /// What there is at `now`, and whether to fetch. Forgets what is dead.
    pub fn look(&mut self, now: Instant) -> Look {
        self.bury(now);
        let fetch = match (&self.state, self.out) {
            (_, Some(_)) => Fetch::UnderWay,
            (State::Failing { not_before, .. }, None) if now < *not_before => Fetch::NotBefore(*not_before),
            (State::Absent | State::Held(_) | State::Failing { .. }, None) => Fetch::Begin,
        };
        match self.held().map(|held| held.term.at(now)) {
            Some(Freshness::Fresh) => Look::Good(Fetch::No),
            Some(Freshness::Due) => Look::Good(fetch),
            Some(Freshness::Stale) => Look::Stale(fetch),
            Some(Freshness::Dead) | None => Look::Empty(fetch),
        }
    }

    fn bury(&mut self, now: Instant) {
        if self.held().is_none_or(|held| held.term.at(now) != Freshness::Dead) {
            return;
        }
        match &mut self.state {
            State::Failing { held, .. } => *held = None,
            State::Absent | State::Held(_) => self.state = State::Absent,
        }
    }

    /// Begins the fetch that [`Fetch::Begin`] asked for.
    pub fn begin(&mut self) -> Run {
        debug_assert!(self.out.is_none(), "one fetch of a key at a time");
        self.runs += 1;
        self.out = Some(self.runs);
        Run(self.runs)
    }

    /// A fetch that was begun did not happen: as if it had never begun.
    pub fn give_up(&mut self, run: Run) {
        if self.out == Some(run.0) {
            self.out = None;
        }
    }

    /// A fetch brought a value.
    pub fn fetched(&mut self, run: Run, new: Held<V>) -> Landed {
        if self.out != Some(run.0) {
            return Landed::Unwanted;
        }
        self.out = None;
        self.put(new)
    }

    /// A fetch failed: the next one waits, and longer each time.
    pub fn failed(
        &mut self,
        run: Run,
        why: W,
        asked: Option<Duration>,
        backoff: &Backoff,
        now: Instant,
        dice: Dice,
    ) -> Landed {
        self.fail(run, why, 1, now, |tries| backoff.next(tries, asked, now, dice))
    }

    /// A fetch found that its source is not to be asked now: the next one waits as long as one after the failures so far, as
    /// this was none.
    pub fn put_off(
        &mut self,
        run: Run,
        why: W,
        asked: Option<Duration>,
        backoff: &Backoff,
        now: Instant,
        dice: Dice,
    ) -> Landed {
        self.fail(run, why, 0, now, |tries| backoff.next(tries, asked, now, dice))
    }

    fn fail(
        &mut self,
        run: Run,
        why: W,
        more: u32,
        now: Instant,
        next: impl FnOnce(u32) -> Instant,
    ) -> Landed {
        if self.out != Some(run.0) {
            return Landed::Unwanted;
        }
        self.out = None;
        let (held, before) = match std::mem::replace(&mut self.state, State::Absent) {
            State::Absent => (None, 0),
            State::Held(held) => (Some(held), 0),
            State::Failing { held, tries, .. } => (held, tries),
        };
        let tries = before.saturating_add(more);
        let not_before = next(tries);
        self.state = State::Failing { held, tries, failed_at: now, not_before, why };
        Landed::Taken
    }

    /// A value came from elsewhere: it ends a failure, unless a later one is known.
    pub fn put(&mut self, new: Held<V>) -> Landed {
        if self.held().is_some_and(|held| held.version > new.version) {
            // The key can be fetched, so it fails no longer; and what is known is the later truth.
            if let State::Failing { held, .. } = &mut self.state {
                self.state = held.take().map_or(State::Absent, State::Held);
            }
            return Landed::Late;
        }
        self.state = State::Held(new);
        Landed::Taken
    }

    /// Lets the next fetch of a key that fails begin at `at`: sooner or later than its own pause would.
    pub fn pace(&mut self, at: Instant) {
        if let State::Failing { not_before, .. } = &mut self.state {
            *not_before = at;
        }
    }

    /// Forgets everything, and what a fetch under way will bring.
    pub fn clear(&mut self) {
        (self.state, self.out) = (State::Absent, None);
    }

    /// The value that is held, dead or alive.
    pub fn held(&self) -> Option<&Held<V>> {
        match &self.state {
            State::Held(held) | State::Failing { held: Some(held), .. } => Some(held),
            State::Absent | State::Failing { held: None, .. } => None,
        }
    }

    /// What is known.
    pub fn state(&self) -> &State<V, W> {
        &self.state
    }

    /// Whether a fetch is under way.
    pub fn is_fetching(&self) -> bool {
        self.out.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Lifetime;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);
    const BACKOFF: Backoff =
        Backoff { floor: Duration::from_secs(1), base: Duration::from_secs(1), cap: Duration::from_secs(4) };

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn held(version: u64, now: Instant) -> Held<u64> {
        let lifetime = Lifetime::of(Duration::from_secs(10), Duration::from_secs(10));
        Held { value: version, term: lifetime.from(now, Dice::LEAST), version }
    }

    fn fail(slot: &mut Slot<u64, &'static str>, now: Instant) {
        let run = slot.begin();
        assert_eq!(slot.failed(run, "down", None, &BACKOFF, now, Dice::LEAST), Landed::Taken);
    }

    #[test]
    fn a_value_goes_from_good_over_due_and_stale_to_nothing() {
        let mut slot = Slot::<u64, &str>::default();
        assert_eq!(slot.look(START), Look::Empty(Fetch::Begin));
        let run = slot.begin();
        assert_eq!(slot.look(START), Look::Empty(Fetch::UnderWay));
        assert_eq!(slot.fetched(run, held(1, START)), Landed::Taken);
        assert_eq!(slot.look(at(7)), Look::Good(Fetch::No));
        assert_eq!(slot.look(at(8)), Look::Good(Fetch::Begin));
        assert_eq!(slot.look(at(10)), Look::Stale(Fetch::Begin));
        assert_eq!(slot.look(at(20)), Look::Empty(Fetch::Begin));
        assert_eq!(slot.state(), &State::Absent);
    }

    #[test]
    fn a_failure_keeps_what_is_held_and_waits_longer_each_time() {
        let mut slot = Slot::default();
        slot.put(held(1, START));
        fail(&mut slot, at(10));
        assert_eq!(slot.look(at(10)), Look::Stale(Fetch::NotBefore(at(11))));
        assert_eq!(slot.look(at(11)), Look::Stale(Fetch::Begin));
        fail(&mut slot, at(12));
        assert!(matches!(slot.state(), State::Failing { held: Some(_), tries: 2, .. }));
        assert_eq!(slot.look(at(20)), Look::Empty(Fetch::Begin));
        assert!(
            matches!(slot.state(), State::Failing { held: None, tries: 2, .. }),
            "a failure is not forgotten"
        );
    }

    #[test]
    fn a_fetch_that_was_put_off_keeps_what_is_held_and_makes_no_pause_longer() {
        let mut slot = Slot::default();
        slot.put(held(1, START));
        fail(&mut slot, at(10));
        for second in [12, 14, 16] {
            let run = slot.begin();
            let landed = slot.put_off(run, "left alone", None, &BACKOFF, at(second), Dice::MOST);
            assert_eq!(landed, Landed::Taken);
            let State::Failing { held: Some(_), tries: 1, not_before, why: "left alone", .. } = slot.state()
            else {
                panic!("{:?}", slot.state())
            };
            // A floor of 1 s, and a part of the base of 1 s.
            assert!(*not_before < at(second + 2), "{not_before:?}");
        }
        let run = slot.begin();
        let asked = Some(Duration::from_secs(3));
        slot.put_off(run, "left alone", asked, &BACKOFF, at(18), Dice::LEAST);
        assert_eq!(slot.look(at(18)), Look::Stale(Fetch::NotBefore(at(21))), "as it is told");
    }

    #[test]
    fn a_late_writer_loses_and_its_success_still_ends_the_failure() {
        let mut slot = Slot::default();
        fail(&mut slot, START);
        let run = slot.begin();
        assert_eq!(slot.put(held(5, START)), Landed::Taken);
        assert_eq!(slot.fetched(run, held(4, START)), Landed::Late);
        assert_eq!(slot.held().map(|held| held.value), Some(5));
        fail(&mut slot, START);
        assert_eq!(slot.put(held(3, START)), Landed::Late);
        assert!(matches!(slot.state(), State::Held(Held { value: 5, .. })));
    }

    #[test]
    fn a_value_from_elsewhere_ends_a_failure_at_once() {
        let mut slot = Slot::default();
        fail(&mut slot, START);
        assert_eq!(slot.look(START), Look::Empty(Fetch::NotBefore(at(1))));
        slot.put(held(1, START));
        assert_eq!(slot.look(START), Look::Good(Fetch::No));
    }

    #[test]
    fn what_was_cleared_does_not_come_back_by_a_fetch_that_was_out() {
        let mut slot = Slot::<u64, &str>::default();
        let run = slot.begin();
        slot.clear();
        let second = slot.begin();
        assert_eq!(slot.fetched(run, held(1, START)), Landed::Unwanted);
        assert_eq!(slot.failed(run, "down", None, &BACKOFF, START, Dice::LEAST), Landed::Unwanted);
        assert!(slot.is_fetching() && slot.held().is_none());
        assert_eq!(slot.fetched(second, held(2, START)), Landed::Taken);
    }

    #[test]
    fn a_fetch_that_did_not_happen_leaves_no_trace() {
        let mut slot = Slot::<u64, &str>::default();
        let run = slot.begin();
        slot.give_up(run);
        assert_eq!(slot.look(START), Look::Empty(Fetch::Begin));
    }

    #[test]
    fn after_a_recovery_the_next_fetch_is_paced_by_whoever_saw_it() {
        let mut slot = Slot::<u64, &str>::default();
        slot.pace(at(9));
        assert_eq!(slot.look(START), Look::Empty(Fetch::Begin), "a key that does not fail is not held back");
        fail(&mut slot, at(10));
        slot.pace(at(20));
        assert_eq!(slot.look(at(19)), Look::Empty(Fetch::NotBefore(at(20))));
        slot.pace(at(10));
        assert_eq!(slot.look(at(10)), Look::Empty(Fetch::Begin));
    }

    proptest! {
        #[test]
        fn one_fetch_at_a_time_never_too_soon_and_versions_only_rise(
            steps in prop::collection::vec((0_u8..5, 0_u64..5000, 0_u64..40, any::<u32>()), 1..200)
        ) {
            let mut slot = Slot::<u64, u32>::default();
            let (mut now, mut out, mut not_before, mut version) = (START, None, START, 0);
            for (step, wait, new, dice) in steps {
                now += Duration::from_millis(wait);
                let look = slot.look(now);
                let (Look::Good(fetch) | Look::Stale(fetch) | Look::Empty(fetch)) = look;
                let alive = slot.held().is_some_and(|held| held.term.at(now) != Freshness::Dead);
                prop_assert_eq!(alive, !matches!(look, Look::Empty(_)));
                if !alive {
                    version = 0;
                }
                if fetch == Fetch::Begin {
                    prop_assert!(out.is_none() && now >= not_before);
                }
                match (step, out) {
                    (0, None) if fetch == Fetch::Begin => out = Some(slot.begin()),
                    (1, Some(run)) => {
                        slot.failed(run, dice, None, &BACKOFF, now, Dice(dice));
                        (out, not_before) = (None, now + BACKOFF.floor);
                    }
                    (2, Some(run)) => {
                        slot.fetched(run, held(new, now));
                        (out, not_before) = (None, START);
                    }
                    (3, _) => {
                        slot.put(held(new, now));
                        not_before = START;
                    }
                    _ => {}
                }
                if let Some(held) = slot.held() {
                    prop_assert!(held.version >= version);
                    version = held.version;
                }
            }
        }
    }
}
