//! What a client of the fleet keeps: the guard, or a cache with a fixed interval beside it.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    rc::Rc,
    time::Duration,
};

use tidegate::{
    Call, Instant, clock,
    registry::{
        Change, LookupError, Provenance, Registry, ServiceName, Settings, Source, Update, Watch,
        testing::FakeRegistry,
    },
};
use tokio::task::spawn_local;

/// What became of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Answered, by a watch that lives.
    Live,
    /// Answered with what was known before.
    Known,
    /// It waits for the registry.
    Waits,
    /// It was told that there is none.
    None,
    /// It was told that nobody could ask.
    Failed,
}

/// What answers a process's lookups.
pub(crate) trait Client: 'static {
    /// What it is called in tables.
    #[allow(dead_code, reason = "the tests print none")]
    const NAME: &'static str;
    fn new(registry: FakeRegistry) -> Self;
    fn look(&self, service: &ServiceName, now: Instant) -> Found;
}

impl Client for Registry {
    const NAME: &'static str = "tidegate";

    fn new(registry: FakeRegistry) -> Self {
        Self::new(registry, Settings::default()).expect("the defaults are valid")
    }

    fn look(&self, service: &ServiceName, now: Instant) -> Found {
        match self.try_lookup(&Call::at(now), service) {
            None => Found::Waits,
            Some(Ok(found)) if found.provenance == Provenance::Live => Found::Live,
            Some(Ok(_)) => Found::Known,
            Some(Err(LookupError::NotFound)) => Found::None,
            Some(Err(_)) => Found::Failed,
        }
    }
}

const TTL: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(5);

/// A cache as they are common: one read of a service at a time, at most one an interval, counted from its beginning;
/// what is known is served while reading fails; a watch beside it, whose deletions are believed. It is given the
/// benefit of every doubt: a lost watch is opened anew by a read that succeeded, so that it costs nothing while the
/// registry is down.
#[derive(Clone)]
pub(crate) struct FixedInterval(Rc<Cache>);

struct Cache {
    registry: FakeRegistry,
    entries: RefCell<HashMap<ServiceName, Entry>>,
}

#[derive(Default)]
struct Entry {
    instances: BTreeSet<String>,
    fresh_until: Instant,
    attempted: Option<Instant>,
    reads: bool,
    watches: bool,
}

impl Client for FixedInterval {
    const NAME: &'static str = "fixed interval";

    fn new(registry: FakeRegistry) -> Self {
        Self(Rc::new(Cache { registry, entries: RefCell::default() }))
    }

    fn look(&self, service: &ServiceName, now: Instant) -> Found {
        let mut entries = self.0.entries.borrow_mut();
        if !entries.contains_key(service) {
            entries.insert(service.clone(), Entry::default());
        }
        let entry = entries.get_mut(service).expect("it was just put there");
        let known = !entry.instances.is_empty();
        if known && now < entry.fresh_until {
            return if entry.watches { Found::Live } else { Found::Known };
        }
        if !entry.reads && entry.attempted.is_none_or(|at| now.since(at) >= INTERVAL) {
            (entry.attempted, entry.reads) = (Some(now), true);
            spawn_local(self.clone().read(service.clone()));
            return Found::Waits;
        }
        match (known, entry.reads) {
            (true, _) => Found::Known,
            (false, true) => Found::Waits,
            (false, false) => Found::None,
        }
    }
}

impl FixedInterval {
    fn with<R>(&self, service: &ServiceName, change: impl FnOnce(&mut Entry) -> R) -> R {
        change(self.0.entries.borrow_mut().get_mut(service).expect("entries are never removed"))
    }

    async fn read(self, service: ServiceName) {
        let read = self.0.registry.get(&service).await;
        let watch = self.with(&service, |entry| {
            entry.reads = false;
            let Ok(listing) = read else { return false };
            entry.instances = listing.instances.iter().map(|instance| instance.id.clone()).collect();
            entry.fresh_until = clock::now() + TTL;
            !std::mem::replace(&mut entry.watches, true)
        });
        if watch {
            self.watch(&service).await;
            self.with(&service, |entry| entry.watches = false);
        }
    }

    async fn watch(&self, service: &ServiceName) {
        let Ok(mut watch) = self.0.registry.watch(service).await else { return };
        while let Ok(update) = watch.next().await {
            let Update::Changes { changes, .. } = update else { continue };
            self.with(service, |entry| {
                for change in changes {
                    match change {
                        Change::Put(instance) => drop(entry.instances.insert(instance.id.clone())),
                        Change::Removed(id) => drop(entry.instances.remove(&id)),
                        Change::Malformed(_) => {}
                    }
                }
                if entry.instances.is_empty() {
                    entry.attempted = None;
                }
                entry.fresh_until = clock::now() + TTL;
            });
        }
    }
}
