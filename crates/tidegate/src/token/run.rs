//! One refresh of one session in this process, from the line for a place to the stored result. It belongs to nobody who
//! waits for it.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    SessionId, SessionStore, TokenEndpoint,
    answer::{Origin, Trouble},
    hold::Hold,
    refresher::{Assessed, Found, Refresher},
    stats::count,
    store::Leased,
};
use crate::{
    flight::{Crash, Flight, Lander, caught},
    sync::now,
};

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

/// A refresh under way.
#[derive(Clone)]
pub(super) struct Run {
    end: Flight<End>,
    /// Lands before the end when callers should not wait for that.
    early: Flight<End>,
}

impl Run {
    /// What callers are told: the end, or what there is before it.
    pub(super) async fn first(&self) -> End {
        let (mut end, mut early) = (self.end.join(), self.early.join());
        let first = poll_fn(|cx| {
            if let Poll::Ready(end) = Pin::new(&mut end).poll(cx) {
                return Poll::Ready(end);
            }
            match Pin::new(&mut early).poll(cx) {
                Poll::Ready(Ok(early)) => Poll::Ready(Ok(early)),
                // Nothing came early.
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            }
        });
        first.await.unwrap_or_else(|crash: Crash| End::Failed(Trouble::Lost(crash.to_string().into()), None))
    }
}

/// What callers are told before the end, once.
pub(super) struct Early(Option<Lander<End>>);

impl Early {
    pub(super) fn land(&mut self, end: End) {
        if let Some(lander) = self.0.take() {
            lander.land(Ok(end));
        }
    }

    /// Whether callers still wait for the end.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }
}

/// Takes a run out of the table, however it ends.
struct Entry<E: TokenEndpoint, S: SessionStore>(Arc<Refresher<E, S>>, SessionId);

impl<E: TokenEndpoint, S: SessionStore> Drop for Entry<E, S> {
    fn drop(&mut self) {
        self.0.runs.lock().remove(&self.1);
        self.0.ended.notify_waiters();
    }
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    /// The refresh of a session that is under way, or a new one.
    pub(super) fn run(self: &Arc<Self>, id: &SessionId) -> Result<Run, Trouble> {
        let (run, end, early) = {
            let mut runs = self.runs.lock();
            if let Some(run) = runs.get(id) {
                return Ok(run.clone());
            }
            if self.closed.load(Relaxed) {
                return Err(Trouble::Closed);
            }
            let ((end, end_lander), (early, early_lander)) = (Flight::new(), Flight::new());
            let run = Run { end, early };
            runs.insert(id.clone(), run.clone());
            (run, end_lander, early_lander)
        };
        let entry = Entry(Arc::clone(self), id.clone());
        tokio::spawn(async move {
            let mut early = Early(Some(early));
            let ended = caught(entry.0.work(&entry.1, &mut early)).await;
            let ended = ended.unwrap_or_else(|panic| End::Failed(Trouble::Lost(panic), None));
            if let (false, End::Found(found)) = (early.is_open(), &ended) {
                entry.0.tell(&entry.1, found.clone());
            }
            drop(entry); // Whoever comes after the end begins anew.
            end.land(Ok(ended));
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
        if self.known(id).is_some_and(|known| known.generation > record.generation) {
            return Ok(None);
        }
        match self.assess(id, &record, stored.version, Origin::Shared, now()) {
            Assessed::Tell(found) => Ok(Some(found)),
            Assessed::Barred(trouble) => Err(trouble),
            Assessed::Refresh(_) | Assessed::Verify(_) => Ok(None),
        }
    }
}
