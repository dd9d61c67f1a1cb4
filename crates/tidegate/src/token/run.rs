//! One refresh of one session in this process, from the line for a place to the stored result. It belongs to nobody who
//! waits for it.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    SessionId, SessionStore, TokenEndpoint,
    answer::{Origin, Trouble},
    hold::Hold,
    refresher::{Assessed, Found, Refresher},
    runs::{self, Joined},
    stats::count,
    store::Leased,
};
use crate::{flight::caught, sync::now};

/// The first and the longest pause between two looks at a session that another process refreshes. A hint ends them.
const FIRST_LOOK: Duration = Duration::from_millis(25);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How a refresh ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It told this.
    Found(Found),
    /// It failed; when to come back, where that is known.
    Failed(Trouble, Option<Duration>),
}

pub(super) type Run = runs::Run<End>;
pub(super) type Early = runs::Early<End>;

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    /// The refresh of a session that is under way, or a new one.
    pub(super) fn run(self: &Arc<Self>, id: &SessionId) -> Result<Run, Trouble> {
        let (run, turn, mut early) = match self.runs.join(id) {
            Joined::UnderWay(run) => return Ok(run),
            Joined::Begun(run, turn, early) => (run, turn, early),
            Joined::Closed => return Err(Trouble::Closed),
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let ended = caught(this.work(turn.id(), &mut early)).await;
            let ended = ended.unwrap_or_else(|panic| End::Failed(Trouble::Lost(panic), None));
            let (id, told) = (turn.id().clone(), !early.is_open());
            turn.end(ended, |ended| {
                // Those who wait know less.
                if let (true, End::Found(found)) = (told, ended) {
                    this.tell(&id, found.clone());
                }
            });
        });
        Ok(run)
    }

    async fn work(self: &Arc<Self>, id: &SessionId, early: &mut Early) -> End {
        let (began, mut pause) = (now(), FIRST_LOOK);
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return End::Failed(Trouble::Closed, None);
            };
            let asked_at = now();
            let holder = fastrand::u64(..);
            let leased = self.counters.store(self.store.lease(id, holder, self.settings.lease).await);
            match leased {
                Err(error) => {
                    let failed = End::Failed(Trouble::Store(error), None);
                    // Somebody may have died with a grant out, which can be repeated only within the grace: the next
                    // caller may come too late for that.
                    if !self.settings.repeats_in_time() || now().since(began) >= self.settings.limit {
                        return failed;
                    }
                    drop(slot);
                    early.land(failed);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_LOOK);
                }
                Ok(Leased::Gone) => match self.begin_unasked(id).await {
                    Ok(Some(_)) => {}
                    Ok(None) => return End::Found(self.gone()),
                    Err(error) => return End::Failed(Trouble::Store(error), None),
                },
                Ok(Leased::Taken { fence, stored, orphan }) => {
                    let hold = Hold::new(self, id, fence, &stored, orphan, asked_at);
                    match hold {
                        Ok(mut hold) => match hold.refresh(slot, early).await {
                            Some(failed @ End::Failed(..)) if hold.is_urgent() => {
                                early.land(failed);
                                sleep(pause).await;
                                pause = (pause * 2).min(LONGEST_LOOK);
                            }
                            Some(end) => return end,
                            None => {}
                        },
                        Err(trouble) => {
                            let _ = self.counters.store(self.store.release(id, fence).await);
                            return End::Failed(trouble, None);
                        }
                    }
                }
                Ok(Leased::Held(rest)) => {
                    drop(slot);
                    count(&self.counters.lease_waits);
                    self.arrival(id, pause.min(rest)).await;
                    pause = (pause * 2).min(LONGEST_LOOK);
                    match self.see(id).await {
                        Ok(Some(found)) => {
                            count(&self.counters.shared);
                            return End::Found(found);
                        }
                        Ok(None) => {}
                        Err(trouble) if !self.settings.repeats_in_time() => {
                            return End::Failed(trouble, None);
                        }
                        // Whoever holds the lease may die with it.
                        Err(trouble) => early.land(End::Failed(trouble, None)),
                    }
                }
            }
            if now().since(began) >= self.settings.give_up {
                return End::Failed(Trouble::Overdue(self.settings.give_up), None);
            }
            if now().since(began) >= self.settings.limit {
                early.land(End::Failed(Trouble::Overdue(self.settings.limit), None));
            }
        }
    }

    /// Waits until another process may have refreshed a session, at most for `pause`.
    async fn arrival(&self, id: &SessionId, pause: Duration) {
        let notify = Arc::clone(self.arrivals.lock().entry(id.clone()).or_default());
        let _ = timeout(pause, notify.notified()).await;
        self.arrivals.lock().remove(id);
    }

    /// What stands in the store, if that is an answer.
    async fn see(&self, id: &SessionId) -> Result<Option<Found>, Trouble> {
        let asked_at = now();
        let stored = self.counters.store(self.store.read(id, None).await).map_err(Trouble::Store)?;
        let Some(stored) = stored else { return Ok(Some(self.gone())) };
        let record = self.record(id, &stored, asked_at)?;
        if self.known(id).is_some_and(|known| known.follows(&record)) {
            return Ok(None);
        }
        match self.assess(id, &record, stored.version, Origin::Shared, now()) {
            Assessed::Tell(found) => Ok(Some(found)),
            Assessed::Barred(trouble) => Err(trouble),
            Assessed::Refresh(_) | Assessed::Verify(_) => Ok(None),
        }
    }
}
