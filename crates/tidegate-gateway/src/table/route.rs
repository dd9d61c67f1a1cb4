//! A route as calls take it: the guards that it leads through, and the times of its calls.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::HeaderValue;
use tidegate::Limiter;

use super::{BuildError, Change, Service};
use crate::{
    config::{self, Bounds, Hold, RouteKind, Timeout},
    in_flight::{Kind, Pools, route_limiter},
    key::Extractor,
    limit::Limit,
    oidc::{service::ServiceToken, session::Session},
    refusal,
    telemetry::{RouteMetrics, Telemetry},
    upload::Allowance,
};

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) limits: Vec<Arc<Limit>>,
    /// Whether a limit of it has a ledger, which may have to be asked.
    pub(crate) asks: bool,
    /// What a call may have only once, as limits count by it.
    pub(crate) single: Vec<Extractor>,
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

    /// Builds the route at `place` out of guards that are built already; `running` is the one of its name before, of which
    /// it takes the permits over.
    ///
    /// # Errors
    /// When it names a guard that is not there, or its own limit cannot be built.
    pub(super) fn build<'r>(
        place: &str,
        route: &config::Route,
        bounds: &Bounds,
        guards: Guards<'_>,
        running: impl FnOnce(&str) -> Option<&'r Self>,
        telemetry: &Telemetry,
        changes: &mut Vec<Change>,
    ) -> Result<Self, BuildError> {
        let Guards { limits, services, tokens, sessions } = guards;
        let service = named(services, &route.upstream, || format!("{place}.upstream"), "no such upstream")?;
        let session = route.session.as_ref();
        let session =
            session.map(|name| named(sessions, name, || format!("{place}.session"), "no such session"));
        let session = session.transpose()?;
        let token = service.config.token.as_ref();
        let of_upstream = || format!("upstreams.{}.token", route.upstream);
        let token = token.map(|name| named(tokens, name, of_upstream, "no such token")).transpose()?;
        let of_limits = || format!("{place}.limits");
        let limits = route.limits.iter().map(|name| named(limits, name, of_limits, "no such limit"));
        let limits = limits.collect::<Result<Vec<_>, _>>()?;
        let name = route.name.clone().unwrap_or_else(|| default_name(&route.matches));
        let running = running(&name);
        let limiter = match &route.in_flight {
            Some(own) => {
                let old = running.and_then(|old| old.limiter.as_ref());
                let limiter = route_limiter(own, old, changes);
                Some(limiter.map_err(BuildError::in_flight(format!("{place}.in_flight")))?)
            }
            None => None,
        };
        let in_flight = service.config.in_flight.as_ref();
        let hold = in_flight.map_or(Hold::Body, |in_flight| in_flight.hold);
        let parted_by = service.pools.as_ref().and_then(Pools::parted_by);
        let counted_by = || limits.iter().flat_map(|limit| &limit.key).chain(parted_by);
        let timeout = route.timeout.map(Timeout::limit);
        let idle = service.idle_timeout;
        let of_service = service.timeout;
        let stream_idle = in_flight.and_then(|in_flight| in_flight.idle_stream).map_or(idle, Timeout::limit);
        let body_bytes = bounds.body_bytes.limit();
        let told = limits.iter().filter(|limit| !limit.config.shadow).map(|limit| &limit.policy);
        Ok(Self {
            policies: refusal::policies(told),
            asks: limits.iter().any(|limit| limit.guard.here().is_none()),
            single: counted_by().filter(|part| part.may_repeat()).cloned().collect(),
            by_user: session.is_some() && counted_by().any(|part| part.claim().is_some()),
            metrics: telemetry.route(&name, &route.upstream),
            name,
            limits,
            service,
            session,
            token,
            limiter,
            hold: route.hold.unwrap_or(hold),
            kind: route.kind,
            call: Times {
                timeout: timeout.unwrap_or(of_service),
                idle,
                allowance: Allowance { bytes: body_bytes, idle, min_rate: bounds.min_body_rate.0 },
            },
            stream: Times {
                timeout: timeout.flatten(),
                idle: stream_idle,
                // One side of a stream may listen for as long as the other talks: the flow sees when neither does.
                allowance: Allowance { bytes: body_bytes, idle: None, min_rate: 0 },
            },
            body_bytes,
        })
    }
}

/// The guards that routes lead through, by name.
#[derive(Clone, Copy)]
pub(super) struct Guards<'g> {
    pub(super) limits: &'g BTreeMap<String, Arc<Limit>>,
    pub(super) services: &'g BTreeMap<String, Arc<Service>>,
    pub(super) tokens: &'g BTreeMap<String, Arc<ServiceToken>>,
    pub(super) sessions: &'g BTreeMap<String, Arc<Session>>,
}

/// One of the guards.
fn named<G>(
    guards: &BTreeMap<String, Arc<G>>,
    name: &str,
    place: impl FnOnce() -> String,
    none: &str,
) -> Result<Arc<G>, BuildError> {
    guards.get(name).cloned().ok_or_else(|| BuildError::value(place(), none))
}

fn default_name(matches: &config::Match) -> String {
    format!("{}{}", matches.host.as_deref().unwrap_or("*"), matches.path.as_deref().unwrap_or("/"))
}
