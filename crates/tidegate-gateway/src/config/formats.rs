//! What texts in a configuration may be: each kind is a `format` in the JSON Schema, and a parser here.

use std::{borrow::Cow, net::SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use tidegate::{InvalidServerUrl, ServerUrl, registry::ServiceName};
use tidegate_core::Rate;
use tidegate_etcd::RegistryUrl;
use tidegate_redis::{InvalidStoreUrl, StoreUrl};

use super::{
    calendar::CalendarQuota,
    problem::quoted,
    store::MEMORY,
    token::{Percent, issuer},
    units::{ByteSize, HumanDuration, MAX_DURATION},
};
use crate::{
    config::Cidr,
    cost::CostSource,
    in_flight::StreamPath,
    key::{Extractor, InvalidExtractor},
    logging::check_filter,
    oidc::{jose::Algorithm, session::origin},
    route::{InvalidMatch, Matcher},
};

/// Why a text is not what it should be, and what to write instead.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }

    /// From an error that says `not a thing; what to write`, or a sentence of its own.
    fn from_error(text: &str, error: impl ToString) -> Self {
        let error = error.to_string();
        let (message, remedy) = error.split_once("; ").unwrap_or((&error, ""));
        let message = match message.strip_prefix("not ") {
            Some(thing) => format!("{} is not {thing}", quoted(text)),
            None => format!("{}: {message}", quoted(text)),
        };
        Self::new(message, remedy)
    }
}

type Check = fn(&str) -> Result<(), Wrong>;

macro_rules! formats {
    ($($(#[$doc:meta])* $type:ident $name:literal $example:literal => $check:expr;)*) => {
        $(
            $(#[$doc])*
            pub(super) struct $type;

            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "format": $name, "examples": [$example] })
                }
            }
        )*

        /// The parser of a format; none of a format that is not ours.
        pub(super) fn check_of(format: &str) -> Option<Check> {
            match format {
                "tidegate-duration" => Some(duration),
                "tidegate-size" => Some(parses::<ByteSize>),
                $($name => Some($check),)*
                _ => None,
            }
        }
    };
}

formats! {
    /// `100/s`.
    RateText "tidegate-rate" "100/s" => parses::<Rate>;
    /// `50000/month`.
    QuotaText "tidegate-quota" "50000/month" => parses::<CalendarQuota>;
    /// `header:x-cost`.
    CostText "tidegate-cost" "header:x-cost" => parses::<CostSource>;
    /// `127.0.0.1:8080`.
    AddressText "tidegate-address" "127.0.0.1:8080" => address;
    /// `http://127.0.0.1:9001`.
    EndpointText "tidegate-endpoint" "http://127.0.0.1:9001" => |text| endpoint(text).map(drop);
    /// `http://127.0.0.1:4317`.
    OtlpText "tidegate-otlp" "http://127.0.0.1:4317" => |text| endpoint(text).map(drop);
    /// `etcd://127.0.0.1:2379/tidegate/`.
    RegistryText "tidegate-registry" "etcd://127.0.0.1:2379/tidegate/" => parses::<RegistryUrl>;
    /// `orders`.
    ServiceText "tidegate-service" "orders" => parses::<ServiceName>;
    /// `memory://`.
    StoreText "tidegate-store" "memory://" => store;
    /// `tidegate`.
    NamespaceText "tidegate-namespace" "tidegate" => namespace;
    /// `*.example.com`.
    HostText "tidegate-host" "*.example.com" => |text| matcher(text, Matcher::parse_host(text));
    /// `/orders`.
    PathText "tidegate-path" "/orders" => |text| matcher(text, Matcher::parse_path(text));
    /// `GET`.
    MethodText "tidegate-method" "GET" => method;
    /// `header:x-api-key`.
    KeyText "tidegate-key" "header:x-api-key" => parses::<Extractor>;
    /// `10.0.0.0/8`.
    CidrText "tidegate-cidr" "10.0.0.0/8" => parses::<Cidr>;
    /// `info`.
    LogLevelText "tidegate-log-level" "info" => log_level;
    /// `orders.internal`.
    ServerNameText "tidegate-server-name" "orders.internal" => server_name;
    /// `/etcdserverpb.Watch/*`.
    StreamPathText "tidegate-stream-path" "/etcdserverpb.Watch/*" => parses::<StreamPath>;
    /// `header:x-tenant`.
    PartitionKeyText "tidegate-partition-key" "header:x-tenant" => partition_key;
    /// `https://idp.example`.
    IssuerText "tidegate-issuer" "https://idp.example" => |text| issuer(text).map(drop);
    /// `https://api.example`.
    BaseText "tidegate-base" "https://api.example" => base;
    /// `20%`.
    PercentText "tidegate-percent" "20%" => parses::<Percent>;
    /// `__Host-tidegate`.
    CookieText "tidegate-cookie" "__Host-tidegate" => cookie;
    /// `https://app.example`.
    OriginText "tidegate-origin" "https://app.example" => own_origin;
    /// `/oauth2/callback`.
    PageText "tidegate-page" "/oauth2/callback" => page;
    /// `ES256`.
    AlgorithmText "tidegate-algorithm" "ES256" => algorithm;
    /// `orders`.
    RouteNameText "tidegate-route-name" "orders" => route_name;
}

fn parses<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<(), Wrong> {
    text.parse::<T>().map(drop).map_err(|error| Wrong::from_error(text, error))
}

fn duration(text: &str) -> Result<(), Wrong> {
    let duration: HumanDuration = text.parse().map_err(|error| Wrong::from_error(text, error))?;
    if *duration > MAX_DURATION {
        return Err(Wrong::new(format!("{} is too long", quoted(text)), "write at most 366d"));
    }
    Ok(())
}

/// What partitions are told apart by: keys whose values are texts that a person can list.
fn partition_key(text: &str) -> Result<(), Wrong> {
    const KINDS: &str = "header:NAME, cookie:NAME, claim:NAME, path, path:N, method or host";
    match text.parse::<Extractor>() {
        Ok(Extractor::ClientIp(_) | Extractor::Query(_)) => Err(Wrong::new(
            format!("{} does not tell partitions apart", quoted(text)),
            format!("write one of {KINDS}"),
        )),
        Ok(_) => Ok(()),
        Err(InvalidExtractor::Unknown) => {
            Err(Wrong::new(format!("{} is not a key", quoted(text)), format!("write one of {KINDS}")))
        }
        Err(error) => Err(Wrong::from_error(text, error)),
    }
}

fn address(text: &str) -> Result<(), Wrong> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
    let port = if port.parse::<u16>().is_ok() { port } else { "8080" };
    Err(Wrong::new(
        format!("{} is not an address", quoted(text)),
        format!(
            "write an IP address and a port, like 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface"
        ),
    ))
}

/// Reads `http://host:port` or `https://host:port`.
///
/// # Errors
/// What is wrong, without a password that should not have been there.
pub(super) fn endpoint(text: &str) -> Result<ServerUrl, Wrong> {
    let not = |remedy: &str| Wrong::new(format!("{} is not an endpoint", quoted(text)), remedy);
    let url = ServerUrl::parse(text, 80).map_err(|error| match error {
        InvalidServerUrl::Scheme => not(&match text.split_once("://") {
            None => format!(
                "begin with http:// or https://, like http://{}",
                if text.is_empty() { "127.0.0.1:9001" } else { text }
            ),
            Some(_) => "write http://host:port or https://host:port".to_owned(),
        }),
        InvalidServerUrl::Query => not("remove what follows ? or #"),
        InvalidServerUrl::NoPassword | InvalidServerUrl::RawPassword | InvalidServerUrl::Escape => {
            not("remove what stands before the @")
        }
        other => Wrong::from_error(text, other),
    })?;
    match (url.scheme(), url.servers(), url.path()) {
        ("http" | "https", ..) if url.credentials().is_some() => Err(not("remove what stands before the @")),
        ("http" | "https", [_], "" | "/") => Ok(url),
        ("http" | "https", [_], _) => Err(not("remove the path; calls keep the path that the client sent")),
        ("http" | "https", ..) => Err(not("write one host in each; list several as several endpoints")),
        _ => Err(not("write http://host:port or https://host:port")),
    }
}

/// What URLs begin with: a path may follow.
fn base(text: &str) -> Result<(), Wrong> {
    let not = |remedy: &str| Wrong::new(format!("{} is no URL that others begin with", quoted(text)), remedy);
    let url: url::Url = text.parse().map_err(|_| not("write https://host, as the upstream names itself"))?;
    match url.scheme() {
        "https" | "http" if !url.username().is_empty() || url.password().is_some() => {
            Err(not("remove what stands before the @"))
        }
        "https" | "http" if url.query().is_some() || url.fragment().is_some() => {
            Err(not("remove what follows ? or #"))
        }
        "https" | "http" => Ok(()),
        _ => Err(not("write https://host, as the upstream names itself")),
    }
}

fn store(text: &str) -> Result<(), Wrong> {
    const STORES: &str = "write memory:// or redis://host:6379/0, redis-cluster:// or redis-sentinel://";
    if text == MEMORY {
        return Ok(());
    }
    if text.to_ascii_lowercase().starts_with("memory") {
        return Err(Wrong::new(format!("{} is not a store", quoted(text)), "write memory://"));
    }
    match text.parse::<StoreUrl>() {
        Ok(_) => Ok(()),
        Err(InvalidStoreUrl::Scheme(scheme)) => {
            Err(Wrong::new(format!("no store has the scheme {}", quoted(&scheme)), STORES))
        }
        Err(InvalidStoreUrl::Url(InvalidServerUrl::Scheme)) => {
            let remedy = if text.contains(':') { format!("write redis://{text}") } else { STORES.into() };
            Err(Wrong::new(format!("{} is not a store", quoted(text)), remedy))
        }
        Err(wrong) => Err(Wrong::from_error(text, wrong)),
    }
}

fn namespace(text: &str) -> Result<(), Wrong> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(Wrong::new(
        format!("{} is not a namespace", quoted(text)),
        "write 1 to 64 letters, digits, or - _ . : /",
    ))
}

fn matcher(text: &str, result: Result<(), InvalidMatch>) -> Result<(), Wrong> {
    result.map_err(|error| Wrong::from_error(text, error))
}

fn method(text: &str) -> Result<(), Wrong> {
    const USUAL: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    matcher(text, Matcher::parse_method(text).map(drop))?;
    match USUAL.iter().find(|usual| usual.eq_ignore_ascii_case(text) && **usual != text) {
        None => Ok(()),
        Some(meant) => Err(Wrong::new(
            format!("no client sends the method {}", quoted(text)),
            format!("did you mean `{meant}`?"),
        )),
    }
}

fn log_level(text: &str) -> Result<(), Wrong> {
    check_filter(text).map_err(|_| {
        Wrong::new(
            format!("{} is not a log filter", quoted(text)),
            "write error, warn, info, debug or trace, or a list like info,tidegate=debug",
        )
    })
}

fn server_name(text: &str) -> Result<(), Wrong> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(Wrong::new(
            format!("{} is not a server name", quoted(text)),
            "write a name or an address without port, like orders.internal",
        )),
    }
}

fn cookie(text: &str) -> Result<(), Wrong> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(fits) {
        return Ok(());
    }
    let remedy = "write 1 to 64 letters, digits, or - _ ., like __Host-tidegate";
    Err(Wrong::new(format!("{} is not the name of a cookie", quoted(text)), remedy))
}

/// A header field that may be made up for an upstream.
pub(super) fn claim_field(text: &str) -> Result<(), Wrong> {
    // What says something else already, or of whom a call is by other means.
    const TAKEN: [&str; 17] = [
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "forwarded",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "proxy-authorization",
    ];
    let name = http::HeaderName::try_from(text);
    let is_free = |name: http::HeaderName| !TAKEN.contains(&name.as_str()) && !text.contains('_');
    if name.is_ok_and(is_free) && text.len() <= 64 {
        return Ok(());
    }
    let remedy = "write the name of a header field that says who the user is, with dashes, like x-user";
    Err(Wrong::new(format!("{} is not a header field for a claim", quoted(text)), remedy))
}

/// An origin of pages, as browsers name it in `Origin`.
fn own_origin(text: &str) -> Result<(), Wrong> {
    let not = |remedy: &str| Wrong::new(format!("{} is not an origin", quoted(text)), remedy);
    if text.contains('*') {
        return Err(not(
            "name each one, like https://app.example: a page of any other could act as the user",
        ));
    }
    match origin(text) {
        Some(_) => Ok(()),
        None if text.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?', '#'])) => {
            Err(not("remove what follows the host and the port"))
        }
        None => Err(not("write scheme://host or scheme://host:port, like https://app.example")),
    }
}

fn page(text: &str) -> Result<(), Wrong> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_./~".contains(&b);
    if text.starts_with('/') && text.len() > 1 && !text.contains("//") && text.bytes().all(fits) {
        return Ok(());
    }
    let remedy = "write a path of letters, digits and - _ . ~ /, like /oauth2/callback";
    Err(Wrong::new(format!("{} is not the path of a page", quoted(text)), remedy))
}

fn algorithm(text: &str) -> Result<(), Wrong> {
    text.parse::<Algorithm>().map(drop).map_err(|_| {
        let names: Vec<&str> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
        let remedy = format!("write one of {}", names.join(", "));
        Wrong::new(format!("{} is not an algorithm of signatures", quoted(text)), remedy)
    })
}

fn route_name(text: &str) -> Result<(), Wrong> {
    if !text.trim().is_empty() && text.len() <= 128 && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
    {
        return Ok(());
    }
    Err(Wrong::new(
        format!("{} is not a route's name", quoted(text)),
        "write 1 to 128 printable ASCII characters",
    ))
}
