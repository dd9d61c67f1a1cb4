//! The metrics of upstreams: calls in flight, retries, and the connections and the breaker of each endpoint.

use std::fmt;

use super::{
    in_flight,
    page::{Named, Page},
};
use crate::state::{BreakerPhase, EndpointState, State, UpstreamState};

pub(super) fn encode(page: &mut Page, state: &State) -> fmt::Result {
    let pools = state.upstreams.iter().flat_map(|upstream| {
        let pools = [("calls", &upstream.in_flight), ("streams", &upstream.streams)];
        pools.into_iter().filter_map(move |(pool, state)| {
            Some(([("upstream", upstream.name.as_str()), ("pool", pool)], state.as_ref()?))
        })
    });
    in_flight::UPSTREAM.encode(page, pools.collect())?;
    let partitions = state.upstreams.iter().flat_map(|upstream| {
        upstream.partitions.iter().map(|partition| {
            let labels = [("upstream", upstream.name.as_str()), ("partition", partition.name.as_str())];
            (labels, &partition.in_flight)
        })
    });
    in_flight::PARTITION.encode(page, partitions.collect())?;
    let routes = state.routes.iter().filter_map(|route| {
        Some((
            [("route", route.name.as_str()), ("upstream", route.upstream.as_str())],
            route.in_flight.as_ref()?,
        ))
    });
    in_flight::ROUTE.encode(page, routes.collect())?;
    let retries = state.upstreams.iter().map(|u| ([("upstream", u.name.as_str())], u.retries));
    page.counter("tidegate_retries", "Retries of calls that surely were not sent", None, retries)
}

pub(super) fn endpoints(page: &mut Page, upstreams: &[UpstreamState]) -> fmt::Result {
    let all = || {
        upstreams.iter().flat_map(|upstream| {
            let labels = |e| [("upstream", upstream.name.as_str()), ("endpoint", authority(e))];
            upstream.endpoints.iter().map(move |endpoint| (labels(endpoint), endpoint))
        })
    };
    let gauges: [Named<EndpointState>; 7] = [
        ("tidegate_endpoint_in_flight", "Calls at an endpoint", |e| e.in_flight),
        ("tidegate_endpoint_connections", "Connections to an endpoint", |e| e.connections.open),
        ("tidegate_endpoint_connections_idle", "Connections to an endpoint without a call", |e| {
            e.connections.idle
        }),
        ("tidegate_endpoint_connections_http2", "Connections to an endpoint that speak HTTP/2", |e| {
            e.connections.http2
        }),
        ("tidegate_endpoint_streams", "Calls on HTTP/2 connections to an endpoint", |e| {
            e.connections.streams
        }),
        ("tidegate_endpoint_connections_max", "Most connections to an endpoint", |e| e.connections.max),
        ("tidegate_endpoint_waiting", "Calls waiting for a connection to an endpoint", |e| {
            e.connections.waiting
        }),
    ];
    for (name, help, of) in gauges {
        page.gauge(name, help, None, all().map(|(labels, endpoint)| (labels, of(endpoint) as f64)))?;
    }
    let breakers = || all().filter_map(|(labels, endpoint)| Some((labels, endpoint.breaker.as_ref()?)));
    let states = breakers().flat_map(|([upstream, endpoint], breaker)| {
        BreakerPhase::ALL.map(|phase| {
            let is = if phase == breaker.state { 1.0 } else { 0.0 };
            ([upstream, endpoint, ("state", phase.as_str())], is)
        })
    });
    page.gauge("tidegate_breaker_state", "1 for the state that the breaker is in", None, states)?;
    let opened = breakers().map(|(labels, breaker)| (labels, breaker.opened));
    page.counter("tidegate_breaker_opened", "How often the breaker opened", None, opened)?;
    let refused = breakers().map(|(labels, breaker)| (labels, breaker.refused));
    page.counter("tidegate_breaker_refusals", "Calls that the breaker refused", None, refused)
}

fn authority(endpoint: &EndpointState) -> &str {
    &endpoint.authority
}
