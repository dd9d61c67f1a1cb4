//! What the gateway is doing now, as plain data: `/state` prints it as JSON or a page, `/metrics` as metrics.
//!
//! Times are seconds, sizes are bytes. Counters count from the start of the process and survive reloads.

#[cfg(test)]
mod example;
mod pressure;
mod readings;
mod registry;
mod session;
mod store;
mod token;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

#[cfg(test)]
pub(crate) use self::example::example;
pub use self::{
    pressure::PressureState,
    registry::{EtcdState, RegistryEndpointState, RegistryState, ServiceState},
    session::SessionsState,
    store::{CreditState, StorePhase, StoreServerState, StoreState},
    token::{DpopState, TokenPhase, TokenState},
};

/// Everything at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    /// The version of the gateway.
    pub version: String,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// Why the gateway takes no calls at present; none when it is ready.
    pub not_ready: Option<String>,
    /// The configuration that is running.
    pub config: ConfigState,
    /// Where the gateway listens.
    pub listeners: Vec<ListenerState>,
    /// Routes, in the order of the configuration.
    pub routes: Vec<RouteState>,
    /// Where counters live.
    pub store: StoreState,
    /// Limits on calls per time.
    pub limits: Vec<LimitState>,
    /// Where services are looked up; none when nowhere.
    pub registry: Option<RegistryState>,
    /// The services behind the gateway.
    pub upstreams: Vec<UpstreamState>,
    /// The tokens that their calls carry.
    pub tokens: Vec<TokenState>,
    /// Browser sessions.
    pub sessions: Vec<SessionsState>,
    /// How short memory is; none where there are no sessions, or nobody looks.
    pub pressure: Option<PressureState>,
    /// The last refusals, newest first; sampled at one a millisecond under a flood.
    pub refusals: Vec<RefusalState>,
    /// What telemetry itself did and could not do.
    pub telemetry: TelemetryState,
}

/// The configuration that is running.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigState {
    /// Where it came from: a file, or how it was made up.
    pub source: String,
    /// A hash of its text.
    pub hash: String,
    /// When it was loaded, in seconds since the Unix epoch.
    pub loaded_at_seconds: f64,
    /// Reloads that took effect.
    pub reloads: u64,
    /// Reloads that were refused.
    pub failed_reloads: u64,
    /// Why the last reload was refused; none when it took effect.
    pub last_reload_error: Option<String>,
    /// Settings of it that a reload cannot change, by their names in the file.
    pub needs_restart: Vec<&'static str>,
}

/// A listening socket.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ListenerState {
    /// What it is for: `http` or `admin`.
    pub name: String,
    /// The address it is bound to.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether it takes new connections.
    pub accepting: bool,
    /// Connections now.
    pub connections: u64,
    /// Most connections at once.
    pub max_connections: u64,
    /// Connections taken since the start.
    pub accepted: u64,
    /// Connections closed at the door because there were too many.
    pub refused: u64,
    /// Connections without buffers, waiting for a request.
    pub resting: u64,
    /// Connections that did not come to be or were ended by us, by reason.
    pub closed: BTreeMap<&'static str, u64>,
}

/// A route, and what passed through it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// The upstream it leads to.
    pub upstream: String,
    /// The limits on it.
    pub limits: Vec<String>,
    /// Calls in flight on it, inside of the upstream's; none when the route has no limit of its own.
    pub in_flight: Option<InFlightState>,
    /// Calls that are over, refused ones included.
    pub calls: u64,
    /// Calls by the status code sent to the client.
    pub responses: BTreeMap<String, u64>,
    /// Calls refused, by the rule that refused.
    pub refused: BTreeMap<String, u64>,
    /// Whole calls, from request head to end of the response body.
    pub duration: Durations,
    /// From the request head to the upstream's response head.
    pub head: Durations,
    /// Bytes of request bodies passed on.
    pub request_bytes: u64,
    /// Bytes of response bodies passed on.
    pub response_bytes: u64,
}

/// A limit on calls per time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LimitState {
    /// Its name.
    pub name: String,
    /// How many per how long, as written.
    pub rate: String,
    /// Most calls at once out of a rested `token-bucket`.
    pub burst: Option<u64>,
    /// How calls are counted.
    pub algorithm: String,
    /// What the counter is kept per.
    pub key: Vec<String>,
    /// Whether it only counts and never refuses.
    pub shadow: bool,
    /// Keys remembered now.
    pub keys: u64,
    /// Most keys remembered.
    pub max_keys: u64,
    /// Calls it admitted.
    pub admitted: u64,
    /// Calls it refused.
    pub refused: u64,
    /// Calls it would have refused, had it not been in shadow.
    pub shadow_refused: u64,
    /// Decisions on a counter shared with other keys, for want of room.
    pub shared: u64,
    /// The most units beyond the limit that could be admitted now: 0 where it is exact; none where nothing bounds it, as it
    /// is open while the store is away.
    pub over_admission_possible: Option<u64>,
    /// How it gets its credit; none where it counts in this process alone.
    pub credit: Option<CreditState>,
}

/// A service behind the gateway.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UpstreamState {
    /// Its name.
    pub name: String,
    /// Calls in flight to it; none when they are not limited.
    pub in_flight: Option<InFlightState>,
    /// Long-lived streams to it; none when they are calls.
    pub streams: Option<InFlightState>,
    /// The partitions of the calls in flight, in the order of their names; none when there are none.
    pub partitions: Vec<PartitionState>,
    /// Retries made of calls that surely were not sent.
    pub retries: u64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointState>,
}

/// One partition of the calls in flight.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartitionState {
    /// The value that its calls have, or `(other)`.
    pub name: String,
    /// Its calls. Its limit is its share: what it has when all are busy.
    #[serde(flatten)]
    pub in_flight: InFlightState,
}

/// Calls in flight against their limit.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InFlightState {
    /// Most calls at once, now; none when there is no limit.
    pub limit: Option<u64>,
    /// What moves the limit: `fixed`, `gradient`, `aimd`, `vegas`, or `fleet` when it is a part of a fleet's.
    pub law: &'static str,
    /// Calls at once, now.
    pub in_flight: u64,
    /// Callers waiting for a permit.
    pub queued: u64,
    /// Most callers waiting.
    pub queue: u64,
    /// Calls admitted.
    pub admitted: u64,
    /// Calls refused, by the rule that refused.
    pub refused: BTreeMap<String, u64>,
    /// Callers that went away while they waited.
    pub cancelled: u64,
    /// How long admitted calls waited for a permit.
    pub wait: Durations,
    /// How long calls held their permit.
    pub hold: Durations,
    /// Permits held now for longer than is watched for.
    pub held_long: u64,
}

/// One endpoint of an upstream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EndpointState {
    /// `host:port`.
    pub authority: String,
    /// Calls at it now.
    pub in_flight: u64,
    /// Its breaker; none when it is off.
    pub breaker: Option<BreakerState>,
    /// Its connections.
    pub connections: ConnectionsState,
}

/// Whether a breaker lets calls pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerPhase {
    /// It lets every call pass.
    #[default]
    Closed,
    /// It refuses every call.
    Open,
    /// It lets a few probes pass.
    HalfOpen,
}

impl BreakerPhase {
    /// Every phase.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name used in metrics and state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// An endpoint's breaker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BreakerState {
    /// Whether it lets calls pass.
    pub state: BreakerPhase,
    /// Seconds since it came into this state.
    pub since_seconds: f64,
    /// Seconds until it lets a probe pass, while it is open.
    pub retry_in_seconds: Option<f64>,
    /// Failures in the window, while it is closed.
    pub failures: u64,
    /// How often it opened.
    pub opened: u64,
    /// Calls it refused.
    pub refused: u64,
}

/// An endpoint's connections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectionsState {
    /// Connections now, idle ones included.
    pub open: u64,
    /// Connections without a call.
    pub idle: u64,
    /// Those that speak HTTP/2.
    pub http2: u64,
    /// Calls on the ones that speak HTTP/2.
    pub streams: u64,
    /// Calls waiting for a connection or a stream.
    pub waiting: u64,
    /// Most connections.
    pub max: u64,
}

/// One refusal.
#[derive(Clone, Debug, Serialize)]
pub struct RefusalState {
    /// When, in seconds since the Unix epoch.
    pub at_seconds: f64,
    /// The rule that refused.
    pub by: &'static str,
    /// The route.
    pub route: Arc<str>,
    /// The upstream that was spared.
    pub upstream: Arc<str>,
    /// The limit that refused, if it was one.
    pub limit: Option<Arc<str>>,
    /// When the client was told to return, in seconds.
    pub retry_after_seconds: Option<f64>,
}

/// What telemetry itself did and could not do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TelemetryState {
    /// Access log lines handed to the writer.
    pub access_log_lines: u64,
    /// Access log lines dropped, because the reader of the log was too slow or gone.
    pub access_log_dropped: u64,
    /// Spans delivered to the collector.
    pub spans_exported: u64,
    /// Spans dropped because the queue was full.
    pub spans_dropped: u64,
    /// Spans lost in a failed export.
    pub spans_failed: u64,
}

/// How long things took: a histogram, and quantiles estimated from it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum_seconds: f64,
    /// Half took at most so long.
    pub p50_seconds: f64,
    /// Nine of ten took at most so long.
    pub p90_seconds: f64,
    /// 99 of 100 took at most so long.
    pub p99_seconds: f64,
    /// Upper bound in seconds (the last is infinite) and how many fell into each bucket, not summed up.
    #[serde(skip)]
    pub buckets: Vec<(f64, u64)>,
}

impl Durations {
    /// Estimates quantiles from `buckets`: ascending upper bounds in seconds, the last infinite, and counts.
    pub fn from_buckets(buckets: Vec<(f64, u64)>, sum_seconds: f64) -> Self {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let quantile = |q: f64| quantile(&buckets, count, q);
        let (p50_seconds, p90_seconds, p99_seconds) = (quantile(0.5), quantile(0.9), quantile(0.99));
        Self { count, sum_seconds, p50_seconds, p90_seconds, p99_seconds, buckets }
    }
}

/// Interpolates linearly in the bucket that holds the quantile; the last bucket answers its lower bound.
fn quantile(buckets: &[(f64, u64)], count: u64, q: f64) -> f64 {
    let rank = q * count as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for &(upper, inside) in buckets {
        let inside = inside as f64;
        if inside > 0.0 && below + inside >= rank {
            return if upper.is_finite() { lower + (upper - lower) * (rank - below) / inside } else { lower };
        }
        below += inside;
        if upper.is_finite() {
            lower = upper;
        }
    }
    0.0
}
