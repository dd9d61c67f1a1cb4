//! Calls in flight to one upstream: which of its limits a call is under, and what it holds of it.

mod build;
mod fleet;
mod kind;

use std::{collections::HashMap, sync::Arc};

use tidegate::{
    Limiter, Permit as _,
    limiter::{self, FleetLimiter, Partition, PartitionPermit, Partitions, Snapshot},
};
use tidegate_core::{Call, Instant, Outcome, Refused};

pub(crate) use self::fleet::FleetPermits;
pub(crate) use self::{
    build::{BuildPoolsError, OTHER, route_limiter},
    kind::{Kind, StreamPath},
};
use crate::{
    config,
    key::{Extractor, Facts},
    store::Store,
};

/// The limits of an upstream: one of its calls, and perhaps one of its long-lived streams.
#[derive(Debug)]
pub(crate) struct Pools {
    calls: Calls,
    streams: Option<Limiter>,
    pub(crate) config: config::InFlight,
}

/// The limit of calls.
#[derive(Debug)]
enum Calls {
    /// Of this process.
    One(Limiter),
    /// Of this process, shared out by weight.
    Parted(Parted),
    /// Of a fleet.
    Fleet(Fleet),
}

#[derive(Debug)]
struct Parted {
    partitions: Partitions,
    by: Extractor,
    parts: Vec<Partition>,
    /// Which value is which partition; all others are the last one.
    values: HashMap<Vec<u8>, usize>,
}

#[derive(Debug)]
struct Fleet {
    limiter: FleetLimiter,
    permits: FleetPermits,
    /// Where they are: permits in another store are others.
    store: Arc<Store>,
}

/// Where in an upstream's limits a call belongs. Known before the call waits, when its head is still there to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Calls,
    Partition(usize),
    Streams,
}

/// What an admitted call holds of an upstream's limits.
#[derive(Debug)]
pub(crate) enum Slot {
    One(limiter::Permit),
    Part(PartitionPermit),
    /// Good as long as the lease of the fleet's permits is.
    Leased(limiter::Permit, FleetLimiter),
}

impl Slot {
    pub(crate) fn settle(self, outcome: Outcome, now: Instant) {
        match self {
            Self::One(permit) | Self::Leased(permit, _) => permit.settle(outcome, now),
            Self::Part(permit) => permit.settle(outcome, now),
        }
    }

    /// The fleet whose lease the permit is of.
    pub(crate) const fn lease(&self) -> Option<&FleetLimiter> {
        match self {
            Self::Leased(_, lease) => Some(lease),
            Self::One(_) | Self::Part(_) => None,
        }
    }
}

impl Pools {
    /// The lane of a call.
    pub(crate) fn lane(&self, kind: Kind, facts: &Facts<'_>) -> Lane {
        match (kind, &self.streams, &self.calls) {
            (Kind::Stream, Some(_), _) => Lane::Streams,
            (_, _, Calls::Parted(parted)) => Lane::Partition(parted.of(facts)),
            (_, _, Calls::One(_) | Calls::Fleet(_)) => Lane::Calls,
        }
    }

    /// What its partitions are told apart by, if there are any.
    pub(crate) const fn parted_by(&self) -> Option<&Extractor> {
        match &self.calls {
            Calls::Parted(parted) => Some(&parted.by),
            Calls::One(_) | Calls::Fleet(_) => None,
        }
    }

    /// Takes a permit in a lane that [`lane`](Self::lane) named, waiting as the configuration says.
    ///
    /// # Errors
    /// [`Refused`] as by any limiter.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in line.
    pub(crate) async fn acquire(&self, lane: Lane, call: &Call) -> Result<Slot, Refused> {
        match (lane, &self.calls, &self.streams) {
            (Lane::Streams, _, Some(streams)) => streams.acquire(call).await.map(Slot::One),
            (Lane::Partition(at), Calls::Parted(parted), _) => {
                parted.parts[at].acquire(call).await.map(Slot::Part)
            }
            (_, Calls::One(limiter), _) => limiter.acquire(call).await.map(Slot::One),
            (_, Calls::Fleet(fleet), _) => {
                let permit = fleet.limiter.acquire(call).await?;
                Ok(Slot::Leased(permit, fleet.limiter.clone()))
            }
            (Lane::Calls | Lane::Streams, Calls::Parted(_), _) => {
                unreachable!("a lane is asked for where it was named")
            }
        }
    }

    /// The limit of a fleet that this process shares, if it does.
    pub(crate) const fn fleet(&self) -> Option<&FleetLimiter> {
        match &self.calls {
            Calls::Fleet(fleet) => Some(&fleet.limiter),
            Calls::One(_) | Calls::Parted(_) => None,
        }
    }

    /// What moves the limit of calls.
    pub(crate) fn law(&self) -> &'static str {
        match (self.config.adaptive, self.config.fleet) {
            (Some(law), _) => law.as_str(),
            (None, Some(_)) => "fleet",
            (None, None) => "fixed",
        }
    }

    /// What happened so far to calls, in all partitions.
    pub(crate) fn calls(&self) -> Snapshot {
        match &self.calls {
            Calls::One(limiter) => limiter.snapshot(),
            Calls::Parted(parted) => parted.partitions.snapshot(),
            Calls::Fleet(fleet) => fleet.limiter.limiter().snapshot(),
        }
    }

    /// What happened so far to streams; none when they are calls.
    pub(crate) fn streams(&self) -> Option<Snapshot> {
        self.streams.as_ref().map(Limiter::snapshot)
    }

    /// What happened so far in each partition, by its name.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&str, Snapshot)> {
        let parts = match &self.calls {
            Calls::Parted(parted) => &parted.parts[..],
            Calls::One(_) | Calls::Fleet(_) => &[],
        };
        parts.iter().map(|part| (part.name(), part.snapshot()))
    }
}

impl Parted {
    /// The partition of a call; of a header that came several times the first value counts.
    fn of(&self, facts: &Facts<'_>) -> usize {
        let mut found = None;
        self.by.feed(facts, |value| {
            found.get_or_insert(value.and_then(|value| self.values.get(value).copied()));
        });
        found.flatten().unwrap_or(self.parts.len() - 1)
    }
}
