//! Follows one service for one upstream: keeps its endpoints, says how good they are, and has calls wait only when there
//! is nothing to serve and the registry may still answer.

mod follow;
mod state;

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tidegate::{
    clock,
    registry::{ServiceName, Snapshot},
};
use tidegate_core::{By, Call, Instant, Refused};
use tokio::{sync::watch, task::AbortHandle, time};

use self::follow::follow;
use super::{
    NoEndpoint, ServiceRegistry, Why,
    standing::Standing,
    tally::{Lookup, Tally},
};
use crate::{
    refusal::Cause,
    upstream::{Endpoint, Upstream, Vouched},
};

/// Most calls that wait for the first answer about a service; one more is refused. Default: 10 000.
const MOST_WAITING: usize = 10_000;

/// `Lookup` of a service without endpoints, in [`Inner::quick`].
const NONE: u8 = u8::MAX;

/// Follows a service for an upstream until it is dropped or stopped.
#[derive(Debug)]
pub(crate) struct Resolver {
    inner: Arc<Inner>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Inner {
    service: ServiceName,
    upstream: Arc<Upstream>,
    /// The scheme of addresses that have none.
    scheme: &'static str,
    registry: ServiceRegistry,
    /// What a call finds now, while there are endpoints.
    quick: AtomicU8,
    /// When the registry was last known to say so, in nanoseconds of [`Instant`].
    as_of: AtomicU64,
    standing: watch::Sender<Standing>,
    known: Mutex<Known>,
    tally: Arc<Tally>,
    waiting: AtomicUsize,
}

/// What is known, for pages and for those who follow after a reload.
#[derive(Clone, Debug, Default)]
struct Known {
    snapshot: Option<Arc<Snapshot>>,
    /// Why the registry could not be asked.
    error: Option<String>,
    /// What is wrong with addresses that cannot be called, and how many there are.
    unusable: (Vec<String>, usize),
}

impl Resolver {
    /// A resolver that has not started.
    pub(crate) fn new(
        service: ServiceName,
        upstream: Arc<Upstream>,
        scheme: &'static str,
        registry: ServiceRegistry,
        tally: Arc<Tally>,
    ) -> Self {
        let inner = Inner {
            service,
            upstream,
            scheme,
            registry,
            quick: AtomicU8::new(NONE),
            as_of: AtomicU64::new(0),
            standing: watch::Sender::new(Standing::Pending),
            known: Mutex::default(),
            tally,
            waiting: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner), task: Mutex::new(None) }
    }

    /// Whether it does what a configuration says.
    pub(crate) fn is_of(&self, service: &str, upstream: &Arc<Upstream>, registry: &ServiceRegistry) -> bool {
        self.inner.service.as_str() == service
            && Arc::ptr_eq(&self.inner.upstream, upstream)
            && self.inner.registry.is(registry)
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.inner.tally)
    }

    /// Starts to follow. What `before` knew of the same service is served until the registry says something else: another
    /// registry, or other settings of it, take no endpoint away.
    pub(crate) fn start(&self, before: Option<&Self>) {
        let inner = &self.inner;
        if let Some(before) = before {
            before.stop();
            let snapshot = before.inner.known.lock().snapshot.clone();
            if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.service == inner.service) {
                inner.take(&snapshot);
            }
        }
        // What is on disk, or known already, at once.
        let now = clock::now();
        if let Some(found) = inner.registry.guard().try_lookup(&Call::at(now), &inner.service) {
            inner.hear(found, now);
        } else if let Some(standing) = inner.keep(now) {
            inner.stand(standing, Lookup::Stale);
        }
        *self.task.lock() = Some(tokio::spawn(follow(Arc::clone(inner))).abort_handle());
    }

    /// Follows no longer. The endpoints stay as they are.
    fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    /// Looks the endpoints up for a call, if there are any. Neither waits nor allocates.
    #[inline]
    pub(crate) fn try_resolve(&self, call: &Call) -> bool {
        let found = match self.inner.quick.load(Relaxed) {
            found if found == Lookup::Live as u8 => Lookup::Live,
            found if found == Lookup::Fresh as u8 => Lookup::Fresh,
            found if found == Lookup::Stale as u8 => Lookup::Stale,
            found if found == Lookup::Snapshot as u8 => Lookup::Snapshot,
            _ => return false,
        };
        self.inner.tally.count(found);
        if matches!(found, Lookup::Stale | Lookup::Snapshot) {
            self.inner.tally.aged(call.now.since(Instant::from_nanos(self.inner.as_of.load(Relaxed))));
        }
        true
    }

    /// Waits until there are endpoints, or until it is known that there are none; at most to the call's deadline.
    ///
    /// # Errors
    /// What to answer the call.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn resolve(&self, call: &Call) -> Result<(), Cause> {
        let refused = |found, cause| {
            self.inner.tally.count(found);
            Err(cause)
        };
        let Some(_place) = Waiting::enter(&self.inner.waiting) else {
            return refused(Lookup::Deadline, Cause::Refused(Refused::new(By::QueueFull)));
        };
        let mut standing = self.inner.standing.subscribe();
        let known = standing.wait_for(|standing| *standing != Standing::Pending);
        let known = match call.deadline {
            Some(deadline) => time::timeout_at(clock::timer_at(deadline), known).await.ok(),
            None => Some(known.await),
        };
        match known.map(|known| known.map(|known| *known)) {
            Some(Ok(Standing::Serving)) => {
                self.try_resolve(call);
                Ok(())
            }
            Some(Ok(Standing::Absent { why, until })) => {
                let retry_after = until.map(|until| until.since(clock::now()));
                refused(why.found(), Cause::NoEndpoint(NoEndpoint { why, retry_after }))
            }
            Some(Ok(Standing::Pending) | Err(_)) | None => {
                refused(Lookup::Deadline, Cause::Refused(Refused::new(By::Deadline)))
            }
        }
    }

    /// What to answer a call that finds no endpoint after all.
    pub(crate) fn none(&self) -> NoEndpoint {
        match *self.inner.standing.borrow() {
            Standing::Absent { why, until } => {
                NoEndpoint { why, retry_after: until.map(|until| until.since(clock::now())) }
            }
            Standing::Pending | Standing::Serving => NoEndpoint { why: Why::NotFound, retry_after: None },
        }
    }

    /// Learns that an endpoint could not be reached: one that nobody vouches for is gone then, unless it is the last, and
    /// one that calls vouched for is a suspect again.
    pub(crate) fn unreachable(&self, endpoint: &Endpoint) {
        if endpoint.vouched() == Vouched::Yes {
            return;
        }
        let inner = &self.inner;
        inner.each_unlisted_at(endpoint, |instance| {
            tracing::info!(
                upstream = inner.upstream.name(),
                endpoint = %endpoint.authority(),
                "an endpoint that the registry lost cannot be reached"
            );
            inner.registry.guard().failed(&inner.service, &instance.id);
        });
    }

    /// Learns that a call to an endpoint succeeded: one that nobody vouched for is vouched for by that.
    #[inline]
    pub(crate) fn succeeded(&self, endpoint: &Endpoint) {
        if endpoint.proves_itself() {
            let inner = &self.inner;
            inner.each_unlisted_at(endpoint, |instance| {
                inner.registry.guard().succeeded(&inner.service, &instance.id);
            });
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A place among those who wait, given up by drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < MOST_WAITING).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
