//! The page of metrics: those of the gateway itself and of its routes, and the order of all others.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};

use super::{
    limits,
    page::{BYTES, NONE, Page, SECONDS, floats},
    pressure, process, registry,
    route::{RouteMetrics, Totals},
    sessions, tokens, upstreams,
};
use crate::state::{ListenerState, State};

/// Writes the OpenMetrics page.
pub(super) fn render(state: State, routes: Vec<Arc<RouteMetrics>>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { state, routes }));
    let mut page = String::with_capacity(16 << 10);
    text::encode(&mut page, &registry).expect("writing to a string does not fail");
    page
}

#[derive(Debug)]
struct Snapshot {
    state: State,
    routes: Vec<Arc<RouteMetrics>>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.gateway(&mut page)?;
        self.routes(&mut page)?;
        limits::encode(&mut page, &self.state.limits, &self.state.store)?;
        if let Some(state) = &self.state.registry {
            registry::encode(&mut page, state)?;
        }
        upstreams::encode(&mut page, &self.state)?;
        tokens::encode(&mut page, &self.state.tokens)?;
        sessions::encode(&mut page, &self.state.sessions)?;
        if let Some(state) = &self.state.pressure {
            pressure::encode(&mut page, state)?;
        }
        upstreams::endpoints(&mut page, &self.state.upstreams)?;
        process::encode(&mut page)
    }
}

impl Snapshot {
    fn gateway(&self, page: &mut Page) -> fmt::Result {
        let State { version, uptime_seconds, not_ready, config, listeners, telemetry, .. } = &self.state;
        page.info("tidegate_build", "The running version", &[("version", version.as_str())])?;
        page.gauge("tidegate_uptime", "Time since the process started", SECONDS, [(NONE, *uptime_seconds)])?;
        let ready = if not_ready.is_none() { 1.0 } else { 0.0 };
        page.gauge("tidegate_ready", "Whether the gateway takes calls", None, [(NONE, ready)])?;

        page.info("tidegate_config", "The running configuration", &[("hash", config.hash.as_str())])?;
        let loaded = [(NONE, config.loaded_at_seconds)];
        page.gauge(
            "tidegate_config_loaded_timestamp",
            "When the running configuration was loaded",
            SECONDS,
            loaded,
        )?;
        let last = if config.last_reload_error.is_none() { 1.0 } else { 0.0 };
        page.gauge(
            "tidegate_config_last_reload_successful",
            "Whether the last reload took effect",
            None,
            [(NONE, last)],
        )?;
        page.counter(
            "tidegate_config_reloads",
            "Reloads by their result",
            None,
            [([("result", "applied")], config.reloads), ([("result", "refused")], config.failed_reloads)],
        )?;

        let rows = |of: fn(&ListenerState) -> u64| {
            listeners.iter().map(move |l| ([("listener", l.name.as_str())], of(l)))
        };
        page.gauge(
            "tidegate_listener_connections",
            "Client connections now",
            None,
            floats(rows(|l| l.connections)),
        )?;
        page.gauge(
            "tidegate_listener_connections_max",
            "Most client connections at once",
            None,
            floats(rows(|l| l.max_connections)),
        )?;
        page.counter("tidegate_listener_accepted", "Client connections taken", None, rows(|l| l.accepted))?;
        page.counter(
            "tidegate_listener_refused",
            "Client connections closed at the door, being too many",
            None,
            rows(|l| l.refused),
        )?;

        let lines = telemetry.access_log_lines;
        page.counter(
            "tidegate_access_log_lines",
            "Access log lines handed to the writer",
            None,
            [(NONE, lines)],
        )?;
        let dropped = telemetry.access_log_dropped;
        page.counter(
            "tidegate_access_log_dropped",
            "Access log lines dropped, the reader being slow",
            None,
            [(NONE, dropped)],
        )?;
        page.counter(
            "tidegate_spans",
            "Sampled spans by what became of them",
            None,
            [
                ([("result", "exported")], telemetry.spans_exported),
                ([("result", "dropped")], telemetry.spans_dropped),
                ([("result", "failed")], telemetry.spans_failed),
            ],
        )
    }

    fn routes(&self, page: &mut Page) -> fmt::Result {
        let routes: Vec<(&str, &str, Totals)> =
            self.routes.iter().map(|r| (&**r.route(), &**r.upstream(), r.totals())).collect();
        page.counter(
            "tidegate_requests",
            "Calls that are over, by the status code sent to the client",
            None,
            each(&routes, "code", |t| t.codes.iter().map(|(code, n)| (code.as_str(), *n)).collect()),
        )?;
        page.counter(
            "tidegate_requests_by_protocol",
            "Calls that are over, by how they were spoken",
            None,
            each(&routes, "protocol", |t| t.protocols.clone()),
        )?;
        page.counter(
            "tidegate_grpc_responses",
            "gRPC calls that are over, by the status that ended them",
            None,
            each(&routes, "grpc_status", |t| t.grpc.iter().map(|(code, n)| (code.as_str(), *n)).collect()),
        )?;
        page.counter(
            "tidegate_refusals",
            "Calls refused and not sent, by the rule that refused",
            None,
            each(&routes, "by", |t| t.refused.clone()),
        )?;
        let labels = routes
            .iter()
            .map(|(route, upstream, totals)| ([("route", *route), ("upstream", *upstream)], totals));
        page.histogram(
            "tidegate_request_duration",
            "Whole calls, from request head to end of the response body",
            labels.clone().map(|(pair, totals)| (pair, &totals.duration)),
        )?;
        page.histogram(
            "tidegate_response_head_duration",
            "From request head to the upstream's response head",
            labels.clone().map(|(pair, totals)| (pair, &totals.head)),
        )?;
        let requests = labels.clone().map(|(pair, totals)| (pair, totals.request_bytes));
        page.counter("tidegate_request", "Bytes of request bodies passed on", BYTES, requests)?;
        let responses = labels.map(|(pair, totals)| (pair, totals.response_bytes));
        page.counter("tidegate_response", "Bytes of response bodies passed on", BYTES, responses)
    }
}

/// Rows of one counter per value of a label, for every route.
fn each<'r>(
    routes: &'r [(&'r str, &'r str, Totals)],
    label: &'static str,
    of: impl Fn(&'r Totals) -> Vec<(&'r str, u64)>,
) -> impl Iterator<Item = ([(&'r str, &'r str); 3], u64)> {
    routes.iter().flat_map(move |(route, upstream, totals)| {
        let rows = of(totals).into_iter();
        rows.map(move |(value, count)| ([("route", *route), ("upstream", *upstream), (label, value)], count))
    })
}
