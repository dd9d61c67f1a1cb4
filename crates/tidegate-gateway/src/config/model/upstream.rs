//! A service behind the gateway: where it is, how it is spoken to, and what it may be asked.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InFlight, Off, Timeout};
use crate::config::{
    defaults::*,
    formats::{EndpointText, ServerNameText, ServiceText},
    units::HumanDuration,
};

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
