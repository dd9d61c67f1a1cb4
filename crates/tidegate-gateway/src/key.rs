//! What a limit counts per: parts of a call, read in place and fed to a hash. Nothing is stored or copied.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

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
    /// The client's address by its network: IPv4 whole and IPv6 by its /64, which is what one subscriber holds, unless
    /// the key says otherwise.
    ClientIp(Networks),
    /// A claim of the user who is logged in.
    Claim(String),
}

/// How many leading bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Networks {
    v4: u8,
    v6: u8,
}

impl Default for Networks {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
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

impl Extractor {
    /// Feeds this part of `facts` to `sink`: its bytes, or `None` when the call does not have it, so that "absent"
    /// and "empty" are different keys.
    pub fn feed(&self, facts: &Facts<'_>, mut sink: impl FnMut(Option<&[u8]>)) {
        match self {
            Self::Header(name) => sink(facts.headers.get(name).map(HeaderValue::as_bytes)),
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

    /// The header field that this part is read from, which a call may have only once.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Query(_)
            | Self::Cookie(_)
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

impl Networks {
    /// Feeds the network of an address: of a different length for each family, so that no IPv4 network is an IPv6 one.
    fn feed(self, address: IpAddr, mut sink: impl FnMut(Option<&[u8]>)) {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let network = ip.to_bits() & u32::MAX.unbounded_shl(32 - u32::from(self.v4));
                sink(Some(&network.to_be_bytes()));
            }
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & u128::MAX.unbounded_shl(128 - u32::from(self.v6));
                sink(Some(&network.to_be_bytes()));
            }
        }
    }
}

impl FromStr for Networks {
    type Err = InvalidExtractor;

    /// Reads `24`, `48` or `24/48`: a length up to 32 alone is that of IPv4, a longer one that of IPv6.
    fn from_str(text: &str) -> Result<Self, InvalidExtractor> {
        let length = |text: &str| match text.parse() {
            Ok(length @ 1_u8..=128) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(length),
            _ => Err(InvalidExtractor::Network),
        };
        let networks = match text.split_once('/') {
            Some((v4, v6)) => Self { v4: length(v4)?, v6: length(v6)? },
            None => match length(text)? {
                v4 @ 0..=32 => Self { v4, ..Self::default() },
                v6 => Self { v6, ..Self::default() },
            },
        };
        if networks.v4 > 32 { Err(InvalidExtractor::Network) } else { Ok(networks) }
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key.as_bytes()) == *name.as_bytes()).then_some(value)
    })
}

/// A form-encoded text as bytes: two spellings of one value are one key.
pub(crate) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
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
            user: None,
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
        let headers = [("x-api-key", "k1"), ("cookie", "a=b; sid=abc=d"), ("x-empty", "")];
        let read = |extractor| parts(extractor, &headers, "192.0.2.1");
        assert_eq!(read("header:X-Api-Key"), some("k1"));
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
    fn a_claim_is_that_of_the_user_and_absent_where_nobody_is_logged_in() {
        let user = Claims::read(r#"{"sub":"ann","https://x/roles":["a","b"],"address":{}}"#);
        let part = |extractor: &str, user| {
            let facts = Facts {
                method: &Method::GET,
                host: "h",
                path: "/",
                query: None,
                headers: &HeaderMap::new(),
                client: IpAddr::from([127, 0, 0, 1]),
                user,
            };
            let mut fed = None;
            extractor.parse::<Extractor>().unwrap().feed(&facts, |part| fed = part.map(<[u8]>::to_vec));
            fed
        };
        assert_eq!(part("claim:sub", Some(&user)).as_deref(), Some(&b"ann"[..]));
        assert_eq!(part("claim:https://x/roles", Some(&user)).as_deref(), Some(&b"a,b"[..]));
        assert_eq!(part("claim:address", Some(&user)), None);
        assert_eq!(part("claim:email", Some(&user)), None);
        assert_eq!(part("claim:sub", None), None);
        assert_eq!("claim:sub".parse::<Extractor>().unwrap().to_string(), "claim:sub");
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_key() {
        let key = |client| parts("client-ip", &[], client);
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn what_an_operator_writes_is_the_key_of_the_calls_that_have_it() {
        let headers = [("x-api-key", "k1"), ("cookie", "sid=abc")];
        for (extractor, value) in [
            ("header:x-api-key", "k1"),
            ("query:user", "Joe D"),
            ("cookie:sid", "abc"),
            ("path", "/orders/42"),
            ("path:2", "42"),
            ("method", "GET"),
            ("host", "API.example.com"),
            ("client-ip", "192.0.2.7"),
            ("client-ip/24", "192.0.2.0/24"),
            ("client-ip", "::ffff:192.0.2.7"),
        ] {
            let mut fed = Vec::new();
            let parsed: Extractor = extractor.parse().unwrap();
            let feed =
                |part: Option<&[u8]>| fed.push(part.map(|part| String::from_utf8_lossy(part).into_owned()));
            parsed.feed_value(value, feed).unwrap();
            assert_eq!(fed, parts(extractor, &headers, "192.0.2.7"), "{extractor}");
        }
        let client: Extractor = "client-ip".parse().unwrap();
        assert!(client.feed_value("localhost", |_| ()).is_err());
    }

    #[test]
    fn a_network_is_one_key_for_each_family() {
        let same = |extractor, a, b| parts(extractor, &[], a) == parts(extractor, &[], b);
        assert!(
            same("client-ip/24", "192.0.2.1", "192.0.2.200")
                && !same("client-ip/24", "192.0.2.1", "192.0.3.1")
        );
        assert!(same("client-ip/24", "::ffff:192.0.2.1", "192.0.2.200"), "a mapped address is an IPv4 one");
        assert!(!same("client-ip/24", "2001:db8::1", "2001:db8:0:1::1"), "IPv6 stays by its /64");
        assert!(same("client-ip/48", "2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("client-ip/48", "192.0.2.1", "192.0.2.2"), "IPv4 stays whole");
        assert!(same("client-ip/8/32", "10.1.1.1", "10.2.2.2"));
        assert!(same("client-ip/8/32", "2001:db8:1::1", "2001:db8:2::1"));
        assert!(!same("client-ip/128", "2001:db8::1", "2001:db8::2"));
        assert_eq!("client-ip/24".parse::<Extractor>().unwrap().to_string(), "client-ip/24/64");
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
            ("client-ip/", InvalidExtractor::Network),
            ("client-ip/0", InvalidExtractor::Network),
            ("client-ip/+8", InvalidExtractor::Network),
            ("client-ip/129", InvalidExtractor::Network),
            ("client-ip/48/24", InvalidExtractor::Network),
            ("client-ip/24:x", InvalidExtractor::Unknown),
            ("claim", InvalidExtractor::Name),
            ("claim:", InvalidExtractor::Name),
            ("claim:a b", InvalidExtractor::Name),
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
