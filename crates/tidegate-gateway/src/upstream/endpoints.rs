//! One configured upstream: its endpoints now, and which of them takes a call.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderValue, Uri, uri::Authority, uri::Scheme};
use parking_lot::Mutex;
use tidegate::{Breaker, breaker};

use super::{
    address::Address,
    connect::Connector,
    endpoint::{Endpoint, Vouched},
    error::UpstreamError,
    members::{Member, Members},
    open::Link,
    pool::Pool,
    tls::ClientTls,
};
use crate::{
    config::{self, BreakerSetting},
    telemetry::BreakerLog,
};

/// A service behind the gateway. Its endpoints may change while it lives; those that stay keep their connections and
/// breakers, those that go end with the last call at them.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    config: config::Upstream,
    members: ArcSwap<Members>,
    making: Mutex<Making>,
}

/// What endpoints are made with; whoever holds it is the only one who changes them.
#[derive(Debug)]
struct Making {
    breaker: breaker::Settings,
    /// TLS, as soon as an endpoint needs it.
    tls: Option<Arc<ClientTls>>,
}

/// An endpoint that an upstream shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// Its share of the calls, beside the others'; 0: no new calls.
    pub weight: u32,
    /// Who vouches for it.
    pub vouched: Vouched,
    /// Where it is, beside this gateway.
    pub zone: Zone,
}

/// Where an endpoint is, beside this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// In its zone: preferred while it is not much busier than others.
    Here,
    /// In another; or neither's is known.
    Elsewhere,
}

impl Wanted {
    /// An endpoint of the configuration.
    fn configured(url: &str) -> Self {
        Self { url: url.to_owned(), weight: 1, vouched: Vouched::Yes, zone: Zone::Elsewhere }
    }
}

/// What tells one endpoint from another.
type Place = (Scheme, Authority);

impl Upstream {
    /// Prepares an upstream: reads its TLS files and understands its endpoints. Nothing is connected yet. One that is
    /// looked up in a registry begins without endpoints.
    ///
    /// # Errors
    /// When an endpoint is no URL that can be called, or TLS settings or files are not usable.
    pub fn new(name: &str, config: &config::Upstream) -> Result<Self, UpstreamError> {
        let tls = config.tls.as_ref().map(|tls| ClientTls::new(name, tls)).transpose()?.map(Arc::new);
        let upstream = Self {
            name: name.to_owned(),
            config: config.clone(),
            members: ArcSwap::from_pointee(Members::default()),
            making: Mutex::new(Making { breaker: breaker_settings(config), tls }),
        };
        if config.service.is_none() {
            if config.endpoints.is_empty() {
                return Err(UpstreamError::NoEndpoints { upstream: name.to_owned() });
            }
            let wanted: Vec<_> = config.endpoints.iter().map(|url| Wanted::configured(url)).collect();
            if let Some(wrong) = upstream.replace(&wanted).into_iter().next() {
                return Err(wrong);
            }
        }
        Ok(upstream)
    }

    /// The upstream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its endpoints now, those without new calls included; from the configuration in its order.
    pub fn endpoints(&self) -> Arc<[Arc<Endpoint>]> {
        self.members.load().all()
    }

    /// Whether no endpoint takes new calls.
    pub fn is_empty(&self) -> bool {
        self.members.load().takes_none()
    }

    /// How many endpoints take new calls.
    pub fn count(&self) -> usize {
        self.members.load().count()
    }

    /// Picks the endpoint for a call: the one with fewer calls in flight of two drawn at random, or another that is
    /// admitted; of those in the gateway's zone first, unless they are much busier. `avoid` is taken only when no other is
    /// admitted.
    ///
    /// Each endpoint is asked at most once, and none after the first that is admitted: `admits` may take a permit.
    pub fn pick(
        &self,
        avoid: Option<&Endpoint>,
        admits: impl Fn(&Endpoint) -> bool,
    ) -> Option<Arc<Endpoint>> {
        self.members.load().pick(avoid, admits).cloned()
    }

    /// Has these endpoints from now on. What is wrong with those that cannot be called, which are left out, is told. Of
    /// several at one address, the greatest weight counts: a server that registered twice is still one.
    pub fn replace(&self, wanted: &[Wanted]) -> Vec<UpstreamError> {
        let mut making = self.making.lock();
        let before = self.endpoints();
        let known: HashMap<Place, &Arc<Endpoint>> =
            before.iter().map(|endpoint| (endpoint.place(), endpoint)).collect();
        let mut wrong = Vec::new();
        let mut at: HashMap<Place, usize> = HashMap::new();
        let mut members: Vec<Member> = Vec::with_capacity(wanted.len());
        for Wanted { url, weight, vouched, zone } in wanted {
            let place = match place(url) {
                Ok(place) => place,
                Err(why) => {
                    wrong.push(self.wrong(url, why));
                    continue;
                }
            };
            if let Some(known) = at.get(&place).map(|at| &mut members[*at]) {
                known.weight = known.weight.max(*weight);
                known.endpoint.vouch(known.endpoint.vouched().max(*vouched));
                if *zone == Zone::Here {
                    known.zone = Zone::Here;
                }
                continue;
            }
            let endpoint = match known.get(&place) {
                Some(endpoint) => Arc::clone(endpoint),
                None => match self.make(&place, &mut making) {
                    Ok(endpoint) => Arc::new(endpoint),
                    Err(error) => {
                        wrong.push(error);
                        continue;
                    }
                },
            };
            endpoint.vouch(*vouched);
            at.insert(place, members.len());
            members.push(Member { endpoint, weight: *weight, zone: *zone });
        }
        self.members.store(Arc::new(Members::new(members)));
        wrong
    }

    /// Gives the breakers of all endpoints, those to come included, other settings. They keep their state.
    ///
    /// # Errors
    /// When the settings are out of range; then nothing changes.
    pub fn reconfigure_breakers(&self, settings: breaker::Settings) -> Result<(), breaker::InvalidSettings> {
        settings.check()?;
        let mut making = self.making.lock();
        making.breaker = settings;
        self.endpoints().iter().try_for_each(|endpoint| endpoint.breaker().reconfigure(settings))
    }

    fn wrong(&self, url: &str, why: impl Into<String>) -> UpstreamError {
        UpstreamError::Endpoint { upstream: self.name.clone(), endpoint: url.to_owned(), why: why.into() }
    }

    fn make(&self, (scheme, authority): &Place, making: &mut Making) -> Result<Endpoint, UpstreamError> {
        let config = &self.config;
        let secure = *scheme == Scheme::HTTPS;
        if secure && making.tls.is_none() {
            making.tls = Some(Arc::new(ClientTls::new(&self.name, &config::ClientTls::default())?));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(usual_port(scheme));
        let address = host.parse::<IpAddr>().ok().map(|ip| (ip, port).into());
        let url = || format!("{scheme}://{authority}");
        let header = HeaderValue::from_str(authority.as_str())
            .map_err(|error| self.wrong(&url(), format!("has a bad host: {error}")))?;
        let breaker =
            Breaker::observed(making.breaker, format!("{} {authority}", self.name), Arc::new(BreakerLog))
                .map_err(|error| self.wrong(&url(), format!("can have no such breaker: {error}")))?;
        let connector = Connector {
            host,
            port,
            address,
            tls: if secure { making.tls.clone() } else { None },
            timeout: config.connections.connect_timeout.0,
        };
        let pool = Pool::new(config.connections.max.get());
        let address = Address {
            scheme: scheme.clone(),
            authority: authority.clone(),
            host: header,
            policy: config.host,
        };
        let link = Link::new(connector, config.protocol, config.connections.idle.0, pool);
        Ok(Endpoint::new(address, Arc::new(link), breaker))
    }
}

/// When breakers open and close; by default where they are off.
pub(crate) fn breaker_settings(config: &config::Upstream) -> breaker::Settings {
    match config.breaker {
        BreakerSetting::Off(_) => breaker::Settings::default(),
        BreakerSetting::On(settings) => breaker::Settings {
            failures: settings.failures,
            within: *settings.within,
            open_for: *settings.open_for,
            probes: settings.probes,
        },
    }
}

fn usual_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTPS { 443 } else { 80 }
}

/// Understands an endpoint; the error says what is wrong with it.
pub(super) fn place(url: &str) -> Result<Place, String> {
    let uri: Uri = url.parse().map_err(|error| format!("is no URL: {error}"))?;
    let scheme = uri.scheme().cloned().ok_or("has no scheme")?;
    let authority = uri.authority().cloned().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("carries credentials, which are not sent".into());
    }
    if uri.path_and_query().is_some_and(|path| !matches!(path.as_str(), "" | "/")) {
        return Err("has a path".into());
    }
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return Err(format!("has the scheme {:?}", scheme.as_str()));
    }
    let port = authority.port_u16().unwrap_or(usual_port(&scheme));
    if authority.host().trim_matches(['[', ']']).is_empty() || port == 0 {
        return Err("lacks a host or a port".into());
    }
    Ok((scheme, authority))
}
