//! Makes limits of calls in flight out of a configuration, or takes over those that run.
//!
//! What is taken over keeps its permits, its line and its counts: a change of the limit, the law, the queue, the wait,
//! the order or the shares is made in place. Made anew is what changes its nature: partitions of other names, a limit
//! that becomes partitioned or a fleet's or ceases to be. Calls under way then end under the old limit, and the new one
//! does not know of them.

use std::collections::HashMap;

use tidegate::{
    Limiter,
    limiter::{
        self, Adaptive, Aimd, Bounds, FleetLimiter, Gradient, InvalidLimit, InvalidLimiter,
        InvalidPartitions, Partitions, PartitionsBuilder, Vegas,
    },
};

use super::{
    Calls, Fleet, Parted, Pools,
    fleet::{FleetPermits, LEASE, new_member},
};
use crate::{
    config::{self, Ceiling, InFlight, Law, RouteInFlight},
    key::InvalidExtractor,
    table::Change,
};

/// The name of the partition of all calls that are in no other; no value can have it.
pub(crate) const OTHER: &str = "(other)";

/// Why limits could not be made out of a configuration that was valid to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildPoolsError {
    #[error(transparent)]
    Limiter(#[from] InvalidLimiter),
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    #[error(transparent)]
    Partitions(#[from] InvalidPartitions),
    #[error(transparent)]
    Key(#[from] InvalidExtractor),
}

impl Pools {
    /// Makes what `config` describes; what can be taken over from `running` is changed by `changes`, once nothing can
    /// fail any more. A fleet's limit needs a tokio runtime.
    pub(crate) fn build(
        config: &InFlight,
        running: Option<&Self>,
        changes: &mut Vec<Change>,
    ) -> Result<Self, BuildPoolsError> {
        let calls = calls(config, running, changes)?;
        let streams = match &config.streams {
            None => None,
            Some(streams) => {
                let settings = || {
                    let settings = Limiter::builder().queue(streams.queue).max_wait(*streams.max_wait);
                    limited(watched(settings.measure_hold(), config.watch_held_longer_than), streams.limit)
                };
                let old = running.and_then(|old| old.streams.as_ref());
                Some(one(old, settings, changes)?)
            }
        };
        Ok(Self { calls, streams, config: config.clone() })
    }
}

/// The limit of a route's own calls, or the running one, changed by `changes`.
pub(crate) fn route_limiter(
    config: &RouteInFlight,
    running: Option<&Limiter>,
    changes: &mut Vec<Change>,
) -> Result<Limiter, BuildPoolsError> {
    let settings = || {
        let settings = Limiter::builder().limit(config.limit.get().into()).queue(config.queue);
        let settings = settings.max_wait(*config.max_wait).order(order(config.order)).measure_hold();
        watched(settings, config.watch_held_longer_than)
    };
    one(running, settings, changes)
}

/// A limiter of these settings, or the running one, which will take them over.
fn one(
    running: Option<&Limiter>,
    settings: impl Fn() -> limiter::Builder,
    changes: &mut Vec<Change>,
) -> Result<Limiter, BuildPoolsError> {
    let settings = settings();
    match running {
        Some(limiter) => {
            settings.check()?;
            let limiter = limiter.clone();
            let changed = limiter.clone();
            changes.push(Box::new(move || {
                changed.reconfigure(settings).expect("these settings were checked");
            }));
            Ok(limiter)
        }
        None => Ok(settings.build()?),
    }
}

fn calls(
    config: &InFlight,
    running: Option<&Pools>,
    changes: &mut Vec<Change>,
) -> Result<Calls, BuildPoolsError> {
    // What a law has learnt is not forgotten because something else changed.
    let kept = running.is_some_and(|old| same_limit(&old.config, config));
    if let Some(fleet) = config.fleet {
        return Ok(Calls::Fleet(match running.map(|old| &old.calls) {
            Some(Calls::Fleet(Fleet { limiter, permits })) => {
                let settings = settings(config);
                settings.check()?;
                let (changed, resized) = (limiter.clone(), permits.clone());
                changes.push(Box::new(move || {
                    changed.reconfigure(settings).expect("these settings were checked");
                    resized.resize(fleet.get());
                }));
                Fleet { limiter: limiter.clone(), permits: permits.clone() }
            }
            _ => {
                let permits = FleetPermits::new(fleet.get());
                let limiter = FleetLimiter::join(permits.clone(), new_member(), LEASE, settings(config))?;
                Fleet { limiter, permits }
            }
        }));
    }
    if let Some(shares) = &config.partitions {
        let old = match running.map(|old| &old.calls) {
            Some(Calls::Parted(old)) if names(shares).eq(old.parts.iter().map(limiter::Partition::name)) => {
                Some(&old.partitions)
            }
            _ => None,
        };
        return parted(config, shares, old, kept, changes).map(Calls::Parted);
    }
    match running.map(|old| &old.calls) {
        Some(Calls::One(limiter)) => {
            with_limit(settings(config), config, None)?.check()?;
            let (changed, config) = (limiter.clone(), config.clone());
            changes.push(Box::new(move || {
                let settings = settings(&config);
                let settings =
                    if kept { Ok(settings) } else { with_limit(settings, &config, changed.limit()) };
                let settings = settings.expect("these settings were checked");
                changed.reconfigure(settings).expect("these settings were checked");
            }));
            Ok(Calls::One(limiter.clone()))
        }
        _ => Ok(Calls::One(with_limit(settings(config), config, None)?.build()?)),
    }
}

fn parted(
    config: &InFlight,
    shares: &config::Partitions,
    running: Option<&Partitions>,
    kept: bool,
    changes: &mut Vec<Change>,
) -> Result<Parted, BuildPoolsError> {
    let fresh = shared_out(with_limit(settings(config), config, None)?, shares);
    let partitions = match running {
        None => fresh.build()?,
        Some(running) => {
            fresh.check()?;
            let (changed, config, shares) = (running.clone(), config.clone(), shares.clone());
            changes.push(Box::new(move || {
                let settings = settings(&config);
                let settings =
                    if kept { Ok(settings) } else { with_limit(settings, &config, changed.limit()) };
                let settings = settings.expect("these settings were checked");
                changed.reconfigure(shared_out(settings, &shares)).expect("these settings were checked");
            }));
            running.clone()
        }
    };
    let values: HashMap<Vec<u8>, usize> =
        shares.shares.keys().enumerate().map(|(at, value)| (value.clone().into_bytes(), at)).collect();
    Ok(Parted { by: shares.by.parse()?, parts: partitions.all().collect(), values, partitions })
}

fn names(shares: &config::Partitions) -> impl Iterator<Item = &str> {
    shares.shares.keys().map(String::as_str).chain([OTHER])
}

fn shared_out(settings: limiter::Builder, shares: &config::Partitions) -> PartitionsBuilder {
    let weights = shares.shares.values().chain([&shares.other]);
    names(shares)
        .zip(weights)
        .fold(Partitions::with(settings), |all, (name, weight)| all.partition(name, weight.get()))
}

/// Everything but the limit.
fn settings(config: &InFlight) -> limiter::Builder {
    let settings = Limiter::builder().queue(config.queue).max_wait(*config.max_wait);
    watched(settings.order(order(config.order)).measure_hold(), config.watch_held_longer_than)
}

fn watched(settings: limiter::Builder, age: config::Timeout) -> limiter::Builder {
    match age.limit() {
        Some(age) => settings.watch_held_longer_than(age),
        None => settings,
    }
}

const fn order(order: config::Order) -> limiter::Order {
    match order {
        config::Order::Fifo => limiter::Order::Fifo,
        config::Order::LifoWhenBusy => limiter::Order::LifoWhenBusy,
    }
}

fn limited(settings: limiter::Builder, limit: Ceiling) -> limiter::Builder {
    match limit {
        Ceiling::Calls(calls) => settings.limit(calls.get().into()),
        Ceiling::Off(_) => settings.off(),
    }
}

/// The limit, which begins where the `running` one is if it adapts.
fn with_limit(
    settings: limiter::Builder,
    config: &InFlight,
    running: Option<u32>,
) -> Result<limiter::Builder, InvalidLimit> {
    let Some(law) = config.adaptive else {
        return Ok(match config.limit {
            Some(limit) => limited(settings, limit),
            None => settings,
        });
    };
    let (min, max) = config.bounds();
    let bounds = Bounds::new(min, max)?;
    let begin = running.unwrap_or(min);
    let adaptive = match (law, config.latency) {
        (Law::Gradient, _) => Adaptive::new(Gradient::new(bounds).beginning_at(begin)),
        (Law::Vegas, _) => Adaptive::new(Vegas::new(bounds).beginning_at(begin)),
        (Law::Aimd, None) => Adaptive::new(Aimd::new(bounds).beginning_at(begin)),
        (Law::Aimd, Some(latency)) => Adaptive::new(Aimd::new(bounds).latency(*latency).beginning_at(begin)),
    };
    Ok(settings.adaptive(adaptive))
}

/// Whether two configurations say the same of how many calls may be in flight.
fn same_limit(a: &InFlight, b: &InFlight) -> bool {
    (a.limit, a.adaptive, a.latency, a.fleet) == (b.limit, b.adaptive, b.latency, b.fleet)
        && (a.adaptive.is_none() || a.bounds() == b.bounds())
}
