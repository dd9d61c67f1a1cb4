//! Configurations that no file holds: the embedded default, and what `serve --upstream` says.

use std::{collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, str::FromStr};

use tidegate_core::Rate;

use super::{
    defaults::default_connections,
    formats,
    limit::Limit,
    meaning::is_one_port,
    model::{Config, InFlight, Listen, Route, RouteKind, Upstream},
};

/// An endpoint as a user gives it on the command line: `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointArg(String);

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEndpoint(String);

/// Traffic and the admin pages cannot share this port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "traffic (--listen) and the admin pages (--admin) both listen on port {0}; give one of them another port"
)]
pub struct OnePort(u16);

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
    let mut config = guarding("example", &endpoint, Some(count(64)));
    config.limits = BTreeMap::from([
        ("backend".to_owned(), limit(rate("1000/s"), &[])),
        ("per-client".to_owned(), limit(rate("100/s"), &["client-ip"])),
    ]);
    config.routes[0].limits = vec!["per-client".into(), "backend".into()];
    config
}

/// What `serve --upstream URL [--rate RATE] [--in-flight N]` means: one route that takes every call.
pub fn from_flags(upstream: &EndpointArg, rate: Option<Rate>, in_flight: Option<NonZeroU32>) -> Config {
    let mut config = guarding("upstream", upstream, in_flight);
    if let Some(rate) = rate {
        config.limits = BTreeMap::from([("rate".to_owned(), limit(rate, &[]))]);
        config.routes[0].limits = vec!["rate".into()];
    }
    config
}

/// What `serve --listen ADDRESS --admin ADDRESS` means.
///
/// # Errors
/// [`OnePort`].
pub fn listening(http: Option<SocketAddr>, admin: Option<SocketAddr>) -> Result<Listen, OnePort> {
    let defaults = Listen::default();
    let listen =
        Listen { http: http.unwrap_or(defaults.http), admin: admin.unwrap_or(defaults.admin), ..defaults };
    if is_one_port(listen.http, listen.admin) { Err(OnePort(listen.http.port())) } else { Ok(listen) }
}

fn guarding(name: &str, endpoint: &EndpointArg, in_flight: Option<NonZeroU32>) -> Config {
    let upstream =
        Upstream { in_flight: in_flight.map(InFlight::at_most), ..Upstream::at(vec![endpoint.to_string()]) };
    let route = Route {
        name: None,
        matches: super::Match::default(),
        limits: Vec::new(),
        upstream: name.to_owned(),
        session: None,
        kind: RouteKind::default(),
        in_flight: None,
        hold: None,
        timeout: None,
    };
    Config::guarding(BTreeMap::from([(name.to_owned(), upstream)]), vec![route])
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
            from_flags(&upstream, None, None),
            from_flags(&upstream, Some(rate("5/min")), Some(count(3))),
            Config {
                listen: listening(Some(([0, 0, 0, 0], 80).into()), None).unwrap(),
                ..from_flags(&upstream, None, None)
            },
        ] {
            let text = redacted_yaml(&config);
            let loaded = load(&Source::Text { name: "preset".into(), text: text.clone() });
            let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            assert_eq!(redacted_yaml(&loaded.config), text);
        }
    }

    #[test]
    fn traffic_and_admin_pages_need_a_port_each() {
        let at = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        for (http, admin, port) in [
            ("127.0.0.1:80", "127.0.0.1:80", Some(80)),
            ("0.0.0.0:9900", "", Some(9900)),
            ("", "[::]:8080", Some(8080)),
            ("127.0.0.1:80", "127.0.0.2:80", None),
            ("127.0.0.1:0", "127.0.0.1:0", None),
            ("", "", None),
        ] {
            assert_eq!(listening(at(http), at(admin)).err(), port.map(OnePort), "{http} and {admin}");
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
