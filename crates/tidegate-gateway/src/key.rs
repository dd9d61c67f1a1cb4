//! What a limit counts per: parts of a call, read in place and fed to a hash. Nothing is stored or copied.

mod network;
mod pairs;
mod text;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use self::pairs::{cookie, parameters};
pub(crate) use self::pairs::{decoded, hex};
pub use self::{network::Networks, text::InvalidExtractor};
use crate::oidc::session::Claims;

/// What an extractor may look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host without port, as the client sent it.
    pub host: &'a str,
    /// The path, normalised.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The client's address: the peer's, or what a trusted proxy said it is.
    pub client: IpAddr,
    /// What its session knows of the user; none where there is no session, or nothing is keyed by it.
    pub user: Option<&'a Claims>,
}

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Extractor {
    /// A header field. A call that has it twice is refused before: which one counts, somebody downstream may see otherwise.
    Header(HeaderName),
    /// A query parameter, decoded; a call that has it twice is refused as well.
    Query(String),
    /// A cookie. Browsers may send one name twice, by path and by domain: where the values differ, it counts as absent.
    Cookie(String),
    /// The path.
    Path,
    /// A segment of the path, counted from 1.
    Segment(u16),
    /// The method.
    Method,
    /// The host, without port, in lower case.
    Host,
    /// The client's address by its network: IPv4 whole and IPv6 by its /64, which is what one subscriber holds, unless
    /// the key says otherwise.
    ClientIp(Networks),
    /// A claim of the user who is logged in.
    Claim(String),
}

impl Extractor {
    /// Feeds this part of `facts` to `sink`: its bytes, or `None` when the call does not have it, so that "absent"
    /// and "empty" are different keys.
    pub fn feed(&self, facts: &Facts<'_>, mut sink: impl FnMut(Option<&[u8]>)) {
        match self {
            Self::Header(name) => sink(facts.headers.get(name).map(HeaderValue::as_bytes)),
            Self::Query(name) => match facts.query.and_then(|query| parameters(query, name).next()) {
                Some(value) => sink(Some(&decoded(value.as_bytes()))),
                None => sink(None),
            },
            Self::Cookie(name) => sink(cookie(facts.headers, name)),
            Self::Path => sink(Some(facts.path.as_bytes())),
            Self::Segment(n) => sink(facts.path.split('/').nth((*n).into()).map(str::as_bytes)),
            Self::Method => sink(Some(facts.method.as_str().as_bytes())),
            Self::Host if facts.host.bytes().any(|b| b.is_ascii_uppercase()) => {
                sink(Some(facts.host.to_ascii_lowercase().as_bytes()));
            }
            Self::Host => sink(Some(facts.host.as_bytes())),
            Self::ClientIp(networks) => networks.feed(facts.client, sink),
            Self::Claim(name) => {
                let text = facts.user.and_then(|user| user.text(name));
                sink(text.as_deref().map(str::as_bytes));
            }
        }
    }

    /// Feeds what an operator wrote for this part, as a call that has it would feed it.
    ///
    /// # Errors
    /// What to write instead, when no call can have this.
    pub fn feed_value(&self, value: &str, mut sink: impl FnMut(Option<&[u8]>)) -> Result<(), &'static str> {
        match self {
            Self::Header(_)
            | Self::Query(_)
            | Self::Cookie(_)
            | Self::Path
            | Self::Segment(_)
            | Self::Method
            | Self::Claim(_) => {
                sink(Some(value.as_bytes()));
            }
            Self::Host => sink(Some(value.to_ascii_lowercase().as_bytes())),
            Self::ClientIp(networks) => {
                let address = value.split_once('/').map_or(value, |(address, _)| address);
                let address = address.parse().map_err(|_| "an address, like 192.0.2.1 or 2001:db8::1")?;
                networks.feed(address, sink);
            }
        }
        Ok(())
    }

    /// Whether a call may have this part more than once, each with a value of its own.
    pub const fn may_repeat(&self) -> bool {
        match self {
            Self::Header(_) | Self::Query(_) => true,
            Self::Cookie(_)
            | Self::Path
            | Self::Segment(_)
            | Self::Method
            | Self::Host
            | Self::ClientIp(_)
            | Self::Claim(_) => false,
        }
    }

    /// Why a call is refused that has this part more than once, if it has: whichever counts here, the service behind may
    /// go by another one.
    pub fn repeated(&self, query: Option<&str>, headers: &HeaderMap) -> Option<&'static str> {
        match self {
            Self::Header(name) => (headers.get_all(name).iter().nth(1).is_some())
                .then_some("a header field that a limit counts by is there more than once"),
            Self::Query(name) => (query.is_some_and(|query| parameters(query, name).nth(1).is_some()))
                .then_some("a query parameter that a limit counts by is there more than once"),
            Self::Cookie(_)
            | Self::Path
            | Self::Segment(_)
            | Self::Method
            | Self::Host
            | Self::ClientIp(_)
            | Self::Claim(_) => None,
        }
    }

    /// The claim that this part is.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::Claim(name) => Some(name),
            Self::Header(_)
            | Self::Query(_)
            | Self::Cookie(_)
            | Self::Path
            | Self::Segment(_)
            | Self::Method
            | Self::Host
            | Self::ClientIp(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
