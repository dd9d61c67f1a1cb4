//! The guard: answers from what is known, follows the source beside it, and never takes its trouble for the truth.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tidegate_core::{Lifetime, keep::Landed};
use tokio::sync::watch;

use super::{
    Endpoints, Instance, InvalidSettings, LookupError, Provenance, Registrant, Registration, ServiceName,
    Settings, Snapshot, Source, SourceError, SourceErrorKind,
    disk::Disk,
    entry::{Entry, Known},
    erased::AnySource,
    registration,
    service::Heard,
    snapshot::{Origin, View},
};
use crate::{
    Call, Instant, clock,
    keeper::{Answer, Failed, Fault, Fetch, Fetched, Keeper, Kept, Refusal},
};

/// A registry that goes on answering while the registry behind it is slow, wrong or gone. Clones share one.
///
/// It needs a tokio runtime. When the last clone is dropped, its tasks end.
#[derive(Clone)]
pub struct Registry(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) keeper: Keeper<Lookups>,
    pub(super) books: Arc<Books>,
}

impl Drop for Shared {
    /// Ends the tasks with the last clone. A fetch that is out ends by itself.
    fn drop(&mut self) {
        self.books.entries.lock().drain().for_each(|(_, entry)| {
            if let Some(follower) = entry.follower().take() {
                follower.abort();
            }
        });
    }
}

/// What lookups and tasks share.
pub(super) struct Books {
    pub(super) source: Box<dyn AnySource>,
    pub(super) settings: Settings,
    /// The services that have, or had, endpoints, or subscribers. A name that resolves to nothing has no entry.
    pub(super) entries: Mutex<HashMap<ServiceName, Arc<Entry>>>,
    pub(super) disk: Option<Disk>,
    /// The registry whose books these are, for those who must not keep it alive.
    pub(super) owner: Mutex<Weak<Shared>>,
}

/// Reads a service.
pub(super) struct Lookups(pub(super) Arc<Books>);

impl Registry {
    /// Makes a registry over a source, with what the snapshots on disk tell. A snapshot that cannot be read, or a
    /// directory that cannot be written, is told by [`problems`](Self::problems) and does no other harm. Snapshots are read
    /// before this returns: make it at the start of a program.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the first setting that is out of range.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(source: impl Source, settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let disk = settings.snapshot.as_deref().map(Disk::open);
        let keeper_settings = settings.keeper();
        let books = Arc::new(Books {
            source: Box::new(source),
            settings,
            entries: Mutex::default(),
            disk,
            owner: Mutex::new(Weak::new()),
        });
        let keeper =
            Keeper::new(Lookups(Arc::clone(&books)), keeper_settings).map_err(InvalidSettings::Keeper)?;
        let registry = Self(Arc::new(Shared { keeper, books }));
        *registry.0.books.owner.lock() = Arc::downgrade(&registry.0);
        registry.restore();
        registry.housekeep();
        Ok(registry)
    }

    /// Looks a service up: what is known at once, fresh or not; else it waits for the source, at most to the call's
    /// deadline.
    ///
    /// # Errors
    /// [`LookupError`], which never takes one reason for another.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the source is still being asked, once for all who wait.
    pub async fn lookup(&self, call: &Call, service: &ServiceName) -> Result<Endpoints, LookupError> {
        match self.0.keeper.try_fresh(call, service) {
            Some(view) => Ok(fresh(view, call.now)),
            None => answer(self.0.keeper.get(call, service).await, call.now),
        }
    }

    /// Answers from what is known, and begins to ask where that is wanted; `None` when only waiting would tell.
    #[inline]
    pub fn try_lookup(&self, call: &Call, service: &ServiceName) -> Option<Result<Endpoints, LookupError>> {
        match self.0.keeper.try_fresh(call, service) {
            Some(view) => Some(Ok(fresh(view, call.now))),
            None => self.look_closer(call, service),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_closer(&self, call: &Call, service: &ServiceName) -> Option<Result<Endpoints, LookupError>> {
        self.0.keeper.try_get(call, service).map(|found| answer(found, call.now))
    }

    /// Follows a service: its snapshots, from the one that is known, whenever endpoints come, go or change. The service
    /// is watched as long as this lives.
    pub fn watch(&self, service: &ServiceName) -> Subscription {
        let (entry, snapshots) = self.0.books.subscribe(service);
        self.0.books.follow(&entry);
        // A first answer, for sources that cannot be watched.
        drop(self.try_lookup(&Call::at(clock::now()), service));
        Subscription { snapshots }
    }

    /// Registers an instance, and keeps it registered until the answer is dropped or deregistered.
    ///
    /// # Errors
    /// [`SourceErrorKind::Unsupported`] from a source that only reads. Whether it succeeded, and whether it still
    /// stands, [`Registration::standing`] tells.
    pub fn register(&self, instance: Instance) -> Result<Registration, SourceError> {
        let (registration, registrant): (_, Registrant) = registration(instance);
        self.0.books.source.register(registrant)?;
        Ok(registration)
    }

    /// Asks the source for the names of all services.
    ///
    /// # Errors
    /// [`SourceError`] when it could not be asked.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up.
    pub async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        let books = &self.0.books;
        match tokio::time::timeout(books.settings.timeout, books.source.list()).await {
            Ok(listed) => listed,
            Err(_) => {
                let after = books.settings.timeout;
                Err(SourceError::unavailable(format!(
                    "{}: no answer within {after:?}",
                    books.source.describe()
                )))
            }
        }
    }

    /// Learns that a call to an endpoint was in vain: a suspect goes at once, unless it is the last endpoint, and one that
    /// calls had proved is a suspect again. One that the source vouches for stays; to avoid it is a breaker's business.
    pub fn failed(&self, service: &ServiceName, id: &str) {
        self.learn(service, |known| known.service.refute(id));
    }

    /// Learns that a call to an endpoint succeeded: it is no suspect then. It stays until the source, asked after the
    /// grace, says that it is gone. One that the source vouches for is not changed by it.
    pub fn succeeded(&self, service: &ServiceName, id: &str) {
        self.learn(service, |known| known.service.prove(id, clock::now()));
    }

    fn learn(&self, service: &ServiceName, what: impl FnOnce(&mut Known) -> Heard) {
        let Some(entry) = self.0.books.known(service) else { return };
        if entry.change(what) == Heard::Changed {
            self.0.publish(&entry);
        }
    }

    /// Forgets nothing and asks the source now, unless that must wait for its backoff or the budget.
    pub fn refresh(&self, service: &ServiceName) -> crate::keeper::Refresh {
        self.0.keeper.refresh(service, clock::now())
    }
}

#[inline]
fn fresh(view: Kept<ServiceName, View>, now: Instant) -> Endpoints {
    let provenance = match view.origin {
        Origin::Watch => Provenance::Live,
        Origin::Read => Provenance::Fresh,
        Origin::Disk => Provenance::Snapshot { age: now.since(view.snapshot.as_of) },
    };
    Endpoints { view, provenance, why: None }
}

fn answer(found: Answer<ServiceName, View, SourceError>, now: Instant) -> Result<Endpoints, LookupError> {
    match found {
        Answer::Fresh(view) => Ok(fresh(view, now)),
        Answer::Stale { value: view, why, .. } => {
            let age = now.since(view.snapshot.as_of);
            let provenance = match view.origin {
                Origin::Disk => Provenance::Snapshot { age },
                Origin::Watch | Origin::Read => Provenance::Stale { age },
            };
            Ok(Endpoints { view, provenance, why })
        }
        Answer::Nothing { .. } => Err(LookupError::NotFound),
        Answer::Refused(refusal) => Err(match refusal {
            Refusal::Failing { why, retry_after } => LookupError::Unavailable { why, retry_after },
            Refusal::Throttled { retry_after } => LookupError::Throttled { retry_after },
            Refusal::Deadline => LookupError::Deadline,
            Refusal::Full | Refusal::Cleared => LookupError::Throttled { retry_after: FULL },
        }),
    }
}

/// When those come back for whom there was no place to wait.
const FULL: Duration = Duration::from_secs(1);

impl Shared {
    /// Tells the keeper and all subscribers what is known of a service now.
    pub(super) fn publish(&self, entry: &Entry) {
        let put = entry.change(|known| {
            let fetched = self.books.fetched(known, clock::now());
            // Under the entry's lock: snapshots reach subscribers in their order.
            entry.tell(known);
            fetched
        });
        // Out of order, the later version stays.
        let _: Landed = self.keeper.put(entry.name(), put);
    }
}

impl Books {
    pub(super) fn known(&self, service: &ServiceName) -> Option<Arc<Entry>> {
        self.entries.lock().get(service).cloned()
    }

    /// The entry of a service that has endpoints or a subscriber.
    pub(super) fn entry(&self, service: &ServiceName) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        Arc::clone(entries.entry(service.clone()).or_insert_with(|| self.make(service)))
    }

    /// A subscriber of a service, which is not forgotten while there is one.
    fn subscribe(&self, service: &ServiceName) -> (Arc<Entry>, watch::Receiver<Option<Arc<Snapshot>>>) {
        let mut entries = self.entries.lock();
        let entry = Arc::clone(entries.entry(service.clone()).or_insert_with(|| self.make(service)));
        let snapshots = entry.subscribe();
        (entry, snapshots)
    }

    fn make(&self, service: &ServiceName) -> Arc<Entry> {
        Arc::new(Entry::new(service.clone(), self.settings.preservation, clock::now()))
    }

    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.owner.lock().upgrade()
    }

    /// What is known, as the keeper keeps it. Its version is counted here: revisions may go backwards when a source is
    /// restored, versions never do.
    pub(super) fn fetched(&self, known: &mut Known, now: Instant) -> Fetched<View> {
        known.version += 1;
        let lifetime = match known.origin {
            Origin::Watch => Lifetime::FOR_EVER,
            Origin::Read => self.aged(self.settings.lifetime(), known, now),
            Origin::Disk => self.aged(Lifetime::of(Duration::ZERO, self.settings.max_stale), known, now),
        };
        if known.service.is_empty() {
            let lifetime = match known.origin {
                Origin::Watch => lifetime,
                Origin::Read | Origin::Disk => {
                    Lifetime::of(self.settings.minimum_retry_interval, Duration::ZERO)
                }
            };
            return Fetched::nothing().version(known.version).lifetime(lifetime);
        }
        let snapshot = Arc::new(known.service.snapshot());
        Fetched::value(View { snapshot, origin: known.origin }).version(known.version).lifetime(lifetime)
    }

    /// A lifetime that began when the source last vouched for what is known: passing it on renews nothing.
    fn aged(&self, lifetime: Lifetime, known: &Known, now: Instant) -> Lifetime {
        let age = known.service.as_of().map_or_else(Default::default, |as_of| now.since(as_of));
        let left = lifetime.valid.saturating_add(lifetime.stale).saturating_sub(age);
        let valid = lifetime.valid.saturating_sub(age);
        let fresh = lifetime.fresh.saturating_sub(age);
        Lifetime { fresh, spread: lifetime.spread.min(fresh), valid, stale: left.saturating_sub(valid) }
    }
}

impl Fetch for Lookups {
    type Key = ServiceName;
    type Value = View;
    type Error = SourceError;

    async fn fetch(&self, service: &ServiceName) -> Result<Fetched<View>, Failed<SourceError>> {
        let books = &self.0;
        let asked = clock::now();
        let listing = books.source.get(service).await.map_err(failed)?;
        let entry = match books.known(service) {
            Some(entry) => entry,
            // Nothing is kept of names that resolve to nothing, however many are asked for.
            None if listing.instances.is_empty() => return Ok(Fetched::nothing()),
            None => books.entry(service),
        };
        let fetched = entry.change(|known| {
            let heard = known.service.read(listing, asked, clock::now());
            if heard != Heard::Late && known.origin == Origin::Disk {
                known.origin = Origin::Read;
            }
            let fetched = books.fetched(known, asked);
            if heard == Heard::Changed {
                entry.tell(known);
            }
            fetched
        });
        if let Some(disk) = &books.disk {
            disk.changed(&entry);
        }
        books.follow(&entry);
        Ok(fetched)
    }

    fn evicted(&self, service: &ServiceName) {
        self.0.forget(service);
    }
}

/// Whose fault a source's failure is. A source that refuses our credentials, or has no verb, refuses them for all keys;
/// but asking less often does not help it, and another key may be allowed.
fn failed(error: SourceError) -> Failed<SourceError> {
    let fault = match error.kind {
        SourceErrorKind::Unavailable | SourceErrorKind::Throttled => Fault::Source,
        SourceErrorKind::Denied | SourceErrorKind::Malformed | SourceErrorKind::Unsupported => Fault::Key,
    };
    Failed { retry_after: error.retry_after, error, fault }
}

/// The snapshots of one service, from [`Registry::watch`].
pub struct Subscription {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
}

impl Subscription {
    /// The snapshot that is known; `None` before the source or a snapshot on disk has told anything.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.borrow().clone()
    }

    /// Waits for a snapshot that was not seen yet: at once for the first one, if there is one. Of several that came
    /// meanwhile, it is the last. `None` when the registry has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        loop {
            self.snapshots.changed().await.ok()?;
            if let Some(snapshot) = self.snapshots.borrow_and_update().clone() {
                return Some(snapshot);
            }
        }
    }
}
