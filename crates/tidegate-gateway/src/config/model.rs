//! What a configuration says, typed. Every field has a default or is required, and says which.

mod in_flight;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::in_flight::{
    Ceiling, Hold, InFlight, Law, Order, Partitions, RouteInFlight, RouteKind, Streams,
};
use super::{
    defaults::*,
    formats::*,
    limit::Limit,
    pressure::PressureSetting,
    registry::{Registry, RegistryForm},
    session::Session,
    store::{Store, StoreForm},
    token::Token,
    units::{ByteSize, HumanDuration},
};

/// The whole configuration of a gateway.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the gateway listens.
    #[serde(default)]
    pub listen: Listen,
    /// Where counters live: a URL, or a section with a `url`. Default: `memory://`, this process alone.
    #[serde(default)]
    #[schemars(with = "StoreForm")]
    pub store: Store,
    /// The prefix of every key in the store. Default: `tidegate`.
    #[serde(default = "default_namespace")]
    #[schemars(with = "NamespaceText")]
    pub namespace: String,
    /// Where services are looked up: a URL, or a section with a `url`. Default: none.
    #[serde(default, deserialize_with = "Registry::of_either_form")]
    #[schemars(with = "Option<RegistryForm>")]
    pub registry: Option<Registry>,
    /// The services behind the gateway, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Limits on calls per time, by name. Default: none.
    #[serde(default)]
    pub limits: BTreeMap<String, Limit>,
    /// Access tokens for the calls of upstreams, by name. Default: none.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
    /// Browser sessions by login at an identity provider, by name. Default: none.
    #[serde(default)]
    pub sessions: BTreeMap<String, Session>,
    /// Which calls go where; the most specific match wins.
    pub routes: Vec<Route>,
    /// Bounds on what clients may send. Every one has a default.
    #[serde(default)]
    pub bounds: Bounds,
    /// When memory is short, so that new logins are held off; or `off`.
    #[serde(default)]
    pub pressure: PressureSetting,
    /// Networks whose `Forwarded` and `X-Forwarded-For` are believed, as CIDR. Default: none.
    #[serde(default)]
    #[schemars(with = "Vec<CidrText>")]
    pub trusted_proxies: Vec<String>,
    /// Logs.
    #[serde(default)]
    pub log: Log,
    /// Traces.
    #[serde(default)]
    pub tracing: Tracing,
    /// How long a drain may take on SIGTERM. Default: 30s.
    #[serde(default = "default_drain")]
    pub drain: HumanDuration,
    /// Worker threads; a change needs a restart. Default: one a core.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub workers: Option<NonZeroUsize>,
}

/// Where the gateway listens. A change of an address needs a restart.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The address for traffic: HTTP/1.1 and HTTP/2 (ALPN and prior knowledge). Default: `127.0.0.1:8080`.
    #[serde(default = "default_http")]
    #[schemars(with = "AddressText")]
    pub http: SocketAddr,
    /// The certificate to serve. Default: none, plain text.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// The address for `/live /ready /metrics /state /config`. Default: `127.0.0.1:9900`.
    #[serde(default = "default_admin")]
    #[schemars(with = "AddressText")]
    pub admin: SocketAddr,
}

/// The listener's certificate, reloaded when its files change.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate chain, PEM. Relative paths begin at the configuration's directory.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A service behind the gateway.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its endpoints, as `http://host:port` or `https://host:port`; or its `service` in their place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<EndpointText>")]
    pub endpoints: Vec<String>,
    /// The service of the registry whose endpoints these are, in place of `endpoints`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<ServiceText>")]
    pub service: Option<String>,
    /// The protocol spoken to it. Default: `auto`.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS settings for `https` endpoints. Default: the system's roots, no client certificate.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// Calls in flight. Default: no limit of its own.
    #[serde(default)]
    pub in_flight: Option<InFlight>,
    /// Connections to each endpoint.
    #[serde(default)]
    pub connections: Connections,
    /// The breaker of each endpoint; `off` for none.
    #[serde(default)]
    pub breaker: BreakerSetting,
    /// The whole call, from request head to end of the response body; long-lived streams have none. Default: 30s; `off` for none.
    #[serde(default = "default_timeout")]
    pub timeout: Timeout,
    /// From the request being sent to the response head. Default: 30s; `off` for none.
    #[serde(default = "default_timeout")]
    pub head_timeout: Timeout,
    /// Longest silence inside a body, either way. Default: 60s; `off` for none.
    #[serde(default = "default_idle_body")]
    pub idle_timeout: Timeout,
    /// The retry budget for calls that surely were not sent.
    #[serde(default)]
    pub retry: Retry,
    /// The `Host` sent upstream: the client's, or the endpoint's own. Default: `client`.
    #[serde(default)]
    pub host: HostHeader,
    /// The name of the access token that its calls carry in place of the client's `Authorization`. Default: none.
    #[serde(default)]
    pub token: Option<String>,
}

/// The protocol spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTPS: what ALPN agrees on. Plain text: HTTP/2 with prior knowledge for gRPC calls, HTTP/1.1 for the rest.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; with prior knowledge where there is no TLS.
    Http2,
}

/// Which `Host` an upstream is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostHeader {
    /// The one that the client sent.
    #[default]
    Client,
    /// The endpoint's authority.
    Endpoint,
}

/// TLS towards an upstream, a provider or a registry.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// Roots to trust instead of the system's, PEM.
    #[serde(default)]
    pub roots: Option<PathBuf>,
    /// The client certificate, PEM; needs `key`.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// The client certificate's key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The name to verify and to send as SNI. Default: the host that is connected to.
    #[serde(default)]
    #[schemars(with = "Option<ServerNameText>")]
    pub server_name: Option<String>,
}

/// Connections to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// Most connections to one endpoint, idle ones included. Default: 250.
    #[serde(default = "default_connections")]
    pub max: NonZeroU32,
    /// Time to connect, TLS included. Default: 2s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: HumanDuration,
    /// How long an idle connection is kept. Default: 50s.
    #[serde(default = "default_idle")]
    pub idle: HumanDuration,
}

/// The breaker of each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BreakerSetting {
    /// No breaker: written `off`.
    Off(Off),
    /// When it opens and how it closes.
    On(Breaker),
}

/// When a breaker opens and how it closes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures within `within` that open it. Default: 5.
    #[serde(default = "default_failures")]
    pub failures: NonZeroU32,
    /// The window in which failures count. Default: 10s.
    #[serde(default = "default_within")]
    pub within: HumanDuration,
    /// How long it stays open before probes. Default: 5s.
    #[serde(default = "default_open_for")]
    pub open_for: HumanDuration,
    /// Calls let through while half-open. Default: 1.
    #[serde(default = "default_probes")]
    pub probes: NonZeroU32,
}

/// The word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// The only word.
    Off,
}

/// A time limit, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Timeout {
    /// No limit: written `off`.
    Off(Off),
    /// At most so long.
    After(HumanDuration),
}

impl Timeout {
    /// The limit, if there is one.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Off(_) => None,
            Self::After(limit) => Some(*limit),
        }
    }
}

/// The retry budget for calls that surely were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Retries as a share of calls, in percent. 0 turns retries off. Default: 20.
    #[serde(default = "default_retry_percent")]
    #[schemars(range(max = 100))]
    pub percent: u8,
    /// Retries a second that are always allowed. Default: 10.
    #[serde(default = "default_retry_min")]
    pub min_per_second: u32,
}

/// Which calls go where.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The route's name in metrics and state. Default: its host and path.
    #[serde(default)]
    #[schemars(with = "Option<RouteNameText>")]
    pub name: Option<String>,
    /// What a call must look like. Default: every call.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// The names of limits, at most 8; all must admit, or none is charged. Default: none.
    #[serde(default)]
    pub limits: Vec<String>,
    /// The name of the upstream.
    pub upstream: String,
    /// The name of the session that its calls need. Default: none, everybody may come in.
    #[serde(default)]
    pub session: Option<String>,
    /// What the calls of this route are. Default: `auto`.
    #[serde(default)]
    pub kind: RouteKind,
    /// Calls in flight on this route, inside of the upstream's limit. Default: no limit of its own.
    #[serde(default)]
    pub in_flight: Option<RouteInFlight>,
    /// Overrides the upstream's `in_flight.hold` on this route. Default: the upstream's.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Overrides the upstream's `timeout` on this route, for streams as well. Default: the upstream's; none for streams.
    #[serde(default)]
    pub timeout: Option<Timeout>,
}

/// What a call must look like.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// A host, or `*.domain` for every host below it. Default: any.
    #[serde(default)]
    #[schemars(with = "Option<HostText>")]
    pub host: Option<String>,
    /// A path prefix, matched on segment borders: `/orders` matches `/orders` and `/orders/1`, never `/orders2`. Default: `/`.
    #[serde(default)]
    #[schemars(with = "Option<PathText>")]
    pub path: Option<String>,
    /// Methods. Default: any.
    #[serde(default)]
    #[schemars(with = "Vec<MethodText>")]
    pub methods: Vec<String>,
    /// Headers and their exact values. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Bounds on what clients may send.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Most client connections. Default: 20000.
    pub connections: NonZeroU32,
    /// Most bytes of a request head, 8KiB to 16MiB. Default: 64KiB.
    pub header_bytes: ByteSize,
    /// Most header fields in a request. Default: 100.
    #[schemars(range(min = 1, max = 10000))]
    pub header_count: u32,
    /// Most bytes of a request body. Default: `off`, streamed whatever its size.
    pub body_bytes: BodyBound,
    /// Time to send a request head, and a TLS handshake. Default: 10s.
    pub header_timeout: HumanDuration,
    /// How long a connection may stay idle between requests. Default: 75s.
    pub keep_alive: HumanDuration,
    /// Least progress of a request body, bytes a second averaged over `idle_timeout`. Default: 100B; 0 for none.
    pub min_body_rate: ByteSize,
    /// Most HTTP/2 streams at once on a client connection. Default: 250.
    pub streams: NonZeroU32,
}

/// A bound on bytes, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BodyBound {
    /// No bound: written `off`.
    Off(Off),
    /// At most so many.
    Bytes(ByteSize),
}

impl BodyBound {
    /// The bound, if there is one.
    pub fn limit(self) -> Option<u64> {
        match self {
            Self::Off(_) => None,
            Self::Bytes(bytes) => Some(bytes.0),
        }
    }
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Text or JSON. Default: text.
    pub format: LogFormat,
    /// A filter as of tracing's `EnvFilter`. Default: `info`.
    #[schemars(with = "LogLevelText")]
    pub level: String,
    /// One line a call. Default: true.
    pub access: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Traces.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// An OTLP/gRPC endpoint, like `http://127.0.0.1:4317`. Default: none; trace context is passed on regardless.
    #[schemars(with = "Option<OtlpText>")]
    pub otlp: Option<String>,
    /// Share of calls without a sampling decision that are sampled, in percent. Default: 1.
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: Option<f64>,
}
