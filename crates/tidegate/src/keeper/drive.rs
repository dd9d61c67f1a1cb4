//! Beside the fast path: begin a fetch, land it, wait for it. Lock, decide, unlock, then spawn or await.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidegate_core::{
    Dice,
    keep::{Fetch as Wanted, Held, Landed, Look, Run, State},
    recovery::Leave,
};
use tokio::time::{timeout, timeout_at};

use super::{
    Answer, Failed, Fault, Fetch, Fetched, Keeper, Kept, Refresh, Refusal, Why, dice, places,
    slot::{self, End, Item, Slot},
    source::Barred,
    table::Added,
};
use crate::{
    Call, Instant, clock,
    flight::{Flight, Lander, caught},
    sync::now,
};

/// What a look came to.
pub(super) enum Looked<F: Fetch> {
    Answer(Answer<F::Key, F::Value, F::Error>),
    Wait(Flight<End<F>>),
}

/// Whether a fetch is under way now.
enum Start<F: Fetch> {
    /// None is wanted.
    No,
    Begun(Flight<End<F>>, Departure<F>),
    UnderWay(Flight<End<F>>),
    /// This key has failed.
    NotBefore(Instant),
    Barred(Barred<F::Error>),
    /// The slot is no longer the key's.
    Evicted,
}

/// What is needed to run a fetch that was decided.
struct Departure<F: Fetch> {
    run: Run,
    leave: Leave,
    lander: Lander<End<F>>,
}

/// What there is to answer with.
struct Seen<F: Fetch> {
    look: Look,
    item: Option<Arc<Item<F>>>,
    why: Option<Why<F::Error>>,
    start: Start<F>,
}

impl<F: Fetch> Keeper<F> {
    /// Finds the slot of a key, or makes it one.
    pub(super) fn slot(&self, hash: u64, key: &F::Key, now: Instant) -> Option<Arc<Slot<F>>> {
        if let Some(slot) = self.0.table.find(hash, key) {
            return Some(slot);
        }
        match self.0.table.add(hash, key, now) {
            Added::Slot(slot, evicted) => {
                self.evicted(evicted.into_iter().collect());
                Some(slot)
            }
            Added::Full => {
                self.0.counters.full();
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn look_closer(&self, call: &Call, hash: u64, key: &F::Key) -> Looked<F> {
        if let Some((shown, place)) = self.0.table.shown(hash, key)
            && let Some(nothing) = shown.as_ref().filter(|item| call.now < item.due_at)
        {
            // That there is nothing is as quick to tell as a value: unknown names may be many.
            self.0.table.touch(place, call.now);
            return Looked::Answer(good(Arc::clone(nothing), call.now));
        }
        loop {
            let Some(slot) = self.slot(hash, key, call.now) else {
                return Looked::Answer(Answer::Refused(Refusal::Full));
            };
            slot.used().touch(call.now);
            let Seen { look, item, why, start } = self.see(&slot, call.now);
            let start = match start {
                Start::Evicted => continue,
                Start::Begun(flight, departure) => {
                    self.depart(slot, departure);
                    Start::UnderWay(flight)
                }
                start => start,
            };
            return match (look, item) {
                (Look::Good(_), Some(item)) => Looked::Answer(good(item, call.now)),
                (Look::Stale(_), Some(item)) => Looked::Answer(stale(item, why, call.now)),
                (Look::Good(_) | Look::Stale(_) | Look::Empty(_), _) => self.without(start, why, call.now),
            };
        }
    }

    /// Decides, under the slot's lock.
    fn see(&self, slot: &Slot<F>, now: Instant) -> Seen<F> {
        slot.with(|state| {
            if state.evicted {
                let look = Look::Empty(Wanted::No);
                return Seen { look, item: None, why: None, start: Start::Evicted };
            }
            self.pace(slot, state, now);
            let look = state.keep.look(now);
            let (Look::Good(wanted) | Look::Stale(wanted) | Look::Empty(wanted)) = look;
            let start = self.start(state, wanted, now);
            let why = match state.keep.state() {
                State::Failing { why: (why, _), .. } => Some(why.clone()),
                State::Absent | State::Held(_) => None,
            };
            Seen { look, item: state.keep.held().map(|held| Arc::clone(&held.value)), why, start }
        })
    }

    fn start(&self, state: &mut slot::State<F>, wanted: Wanted, now: Instant) -> Start<F> {
        match (wanted, &state.flight) {
            (Wanted::UnderWay, Some(flight)) => Start::UnderWay(flight.clone()),
            (Wanted::No | Wanted::UnderWay, _) => Start::No,
            (Wanted::NotBefore(at), _) => Start::NotBefore(at),
            (Wanted::Begin, _) => match self.0.source.begin(now) {
                Ok(leave) => {
                    let run = state.keep.begin();
                    let (flight, lander) = Flight::new();
                    state.flight = Some(flight.clone());
                    Start::Begun(flight, Departure { run, leave, lander })
                }
                Err(barred) => {
                    match barred {
                        Barred::Unreachable { .. } => self.0.counters.unreachable(),
                        Barred::Throttled { .. } => self.0.counters.throttled(),
                    }
                    Start::Barred(barred)
                }
            },
        }
    }

    /// A key that failed because the source was down waits for a part of a while after it came back, in place of the rest
    /// of its own pause: all are soon tried, and not all at once. One whose trouble is over waits no longer.
    fn pace(&self, slot: &Slot<F>, state: &mut slot::State<F>, now: Instant) {
        if let State::Failing { failed_at, why: (_, Fault::Source), .. } = state.keep.state()
            && let Some(recovered_at) = self.0.source.recovered_at()
            && *failed_at < recovered_at
        {
            let own = Dice((slot.hash >> 32) as u32).part_of(self.0.settings.recovery);
            state.keep.pace(recovered_at + own);
        }
        if let State::Failing { failed_at, not_before, why: (Why::Failed(error), _), .. } = state.keep.state()
            && now < *not_before
            && self.0.fetch.is_lifted(error, *failed_at)
        {
            state.keep.pace(now);
        }
    }

    /// What to do for a caller for whom there is nothing.
    fn without(&self, start: Start<F>, why: Option<Why<F::Error>>, now: Instant) -> Looked<F> {
        let refusal = match start {
            Start::Begun(flight, _) | Start::UnderWay(flight) => return Looked::Wait(flight),
            Start::NotBefore(at) => {
                Refusal::Failing { why: why.unwrap_or(Why::Lost), retry_after: at.since(now) }
            }
            Start::Barred(Barred::Unreachable { why: last, until }) => {
                let why = why.or(last).unwrap_or(Why::Lost);
                Refusal::Failing { why, retry_after: until.since(now) }
            }
            Start::Barred(Barred::Throttled { retry_after }) => Refusal::Throttled { retry_after },
            Start::No | Start::Evicted => Refusal::Cleared,
        };
        Looked::Answer(Answer::Refused(refusal))
    }

    /// Begins a fetch whether or not the value is fresh.
    pub(super) fn launch(&self, slot: &Arc<Slot<F>>, now: Instant) -> Refresh {
        let start = slot.with(|state| {
            if state.evicted {
                return Start::Evicted;
            }
            self.pace(slot, state, now);
            let wanted = match state.keep.look(now) {
                Look::Good(Wanted::No) if !state.keep.is_fetching() => Wanted::Begin,
                Look::Good(Wanted::No) => Wanted::UnderWay,
                Look::Good(wanted) | Look::Stale(wanted) | Look::Empty(wanted) => wanted,
            };
            self.start(state, wanted, now)
        });
        match start {
            Start::Begun(_, departure) => {
                self.depart(Arc::clone(slot), departure);
                Refresh::Begun
            }
            Start::UnderWay(_) | Start::No => Refresh::UnderWay,
            Start::NotBefore(at) => Refresh::NotBefore(at),
            Start::Barred(Barred::Unreachable { until, .. }) => Refresh::NotBefore(until),
            Start::Barred(Barred::Throttled { retry_after }) => Refresh::NotBefore(now + retry_after),
            Start::Evicted => Refresh::Unknown,
        }
    }

    /// Spawns a fetch that was decided.
    fn depart(&self, slot: Arc<Slot<F>>, Departure { run, leave, lander }: Departure<F>) {
        self.0.counters.begun();
        let mut out = Out { keeper: self.clone(), slot, run, leave, lander: Some(lander) };
        tokio::spawn(async move {
            let from = now();
            let longest = out.keeper.0.settings.timeout;
            let fetch = caught(out.keeper.0.fetch.fetch(&out.slot.key));
            let landing = match timeout(longest, fetch).await {
                Ok(Ok(Ok(fetched))) => Ok(fetched),
                Ok(Ok(Err(Failed { error, fault, retry_after }))) => {
                    Err((Why::Failed(error), Some(fault), retry_after))
                }
                Ok(Err(panic)) => Err((Why::Panicked(panic), None, None)),
                Err(_) => Err((Why::TimedOut(longest), Some(Fault::Source), None)),
            };
            out.land(landing, from);
        });
    }

    /// Waits for a fetch, at most to the call's deadline.
    pub(super) async fn wait(
        &self,
        call: &Call,
        hash: u64,
        key: &F::Key,
        flight: Flight<End<F>>,
    ) -> Answer<F::Key, F::Value, F::Error> {
        if call.deadline.is_some_and(|deadline| deadline <= call.now) {
            return Answer::Refused(Refusal::Deadline);
        }
        let Some(_place) = Place::take(self) else {
            self.0.counters.full();
            return Answer::Refused(Refusal::Full);
        };
        let mut join = flight.into_join();
        let end = match call.deadline {
            Some(deadline) => match timeout_at(clock::timer_at(deadline), join.landed()).await {
                Ok(end) => end,
                Err(_) => return Answer::Refused(Refusal::Deadline),
            },
            None => join.landed().await,
        };
        let now = now();
        match end {
            // From where it is shown, if it is: that does not count it, and thousands who count one thing queue up for it.
            Ok(End::Taken(item)) => {
                self.fresh(hash, key, now).map_or_else(|| good(Arc::clone(item), now), Answer::Fresh)
            }
            Ok(End::Failed { why, not_before }) => {
                Answer::Refused(Refusal::Failing { why: why.clone(), retry_after: not_before.since(now) })
            }
            Ok(End::Unwanted) => Answer::Refused(Refusal::Cleared),
            Err(_) => Answer::Refused(Refusal::Failing { why: Why::Lost, retry_after: Duration::ZERO }),
        }
    }
}

fn good<K, V, E>(item: Arc<places::Item<K, V>>, now: Instant) -> Answer<K, V, E> {
    let age = item.age(now);
    Kept::of(item).map_or(Answer::Nothing { age }, Answer::Fresh)
}

fn stale<K, V, E>(item: Arc<places::Item<K, V>>, why: Option<Why<E>>, now: Instant) -> Answer<K, V, E> {
    let age = item.age(now);
    Kept::of(item).map_or(Answer::Nothing { age }, |value| Answer::Stale { value, age, why })
}

/// A caller that waits, counted.
struct Place<'a, F: Fetch>(&'a Keeper<F>);

impl<'a, F: Fetch> Place<'a, F> {
    fn take(keeper: &'a Keeper<F>) -> Option<Self> {
        let waiting = &keeper.0.counters.waiting;
        let place = Self(keeper);
        // One that does not fit gives its place back by drop, at once.
        (waiting.fetch_add(1, Relaxed) < keeper.0.settings.waiters).then_some(place)
    }
}

impl<F: Fetch> Drop for Place<'_, F> {
    fn drop(&mut self) {
        self.0.0.counters.waiting.fetch_sub(1, Relaxed);
    }
}

/// A fetch that is out. Dropped before it landed, it never was.
struct Out<F: Fetch> {
    keeper: Keeper<F>,
    slot: Arc<Slot<F>>,
    run: Run,
    leave: Leave,
    lander: Option<Lander<End<F>>>,
}

type Landing<F> =
    Result<Fetched<<F as Fetch>::Value>, (Why<<F as Fetch>::Error>, Option<Fault>, Option<Duration>)>;

impl<F: Fetch> Out<F> {
    fn land(&mut self, landing: Landing<F>, from: Instant) {
        let Some(lander) = self.lander.take() else { return };
        let now = now();
        let shared = &self.keeper.0;
        let end = match landing {
            Ok(fetched) => {
                shared.source.answered(self.leave, now);
                shared.counters.fetched();
                self.fetched(self.keeper.item(&self.slot.key, fetched, from))
            }
            Err((why, fault, retry_after)) => {
                match fault {
                    Some(Fault::Source) => {
                        shared.source.unreachable(self.leave, self.slot.hash, retry_after, why.clone(), now);
                    }
                    Some(Fault::Key) => shared.source.answered(self.leave, now),
                    Some(Fault::Unasked) | None => shared.source.abandoned(self.leave, now),
                }
                shared.counters.failed();
                self.failed((why, fault.unwrap_or(Fault::Key)), retry_after, now)
            }
        };
        lander.land(Ok(end));
    }

    fn fetched(&self, new: Held<Arc<Item<F>>>) -> End<F> {
        let item = Arc::clone(&new.value);
        self.slot.with(|state| {
            let landed = state.keep.fetched(self.run, new);
            self.keeper.0.counters.put(landed);
            match landed {
                Landed::Taken => state.flight = None,
                Landed::Unwanted => return End::Unwanted,
                Landed::Late => {
                    state.flight = None;
                    if let Some(held) = state.keep.held() {
                        return End::Taken(Arc::clone(&held.value));
                    }
                }
            }
            End::Taken(item)
        })
    }

    fn failed(&self, blame: slot::Blame<F::Error>, retry_after: Option<Duration>, now: Instant) -> End<F> {
        self.slot.with(|state| {
            let backoff = &self.keeper.0.settings.backoff;
            let (run, keep, why) = (self.run, &mut state.keep, blame.clone());
            let landed = match blame.1 {
                Fault::Source | Fault::Key => keep.failed(run, why, retry_after, backoff, now, dice()),
                Fault::Unasked => keep.put_off(run, why, retry_after, backoff, now, dice()),
            };
            if landed == Landed::Unwanted {
                return End::Unwanted;
            }
            state.flight = None;
            let not_before = match state.keep.state() {
                State::Failing { not_before, .. } => *not_before,
                State::Absent | State::Held(_) => now,
            };
            End::Failed { why: blame.0, not_before }
        })
    }
}

impl<F: Fetch> Drop for Out<F> {
    fn drop(&mut self) {
        if self.lander.is_some() {
            self.slot.with(|state| {
                state.keep.give_up(self.run);
                if !state.keep.is_fetching() {
                    state.flight = None;
                }
            });
            self.keeper.0.source.abandoned(self.leave, now());
            self.keeper.0.counters.lost();
        }
    }
}
