//! What a configuration builds: routes that lead through limits to services. A new configuration takes over every
//! guard of the running one that it still describes, with its counters, permits and connections.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use tidegate::{Breaker, Limiter, RetryBudget, breaker, retry_budget};
use tidegate_core::limit::Fixed;

use crate::{
    config::{self, BreakerSetting, Cidr, Config, Hold, Timeout},
    key::Extractor,
    limit::Limit,
    refusal,
    route::{Matcher, Routes},
    telemetry::{BreakerLog, NO_ROUTE, RouteMetrics, Telemetry},
    upload::Allowance,
    upstream::{Endpoint, Upstream},
};

/// What the request path needs of a configuration.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) routes: Routes<Arc<Route>>,
    pub(crate) all: Vec<Arc<Route>>,
    pub(crate) limits: HashMap<String, Arc<Limit>>,
    pub(crate) services: HashMap<String, Arc<Service>>,
    pub(crate) trusted: Vec<Cidr>,
    pub(crate) unrouted: Arc<RouteMetrics>,
}

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) limits: Vec<Arc<Limit>>,
    /// Header fields that a call may have only once, as limits count by them.
    pub(crate) single: Vec<HeaderName>,
    /// What clients are told of the limits that may refuse.
    pub(crate) policies: Option<HeaderValue>,
    pub(crate) service: Arc<Service>,
    pub(crate) hold: Hold,
    pub(crate) timeout: Option<Duration>,
    pub(crate) allowance: Allowance,
    pub(crate) metrics: Arc<RouteMetrics>,
}

/// A service behind the gateway: its endpoints and the guards before them.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) limiter: Option<Limiter>,
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

/// Why a table could not be built out of a configuration that was valid to read.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An upstream's files or endpoints.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::UpstreamError),
    /// A value that the check should have refused.
    #[error("{place}: {why}")]
    Value {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

impl BuildError {
    pub(crate) fn value(place: impl Into<String>, why: impl ToString) -> Self {
        Self::Value { place: place.into(), why: why.to_string() }
    }
}

impl Table {
    /// Builds what `config` describes, taking over from `running` what has not changed.
    ///
    /// Nothing of the running table changes before [`Built::commit`].
    pub(crate) fn build(
        config: &Config,
        running: Option<&Self>,
        telemetry: &Telemetry,
    ) -> Result<Built, BuildError> {
        if !config.store.is_memory() {
            return Err(BuildError::value("store", "a shared store is not there yet; write memory://"));
        }
        let mut changes: Vec<Change> = Vec::new();
        let mut limits = HashMap::new();
        for (name, limit) in &config.limits {
            let old = running.and_then(|table| table.limits.get(name));
            limits.insert(
                name.clone(),
                Arc::new(Limit::build(name, limit, old.map(|old| &**old), &mut changes)?),
            );
        }
        let mut services = HashMap::new();
        for (name, upstream) in &config.upstreams {
            let old = running.and_then(|table| table.services.get(name));
            services.insert(
                name.clone(),
                Arc::new(Service::build(name, upstream, old.map(|old| &**old), &mut changes)?),
            );
        }
        let mut all = Vec::new();
        let mut matchers = Vec::new();
        for (index, route) in config.routes.iter().enumerate() {
            let place = format!("routes[{index}]");
            let matcher = Matcher::new(&route.matches)
                .map_err(|why| BuildError::value(format!("{place}.match"), why))?;
            let service = services
                .get(&route.upstream)
                .ok_or_else(|| BuildError::value(format!("{place}.upstream"), "no such upstream"))?;
            let limits = route
                .limits
                .iter()
                .map(|name| limits.get(name).cloned())
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| BuildError::value(format!("{place}.limits"), "no such limit"))?;
            let name = route.name.clone().unwrap_or_else(|| default_name(&route.matches));
            let hold = service.config.in_flight.as_ref().map_or(Hold::Body, |in_flight| in_flight.hold);
            let route = Arc::new(Route {
                policies: refusal::policies(
                    limits.iter().filter(|limit| !limit.config.shadow).map(|limit| &limit.policy),
                ),
                single: single(&limits),
                metrics: telemetry.route(&name, &route.upstream),
                name,
                limits,
                service: Arc::clone(service),
                hold: route.hold.unwrap_or(hold),
                timeout: route.timeout.map_or(service.timeout, Timeout::limit),
                allowance: Allowance {
                    bytes: config.bounds.body_bytes.limit(),
                    idle: service.idle_timeout,
                    min_rate: config.bounds.min_body_rate.0,
                },
            });
            all.push(Arc::clone(&route));
            matchers.push((matcher, route));
        }
        let trusted = config
            .trusted_proxies
            .iter()
            .map(|text| {
                text.parse().map_err(|why| BuildError::value(format!("trusted_proxies: {text}"), why))
            })
            .collect::<Result<_, _>>()?;
        let table = Self {
            routes: Routes::new(matchers),
            all,
            limits,
            services,
            trusted,
            unrouted: telemetry.route(NO_ROUTE, NO_ROUTE),
        };
        Ok(Built { table, changes })
    }
}

/// A table that is ready, and what is to be changed in the guards that it takes over.
pub(crate) struct Built {
    table: Table,
    changes: Vec<Change>,
}

impl Built {
    /// Changes what was taken over. It can not fail.
    pub(crate) fn commit(self) -> Table {
        self.changes.into_iter().for_each(|change| change());
        self.table
    }
}

/// A change to a guard that is taken over, made once nothing can fail any more.
pub(crate) type Change = Box<dyn FnOnce()>;

/// The header fields that these limits count by.
fn single(limits: &[Arc<Limit>]) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> =
        limits.iter().flat_map(|limit| &limit.key).filter_map(Extractor::header).cloned().collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

fn default_name(matches: &config::Match) -> String {
    format!("{}{}", matches.host.as_deref().unwrap_or("*"), matches.path.as_deref().unwrap_or("/"))
}

impl Service {
    /// The breaker of an endpoint; none when breakers are off.
    pub(crate) fn breaker(&self, endpoint: &Endpoint) -> Option<&Breaker> {
        self.breakers.get(endpoint.index())
    }

    fn build(
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
        let limiter = match (
            &config.in_flight,
            running.and_then(|old| old.limiter.as_ref().zip(old.config.in_flight.as_ref())),
        ) {
            (None, _) => None,
            (Some(new), Some((limiter, old))) if (old.queue, old.max_wait) == (new.queue, new.max_wait) => {
                let limit = Fixed::new(new.limit.get().into())
                    .map_err(|why| BuildError::value(format!("upstreams.{name}.in_flight.limit"), why))?;
                let resized = limiter.clone();
                changes.push(Box::new(move || resized.resize(limit)));
                Some(limiter.clone())
            }
            (Some(new), _) => Some(limiter_for(name, new)?),
        };
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
            limiter,
            breakers,
            retry,
            retries: running.map(|old| Arc::clone(&old.retries)).unwrap_or_default(),
            timeout: config.timeout.limit(),
            head_timeout: config.head_timeout.limit(),
            idle_timeout: config.idle_timeout.limit(),
            config: config.clone(),
        })
    }
}

fn limiter_for(name: &str, config: &config::InFlight) -> Result<Limiter, BuildError> {
    Limiter::builder()
        .limit(config.limit.get().into())
        .queue(config.queue)
        .max_wait(*config.max_wait)
        .measure_hold()
        .build()
        .map_err(|why| BuildError::value(format!("upstreams.{name}.in_flight"), why))
}
