//! A service behind the gateway, made out of its configuration or taken over from the running one.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tidegate::{Breaker, RetryBudget, breaker, retry_budget};

use super::{BuildError, Change};
use crate::{
    config::{self, BreakerSetting},
    in_flight::{Pools, StreamPath},
    telemetry::BreakerLog,
    upstream::{Endpoint, Upstream},
};

/// A service behind the gateway: its endpoints and the guards before them.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) upstream: Arc<Upstream>,
    /// Calls in flight to it; none when nothing counts them.
    pub(crate) pools: Option<Pools>,
    /// Paths whose calls are streams.
    pub(crate) stream_paths: Vec<StreamPath>,
    /// One for each endpoint, in its order; empty when breakers are off.
    pub(crate) breakers: Vec<Breaker>,
    pub(crate) retry: RetryBudget,
    /// Retries made.
    pub(crate) retries: Arc<AtomicU64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) config: config::Upstream,
}

impl Service {
    /// The breaker of an endpoint; none when breakers are off.
    pub(crate) fn breaker(&self, endpoint: &Endpoint) -> Option<&Breaker> {
        self.breakers.get(endpoint.index())
    }

    pub(super) fn build(
        name: &str,
        config: &config::Upstream,
        running: Option<&Self>,
        changes: &mut Vec<Change>,
    ) -> Result<Self, BuildError> {
        // Files may have changed under the same names, so connections with TLS settings of their own are made anew.
        let same_pool = |old: &&Self| {
            let (old, new) = (&old.config, config);
            old.tls.is_none()
                && new.tls.is_none()
                && old.endpoints == new.endpoints
                && old.protocol == new.protocol
                && old.connections == new.connections
        };
        let upstream = match running.filter(same_pool) {
            Some(old) => Arc::clone(&old.upstream),
            None => Arc::new(Upstream::new(name, config)?),
        };
        let in_flight = || format!("upstreams.{name}.in_flight");
        let pools = match &config.in_flight {
            None => None,
            Some(pools) => {
                let old = running.and_then(|old| old.pools.as_ref());
                Some(Pools::build(pools, old, changes).map_err(BuildError::in_flight(in_flight()))?)
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
            BreakerSetting::Off(_) => Vec::new(),
            BreakerSetting::On(settings) => {
                let settings = breaker::Settings {
                    failures: settings.failures,
                    within: *settings.within,
                    open_for: *settings.open_for,
                    probes: settings.probes,
                };
                let wrong = |why| BuildError::value(format!("upstreams.{name}.breaker"), why);
                settings.check().map_err(wrong)?;
                let kept =
                    running.filter(|old| Arc::ptr_eq(&old.upstream, &upstream) && !old.breakers.is_empty());
                match kept {
                    Some(old) => {
                        let reconfigured = old.breakers.clone();
                        changes.push(Box::new(move || {
                            for breaker in reconfigured {
                                breaker.reconfigure(settings).expect("these settings were checked");
                            }
                        }));
                        old.breakers.clone()
                    }
                    None => upstream
                        .endpoints()
                        .iter()
                        .map(|endpoint| {
                            let name = format!("{name} {}", endpoint.authority());
                            Breaker::observed(settings, name, Arc::new(BreakerLog))
                        })
                        .collect::<Result<_, _>>()
                        .map_err(wrong)?,
                }
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
