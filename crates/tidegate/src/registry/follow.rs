//! Following the source: one task a service, which watches where the source can, and one that keeps house.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tidegate_core::Dice;
use tokio::time::{sleep_until, timeout};

use super::{
    Registry, ServiceName, SourceError, SourceErrorKind,
    entry::Entry,
    erased::AnyWatch,
    guard::{Books, Lookups, Shared},
    service::Heard,
    snapshot::Origin,
};
use crate::{
    Call, Instant, clock,
    keeper::{Keeper, Refresh, Why},
};

/// How often the house is kept.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How often what has not changed is written to disk again, so that its age there stays true.
const REWRITE: Duration = Duration::from_secs(300);

fn dice() -> Dice {
    Dice(fastrand::u32(..))
}

impl Books {
    /// Follows a service, unless that is being done.
    pub(super) fn follow(&self, entry: &Arc<Entry>) {
        let Some(shared) = self.shared() else { return };
        let mut follower = entry.follower();
        if follower.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (books, keeper) = (Arc::clone(&shared.books), shared.keeper.clone());
        // The task has no claim on the entry: it ends with it.
        let (entry, name) = (Arc::downgrade(entry), entry.name().clone());
        *follower = Some(tokio::spawn(follow(books, keeper, entry, name)).abort_handle());
    }

    /// Forgets a service that nobody looks up, unless it has subscribers.
    pub(super) fn forget(&self, service: &ServiceName) {
        let mut entries = self.entries.lock();
        let gone = entries.get(service).filter(|entry| !entry.is_subscribed()).cloned();
        if let Some(entry) = gone {
            entries.remove(service);
            drop(entries);
            if let Some(follower) = entry.follower().take() {
                follower.abort();
            }
        }
    }
}

async fn follow(books: Arc<Books>, keeper: Keeper<Lookups>, entry: Weak<Entry>, name: ServiceName) {
    let backoff = books.settings.backoff();
    let mut tries = 0;
    loop {
        let mut watch = match begin(&books, &keeper, &name).await {
            Begun::Watch(watch) => watch,
            Begun::Unsupported => return poll(&books, &keeper, &entry, &name).await,
            Begun::Failed(error) => {
                let asked = error.retry_after;
                if let Some(entry) = entry.upgrade() {
                    entry.change(|known| known.trouble = Some(error));
                }
                tries += 1;
                sleep_until(clock::timer_at(backoff.next(tries, asked, clock::now(), dice()))).await;
                continue;
            }
        };
        let error = loop {
            match watch.next().await {
                Ok(update) => {
                    tries = 0;
                    let Some(entry) = entry.upgrade() else { return };
                    let heard = entry.change(|known| {
                        known.trouble = None;
                        let heard = known.service.update(update, clock::now());
                        let live = heard != Heard::Late && known.origin != Origin::Watch;
                        if live {
                            known.origin = Origin::Watch;
                        }
                        if live { Heard::Changed } else { heard }
                    });
                    if heard == Heard::Changed {
                        heard_news(&books, &entry);
                    }
                }
                Err(error) => break error,
            }
        };
        drop(watch);
        let asked = error.retry_after;
        let Some(known) = entry.upgrade() else { return };
        cut_off(&books, &known, error);
        drop(known);
        tries += 1;
        sleep_until(clock::timer_at(backoff.next(tries, asked, clock::now(), dice()))).await;
    }
}

fn heard_news(books: &Books, entry: &Arc<Entry>) {
    if let Some(shared) = books.shared() {
        shared.publish(entry);
    }
    if let Some(disk) = &books.disk {
        disk.changed(entry);
    }
}

/// The watch ended: what it told was true until now, and ages from now on.
fn cut_off(books: &Books, entry: &Arc<Entry>, error: SourceError) {
    let was_live = entry.change(|known| {
        known.watch_restarts += 1;
        known.trouble = Some(error);
        let live = known.origin == Origin::Watch;
        if live {
            known.origin = Origin::Read;
            known.service.vouch(clock::now());
        }
        live
    });
    if was_live && let Some(shared) = books.shared() {
        shared.publish(entry);
    }
}

enum Begun {
    Watch(Box<dyn AnyWatch>),
    Unsupported,
    Failed(SourceError),
}

/// Begins a watch, when the budget allows and the source is not known to be down.
async fn begin(books: &Books, keeper: &Keeper<Lookups>, name: &ServiceName) -> Begun {
    let asking = loop {
        match keeper.ask(clock::now()) {
            Ok(asking) => break asking,
            // Apart, so that those who wait for the same instant do not come together.
            Err(until) => {
                let apart =
                    dice().part_of(books.settings.minimum_retry_interval.max(Duration::from_millis(1)));
                sleep_until(clock::timer_at(until.max(clock::now()) + apart)).await;
            }
        }
    };
    let longest = books.settings.timeout;
    match timeout(longest, books.source.watch(name)).await {
        Ok(Ok(watch)) => {
            asking.answered();
            Begun::Watch(watch)
        }
        Ok(Err(SourceError { kind: SourceErrorKind::Unsupported, .. })) => {
            asking.answered();
            Begun::Unsupported
        }
        Ok(Err(error)) => {
            match error.kind {
                SourceErrorKind::Unavailable | SourceErrorKind::Throttled => {
                    asking.unreachable(name, Why::Failed(error.clone()), error.retry_after);
                }
                SourceErrorKind::Denied | SourceErrorKind::Malformed | SourceErrorKind::Unsupported => {
                    asking.answered();
                }
            }
            Begun::Failed(error)
        }
        Err(_) => {
            asking.unreachable(name, Why::TimedOut(longest), None);
            Begun::Failed(SourceError::unavailable(format!("no answer within {longest:?}")))
        }
    }
}

/// Reads again and again, for subscribers, what cannot be watched. Lookups see to themselves.
async fn poll(books: &Books, keeper: &Keeper<Lookups>, entry: &Weak<Entry>, name: &ServiceName) {
    loop {
        sleep_until(clock::timer_at(clock::now() + books.settings.ttl / 8)).await;
        let Some(entry) = entry.upgrade() else { return };
        if entry.is_subscribed() {
            drop(keeper.try_get(&Call::at(clock::now()), name));
        }
    }
}

impl Registry {
    /// Starts what needs no caller: suspects are confirmed, idle services forgotten, ages on disk kept true.
    pub(super) fn housekeep(&self) {
        let shared = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut rewritten = clock::now();
            loop {
                sleep_until(clock::timer_at(clock::now() + HOUSEKEEPING)).await;
                let Some(shared) = shared.upgrade() else { return };
                let now = clock::now();
                let rewrite = now.since(rewritten) >= REWRITE;
                if rewrite {
                    rewritten = now;
                }
                shared.keep_house(now, rewrite);
            }
        });
    }
}

impl Shared {
    fn keep_house(&self, now: Instant, rewrite: bool) {
        let entries: Vec<_> = self.books.entries.lock().values().cloned().collect();
        for entry in &entries {
            if entry.is_subscribed() {
                // A use of the key, so that it is not idle.
                drop(self.keeper.try_get(&Call::at(now), entry.name()));
            }
            let due = entry.change(|known| known.service.confirm_at());
            if due.is_some_and(|at| at <= now) {
                let _: Refresh = self.keeper.refresh(entry.name(), now);
            }
            if rewrite && let Some(disk) = &self.books.disk {
                disk.changed(entry);
            }
        }
        self.keeper.evict_idle(now);
    }
}
