//! What a configuration builds: routes that lead through limits to services. A new configuration takes over every
//! guard of the running one that it still describes, with its counters, permits and connections.

mod service;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use tidegate::Limiter;

use crate::{
    config::{self, Cidr, Config, Hold, RouteKind, Timeout},
    in_flight::{BuildPoolsError, Kind, Pools, route_limiter},
    key::Extractor,
    limit::Limit,
    oidc::{
        service::{NoToken, ServiceToken},
        session::{NoSession, Page, Session},
    },
    pressure::Pressure,
    refusal,
    registry::ServiceRegistry,
    route::{Matcher, Routes},
    store::Store,
    telemetry::{NO_ROUTE, RouteMetrics, Telemetry},
    upload::Allowance,
};

use self::service::Means;
pub(crate) use self::service::Service;

/// What the request path needs of a configuration.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) routes: Routes<Arc<Route>>,
    pub(crate) all: Vec<Arc<Route>>,
    pub(crate) limits: BTreeMap<String, Arc<Limit>>,
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    pub(crate) tokens: BTreeMap<String, Arc<ServiceToken>>,
    pub(crate) sessions: BTreeMap<String, Arc<Session>>,
    /// What holds new logins off; none where there are no sessions.
    pub(crate) pressure: Option<Arc<Pressure>>,
    pub(crate) trusted: Vec<Cidr>,
    pub(crate) unrouted: Arc<RouteMetrics>,
}

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) limits: Vec<Arc<Limit>>,
    /// Whether a limit of it has a ledger, which may have to be asked.
    pub(crate) asks: bool,
    /// Header fields that a call may have only once, as limits count by them.
    pub(crate) single: Vec<HeaderName>,
    /// What clients are told of the limits that may refuse.
    pub(crate) policies: Option<HeaderValue>,
    pub(crate) service: Arc<Service>,
    /// The session that its calls need.
    pub(crate) session: Option<Arc<Session>>,
    /// Whether its limits need to know whose call it is.
    pub(crate) by_user: bool,
    /// The token that its calls carry.
    pub(crate) token: Option<Arc<ServiceToken>>,
    /// Calls in flight on this route alone.
    pub(crate) limiter: Option<Limiter>,
    pub(crate) hold: Hold,
    pub(crate) kind: RouteKind,
    pub(crate) call: Times,
    pub(crate) stream: Times,
    pub(crate) body_bytes: Option<u64>,
    pub(crate) metrics: Arc<RouteMetrics>,
}

/// What a call, or a stream, may take its time for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The whole of it.
    pub(crate) timeout: Option<Duration>,
    /// Longest silence of the response.
    pub(crate) idle: Option<Duration>,
    /// What is asked of the request body.
    pub(crate) allowance: Allowance,
}

impl Route {
    pub(crate) const fn times(&self, kind: Kind) -> &Times {
        match kind {
            Kind::Call => &self.call,
            Kind::Stream => &self.stream,
        }
    }
}

/// Why a table could not be built out of a configuration that was valid to read.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An upstream's files or endpoints.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::UpstreamError),
    /// A token for upstreams.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// Browser sessions.
    #[error(transparent)]
    Session(#[from] Box<NoSession>),
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
    fn in_flight(place: impl Into<String>) -> impl FnOnce(BuildPoolsError) -> Self {
        move |why| Self::value(place, why)
    }

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
        store: &Arc<Store>,
        registry: Option<&ServiceRegistry>,
        telemetry: &Telemetry,
    ) -> Result<Built, BuildError> {
        let mut changes: Vec<Change> = Vec::new();
        let mut limits = BTreeMap::new();
        for (name, limit) in &config.limits {
            let old = running.and_then(|table| table.limits.get(name));
            limits.insert(
                name.clone(),
                Arc::new(Limit::build(name, limit, old.map(|old| &**old), store, &mut changes)?),
            );
        }
        let means = Means { store, registry };
        let mut services = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            let old = running.and_then(|table| table.services.get(name));
            services.insert(
                name.clone(),
                Arc::new(Service::build(name, upstream, old.map(|old| &**old), means, &mut changes)?),
            );
        }
        let mut tokens = BTreeMap::new();
        for (name, token) in &config.tokens {
            let old = running.and_then(|table| table.tokens.get(name));
            tokens.insert(name.clone(), ServiceToken::build(name, token, old, store)?);
        }
        let mut sessions = BTreeMap::new();
        for (name, session) in &config.sessions {
            let old = running.and_then(|table| table.sessions.get(name));
            let asked = claims_asked(config, name);
            sessions.insert(
                name.clone(),
                Session::build(name, session, old, asked, store, &mut changes).map_err(Box::new)?,
            );
        }
        let pressure = if sessions.is_empty() {
            None
        } else {
            Pressure::build(&config.pressure, running.and_then(|table| table.pressure.as_ref()))?
        };
        // Routes of one name are told apart by their order.
        let mut old_routes: HashMap<(String, String), VecDeque<&Route>> = HashMap::new();
        for route in running.iter().flat_map(|table| &table.all) {
            old_routes.entry((route.name.clone(), route.service.name.clone())).or_default().push_back(route);
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
            let session = match &route.session {
                None => None,
                Some(name) => {
                    let none = || BuildError::value(format!("{place}.session"), "no such session");
                    Some(Arc::clone(sessions.get(name).ok_or_else(none)?))
                }
            };
            let token = match &service.config.token {
                None => None,
                Some(name) => {
                    let place = format!("upstreams.{}.token", route.upstream);
                    let none = || BuildError::value(place, "no such token");
                    Some(Arc::clone(tokens.get(name).ok_or_else(none)?))
                }
            };
            let limits = route
                .limits
                .iter()
                .map(|name| limits.get(name).cloned())
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| BuildError::value(format!("{place}.limits"), "no such limit"))?;
            let name = route.name.clone().unwrap_or_else(|| default_name(&route.matches));
            let in_flight = service.config.in_flight.as_ref();
            let counted = limits.iter().flat_map(|limit| &limit.key);
            let parted = service.pools.as_ref().and_then(Pools::parted_by);
            let by_user = counted.chain(parted).any(|part| part.claim().is_some());
            let hold = in_flight.map_or(Hold::Body, |in_flight| in_flight.hold);
            let old = old_routes.get_mut(&(name.clone(), service.name.clone())).and_then(VecDeque::pop_front);
            let limiter = match &route.in_flight {
                Some(own) => {
                    let old = old.and_then(|old| old.limiter.as_ref());
                    let limiter = route_limiter(own, old, &mut changes);
                    Some(limiter.map_err(BuildError::in_flight(format!("{place}.in_flight")))?)
                }
                None => None,
            };
            let timeout = route.timeout.map(Timeout::limit);
            let idle = service.idle_timeout;
            let stream_idle =
                in_flight.and_then(|in_flight| in_flight.idle_stream).map_or(idle, Timeout::limit);
            let body_bytes = config.bounds.body_bytes.limit();
            let min_rate = config.bounds.min_body_rate.0;
            let route = Arc::new(Route {
                policies: refusal::policies(
                    limits.iter().filter(|limit| !limit.config.shadow).map(|limit| &limit.policy),
                ),
                asks: limits.iter().any(|limit| limit.guard.here().is_none()),
                single: single(&limits),
                metrics: telemetry.route(&name, &route.upstream),
                name,
                limits,
                service: Arc::clone(service),
                by_user: by_user && session.is_some(),
                session,
                token,
                limiter,
                hold: route.hold.unwrap_or(hold),
                kind: route.kind,
                call: Times {
                    timeout: timeout.unwrap_or(service.timeout),
                    idle,
                    allowance: Allowance { bytes: body_bytes, idle, min_rate },
                },
                stream: Times {
                    timeout: timeout.flatten(),
                    idle: stream_idle,
                    // One side of a stream may listen for as long as the other talks: the flow sees when neither does.
                    allowance: Allowance { bytes: body_bytes, idle: None, min_rate: 0 },
                },
                body_bytes,
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
            tokens,
            sessions,
            pressure,
            trusted,
            unrouted: telemetry.route(NO_ROUTE, NO_ROUTE),
        };
        Ok(Built { table, changes })
    }
}

impl Table {
    /// The page of a session that stands at a path.
    pub(crate) fn page_at(&self, path: &str) -> Option<(&Arc<Session>, Page)> {
        self.sessions.values().find_map(|session| Some((session, session.page_at(path)?)))
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

/// The claims that limits of a session's routes count by, or their upstreams' partitions are told apart by.
fn claims_asked(config: &Config, session: &str) -> BTreeSet<String> {
    let routes = config.routes.iter().filter(|route| route.session.as_deref() == Some(session));
    let texts = routes.flat_map(|route| {
        let limits = route.limits.iter().filter_map(|name| config.limits.get(name));
        let in_flight =
            config.upstreams.get(&route.upstream).and_then(|upstream| upstream.in_flight.as_ref());
        let partitions = in_flight.and_then(|in_flight| in_flight.partitions.as_ref());
        limits.flat_map(|limit| &limit.key).chain(partitions.map(|partitions| &partitions.by))
    });
    let parts = texts.filter_map(|text| text.parse::<Extractor>().ok());
    parts.filter_map(|part| part.claim().map(str::to_owned)).collect()
}

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
