//! How a part of a key is written: `header:x-api-key`, `path:2`, `client-ip/24`.

use std::{fmt, str::FromStr};

use http::HeaderName;

use super::{Extractor, Networks};

/// Why a text is no extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidExtractor {
    /// No such extractor.
    Unknown,
    /// A name is missing or is not one.
    Name,
    /// A path segment is not a number from 1 to 65535.
    Segment,
    /// The length of a network is out of range.
    Network,
}

impl fmt::Display for InvalidExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => {
                "not a key; write one of header:NAME, query:NAME, cookie:NAME, claim:NAME, path, path:N, method, host, client-ip"
            }
            Self::Network => {
                "a network of client-ip has a length; write client-ip/24 for IPv4 (1 to 32), client-ip/48 for IPv6 (33 to \
                 128), or both, like client-ip/24/48"
            }
            Self::Name => "the name in this key is missing or has a character that no such name has",
            Self::Segment => "path:N takes the number of a path segment, from 1 to 65535",
        })
    }
}

impl std::error::Error for InvalidExtractor {}

impl FromStr for Extractor {
    type Err = InvalidExtractor;

    fn from_str(text: &str) -> Result<Self, InvalidExtractor> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        if let Some(lengths) = kind.strip_prefix("client-ip/").filter(|_| name.is_none()) {
            return lengths.parse().map(Self::ClientIp);
        }
        match (kind, name) {
            ("header", Some(name)) => {
                HeaderName::from_bytes(name.as_bytes()).map(Self::Header).map_err(|_| InvalidExtractor::Name)
            }
            ("query", Some(name)) if !name.is_empty() => Ok(Self::Query(name.into())),
            ("cookie", Some(name)) if is_token(name) => Ok(Self::Cookie(name.into())),
            ("path", Some(n)) => match n.parse() {
                Ok(n) if n > 0 => Ok(Self::Segment(n)),
                _ => Err(InvalidExtractor::Segment),
            },
            ("claim", Some(name)) if is_claim(name) => Ok(Self::Claim(name.into())),
            ("header" | "query" | "cookie" | "claim", _) => Err(InvalidExtractor::Name),
            ("path", None) => Ok(Self::Path),
            ("method", None) => Ok(Self::Method),
            ("host", None) => Ok(Self::Host),
            ("client-ip", None) => Ok(Self::ClientIp(Networks::default())),
            _ => Err(InvalidExtractor::Unknown),
        }
    }
}

/// Claims are named as their issuer likes, often by a URL.
fn is_claim(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
}

impl fmt::Display for Extractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path => f.write_str("path"),
            Self::Segment(n) => write!(f, "path:{n}"),
            Self::Method => f.write_str("method"),
            Self::Host => f.write_str("host"),
            Self::ClientIp(networks) if *networks == Networks::default() => f.write_str("client-ip"),
            Self::ClientIp(Networks { v4, v6 }) => write!(f, "client-ip/{v4}/{v6}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
        }
    }
}
