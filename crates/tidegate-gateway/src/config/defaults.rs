//! Every default, in one place.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, time::Duration};

use super::{
    model::{
        BodyBound, Bounds, Breaker, BreakerSetting, Config, Connections, HostHeader, Listen, Log, LogFormat,
        Off, Protocol, Retry, Route, Timeout, Tracing, Upstream,
    },
    store::{MEMORY, Store},
    token::Percent,
    units::{ByteSize, HumanDuration},
};

const fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("a default count is not zero")
}

const fn secs(n: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(n))
}

pub(super) fn default_store() -> String {
    MEMORY.into()
}

pub(super) const fn default_store_deadline() -> HumanDuration {
    HumanDuration(Duration::from_millis(50))
}

pub(super) const fn default_store_in_flight() -> NonZeroU32 {
    count(1024)
}

pub(super) const fn default_registry_ttl() -> HumanDuration {
    secs(60)
}

pub(super) const fn default_grace() -> HumanDuration {
    secs(30)
}

pub(super) const fn default_max_stale() -> HumanDuration {
    secs(24 * 60 * 60)
}

pub(super) const fn default_minimum_retry_interval() -> HumanDuration {
    secs(5)
}

pub(super) const fn default_registry_timeout() -> HumanDuration {
    secs(5)
}

pub(super) const fn default_estimate() -> NonZeroU32 {
    count(1)
}

pub(super) fn default_namespace() -> String {
    "tidegate".into()
}

pub(super) const fn default_drain() -> HumanDuration {
    secs(30)
}

pub(super) fn default_http() -> SocketAddr {
    ([127, 0, 0, 1], 8080).into()
}

pub(super) fn default_admin() -> SocketAddr {
    ([127, 0, 0, 1], 9900).into()
}

pub(super) const fn default_timeout() -> Timeout {
    Timeout::After(secs(30))
}

pub(super) const fn default_idle_body() -> Timeout {
    Timeout::After(secs(60))
}

pub(super) const fn default_queue() -> u32 {
    1000
}

pub(super) const fn default_max_wait() -> HumanDuration {
    HumanDuration(Duration::from_millis(500))
}

/// Where adaptive limits begin; below it a limit learns little of its upstream.
pub(super) const DEFAULT_MIN: u32 = 10;
pub(super) const DEFAULT_MAX: u32 = 1000;

pub(super) const fn default_watch() -> Timeout {
    Timeout::Off(Off::Off)
}

pub(super) const fn default_share() -> NonZeroU32 {
    count(1)
}

pub(super) const fn default_connections() -> NonZeroU32 {
    count(250)
}

pub(super) const fn default_connect_timeout() -> HumanDuration {
    secs(2)
}

/// Shorter than the 60 s to 75 s after which common servers close an idle connection, so that we close first.
pub(super) const fn default_idle() -> HumanDuration {
    secs(50)
}

pub(super) const fn default_failures() -> NonZeroU32 {
    count(5)
}

pub(super) const fn default_within() -> HumanDuration {
    secs(10)
}

pub(super) const fn default_open_for() -> HumanDuration {
    secs(5)
}

pub(super) const fn default_probes() -> NonZeroU32 {
    count(1)
}

pub(super) const fn default_retry_percent() -> u8 {
    20
}

pub(super) const fn default_retry_min() -> u32 {
    10
}

pub(super) const fn default_keys() -> NonZeroU32 {
    count(1_000_000)
}

pub(super) fn default_scopes() -> Vec<String> {
    ["openid", "profile", "offline_access"].map(str::to_owned).to_vec()
}

pub(super) fn default_callback() -> String {
    "/oauth2/callback".to_owned()
}

pub(super) fn default_logout() -> String {
    "/oauth2/logout".to_owned()
}

pub(super) const fn default_session_idle() -> HumanDuration {
    secs(8 * 60 * 60)
}

pub(super) const fn default_session_absolute() -> HumanDuration {
    secs(24 * 60 * 60)
}

pub(super) const fn default_reuse_window() -> HumanDuration {
    secs(30)
}

/// What providers sign by; no more than one is wanted where it is known which.
pub(super) fn default_algorithms() -> Vec<String> {
    ["RS256", "PS256", "ES256", "EdDSA"].map(str::to_owned).to_vec()
}

pub(super) const fn default_refresh_before() -> Percent {
    Percent(20)
}

pub(super) const fn default_token_life() -> HumanDuration {
    secs(5 * 60)
}

pub(super) const fn default_grants() -> NonZeroU32 {
    count(10)
}

pub(super) const fn default_grants_open_for() -> HumanDuration {
    secs(30)
}

pub(super) const fn default_token_timeout() -> HumanDuration {
    secs(10)
}

pub(super) const fn default_token_open_for() -> HumanDuration {
    secs(30)
}

pub(super) const fn default_token_wait() -> HumanDuration {
    secs(5)
}

pub(super) const fn default_rejected_interval() -> HumanDuration {
    secs(30)
}

impl Config {
    /// A configuration of these upstreams and routes, all else by default.
    pub fn guarding(upstreams: BTreeMap<String, Upstream>, routes: Vec<Route>) -> Self {
        Self {
            listen: Listen::default(),
            store: Store::default(),
            namespace: default_namespace(),
            registry: None,
            upstreams,
            limits: BTreeMap::new(),
            tokens: BTreeMap::new(),
            sessions: BTreeMap::new(),
            routes,
            bounds: Bounds::default(),
            trusted_proxies: Vec::new(),
            log: Log::default(),
            tracing: Tracing::default(),
            drain: default_drain(),
            workers: None,
        }
    }
}

impl Upstream {
    /// An upstream at these endpoints, all else by default.
    pub fn at(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            service: None,
            protocol: Protocol::default(),
            tls: None,
            in_flight: None,
            connections: Connections::default(),
            breaker: BreakerSetting::default(),
            timeout: default_timeout(),
            head_timeout: default_timeout(),
            idle_timeout: default_idle_body(),
            retry: Retry::default(),
            host: HostHeader::default(),
            token: None,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { http: default_http(), tls: None, admin: default_admin() }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self { max: default_connections(), connect_timeout: default_connect_timeout(), idle: default_idle() }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: default_failures(),
            within: default_within(),
            open_for: default_open_for(),
            probes: default_probes(),
        }
    }
}

impl Default for BreakerSetting {
    fn default() -> Self {
        Self::On(Breaker::default())
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { percent: default_retry_percent(), min_per_second: default_retry_min() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: count(20_000),
            header_bytes: ByteSize(64 << 10),
            header_count: 100,
            body_bytes: BodyBound::Off(Off::Off),
            header_timeout: secs(10),
            keep_alive: secs(75),
            min_body_rate: ByteSize(100),
            streams: count(250),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into(), access: true }
    }
}
