//! The metrics by name: counters of routes, and gauges and counters out of a state.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    in_flight, process, registry,
    route::{RouteMetrics, Totals},
    sessions, tokens,
};
use crate::state::{BreakerPhase, CreditState, Durations, EndpointState, ListenerState, State, StorePhase};

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
        self.limits(&mut page)?;
        self.credit(&mut page)?;
        self.store(&mut page)?;
        if let Some(state) = &self.state.registry {
            registry::encode(state, &mut page)?;
        }
        self.upstreams(&mut page)?;
        tokens::encode(&mut page, &self.state.tokens)?;
        sessions::encode(&mut page, &self.state.sessions)?;
        self.endpoints(&mut page)?;
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

    fn limits(&self, page: &mut Page) -> fmt::Result {
        let limits = &self.state.limits;
        page.counter(
            "tidegate_limit_decisions",
            "Decisions of a limit on calls per time; one in shadow refuses nobody",
            None,
            limits.iter().flat_map(|limit| {
                [
                    ("admitted", limit.admitted),
                    ("refused", limit.refused),
                    ("shadow-refused", limit.shadow_refused),
                ]
                .map(|(decision, count)| ([("limit", limit.name.as_str()), ("decision", decision)], count))
            }),
        )?;
        let shared = limits.iter().map(|limit| ([("limit", limit.name.as_str())], limit.shared));
        page.counter(
            "tidegate_limit_shared",
            "Decisions on a counter shared for want of room",
            None,
            shared,
        )?;
        let keys = limits.iter().map(|limit| ([("limit", limit.name.as_str())], limit.keys as f64));
        page.gauge("tidegate_limit_keys", "Keys of a limit remembered", None, keys)?;
        let most = limits.iter().map(|limit| ([("limit", limit.name.as_str())], limit.max_keys as f64));
        page.gauge("tidegate_limit_keys_max", "Most keys of a limit remembered", None, most)
    }

    fn credit(&self, page: &mut Page) -> fmt::Result {
        let shared = || {
            let limits = self.state.limits.iter();
            limits.filter_map(|limit| Some((limit.name.as_str(), limit.credit.as_ref()?)))
        };
        let gauges: [Named<CreditState>; 5] = [
            ("tidegate_credit", "Units of a limit that this gateway holds and may spend", |c| c.in_hand),
            ("tidegate_credit_aside", "Units set aside for when the store is away", |c| c.aside),
            ("tidegate_credit_stranded", "Units granted to this gateway that nobody can spend", |c| {
                c.stranded
            }),
            (
                "tidegate_credit_owed",
                "Units spent beyond what was reserved, not told to the store yet",
                |c| c.debt,
            ),
            ("tidegate_credit_asking", "Questions of a limit to the store under way", |c| c.asking),
        ];
        for (name, help, of) in gauges {
            page.gauge(name, help, None, shared().map(|(name, c)| ([("limit", name)], of(c) as f64)))?;
        }
        let away = shared().map(|(name, c)| ([("limit", name)], c.away_share));
        let help = "How much of the store is known to be away for a limit, from 0 to 1";
        page.gauge("tidegate_store_away", help, None, away)?;
        let forgiven = shared().map(|(name, c)| ([("limit", name)], c.forgiven));
        let help = "Units owed that were forgotten for want of room before the store could be told";
        page.counter("tidegate_credit_forgiven", help, None, forgiven)?;
        let over = self.state.limits.iter();
        page.gauge(
            "tidegate_limit_over_admission_possible",
            "The most calls beyond a limit that could have been admitted",
            None,
            over.map(|limit| {
                let over = limit.over_admission_possible.map_or(f64::INFINITY, |units| units as f64);
                ([("limit", limit.name.as_str())], over)
            }),
        )?;
        page.counter(
            "tidegate_credit_decisions",
            "Decisions of a shared limit, by how they were taken",
            None,
            shared().flat_map(|(name, c)| {
                let aside = ("aside", c.from_aside);
                let unanswered = ("unanswered", c.unanswered);
                [("local", c.local), ("waited", c.waited), aside, ("open", c.open), unanswered]
                    .map(|(how, count)| ([("limit", name), ("how", how)], count))
            }),
        )?;
        let operations = shared().map(|(name, c)| ([("limit", name)], c.operations));
        page.counter("tidegate_store_operations", "Questions of a limit to the store", None, operations)?;
        let withheld = shared().map(|(name, c)| ([("limit", name)], c.withheld));
        let help = "Questions not sent, too many being under way or the store resting";
        page.counter("tidegate_store_withheld", help, None, withheld)?;
        let losses = shared().map(|(name, c)| ([("limit", name)], c.losses));
        page.counter("tidegate_store_losses", "Losses of the ledger that were noticed", None, losses)?;
        page.counter(
            "tidegate_store_failures",
            "Questions of a limit that the store did not answer, by what kept it from that",
            None,
            shared().flat_map(|(name, c)| {
                c.failures.iter().map(move |(kind, count)| ([("limit", name), ("kind", *kind)], *count))
            }),
        )?;
        let latency = shared().map(|(name, c)| ([("limit", name)], &c.latency));
        page.histogram(
            "tidegate_store_latency",
            "How long the store took to answer questions of a limit",
            latency,
        )
    }

    fn store(&self, page: &mut Page) -> fmt::Result {
        let store = &self.state.store;
        let phases = StorePhase::ALL
            .map(|phase| ([("state", phase.as_str())], if phase == store.state { 1.0 } else { 0.0 }));
        page.gauge("tidegate_store_state", "1 for the state that the store of counters is in", None, phases)?;
        let now = [(NONE, store.in_flight as f64)];
        page.gauge("tidegate_store_in_flight", "Questions to the store under way", None, now)?;
        let most = [(NONE, store.max_in_flight as f64)];
        page.gauge("tidegate_store_in_flight_max", "Most questions to the store under way", None, most)
    }

    fn upstreams(&self, page: &mut Page) -> fmt::Result {
        let pools = self.state.upstreams.iter().flat_map(|upstream| {
            let pools = [("calls", &upstream.in_flight), ("streams", &upstream.streams)];
            pools.into_iter().filter_map(move |(pool, state)| {
                Some(([("upstream", upstream.name.as_str()), ("pool", pool)], state.as_ref()?))
            })
        });
        in_flight::UPSTREAM.encode(page, pools.collect())?;
        let partitions = self.state.upstreams.iter().flat_map(|upstream| {
            upstream.partitions.iter().map(|partition| {
                let labels = [("upstream", upstream.name.as_str()), ("partition", partition.name.as_str())];
                (labels, &partition.in_flight)
            })
        });
        in_flight::PARTITION.encode(page, partitions.collect())?;
        let routes = self.state.routes.iter().filter_map(|route| {
            Some((
                [("route", route.name.as_str()), ("upstream", route.upstream.as_str())],
                route.in_flight.as_ref()?,
            ))
        });
        in_flight::ROUTE.encode(page, routes.collect())?;
        let retries = self.state.upstreams.iter().map(|u| ([("upstream", u.name.as_str())], u.retries));
        page.counter("tidegate_retries", "Retries of calls that surely were not sent", None, retries)
    }

    fn endpoints(&self, page: &mut Page) -> fmt::Result {
        let all = || {
            self.state.upstreams.iter().flat_map(|upstream| {
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
}

/// A metric's name, its help, and where its value is.
pub(super) type Named<T> = (&'static str, &'static str, fn(&T) -> u64);

fn authority(endpoint: &EndpointState) -> &str {
    &endpoint.authority
}

pub(super) fn floats<L>(rows: impl Iterator<Item = (L, u64)>) -> impl Iterator<Item = (L, f64)> {
    rows.map(|(labels, value)| (labels, value as f64))
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

/// No labels.
pub(super) const NONE: [(&str, &str); 0] = [];
pub(super) const SECONDS: Option<Unit> = Some(Unit::Seconds);
pub(super) const BYTES: Option<Unit> = Some(Unit::Bytes);

/// The page as it is written. A metric without rows is left out.
pub(super) struct Page<'e>(DescriptorEncoder<'e>);

impl Page<'_> {
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str); 1]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    pub(super) fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.rows(name, help, unit, MetricType::Gauge, rows, |encoder, value| encoder.encode_gauge(&value))
    }

    pub(super) fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.rows(name, help, unit, MetricType::Counter, rows, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    pub(super) fn histogram<'d, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, &'d Durations)>,
    ) -> fmt::Result {
        self.rows(name, help, SECONDS, MetricType::Histogram, rows, |encoder, durations| {
            let Durations { sum_seconds, count, buckets, .. } = durations;
            encoder.encode_histogram::<NoLabelSet>(*sum_seconds, *count, buckets, None)
        })
    }

    fn rows<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        rows: impl IntoIterator<Item = (L, V)>,
        mut write: impl FnMut(&mut MetricEncoder, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in rows {
            // Without labels the name stands alone, not before an empty pair of braces.
            match size_of_val(&labels) {
                0 => write(&mut encoder, value)?,
                _ => write(&mut encoder.encode_family(&labels)?, value)?,
            }
        }
        Ok(())
    }
}
