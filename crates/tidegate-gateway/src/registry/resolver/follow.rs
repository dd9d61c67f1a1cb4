//! Keeps an upstream's endpoints as the registry tells them, and says how good they are.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidegate::{
    clock,
    registry::{Doubt, Endpoint as Listed, Endpoints, Instance, LookupError, Provenance, Snapshot},
};
use tidegate_core::{Call, Instant};
use tokio::time;

use super::{Inner, NONE};
use crate::{
    registry::{Why, standing::Standing, tally::Lookup},
    upstream::{Endpoint, Vouched, Wanted, Zone},
};

/// How often it is looked how good the endpoints still are; changes come by themselves. Default: 1 s.
const LOOK: Duration = Duration::from_secs(1);

/// Most endpoints whose addresses cannot be called that are told one by one.
const MOST_UNUSABLE: usize = 16;

/// Follows until the registry ends.
pub(super) async fn follow(inner: Arc<Inner>) {
    let guard = inner.registry.guard();
    let mut news = guard.watch(&inner.service);
    loop {
        let now = clock::now();
        let call = Call::at(now);
        let found = match guard.try_lookup(&call, &inner.service) {
            Some(found) => found,
            None => tokio::select! {
                // No longer than the registry's timeout.
                found = guard.lookup(&call, &inner.service) => found,
                next = news.next() => match next {
                    Some(_) => continue,
                    None => return,
                },
            },
        };
        inner.hear(found, clock::now());
        tokio::select! {
            next = news.next() => if next.is_none() { return },
            () = time::sleep(LOOK) => {}
        }
    }
}

impl Inner {
    /// The instances at an endpoint that the registry does not list any more.
    pub(super) fn each_unlisted_at(&self, endpoint: &Endpoint, mut tell: impl FnMut(&Instance)) {
        let Some(snapshot) = self.known.lock().snapshot.clone() else { return };
        let there = snapshot.unlisted().filter(|listed| endpoint.is_at(&self.url(listed)));
        there.for_each(|listed| tell(&listed.instance));
    }

    /// Takes what a lookup found.
    pub(super) fn hear(&self, found: Result<Endpoints, LookupError>, now: Instant) {
        let (standing, found, error) = match found {
            Ok(endpoints) => {
                self.take(&endpoints.snapshot());
                let found = match endpoints.provenance {
                    Provenance::Live => Lookup::Live,
                    Provenance::Fresh => Lookup::Fresh,
                    Provenance::Stale { .. } => Lookup::Stale,
                    Provenance::Snapshot { .. } => Lookup::Snapshot,
                };
                let standing = if self.upstream.is_empty() {
                    Standing::Absent { why: Why::Closed, until: None }
                } else {
                    Standing::Serving
                };
                (standing, found, endpoints.why.as_ref().map(ToString::to_string))
            }
            Err(LookupError::NotFound) => {
                self.clear();
                (Standing::Absent { why: Why::NotFound, until: None }, Lookup::NotFound, None)
            }
            // Somebody else's deadline; nothing was learnt.
            Err(LookupError::Deadline) => return,
            Err(LookupError::Throttled { retry_after }) => {
                let told = LookupError::Throttled { retry_after }.to_string();
                self.unanswered(Why::Throttled, told, retry_after, now)
            }
            Err(LookupError::Unavailable { retry_after, why }) => {
                self.unanswered(Why::Unavailable, why.to_string(), retry_after, now)
            }
        };
        self.known.lock().error = error;
        self.stand(standing, found);
    }

    /// What is served when the registry could not be asked, which is told in words.
    fn unanswered(
        &self,
        why: Why,
        told: String,
        retry_after: Duration,
        now: Instant,
    ) -> (Standing, Lookup, Option<String>) {
        match self.keep(now) {
            Some(standing) => (standing, Lookup::Stale, Some(told)),
            None => {
                self.clear();
                (Standing::Absent { why, until: Some(now + retry_after) }, why.found(), Some(told))
            }
        }
    }

    /// How the service stands if nothing but what was known before is known: not for ever.
    pub(super) fn keep(&self, now: Instant) -> Option<Standing> {
        let as_of = self.known.lock().snapshot.as_ref()?.as_of;
        let settings = self.registry.settings();
        let kept = now.since(as_of) < settings.ttl.saturating_add(settings.max_stale);
        (kept && !self.upstream.is_empty()).then_some(Standing::Serving)
    }

    pub(super) fn stand(&self, standing: Standing, found: Lookup) {
        let quick = if standing == Standing::Serving { found as u8 } else { NONE };
        let before = self.quick.swap(quick, Relaxed);
        let was = self.standing.send_replace(standing);
        if before == quick && was.why() == standing.why() {
            return;
        }
        let (upstream, service) = (self.upstream.name(), &self.service);
        let (endpoints, now) = (self.upstream.count(), standing.name(found));
        let good = |quick: u8| quick == Lookup::Live as u8 || quick == Lookup::Fresh as u8;
        let why = self.known.lock().error.clone();
        let why =
            why.as_deref().or(standing.why().map(Why::told)).unwrap_or("it has not been read again yet");
        if good(quick) && good(before) {
            tracing::debug!(upstream, %service, endpoints, now, "the registry tells of the service");
        } else if good(quick) {
            tracing::info!(upstream, %service, endpoints, now, "the registry tells of the service");
        } else {
            tracing::warn!(upstream, %service, endpoints, now, why, "the registry does not vouch for the service");
        }
    }

    /// Takes these endpoints, unless they are those that are there.
    pub(super) fn take(&self, snapshot: &Arc<Snapshot>) {
        self.as_of.store(snapshot.as_of.as_nanos(), Relaxed);
        let mut known = self.known.lock();
        let before = known.snapshot.replace(Arc::clone(snapshot));
        if before.is_some_and(|before| before.endpoints == snapshot.endpoints) {
            return;
        }
        let wanted: Vec<Wanted> = snapshot
            .endpoints
            .iter()
            .map(|listed| Wanted {
                url: self.url(listed),
                weight: listed.instance.weight,
                vouched: match listed.doubt {
                    Doubt::None => Vouched::Yes,
                    Doubt::Proven { .. } => Vouched::ByCalls,
                    Doubt::Suspect { .. } => Vouched::No,
                },
                zone: match (self.registry.zone(), listed.instance.zone.as_deref()) {
                    (Some(here), Some(there)) if here == there => Zone::Here,
                    _ => Zone::Elsewhere,
                },
            })
            .collect();
        // Under the lock: what is told last is there last.
        let wrong = self.upstream.replace(&wanted);
        known.unusable = (wrong.iter().take(MOST_UNUSABLE).map(ToString::to_string).collect(), wrong.len());
        let suspects = snapshot.suspects().count();
        tracing::debug!(
            upstream = self.upstream.name(),
            endpoints = wanted.len(),
            suspects,
            unusable = wrong.len(),
            "the endpoints changed"
        );
    }

    fn clear(&self) {
        let mut known = self.known.lock();
        known.snapshot = None;
        known.unusable = (Vec::new(), 0);
        self.upstream.replace(&[]);
    }

    fn url(&self, listed: &Listed) -> String {
        let address = &listed.instance.address;
        match address.scheme() {
            Some(_) => address.to_string(),
            None => format!("{}://{address}", self.scheme),
        }
    }
}
