//! What a registry looks like from outside: for pages and metrics.

use super::{LookupError, Provenance, Registry, Revision, ServiceName, SourceError, snapshot::Origin};
use crate::{clock, keeper};

/// One service that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The service.
    pub service: ServiceName,
    /// How good an answer is now; `Err` when there is none.
    pub provenance: Result<Provenance, LookupError>,
    /// The source's revision.
    pub revision: Revision,
    /// Endpoints, suspects included.
    pub endpoints: usize,
    /// Endpoints that the source does not list any more and that are kept for the grace.
    pub suspects: usize,
    /// Entries that were no instances.
    pub malformed: u64,
    /// Watches that ended.
    pub watch_restarts: u64,
    /// Why it cannot be watched now; `None` while a watch lives, and for a source that has none.
    pub trouble: Option<SourceError>,
}

/// What a registry did since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The reads of services.
    pub lookups: keeper::Stats,
    /// Services with books: those that have, or had, endpoints or subscribers.
    pub services: usize,
    /// Suspects, over all services.
    pub suspects: usize,
    /// Watches that ended, over all services.
    pub watch_restarts: u64,
}

impl Registry {
    /// All services that are known, by name. It begins nothing.
    pub fn services(&self) -> Vec<ServiceStatus> {
        let now = clock::now();
        let entries: Vec<_> = self.0.books.entries.lock().values().cloned().collect();
        let status = |entry: &std::sync::Arc<super::entry::Entry>| {
            entry.change(|known| {
                let settings = &self.0.books.settings;
                let age = known.service.as_of().map(|as_of| now.since(as_of));
                let unknown = || LookupError::Unavailable {
                    why: keeper::Why::Lost,
                    retry_after: settings.minimum_retry_interval,
                };
                let provenance = match (known.origin, age) {
                    _ if known.service.is_empty() && age.is_some() => Err(LookupError::NotFound),
                    (_, None) => Err(unknown()),
                    (Origin::Watch, _) => Ok(Provenance::Live),
                    (Origin::Disk, Some(age)) => Ok(Provenance::Snapshot { age }),
                    (Origin::Read, Some(age)) if age < settings.ttl => Ok(Provenance::Fresh),
                    (Origin::Read, Some(age)) => Ok(Provenance::Stale { age }),
                };
                let snapshot = known.service.snapshot();
                ServiceStatus {
                    service: entry.name().clone(),
                    provenance,
                    revision: snapshot.revision,
                    endpoints: snapshot.endpoints.len(),
                    suspects: known.service.suspects(),
                    malformed: known.service.malformed,
                    watch_restarts: known.watch_restarts,
                    trouble: known.trouble.clone(),
                }
            })
        };
        let mut services: Vec<_> = entries.iter().map(status).collect();
        services.sort_by(|one, other| one.service.cmp(&other.service));
        services
    }

    /// What it did so far.
    pub fn stats(&self) -> Stats {
        let entries: Vec<_> = self.0.books.entries.lock().values().cloned().collect();
        let sums = entries
            .iter()
            .map(|entry| entry.change(|known| (known.service.suspects(), known.watch_restarts)));
        let (suspects, watch_restarts) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Stats { lookups: self.0.keeper.stats(), services: entries.len(), suspects, watch_restarts }
    }

    /// What the source is, without passwords.
    pub fn describe(&self) -> String {
        self.0.books.source.describe()
    }
}
