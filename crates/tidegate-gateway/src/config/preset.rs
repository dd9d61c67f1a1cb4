//! Configurations that no file holds: the embedded default, and what `serve --upstream` says.

use std::{collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, str::FromStr};

use tidegate_core::Rate;

use super::{
    defaults::default_connections,
    formats,
    limit::Limit,
    model::{Config, InFlight, Listen, Route, RouteKind, Upstream},
};

/// An endpoint as a user gives it on the command line: `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointArg(String);

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEndpoint(String);

impl FromStr for EndpointArg {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        match formats::endpoint(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(wrong) => Err(InvalidEndpoint(format!("{}; {}", wrong.message, wrong.remedy))),
        }
    }
}

impl fmt::Display for EndpointArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The embedded default: memory store, 127.0.0.1:8080, admin on 127.0.0.1:9900, and every guard in front of the
/// built-in example upstream at `example`.
pub fn embedded(example: SocketAddr) -> Config {
    let endpoint = EndpointArg(format!("http://{example}"));
    let mut config = guarding("example", &endpoint, Some(count(64)), None);
    config.limits = BTreeMap::from([
        ("backend".to_owned(), limit(rate("1000/s"), &[])),
        ("per-client".to_owned(), limit(rate("100/s"), &["client-ip"])),
    ]);
    config.routes[0].limits = vec!["per-client".into(), "backend".into()];
    config
}

/// What `serve --upstream URL [--rate RATE] [--in-flight N] [--listen ADDRESS]` means: one route that takes every call.
pub fn from_flags(
    upstream: &EndpointArg,
    rate: Option<Rate>,
    in_flight: Option<NonZeroU32>,
    listen: Option<SocketAddr>,
) -> Config {
    let mut config = guarding("upstream", upstream, in_flight, listen);
    if let Some(rate) = rate {
        config.limits = BTreeMap::from([("rate".to_owned(), limit(rate, &[]))]);
        config.routes[0].limits = vec!["rate".into()];
    }
    config
}

fn guarding(
    name: &str,
    endpoint: &EndpointArg,
    in_flight: Option<NonZeroU32>,
    listen: Option<SocketAddr>,
) -> Config {
    let defaults = Listen::default();
    let upstream =
        Upstream { in_flight: in_flight.map(InFlight::at_most), ..Upstream::at(vec![endpoint.to_string()]) };
    let route = Route {
        name: None,
        matches: super::Match::default(),
        limits: Vec::new(),
        upstream: name.to_owned(),
        kind: RouteKind::default(),
        in_flight: None,
        hold: None,
        timeout: None,
    };
    Config {
        listen: Listen { http: listen.unwrap_or(defaults.http), ..defaults },
        ..Config::guarding(BTreeMap::from([(name.to_owned(), upstream)]), vec![route])
    }
}

fn limit(rate: Rate, key: &[&str]) -> Limit {
    Limit { key: key.iter().map(|part| (*part).to_owned()).collect(), ..Limit::of(rate) }
}

fn rate(text: &str) -> Rate {
    text.parse().expect("a built-in rate is a rate")
}

fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(default_connections())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, effective::redacted_yaml, load};

    #[test]
    fn presets_are_valid_configurations() {
        let upstream: EndpointArg = "http://127.0.0.1:9001".parse().unwrap();
        for config in [
            embedded(([127, 0, 0, 1], 1234).into()),
            from_flags(&upstream, None, None, None),
            from_flags(&upstream, Some(rate("5/min")), Some(count(3)), Some(([0, 0, 0, 0], 80).into())),
        ] {
            let text = redacted_yaml(&config);
            let loaded = load(&Source::Text { name: "preset".into(), text: text.clone() });
            let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            assert_eq!(redacted_yaml(&loaded.config), text);
        }
    }

    #[test]
    fn an_endpoint_on_the_command_line_is_checked() {
        let wrong = "127.0.0.1:9001".parse::<EndpointArg>().unwrap_err().to_string();
        assert_eq!(
            wrong,
            "`127.0.0.1:9001` is not an endpoint; begin with http:// or https://, like http://127.0.0.1:9001"
        );
    }
}
