//! What is known of a service at one time: immutable, shared by all who look.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use super::{Instance, Revision, ServiceName, SourceError};
use crate::{
    Instant,
    keeper::{Kept, Why},
};

/// One instance, and whether the registry still vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Whether it is there.
    pub doubt: Doubt,
}

/// Whether an endpoint is there, as far as the registry and our own calls tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The registry lists it.
    None,
    /// It may be gone: the registry does not list it, though it vanished in a way that looks like the registry's own
    /// trouble.
    Suspect {
        /// When the doubt began.
        since: Instant,
    },
    /// The registry does not list it either, but calls to it succeeded since.
    Proven {
        /// When the doubt began.
        since: Instant,
        /// When the first call succeeded.
        at: Instant,
    },
}

impl Endpoint {
    /// Since when it is a suspect, if it is one.
    pub const fn suspect_since(&self) -> Option<Instant> {
        match self.doubt {
            Doubt::Suspect { since } => Some(since),
            Doubt::None | Doubt::Proven { .. } => None,
        }
    }
}

/// The endpoints of a service as of one revision; those that are suspect stand last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The service.
    pub service: ServiceName,
    /// The source's revision.
    pub revision: Revision,
    /// When the source was last known to say so.
    pub as_of: Instant,
    /// The endpoints, by id.
    pub endpoints: Vec<Endpoint>,
}

impl Snapshot {
    /// The endpoints that may be gone.
    pub fn suspects(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.suspect_since().is_some())
    }

    /// The endpoints that the registry does not list any more: suspects, and those that our own calls proved.
    pub fn unlisted(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.doubt != Doubt::None)
    }
}

/// Where an answer comes from, and how good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// A watch that is caught up tells every change.
    Live,
    /// It was read, not longer ago than the ttl.
    Fresh,
    /// It was read, this long ago, and could not be read again.
    Stale {
        /// How old it is.
        age: Duration,
    },
    /// It was read from disk, and was this old: the source has not been reached since the start.
    Snapshot {
        /// How old it is, on the wall clock.
        age: Duration,
    },
}

impl Provenance {
    /// The name used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Fresh => "fresh",
            Self::Stale { .. } => "stale",
            Self::Snapshot { .. } => "snapshot",
        }
    }
}

/// Where a view comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Watch,
    Read,
    Disk,
}

/// What the keeper keeps.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) origin: Origin,
}

/// The endpoints of a service, and how good this answer is. At least one, unless the service has none: then a lookup is
/// [`LookupError::NotFound`].
#[derive(Debug)]
pub struct Endpoints {
    pub(super) view: Kept<ServiceName, View>,
    /// Where the answer comes from.
    pub provenance: Provenance,
    /// Why the source could not be asked for a newer one, where it could not.
    pub why: Option<Why<SourceError>>,
}

impl Endpoints {
    /// The snapshot, to keep for longer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.view.snapshot)
    }
}

impl Deref for Endpoints {
    type Target = Snapshot;

    #[inline]
    fn deref(&self) -> &Snapshot {
        &self.view.snapshot
    }
}

/// Why a lookup has no endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The source was asked, and there is none.
    NotFound,
    /// The source could not be asked.
    Unavailable {
        /// Why.
        why: Why<SourceError>,
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// The source may be well: this process has asked it as often as it may.
    Throttled {
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// The caller's deadline passed; the source is still being asked.
    Deadline,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("the registry knows no endpoint of this service"),
            Self::Unavailable { why, retry_after } => {
                write!(f, "the registry could not be asked: {why}; retry after {retry_after:?}")
            }
            Self::Throttled { retry_after } => {
                write!(f, "the registry was asked as often as it may be; retry after {retry_after:?}")
            }
            Self::Deadline => f.write_str("the deadline passed before the registry answered"),
        }
    }
}

impl std::error::Error for LookupError {}
