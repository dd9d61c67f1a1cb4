//! A registry in memory that counts its calls, for tests and simulations: it can be down, slow, hang, cut its watches, or
//! serve only so many calls a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::mpsc, time::sleep};

use super::{
    Change, Instance, Listing, Registrant, Revision, ServiceName, Source, SourceError, Update, Watch,
};
use crate::{Instant, clock};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It answers, after [`Counts`] were counted and the delay has passed.
    Up,
    /// It fails at once.
    Down,
    /// It never answers.
    Hangs,
}

/// The calls that reached it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services that were read.
    pub gets: u64,
    /// Watches that were asked for.
    pub watches: u64,
    /// Lists that were asked for.
    pub lists: u64,
    /// Instances that were registered.
    pub registrations: u64,
    /// Calls that were refused, as there were more than it can serve.
    pub over_capacity: u64,
}

impl Counts {
    /// All calls together.
    pub const fn calls(&self) -> u64 {
        self.gets + self.watches + self.lists + self.registrations
    }
}

/// The registry. Clones share one.
#[derive(Clone)]
pub struct FakeRegistry(Arc<Mutex<State>>);

struct State {
    services: BTreeMap<ServiceName, BTreeMap<String, Arc<Instance>>>,
    revision: u64,
    behaviour: Behaviour,
    delay: Duration,
    watchable: bool,
    /// Calls a second.
    capacity: u64,
    second: (Instant, u64),
    watchers: Vec<(ServiceName, mpsc::UnboundedSender<Result<Update, SourceError>>)>,
    counts: Counts,
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            services: BTreeMap::new(),
            revision: 1,
            behaviour: Behaviour::Up,
            delay: Duration::ZERO,
            watchable: true,
            capacity: u64::MAX,
            second: (Instant::EPOCH, 0),
            watchers: Vec::new(),
            counts: Counts::default(),
        })))
    }
}

impl FakeRegistry {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how it answers. Watches that live are not cut by it.
    pub fn behave(&self, behaviour: Behaviour) {
        self.0.lock().behaviour = behaviour;
    }

    /// Sets how long an answer takes.
    pub fn delay(&self, delay: Duration) {
        self.0.lock().delay = delay;
    }

    /// Makes it one that cannot be watched.
    pub fn forbid_watches(&self) {
        self.0.lock().watchable = false;
    }

    /// Sets how many calls it can serve a second; it refuses the others.
    pub fn capacity(&self, calls: u64) {
        self.0.lock().capacity = calls;
    }

    /// Registers instances, as one batch a service.
    pub fn put(&self, instances: impl IntoIterator<Item = Instance>) {
        let mut batches: BTreeMap<ServiceName, Vec<Change>> = BTreeMap::new();
        for instance in instances {
            batches.entry(instance.service.clone()).or_default().push(Change::Put(Arc::new(instance)));
        }
        batches.into_iter().for_each(|(service, changes)| self.change(&service, changes));
    }

    /// Removes instances, as one batch.
    pub fn remove<'a>(&self, service: &ServiceName, ids: impl IntoIterator<Item = &'a str>) {
        self.change(service, ids.into_iter().map(|id| Change::Removed(id.to_owned())).collect());
    }

    /// Removes all instances of a service, as one batch.
    pub fn remove_all(&self, service: &ServiceName) {
        let ids: Vec<_> =
            self.0.lock().services.get(service).into_iter().flatten().map(|(id, _)| id.clone()).collect();
        self.remove(service, ids.iter().map(String::as_str));
    }

    /// Applies a batch and tells the watches.
    pub fn change(&self, service: &ServiceName, changes: Vec<Change>) {
        let mut state = self.0.lock();
        state.revision += 1;
        let instances = state.services.entry(service.clone()).or_default();
        for change in &changes {
            match change {
                Change::Put(instance) => drop(instances.insert(instance.id.clone(), Arc::clone(instance))),
                Change::Removed(id) => drop(instances.remove(id)),
                Change::Malformed(_) => {}
            }
        }
        let update = Update::Changes { revision: Revision(state.revision), changes };
        state.watchers.retain(|(watched, tell)| watched != service || tell.send(Ok(update.clone())).is_ok());
    }

    /// Loses everything, history too, and cuts every watch: as if restored from an older backup.
    pub fn wipe(&self) {
        let mut state = self.0.lock();
        state.services.clear();
        state.revision = 1;
        drop(state);
        self.cut_watches();
    }

    /// Ends every watch with an error.
    pub fn cut_watches(&self) {
        for (_, tell) in std::mem::take(&mut self.0.lock().watchers) {
            // A watch that is gone needs no news.
            drop(tell.send(Err(SourceError::unavailable("the watch was cut"))));
        }
    }

    /// The calls so far.
    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// The services that are watched now.
    pub fn watched(&self) -> BTreeSet<ServiceName> {
        let mut state = self.0.lock();
        state.watchers.retain(|(_, tell)| !tell.is_closed());
        state.watchers.iter().map(|(service, _)| service.clone()).collect()
    }

    /// Watches that live now.
    pub fn watches(&self) -> usize {
        let mut state = self.0.lock();
        state.watchers.retain(|(_, tell)| !tell.is_closed());
        state.watchers.len()
    }

    /// Counts a call, and waits or fails as it would.
    async fn serve(&self, count: fn(&mut Counts) -> &mut u64) -> Result<(), SourceError> {
        let (behaviour, delay) = {
            let state = &mut *self.0.lock();
            *count(&mut state.counts) += 1;
            let now = clock::now();
            if now.since(state.second.0) >= Duration::from_secs(1) {
                state.second = (now, 0);
            }
            state.second.1 += 1;
            if state.second.1 > state.capacity {
                state.counts.over_capacity += 1;
                return Err(SourceError::unavailable("too many calls"));
            }
            (state.behaviour, state.delay)
        };
        if behaviour == Behaviour::Hangs {
            pending::<()>().await;
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        match self.0.lock().behaviour {
            Behaviour::Up => Ok(()),
            Behaviour::Down | Behaviour::Hangs => Err(SourceError::unavailable("the registry is down")),
        }
    }

    fn listing(state: &State, service: &ServiceName) -> Listing {
        let instances =
            state.services.get(service).into_iter().flatten().map(|(_, instance)| Arc::clone(instance));
        Listing { revision: Revision(state.revision), instances: instances.collect(), malformed: 0 }
    }

    async fn keep(self, mut registrant: Registrant) {
        let mut known: Option<Arc<Instance>> = None;
        while let Some(instance) = registrant.wanted() {
            match self.serve(|counts| &mut counts.registrations).await {
                Ok(()) => {
                    self.put([(*instance).clone()]);
                    registrant.registered(&instance);
                    known = Some(instance);
                    registrant.changed().await;
                }
                Err(why) => {
                    registrant.failed(why);
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        if let Some(instance) = known {
            self.remove(&instance.service, [&*instance.id]);
        }
        registrant.gone();
    }
}

impl Source for FakeRegistry {
    type Watch = FakeWatch;

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        self.serve(|counts| &mut counts.lists).await?;
        let state = self.0.lock();
        Ok(state.services.iter().filter(|(_, all)| !all.is_empty()).map(|(name, _)| name.clone()).collect())
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        self.serve(|counts| &mut counts.gets).await?;
        Ok(Self::listing(&self.0.lock(), service))
    }

    async fn watch(&self, service: &ServiceName) -> Result<FakeWatch, SourceError> {
        if !self.0.lock().watchable {
            return Err(SourceError::unsupported("this registry cannot be watched"));
        }
        self.serve(|counts| &mut counts.watches).await?;
        let (tell, told) = mpsc::unbounded_channel();
        let mut state = self.0.lock();
        let first = Update::All(Self::listing(&state, service));
        state.watchers.push((service.clone(), tell));
        Ok(FakeWatch { first: Some(first), told })
    }

    fn register(&self, registrant: Registrant) -> Result<(), SourceError> {
        tokio::spawn(self.clone().keep(registrant));
        Ok(())
    }
}

/// A watch of a [`FakeRegistry`].
pub struct FakeWatch {
    first: Option<Update>,
    told: mpsc::UnboundedReceiver<Result<Update, SourceError>>,
}

impl Watch for FakeWatch {
    async fn next(&mut self) -> Result<Update, SourceError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let ended = || Err(SourceError::unavailable("the registry ended"));
        self.told.recv().await.unwrap_or_else(ended)
    }
}
