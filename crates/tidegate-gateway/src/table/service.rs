//! A service behind the gateway, made out of its configuration or taken over from the running one.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tidegate::{Breaker, RetryBudget, registry::InvalidServiceName, retry_budget};

use super::{BuildError, Change};
use crate::{
    config::{self, BreakerSetting},
    in_flight::{Pools, StreamPath},
    registry::{Resolver, ServiceRegistry},
    store::Store,
    upstream::{Endpoint, Upstream, breaker_settings},
};

/// A service behind the gateway: its endpoints and the guards before them.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) upstream: Arc<Upstream>,
    /// Who looks its endpoints up; none when they are configured.
    pub(crate) resolver: Option<Arc<Resolver>>,
    /// Calls in flight to it; none when nothing counts them.
    pub(crate) pools: Option<Pools>,
    /// Paths whose calls are streams.
    pub(crate) stream_paths: Vec<StreamPath>,
    /// Whether endpoints have breakers.
    breakers: Breakers,
    pub(crate) retry: RetryBudget,
    /// Retries made.
    pub(crate) retries: Arc<AtomicU64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) config: config::Upstream,
}

/// Whether endpoints have breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breakers {
    Off,
    On,
}

impl Service {
    /// The breaker of an endpoint; none when breakers are off.
    pub(crate) fn breaker<'e>(&self, endpoint: &'e Endpoint) -> Option<&'e Breaker> {
        match self.breakers {
            Breakers::Off => None,
            Breakers::On => Some(endpoint.breaker()),
        }
    }

    pub(super) fn build(
        name: &str,
        config: &config::Upstream,
        running: Option<&Self>,
        Means { store, registry }: Means<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<Self, BuildError> {
        // Files may have changed under the same names, so connections with TLS settings of their own are made anew.
        let same_pool = |old: &&Self| {
            let (old, new) = (&old.config, config);
            old.tls.is_none()
                && new.tls.is_none()
                && old.endpoints == new.endpoints
                && old.service == new.service
                && old.host == new.host
                && old.protocol == new.protocol
                && old.connections == new.connections
        };
        let breakers = breaker_settings(config);
        breakers.check().map_err(|why| BuildError::value(format!("upstreams.{name}.breaker"), why))?;
        let upstream = match running.filter(same_pool) {
            Some(old) => Arc::clone(&old.upstream),
            None => Arc::new(Upstream::new(name, config)?),
        };
        let resolver = match &config.service {
            None => None,
            Some(service) => {
                let place = || format!("upstreams.{name}.service");
                let registry = registry
                    .ok_or_else(|| BuildError::value(place(), "there is no registry to look it up in"))?;
                let old = running.and_then(|old| old.resolver.as_ref());
                match old.filter(|old| old.is_of(service, &upstream, registry)) {
                    Some(old) => Some(Arc::clone(old)),
                    None => Some(
                        resolver(service, config, &upstream, registry, old, changes)
                            .map_err(|why| BuildError::value(place(), why))?,
                    ),
                }
            }
        };
        let in_flight = || format!("upstreams.{name}.in_flight");
        let pools = match &config.in_flight {
            None => None,
            Some(pools) => {
                let old = running.and_then(|old| old.pools.as_ref());
                let built = Pools::build(name, pools, old, store, changes);
                Some(built.map_err(BuildError::in_flight(in_flight()))?)
            }
        };
        let streams = config.in_flight.as_ref().and_then(|in_flight| in_flight.streams.as_ref());
        let stream_paths = streams
            .iter()
            .flat_map(|streams| &streams.paths)
            .map(|path| {
                path.parse().map_err(|why| BuildError::value(format!("{}.streams.paths", in_flight()), why))
            })
            .collect::<Result<_, _>>()?;
        let breakers = match config.breaker {
            BreakerSetting::Off(_) => Breakers::Off,
            BreakerSetting::On(_) => {
                let upstream = Arc::clone(&upstream);
                changes.push(Box::new(move || {
                    upstream.reconfigure_breakers(breakers).expect("these settings were checked");
                }));
                Breakers::On
            }
        };
        let retry = match running.filter(|old| old.config.retry == config.retry) {
            Some(old) => old.retry.clone(),
            None => RetryBudget::new(retry_budget::Settings {
                percent: config.retry.percent.into(),
                min_per_second: config.retry.min_per_second,
                ..retry_budget::Settings::default()
            })
            .map_err(|why| BuildError::value(format!("upstreams.{name}.retry"), why))?,
        };
        Ok(Self {
            name: name.into(),
            upstream,
            resolver,
            breakers,
            retry,
            pools,
            stream_paths,
            retries: running.map(|old| Arc::clone(&old.retries)).unwrap_or_default(),
            timeout: config.timeout.limit(),
            head_timeout: config.head_timeout.limit(),
            idle_timeout: config.idle_timeout.limit(),
            config: config.clone(),
        })
    }
}

/// What services are built with.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) registry: Option<&'a ServiceRegistry>,
}

/// Who looks endpoints up from now on, in place of `old`.
fn resolver(
    service: &str,
    config: &config::Upstream,
    upstream: &Arc<Upstream>,
    registry: &ServiceRegistry,
    old: Option<&Arc<Resolver>>,
    changes: &mut Vec<Change>,
) -> Result<Arc<Resolver>, InvalidServiceName> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let tally = old.map(|old| old.tally()).unwrap_or_default();
    let resolver = Resolver::new(service.parse()?, Arc::clone(upstream), scheme, registry.clone(), tally);
    let resolver = Arc::new(resolver);
    let (started, old) = (Arc::clone(&resolver), old.cloned());
    changes.push(Box::new(move || started.start(old.as_deref())));
    Ok(resolver)
}
