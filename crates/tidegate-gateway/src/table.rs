//! What a configuration builds: routes that lead through limits to services. A new configuration takes over every
//! guard of the running one that it still describes, with its counters, permits and connections.

mod route;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use self::{route::Guards, service::Means};
pub(crate) use self::{route::Route, service::Service};
use crate::{
    config::{Cidr, Config},
    in_flight::BuildPoolsError,
    key::Extractor,
    limit::Limit,
    oidc::{
        service::{NoToken, ServiceToken},
        session::{NoSession, Page, Session},
    },
    pressure::Pressure,
    registry::ServiceRegistry,
    route::{Matcher, Routes},
    store::Store,
    telemetry::{NO_ROUTE, RouteMetrics, Telemetry},
};

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
        let guards = Guards { limits: &limits, services: &services, tokens: &tokens, sessions: &sessions };
        let mut all = Vec::new();
        let mut matchers = Vec::new();
        for (index, route) in config.routes.iter().enumerate() {
            let place = format!("routes[{index}]");
            let matcher = Matcher::new(&route.matches)
                .map_err(|why| BuildError::value(format!("{place}.match"), why))?;
            let mut running = |name: &str| {
                let same = (name.to_owned(), route.upstream.clone());
                old_routes.get_mut(&same).and_then(VecDeque::pop_front)
            };
            let built =
                Route::build(&place, route, &config.bounds, guards, &mut running, telemetry, &mut changes)?;
            let route = Arc::new(built);
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
