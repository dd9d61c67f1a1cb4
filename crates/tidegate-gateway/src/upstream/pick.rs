//! One configured upstream, and which of its endpoints takes a call: the less busy of two drawn at random.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing": close to the best choice at a constant price, and
//! no herd runs to the one endpoint that looked best a moment ago.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, Uri, uri::Scheme};

use super::{
    address::Address, connect::Connector, endpoint::Endpoint, error::UpstreamError, open::Link, pool::Pool,
    tls::ClientTls,
};
use crate::config;

/// A service behind the gateway.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    endpoints: Box<[Arc<Endpoint>]>,
}

impl Upstream {
    /// Prepares an upstream: reads its TLS files and understands its endpoints. Nothing is connected yet.
    ///
    /// # Errors
    /// When an endpoint is no URL that can be called, or TLS settings or files are not usable.
    pub fn new(name: &str, config: &config::Upstream) -> Result<Self, UpstreamError> {
        let secure = config.endpoints.iter().any(|endpoint| endpoint.starts_with("https:"));
        let tls = match &config.tls {
            Some(tls) => Some(Arc::new(ClientTls::new(name, tls)?)),
            None if secure => Some(Arc::new(ClientTls::new(name, &config::ClientTls::default())?)),
            None => None,
        };
        let endpoints: Box<[_]> = config
            .endpoints
            .iter()
            .enumerate()
            .map(|(index, text)| {
                endpoint(index, text, config, tls.as_ref()).map(Arc::new).map_err(|why| {
                    UpstreamError::Endpoint { upstream: name.to_owned(), endpoint: text.clone(), why }
                })
            })
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(UpstreamError::NoEndpoints { upstream: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), endpoints })
    }

    /// The upstream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Picks the endpoint for a call: the one with fewer calls in flight of two drawn at random, or another that is
    /// admitted. `avoid` is taken only when no other is admitted.
    ///
    /// Each endpoint is asked at most once, and none after the first that is admitted: `admits` may take a permit.
    pub fn pick(
        &self,
        avoid: Option<&Endpoint>,
        admits: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let endpoints = &self.endpoints;
        if let [only] = &**endpoints {
            return admits(only).then_some(only);
        }
        let count = endpoints.len();
        let first = fastrand::usize(..count);
        let second = (first + fastrand::usize(1..count)) % count;
        let (better, other) = if endpoints[second].in_flight() < endpoints[first].in_flight() {
            (second, first)
        } else {
            (first, second)
        };
        let avoided = |endpoint: &Arc<Endpoint>| avoid.is_some_and(|avoid| std::ptr::eq(avoid, &**endpoint));
        let rest = (1..count).map(|step| (first + step) % count).filter(|at| *at != second);
        [better, other]
            .into_iter()
            .chain(rest)
            .map(|at| &endpoints[at])
            .find(|endpoint| !avoided(endpoint) && admits(endpoint))
            .or_else(|| endpoints.iter().find(|endpoint| avoided(endpoint) && admits(endpoint)))
    }
}

/// Understands one endpoint; the error says what is wrong with it.
fn endpoint(
    index: usize,
    text: &str,
    config: &config::Upstream,
    tls: Option<&Arc<ClientTls>>,
) -> Result<Endpoint, String> {
    let uri: Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    let scheme = uri.scheme().cloned().ok_or("has no scheme")?;
    let authority = uri.authority().cloned().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("carries credentials, which are not sent".into());
    }
    if uri.path_and_query().is_some_and(|path| !matches!(path.as_str(), "" | "/")) {
        return Err("has a path".into());
    }
    let (secure, usual_port) = match scheme.as_str() {
        "http" => (false, 80),
        "https" => (true, 443),
        other => return Err(format!("has the scheme {other:?}")),
    };
    let port = authority.port_u16().unwrap_or(usual_port);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || port == 0 {
        return Err("lacks a host or a port".into());
    }
    let address = host.parse::<IpAddr>().ok().map(|ip| (ip, port).into());
    let header =
        HeaderValue::from_str(authority.as_str()).map_err(|error| format!("has a bad host: {error}"))?;
    let connector = Connector {
        host,
        port,
        address,
        tls: if secure { tls.cloned() } else { None },
        timeout: config.connections.connect_timeout.0,
    };
    let pool = Pool::new(config.connections.max.get());
    let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
    Ok(Endpoint {
        index,
        address: Address { scheme, authority, host: header, policy: config.host },
        link: Arc::new(Link::new(connector, config.protocol, config.connections.idle.0, pool)),
    })
}
