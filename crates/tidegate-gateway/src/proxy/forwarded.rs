//! Who a call comes from: believed from trusted proxies, told to upstreams.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::lookalike;
use crate::config::Cidr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether a peer's word about earlier hops is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is a proxy of ours: its chain is extended.
    Trusted,
    /// It is anybody: what it says is replaced.
    Untrusted,
}

impl Trust {
    /// Whether `peer` lies in one of the `trusted` networks.
    pub fn of(peer: IpAddr, trusted: &[Cidr]) -> Self {
        if trusted.iter().any(|network| network.contains(peer)) { Self::Trusted } else { Self::Untrusted }
    }
}

/// Finds the client: the peer, or, when the peer is a trusted proxy, the last address in the chain that is none.
///
/// `Forwarded` (RFC 7239) counts before `X-Forwarded-For`. A part that is no address ends the walk: what stands left
/// of it was written by somebody who is not trusted.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let peer = peer.to_canonical();
    if Trust::of(peer, trusted) == Trust::Untrusted {
        return peer;
    }
    let forwarded = headers.contains_key(header::FORWARDED);
    let name = if forwarded { header::FORWARDED } else { X_FORWARDED_FOR };
    let mut client = peer;
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    for element in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let node = if forwarded { forwarded_for(element) } else { Some(element.trim()) };
        match node.and_then(address) {
            Some(ip) if Trust::of(ip, trusted) == Trust::Trusted => client = ip,
            Some(ip) => return ip,
            None => return client,
        }
    }
    client
}

fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
    })
}

/// An address with or without a port and brackets.
fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    bare.parse()
        .ok()
        .or_else(|| node.parse::<SocketAddr>().ok().map(|addr| addr.ip()))
        .map(|ip: IpAddr| ip.to_canonical())
}

/// What is told to upstreams of every call on one connection, written once per connection.
#[derive(Clone, Debug)]
pub struct Told {
    address: HeaderValue,
    forwarded: HeaderValue,
    scheme: HeaderValue,
}

impl Told {
    /// Prepares the fields for calls from `peer`.
    pub fn new(peer: IpAddr, tls: bool) -> Self {
        let peer = peer.to_canonical();
        let scheme = if tls { "https" } else { "http" };
        let forwarded = match peer {
            IpAddr::V4(ip) => format!("for={ip};proto={scheme}"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={scheme}"),
        };
        let value =
            |text: String| HeaderValue::try_from(text).expect("an address has only visible characters");
        Self {
            address: value(peer.to_string()),
            forwarded: value(forwarded),
            scheme: HeaderValue::from_static(scheme),
        }
    }

    /// Says in `headers` who passed the call on. What an untrusted peer says of earlier hops is replaced, not extended.
    pub fn tell(&self, headers: &mut HeaderMap, host: Option<&HeaderValue>, version: Version, trust: Trust) {
        lookalike::strip(headers, |name| name.starts_with("x-forwarded-") || name == X_REAL_IP.as_str());
        let chain = |headers: &HeaderMap, name: &HeaderName, last: &HeaderValue| {
            let mut chain = String::new();
            for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
                let _ = write!(chain, "{value}, ");
            }
            let _ = write!(chain, "{}", last.to_str().unwrap_or_default());
            HeaderValue::try_from(chain).unwrap_or_else(|_| last.clone())
        };
        let (address, forwarded) = if trust == Trust::Trusted {
            (
                chain(headers, &X_FORWARDED_FOR, &self.address),
                chain(headers, &header::FORWARDED, &self.forwarded),
            )
        } else {
            headers.remove(X_REAL_IP);
            (self.address.clone(), self.forwarded.clone())
        };
        headers.insert(X_FORWARDED_FOR, address);
        headers.insert(header::FORWARDED, forwarded);
        if trust == Trust::Untrusted || !headers.contains_key(X_FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, self.scheme.clone());
        }
        match host {
            Some(host) if trust == Trust::Untrusted || !headers.contains_key(X_FORWARDED_HOST) => {
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
            Some(_) | None => {}
        }
        via(headers, version);
    }
}

/// Adds this hop to `Via` (RFC 9110 §7.6.3).
pub fn via(headers: &mut HeaderMap, received: Version) {
    headers.append(
        header::VIA,
        HeaderValue::from_static(match received {
            Version::HTTP_09 | Version::HTTP_10 => "1.0 tidegate",
            Version::HTTP_2 => "2 tidegate",
            Version::HTTP_3 => "3 tidegate",
            _ => "1.1 tidegate",
        }),
    );
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn found(peer: &str, field: (&str, &str), trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_str(field.0).unwrap(), field.1.parse().unwrap());
        let trusted: Vec<Cidr> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let spoofed = ("x-forwarded-for", "1.1.1.1");
        assert_eq!(found("192.0.2.9", spoofed, &[]), "192.0.2.9");
        assert_eq!(found("192.0.2.9", spoofed, &["10.0.0.0/8"]), "192.0.2.9");
        assert_eq!(found("10.1.2.3", spoofed, &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(found("::ffff:10.1.2.3", spoofed, &["10.0.0.0/8"]), "1.1.1.1");
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        let chain = ("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.0.0.2");
        assert_eq!(found("10.0.0.1", chain, &["10.0.0.0/8"]), "203.0.113.7");
        assert_eq!(found("10.0.0.1", ("x-forwarded-for", "junk, 10.0.0.2"), &["10.0.0.0/8"]), "10.0.0.2");
        assert_eq!(
            found("10.0.0.1", ("x-forwarded-for", "[2001:db8::1]:4711"), &["10.0.0.0/8"]),
            "2001:db8::1"
        );
        let rfc = ("forwarded", "for=6.6.6.6, For=\"[2001:db8:cafe::17]:4711\";proto=https");
        assert_eq!(found("10.0.0.1", rfc, &["10.0.0.0/8"]), "2001:db8:cafe::17");
        assert_eq!(found("10.0.0.1", ("forwarded", "for=_hidden"), &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn an_untrusted_chain_is_replaced_and_a_trusted_one_extended() {
        let told = Told::new("192.0.2.9".parse().unwrap(), true);
        let host = HeaderValue::from_static("api.example.com");
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("gopher"));
        let mut trusted = headers.clone();
        told.tell(&mut headers, Some(&host), Version::HTTP_2, Trust::Untrusted);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.9");
        assert_eq!(headers[header::FORWARDED], "for=192.0.2.9;proto=https");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
        assert_eq!(headers[X_FORWARDED_HOST], "api.example.com");
        assert_eq!(headers[header::VIA], "2 tidegate");
        told.tell(&mut trusted, Some(&host), Version::HTTP_11, Trust::Trusted);
        assert_eq!(trusted[X_FORWARDED_FOR], "1.1.1.1, 192.0.2.9");
        assert_eq!(trusted[X_FORWARDED_PROTO], "gopher");
    }

    #[test]
    fn what_a_client_spells_with_underscores_is_not_told() {
        let told = Told::new("192.0.2.9".parse().unwrap(), true);
        for trust in [Trust::Trusted, Trust::Untrusted] {
            let mut headers = HeaderMap::new();
            for name in ["x_forwarded_for", "x-forwarded_proto", "x_real_ip", "x_mine"] {
                headers.insert(name, HeaderValue::from_static("1.1.1.1"));
            }
            told.tell(&mut headers, None, Version::HTTP_11, trust);
            let odd: Vec<_> = headers.keys().filter(|name| name.as_str().contains('_')).collect();
            assert_eq!(odd, ["x_mine"], "{trust:?}");
        }
    }
}
