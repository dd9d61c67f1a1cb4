//! What a resolver knows, for pages and metrics.

use tidegate::{
    clock,
    registry::{Doubt, Endpoint as Listed, ServiceStatus},
};
use tidegate_core::Instant;

use super::{Known, Relaxed, Resolver, Standing};
use crate::{
    registry::tally::Lookup,
    state::{RegistryEndpointState, ServiceState},
};

impl Resolver {
    /// What is known of the service now; `all` is what the registry tells of all, by name.
    pub(crate) fn state(&self, all: &[ServiceStatus]) -> ServiceState {
        let inner = &self.inner;
        let now = clock::now();
        let Known { snapshot, error, unusable } = inner.known.lock().clone();
        let provenance = match *inner.standing.borrow() {
            Standing::Pending => "pending",
            Standing::Absent { why, .. } => why.found().as_str(),
            Standing::Serving => {
                let found = inner.quick.load(Relaxed);
                Lookup::ALL.into_iter().find(|one| *one as u8 == found).map_or("pending", Lookup::as_str)
            }
        };
        let seconds = |from: Instant| now.since(from).as_secs_f64();
        let status = all.binary_search_by(|one| one.service.cmp(&inner.service)).ok().map(|at| &all[at]);
        let listed = snapshot.iter().flat_map(|snapshot| &snapshot.endpoints);
        ServiceState {
            name: inner.service.to_string(),
            upstream: inner.upstream.name().to_owned(),
            provenance,
            age_seconds: snapshot
                .as_ref()
                .map(|snapshot| seconds(snapshot.as_of))
                .filter(|_| provenance != "live"),
            revision: snapshot.as_ref().map_or(0, |snapshot| snapshot.revision.0),
            endpoints: listed
                .map(|Listed { instance, doubt }| RegistryEndpointState {
                    id: instance.id.clone(),
                    address: instance.address.to_string(),
                    version: instance.version.clone(),
                    weight: instance.weight.into(),
                    zone: instance.zone.clone(),
                    suspect_seconds: match doubt {
                        Doubt::Suspect { since } => Some(seconds(*since)),
                        Doubt::None | Doubt::Proven { .. } => None,
                    },
                    proven_seconds: match doubt {
                        Doubt::Proven { at, .. } => Some(seconds(*at)),
                        Doubt::None | Doubt::Suspect { .. } => None,
                    },
                })
                .collect(),
            suspects: snapshot.as_ref().map_or(0, |snapshot| snapshot.suspects().count() as u64),
            malformed: status.map_or(0, |status| status.malformed),
            unusable: unusable.1 as u64,
            problems: unusable.0,
            watch_restarts: status.map_or(0, |status| status.watch_restarts),
            // What is served may still be good while nobody tells of changes any more.
            error: error.or_else(|| Some(status?.trouble.as_ref()?.to_string())),
            lookups: inner.tally.lookups(),
            ages: inner.tally.ages(),
        }
    }
}
