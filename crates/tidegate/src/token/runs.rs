//! Refreshes under way in this process: one of a session at a time. Whoever wants one finds it here, until it ends, or until
//! the session that it is of is over and another one begins under its name.

use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::sync::Notify;

use super::SessionId;
use crate::{
    flight::{Crash, Flight, Lander},
    sync::Mutex,
};

#[cfg(all(test, shuttle))]
mod interleavings;

/// A refresh under way, as those see it who wait for it.
pub(super) struct Run<T> {
    end: Flight<T>,
    /// Lands before the end when callers should not wait for that.
    early: Flight<T>,
}

impl<T> Clone for Run<T> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), early: self.early.clone() }
    }
}

impl<T: Clone> Run<T> {
    /// What callers are told: the end, or what there is before it.
    pub(super) async fn first(&self) -> Result<T, Crash> {
        let (mut end, mut early) = (self.end.join(), self.early.join());
        poll_fn(|cx| {
            if let Poll::Ready(end) = Pin::new(&mut end).poll(cx) {
                return Poll::Ready(end);
            }
            match Pin::new(&mut early).poll(cx) {
                Poll::Ready(Ok(early)) => Poll::Ready(Ok(early)),
                // Nothing came early.
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// What callers are told before the end, once.
pub(super) struct Early<T>(Option<Lander<T>>);

impl<T> Early<T> {
    pub(super) fn land(&mut self, end: T) {
        if let Some(lander) = self.0.take() {
            lander.land(Ok(end));
        }
    }

    /// Whether callers still wait for the end.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }
}

/// All of them.
pub(super) struct Runs<T> {
    table: Mutex<Table<T>>,
    /// Told whenever one ends.
    ended: Notify,
}

struct Table<T> {
    runs: HashMap<SessionId, (u64, Run<T>)>,
    begun: u64,
    /// How many are not over: those in the table, and those that were taken out of it.
    under_way: usize,
    closed: bool,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        let table = Table { runs: HashMap::new(), begun: 0, under_way: 0, closed: false };
        Self { table: Mutex::new(table), ended: Notify::new() }
    }
}

/// What there is of a refresh for who wants one.
pub(super) enum Joined<T> {
    /// It is under way.
    UnderWay(Run<T>),
    /// It begins, and is who asked's to do.
    Begun(Run<T>, Turn<T>, Early<T>),
    /// None begins any more.
    Closed,
}

impl<T> Runs<T> {
    /// The refresh of a session that is under way, or a new one.
    pub(super) fn join(self: &Arc<Self>, id: &SessionId) -> Joined<T> {
        let table = &mut *self.table.lock();
        if let Some((_, run)) = table.runs.get(id) {
            return Joined::UnderWay(run.clone());
        }
        if table.closed {
            return Joined::Closed;
        }
        let ((end, end_lander), (early, early_lander)) = (Flight::new(), Flight::new());
        let run = Run { end, early };
        table.begun += 1;
        table.under_way += 1;
        table.runs.insert(id.clone(), (table.begun, run.clone()));
        let turn =
            Turn { runs: Arc::clone(self), id: id.clone(), number: table.begun, end: Some(end_lander) };
        Joined::Begun(run, turn, Early(Some(early_lander)))
    }

    /// A session begins anew: what is under way is of the one before, and nobody joins it any more.
    pub(super) fn part(&self, id: &SessionId) {
        let run = self.table.lock().runs.remove(id);
        drop(run); // Those who wait for it are told its end.
    }

    /// Whether one is under way for a session.
    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.table.lock().runs.contains_key(id)
    }

    /// How many are not over.
    pub(super) fn under_way(&self) -> usize {
        self.table.lock().under_way
    }

    /// Begins no more.
    pub(super) fn close(&self) {
        self.table.lock().closed = true;
    }

    /// Returns when none is under way.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(super) async fn all_over(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// A refresh in the hands of who does it. Dropped without an end, those who wait are told that it was lost.
pub(super) struct Turn<T> {
    runs: Arc<Runs<T>>,
    id: SessionId,
    number: u64,
    end: Option<Lander<T>>,
}

impl<T> Turn<T> {
    pub(super) fn id(&self) -> &SessionId {
        &self.id
    }

    /// Ends it: whoever comes afterwards begins anew. `tell` is called before, unless the session is another one by now; no
    /// other one begins meanwhile.
    pub(super) fn end(mut self, end: T, tell: impl FnOnce(&T)) {
        let lander = self.end.take();
        self.leave(|| tell(&end));
        if let Some(lander) = lander {
            lander.land(Ok(end));
        }
    }

    fn leave(&self, tell: impl FnOnce()) {
        let left = {
            let table = &mut *self.runs.table.lock();
            table.under_way -= 1;
            let ours = table.runs.get(&self.id).is_some_and(|(number, _)| *number == self.number);
            if ours {
                tell();
                table.runs.remove(&self.id)
            } else {
                None
            }
        };
        drop(left);
        self.runs.ended.notify_waiters();
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        // Out of the table first: who is told that it was lost may begin anew at once.
        if let Some(lander) = self.end.take() {
            self.leave(|| {});
            drop(lander);
        }
    }
}
