//! What a configuration says, typed. Every field has a default or is required, and says which.

mod in_flight;
mod off;
mod route;
mod upstream;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    in_flight::{Ceiling, Hold, InFlight, Law, Order, Partitions, RouteInFlight, RouteKind, Streams},
    off::{BodyBound, Off, Timeout},
    route::{Match, Route},
    upstream::{Breaker, BreakerSetting, ClientTls, Connections, HostHeader, Protocol, Retry, Upstream},
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
