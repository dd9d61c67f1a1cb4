//! What a session's keeper fetches: what stands in the store, and another token once that is due.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tidegate_core::{
    Freshness, Instant, Lifetime, Term,
    token::{Blame, Over, Plan},
};
use tokio::sync::{Notify, Semaphore};

use super::{
    SessionId, SessionStore, TokenEndpoint,
    answer::{Good, Known, Origin, Trouble},
    health::Health,
    opening::Openings,
    record::Record,
    run::End,
    runs::Runs,
    settings::Settings,
    stats::{Counters, count},
    store::Stored,
};
use crate::{
    keeper::{Failed, Fetch, Fetched, WeakKeeper},
    sync::{Mutex, now},
};

/// What all sessions of a coordinator share.
pub(super) struct Refresher<E, S>
where
    E: TokenEndpoint,
    S: SessionStore,
{
    pub(super) endpoint: E,
    pub(super) store: S,
    pub(super) settings: Settings,
    pub(super) health: Health,
    pub(super) counters: Counters,
    /// Places for grants, given in the order of asking.
    pub(super) slots: Arc<Semaphore>,
    /// Refreshes under way here.
    pub(super) runs: Arc<Runs<End>>,
    /// Sessions that another process refreshes, and somebody here waits for.
    pub(super) arrivals: Mutex<HashMap<SessionId, Arc<Notify>>>,
    pub(super) keeper: OnceLock<WeakKeeper<Fetcher<E, S>>>,
    /// Sessions that begin without a login.
    pub(super) openings: Arc<Openings>,
    /// Generations whose access token an upstream called worthless.
    pub(super) rejected: Mutex<HashMap<SessionId, u64>>,
    /// What makes this process refresh at another time than others.
    pub(super) salt: u64,
}

pub(super) struct Fetcher<E: TokenEndpoint, S: SessionStore>(pub(super) Arc<Refresher<E, S>>);

/// What can be told of a session, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) known: Known,
    /// When to look again.
    pub(super) until: Instant,
    /// When it is worth nothing.
    pub(super) dead_at: Instant,
    /// Of two, the one of the higher rank is the later: how often tokens were granted; what is gone is the last of all.
    pub(super) rank: u64,
}

impl Found {
    /// As what a fetch that began at `started` brings.
    pub(super) fn fetched(self, started: Instant) -> Fetched<Known> {
        let lifetime = Lifetime {
            fresh: self.until.since(started),
            spread: Duration::ZERO,
            valid: self.dead_at.since(started),
            stale: Duration::ZERO,
        };
        Fetched::value(self.known).lifetime(lifetime).version(self.rank)
    }
}

/// What a record comes to.
pub(super) enum Assessed {
    /// Tell this.
    Tell(Found),
    /// Another token is due; there may be one that is good meanwhile.
    Refresh(Option<Found>),
    /// What was granted is to be verified.
    Verify(Option<Found>),
    /// There is nothing to serve, and nothing to be done now.
    Barred(Trouble),
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    /// Reads what stands in the store.
    pub(super) fn record(
        &self,
        id: &SessionId,
        stored: &Stored,
        asked_at: Instant,
    ) -> Result<Record, Trouble> {
        Record::read(stored, id, self.settings.seal.as_deref(), asked_at).map_err(Trouble::Record)
    }

    pub(super) fn assess(
        &self,
        id: &SessionId,
        record: &Record,
        version: u64,
        origin: Origin,
        now: Instant,
    ) -> Assessed {
        let mut term = record.term(&self.settings.schedule, id, self.salt);
        if self.is_rejected(id, record.generation) {
            let over = term.from;
            term = Term { due_at: over, stale_at: over, dead_at: over, ..term };
        }
        let plan = record.standing(term).plan(self.settings.reuse_grace, self.health.answered_at(), now);
        let good = |last: Option<Over>, until: Instant| Found {
            known: Known::Good(Good {
                record: Arc::new(record.clone()),
                version,
                term,
                origin,
                serving_out: last,
            }),
            until: until.min(now + self.settings.recheck).min(term.dead_at).min(record.ends_at),
            dead_at: term.dead_at.min(record.ends_at),
            rank: record.generation,
        };
        let alive = term.at(now) != Freshness::Dead;
        match plan {
            Plan::Serve => Assessed::Tell(good(None, term.due_at)),
            Plan::ServeOut(over) => Assessed::Tell(good(Some(over), term.dead_at)),
            Plan::Over(over) => Assessed::Tell(self.over(over, record.generation, now)),
            Plan::Cooling(until) if alive => Assessed::Tell(good(None, until)),
            Plan::Cooling(until) => {
                let blame = if record.tries.own { Blame::Session } else { Blame::Endpoint };
                Assessed::Barred(Trouble::Cooling { until, blame })
            }
            Plan::Refresh => Assessed::Refresh(alive.then(|| good(None, now))),
            Plan::Verify => Assessed::Verify(alive.then(|| good(None, now))),
        }
    }

    /// That a session is over is remembered for a while.
    pub(super) fn over(&self, over: Over, rank: u64, now: Instant) -> Found {
        let until = now + self.settings.reuse_window;
        Found { known: Known::Over(over), until, dead_at: until, rank }
    }

    /// That a session is not there any more.
    pub(super) fn gone(&self) -> Found {
        self.over(Over::Gone, u64::MAX, now())
    }

    /// Tells the keeper what is known now: it ends a failure.
    pub(super) fn tell(&self, id: &SessionId, found: Found) {
        if let Some(keeper) = self.keeper.get().and_then(WeakKeeper::upgrade) {
            keeper.put(id, found.fetched(now()));
        }
    }

    /// Nothing that is known of a session here, or that looks and refreshes under way will bring, is told any more: who waits
    /// looks again.
    pub(super) fn forget(&self, id: &SessionId) {
        self.runs.part(id);
        if let Some(keeper) = self.keeper.get().and_then(WeakKeeper::upgrade) {
            keeper.clear(id);
        }
    }

    /// What is known here of a session that is served.
    pub(super) fn known(&self, id: &SessionId) -> Option<Arc<Record>> {
        let kept = self.keeper.get().and_then(WeakKeeper::upgrade)?.peek(id)?;
        match &*kept {
            Known::Good(good) => Some(Arc::clone(&good.record)),
            Known::Over(_) => None,
        }
    }

    /// A session that may be due cannot be read. Somebody may have died with a grant out, which can be repeated only
    /// within the grace, and the next caller may come too late for that: it is looked at until the store is back.
    fn look_on(self: &Arc<Self>, id: &SessionId, now: Instant) {
        let fresh = |record: Arc<Record>| {
            record.term(&self.settings.schedule, id, self.salt).at(now) == Freshness::Fresh
        };
        if self.settings.repeats_in_time() && !self.known(id).is_some_and(fresh) {
            // It goes on by itself; that none begins after the shutdown is fine.
            let _ = self.run(id);
        }
    }

    async fn look(self: &Arc<Self>, id: &SessionId) -> Result<Found, (Trouble, Option<Duration>)> {
        let asked_at = now();
        let stored = self.counters.store(self.store.read(id, Some(self.settings.idle)).await);
        let stored = match stored {
            Ok(Some(stored)) => stored,
            Ok(None) => match self.begin_unasked(id).await {
                Ok(Some(stored)) => stored,
                Ok(None) => return Ok(self.gone()),
                Err(error) => return Err((Trouble::Store(error), None)),
            },
            Err(error) => {
                self.look_on(id, asked_at);
                return Err((Trouble::Store(error), None));
            }
        };
        let record = self.record(id, &stored, asked_at).map_err(|trouble| (trouble, None))?;
        let (now, known) = (now(), self.known(id));
        if known.as_ref().is_some_and(|known| known.born != record.born) {
            // Another session of this name: what is known, and what this look brings, is forgotten; who waits looks again.
            self.forget(id);
        }
        // A store that forgot writes has an older refresh token, which is used up: it is told before anything else.
        let forgot = known.as_ref().is_some_and(|known| known.follows(&record));
        let good = match self.assess(id, &record, stored.version, Origin::Shared, now) {
            _ if forgot => None,
            Assessed::Tell(found) => return Ok(found),
            Assessed::Barred(trouble) => {
                count(&self.counters.held_back);
                let after = trouble.retry_after(now);
                return Err((trouble, after));
            }
            Assessed::Refresh(good) | Assessed::Verify(good) => good,
        };
        // Nobody waits for a refresh who can have a good token at once; the next call begins the refresh.
        if let Some(good) = good
            && known.is_none()
        {
            return Ok(good);
        }
        match self.run(id).map_err(|trouble| (trouble, None))?.first().await {
            Ok(End::Found(found)) => Ok(found),
            Ok(End::Failed(trouble, after)) => Err((trouble, after)),
            Err(crash) => Err((Trouble::Lost(crash.to_string().into()), None)),
        }
    }
}

impl<E: TokenEndpoint, S: SessionStore> Fetch for Fetcher<E, S> {
    type Key = SessionId;
    type Value = Known;
    type Error = Trouble;

    async fn fetch(&self, id: &SessionId) -> Result<Fetched<Known>, Failed<Trouble>> {
        let started = now();
        match self.0.look(id).await {
            Ok(found) => Ok(found.fetched(started)),
            // A grant that was not sent is no failure.
            Err((error, retry_after)) if error.is_unasked() => {
                Err(Failed { retry_after, ..Failed::unasked(error) })
            }
            // Always the key's: whether the endpoint can be reached is decided beside the keeper, so that sessions can
            // be read from the store while it cannot.
            Err((error, retry_after)) => Err(Failed { retry_after, ..Failed::key(error) }),
        }
    }

    fn is_lifted(&self, trouble: &Trouble, failed_at: Instant) -> bool {
        self.0.health.has_lifted(trouble, failed_at)
    }
}
