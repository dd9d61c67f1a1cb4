//! What a limit counts per: parts of a call, read in place and fed to a hash. Nothing is stored or copied.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use http::{HeaderMap, HeaderName, Method, header};

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
}

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Extractor {
    /// Every value of a header field.
    Header(HeaderName),
    /// The first value of a query parameter, decoded.
    Query(String),
    /// The first value of a cookie.
    Cookie(String),
    /// The path.
    Path,
    /// A segment of the path, counted from 1.
    Segment(u16),
    /// The method.
    Method,
    /// The host, without port, in lower case.
    Host,
    /// The client's address: IPv4 whole, IPv6 by its /64, which is what one subscriber holds.
    ClientIp,
}

/// Why a text is no extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidExtractor {
    /// No such extractor.
    Unknown,
    /// A name is missing or is not one.
    Name,
    /// A path segment is not a number from 1 to 65535.
    Segment,
    /// Claims need sessions, which this version does not have.
    Claim,
}

impl fmt::Display for InvalidExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => {
                "not a key; write one of header:NAME, query:NAME, cookie:NAME, path, path:N, method, host, client-ip"
            }
            Self::Name => "the name in this key is missing or has a character that no such name has",
            Self::Segment => "path:N takes the number of a path segment, from 1 to 65535",
            Self::Claim => "claim: keys are not there yet, as they need sessions",
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
            ("claim", Some(_)) => Err(InvalidExtractor::Claim),
            ("header" | "query" | "cookie", _) => Err(InvalidExtractor::Name),
            ("path", None) => Ok(Self::Path),
            ("method", None) => Ok(Self::Method),
            ("host", None) => Ok(Self::Host),
            ("client-ip", None) => Ok(Self::ClientIp),
            _ => Err(InvalidExtractor::Unknown),
        }
    }
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
            Self::ClientIp => f.write_str("client-ip"),
        }
    }
}

impl Extractor {
    /// Feeds this part of `facts` to `sink`: its bytes, or `None` when the call does not have it, so that "absent"
    /// and "empty" are different keys.
    pub fn feed(&self, facts: &Facts<'_>, mut sink: impl FnMut(Option<&[u8]>)) {
        match self {
            Self::Header(name) => {
                let mut values = facts.headers.get_all(name).iter().peekable();
                if values.peek().is_none() {
                    sink(None);
                }
                values.for_each(|value| sink(Some(value.as_bytes())));
            }
            Self::Query(name) => match facts.query.and_then(|query| parameter(query, name)) {
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
            Self::ClientIp => match facts.client {
                IpAddr::V4(ip) => sink(Some(&ip.octets())),
                IpAddr::V6(ip) => sink(Some(&subscriber(ip))),
            },
        }
    }
}

/// The /64 of an address, or the whole IPv4 address inside a mapped one.
fn subscriber(ip: Ipv6Addr) -> [u8; 8] {
    let mut bytes = [0; 8];
    match ip.to_ipv4_mapped() {
        Some(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        None => bytes.copy_from_slice(&ip.octets()[..8]),
    }
    bytes
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key.as_bytes()) == *name.as_bytes()).then_some(value)
    })
}

/// A form-encoded text as bytes: two spellings of one value are one key.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        out.push(match (byte, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => byte,
        });
    }
    Cow::Owned(out)
}

/// The value of a hexadecimal digit.
pub(crate) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(header::COOKIE).iter().find_map(|line| {
        line.as_bytes().split(|b| *b == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|b| *b == b'=')?;
            (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(extractor: &str, headers: &[(&str, &str)], client: &str) -> Vec<Option<String>> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let facts = Facts {
            method: &Method::GET,
            host: "API.example.com",
            path: "/orders/42",
            query: Some("a=1&user=J%6fe+D&empty="),
            headers: &map,
            client: client.parse().unwrap(),
        };
        let mut parts = Vec::new();
        extractor
            .parse::<Extractor>()
            .unwrap()
            .feed(&facts, |part| parts.push(part.map(|part| String::from_utf8_lossy(part).into_owned())));
        parts
    }

    fn some(text: &str) -> Vec<Option<String>> {
        vec![Some(text.into())]
    }

    #[test]
    fn each_extractor_reads_its_part() {
        let headers =
            [("x-api-key", "k1"), ("x-api-key", "k2"), ("cookie", "a=b; sid=abc=d"), ("x-empty", "")];
        let read = |extractor| parts(extractor, &headers, "192.0.2.1");
        assert_eq!(read("header:X-Api-Key"), [Some("k1".into()), Some("k2".into())]);
        assert_eq!(read("header:x-empty"), some(""));
        assert_eq!(read("header:x-none"), [None]);
        assert_eq!(read("query:user"), some("Joe D"));
        assert_eq!(read("query:empty"), some(""));
        assert_eq!(read("query:none"), [None]);
        assert_eq!(read("cookie:sid"), some("abc=d"));
        assert_eq!(read("cookie:none"), [None]);
        assert_eq!(read("path"), some("/orders/42"));
        assert_eq!(read("path:1"), some("orders"));
        assert_eq!(read("path:2"), some("42"));
        assert_eq!(read("path:3"), [None]);
        assert_eq!(read("method"), some("GET"));
        assert_eq!(read("host"), some("api.example.com"));
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_key() {
        let key = |client| parts("client-ip", &[], client);
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn what_is_no_extractor_says_why() {
        for (text, why) in [
            ("", InvalidExtractor::Unknown),
            ("ip", InvalidExtractor::Unknown),
            ("method:GET", InvalidExtractor::Unknown),
            ("header", InvalidExtractor::Name),
            ("header:", InvalidExtractor::Name),
            ("header:a b", InvalidExtractor::Name),
            ("query:", InvalidExtractor::Name),
            ("cookie:a;b", InvalidExtractor::Name),
            ("path:0", InvalidExtractor::Segment),
            ("path:x", InvalidExtractor::Segment),
            ("claim:sub", InvalidExtractor::Claim),
        ] {
            assert_eq!(text.parse::<Extractor>(), Err(why), "{text}");
        }
    }

    #[test]
    fn broken_percent_encoding_is_taken_as_it_stands() {
        assert_eq!(&*decoded(b"100%"), b"100%");
        assert_eq!(&*decoded(b"%zz%4"), b"%zz%4");
        assert_eq!(&*decoded(b"%41+b"), b"A b");
    }
}
