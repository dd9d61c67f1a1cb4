//! Which route a call takes: of all that match, the most specific.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    config,
    proxy::target::{normalised, read_generously, spelt_out},
};

/// What a call must look like to take a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    host: Host,
    /// Without a trailing slash; empty matches every path.
    path: String,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Every host that ends in this suffix, which begins with a dot.
    Below(String),
    Exact(String),
}

/// Why a match can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMatch {
    /// The host has a port, a scheme, a path or a `*` that does not stand for the first label.
    #[error("not a host; write a name like api.example.com, or *.example.com for every host below it")]
    Host,
    /// The path does not begin with a slash, or has a query, a fragment or dot segments.
    #[error(
        "not a path prefix; write one that begins with a slash, like /orders, without query or dot segments"
    )]
    Path,
    /// The method is no token.
    #[error("not a method; write one like GET or POST")]
    Method,
    /// The header has no valid name.
    #[error("not a header name; write one like x-api-version")]
    HeaderName,
    /// The header's value has a character that no value may have.
    #[error("not a header value; it has a control character")]
    HeaderValue,
}

impl Matcher {
    /// Reads a match.
    ///
    /// # Errors
    /// [`InvalidMatch`] says which part can not be read; use [`Matcher::parse_host`] and its siblings to find all.
    pub fn new(config: &config::Match) -> Result<Self, InvalidMatch> {
        let mut methods =
            config.methods.iter().map(|method| Self::parse_method(method)).collect::<Result<Vec<_>, _>>()?;
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        Ok(Self {
            host: config.host.as_deref().map_or(Ok(Host::Any), parse_host)?,
            path: config.path.as_deref().map_or(Ok(String::new()), parse_path)?,
            methods,
            headers: config
                .headers
                .iter()
                .map(|(name, value)| Self::parse_header(name, value))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Checks a host pattern.
    ///
    /// # Errors
    /// [`InvalidMatch::Host`].
    pub fn parse_host(text: &str) -> Result<(), InvalidMatch> {
        parse_host(text).map(drop)
    }

    /// Checks a path prefix.
    ///
    /// # Errors
    /// [`InvalidMatch::Path`].
    pub fn parse_path(text: &str) -> Result<(), InvalidMatch> {
        parse_path(text).map(drop)
    }

    /// Reads a method.
    ///
    /// # Errors
    /// [`InvalidMatch::Method`].
    pub fn parse_method(text: &str) -> Result<Method, InvalidMatch> {
        Method::from_bytes(text.as_bytes()).map_err(|_| InvalidMatch::Method)
    }

    /// Reads a header and the value it must have.
    ///
    /// # Errors
    /// [`InvalidMatch::HeaderName`] or [`InvalidMatch::HeaderValue`].
    pub fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), InvalidMatch> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| InvalidMatch::HeaderName)?;
        let value = HeaderValue::from_str(value).map_err(|_| InvalidMatch::HeaderValue)?;
        Ok((name, value))
    }

    /// How specific this match is; of two that match, the greater wins, and of equals the one that stands first.
    fn specificity(&self) -> impl Ord + use<> {
        let host = match &self.host {
            Host::Any => (0, 0),
            Host::Below(suffix) => (1, suffix.len()),
            Host::Exact(_) => (2, 0),
        };
        (host, self.path.len(), !self.methods.is_empty(), self.headers.len())
    }

    /// Whether every call that takes `other` would match this as well.
    pub fn covers(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (Host::Any, _) => true,
            (Host::Below(mine), Host::Below(theirs) | Host::Exact(theirs)) => theirs.ends_with(mine.as_str()),
            (Host::Exact(mine), Host::Exact(theirs)) => mine == theirs,
            (Host::Below(_), Host::Any) | (Host::Exact(_), Host::Any | Host::Below(_)) => false,
        };
        host && begins_with(&other.path, &self.path)
            && (self.methods.is_empty()
                || !other.methods.is_empty()
                    && other.methods.iter().all(|method| self.methods.contains(method)))
            && self.headers.iter().all(|header| other.headers.contains(header))
    }

    /// Whether this match is tried before `other`, which stands after it in the file.
    pub fn precedes(&self, other: &Self) -> bool {
        self.specificity() >= other.specificity()
    }

    fn matches(&self, path: &str, method: &Method, headers: &HeaderMap) -> bool {
        begins_with(path, &self.path)
            && (self.methods.is_empty() || self.methods.contains(method))
            && self
                .headers
                .iter()
                .all(|(name, value)| headers.get_all(name).iter().any(|given| given == value))
    }
}

/// Whether `path` is `prefix` or lies below it, on a segment border.
fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn parse_host(text: &str) -> Result<Host, InvalidMatch> {
    let (below, name) = match text.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => (true, &suffix[1..]),
        Some(_) => return Err(InvalidMatch::Host),
        None => (false, text),
    };
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let valid = match bracketed {
        Some(ip) => !below && ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.split('.').all(|label| {
                    !label.is_empty()
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                })
        }
    };
    let name = name.to_ascii_lowercase();
    match (valid, below) {
        (false, _) => Err(InvalidMatch::Host),
        (true, true) => Ok(Host::Below(format!(".{name}"))),
        (true, false) => Ok(Host::Exact(name)),
    }
}

fn parse_path(text: &str) -> Result<String, InvalidMatch> {
    let printable = text.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
    let text = &*spelt_out(text);
    match normalised(text) {
        Some(Cow::Borrowed(path)) if printable && path.starts_with('/') => {
            Ok(path.trim_end_matches('/').into())
        }
        _ => Err(InvalidMatch::Path),
    }
}

/// The routes of one configuration, most specific first within each kind of host.
#[derive(Debug)]
pub struct Routes<T> {
    exact: HashMap<String, Vec<(Matcher, T)>>,
    /// Longest suffix first.
    below: Vec<(Matcher, T)>,
    any: Vec<(Matcher, T)>,
}

impl<T> Routes<T> {
    /// Arranges `routes`, which stand in the order of the file.
    pub fn new(routes: impl IntoIterator<Item = (Matcher, T)>) -> Self {
        let mut table = Self { exact: HashMap::new(), below: Vec::new(), any: Vec::new() };
        for (matcher, route) in routes {
            match &matcher.host {
                Host::Exact(host) => table.exact.entry(host.clone()).or_default(),
                Host::Below(_) => &mut table.below,
                Host::Any => &mut table.any,
            }
            .push((matcher, route));
        }
        for routes in table.exact.values_mut().chain([&mut table.below, &mut table.any]) {
            routes.sort_by_key(|(matcher, _)| Reverse(matcher.specificity()));
        }
        table
    }

    /// Finds the most specific route that matches. `host` is without port, `path` normalised.
    pub fn find(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Option<&T> {
        self.entry(host, path, method, headers).map(|(_, route)| route)
    }

    /// As [`Self::find`], unless a server that reads more into the path (`%2f`, `//`, `;x`) would take it for one of
    /// another route: a guard of that route must not be passed by a way to write its path.
    ///
    /// # Errors
    /// [`Miss`].
    pub fn find_for_all(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<&T, Miss> {
        let (matcher, route) = self.entry(host, path, method, headers).ok_or(Miss::NoRoute)?;
        let read = match read_generously(path) {
            Some(Cow::Borrowed(_)) => return Ok(route),
            Some(Cow::Owned(read)) => read,
            None => return Err(Miss::Unclear),
        };
        // Who writes such a path into a configuration means it.
        let plain = matches!(read_generously(&matcher.path), Some(Cow::Borrowed(_)));
        match self.entry(host, &read, method, headers) {
            Some((_, other)) if std::ptr::eq(other, route) => Ok(route),
            _ if !plain => Ok(route),
            Some(_) | None => Err(Miss::Unclear),
        }
    }

    fn entry(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Option<&(Matcher, T)> {
        let host = lower_case(host);
        let exact = (!self.exact.is_empty()).then(|| self.exact.get(&*host)).flatten();
        let below = self.below.iter().filter(|(matcher, _)| match &matcher.host {
            Host::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Host::Exact(_) | Host::Any => false,
        });
        exact
            .into_iter()
            .flatten()
            .chain(below)
            .chain(&self.any)
            .find(|(matcher, _)| matcher.matches(path, method, headers))
    }
}

/// Why a call takes no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// None matches.
    NoRoute,
    /// Its path is of one route to one reader, and of another to another.
    Unclear,
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn matcher(host: &str, path: &str, methods: &[&str], headers: &[(&str, &str)]) -> Matcher {
        Matcher::new(&config::Match {
            host: (!host.is_empty()).then(|| host.into()),
            path: (!path.is_empty()).then(|| path.into()),
            methods: methods.iter().map(|method| (*method).into()).collect(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect::<BTreeMap<_, _>>(),
        })
        .unwrap()
    }

    fn found(routes: &[(Matcher, u32)], host: &str, path: &str) -> Option<u32> {
        let routes = Routes::new(routes.iter().cloned());
        routes.find(host, path, &Method::GET, &HeaderMap::new()).copied()
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        let routes = [
            (matcher("", "", &[], &[]), 0),
            (matcher("", "/orders", &[], &[]), 1),
            (matcher("*.example.com", "", &[], &[]), 2),
            (matcher("*.eu.example.com", "", &[], &[]), 3),
            (matcher("api.example.com", "", &[], &[]), 4),
            (matcher("api.example.com", "/orders/new", &[], &[]), 5),
            (matcher("api.example.com", "/orders", &["GET"], &[]), 6),
            (matcher("api.example.com", "/orders", &[], &[]), 7),
        ];
        for (host, path, route) in [
            ("other.org", "/", 0),
            ("other.org", "/orders", 1),
            ("www.example.com", "/orders", 2),
            ("a.eu.example.com", "/", 3),
            ("API.Example.com", "/", 4),
            ("api.example.com", "/orders/new/1", 5),
            ("api.example.com", "/orders/newest", 6),
            ("api.example.com", "/ordersx", 4),
            ("example.com", "/", 0),
        ] {
            assert_eq!(found(&routes, host, path), Some(route), "{host}{path}");
        }
        let reversed: Vec<_> = routes.iter().rev().cloned().collect();
        assert_eq!(found(&reversed, "api.example.com", "/orders/1"), Some(6));
    }

    #[test]
    fn a_less_specific_host_serves_the_paths_that_the_specific_one_does_not_name() {
        let routes =
            [(matcher("", "/health", &[], &[]), 0), (matcher("api.example.com", "/orders", &[], &[]), 1)];
        assert_eq!(found(&routes, "api.example.com", "/health"), Some(0));
        assert_eq!(found(&routes, "api.example.com", "/other"), None);
    }

    #[test]
    fn a_path_that_others_would_take_for_another_routes_takes_none() {
        let routes =
            [matcher("", "", &[], &[]), matcher("", "/admin", &[], &[]), matcher("", "/a%2Fb", &[], &[])];
        let routes = Routes::new(routes.into_iter().zip(0..));
        let found = |path| routes.find_for_all("h", path, &Method::GET, &HeaderMap::new()).copied();
        for path in ["/admin%2fx", "//admin", "/admin;x", "/a/..%2fadmin", "/admin/..%2fx", "/..%2fx"] {
            assert_eq!(found(path), Err(Miss::Unclear), "{path}");
        }
        for (path, route) in [("/a%2fb", 0), ("/a//b", 0), ("/admin//x;y", 1), ("/a%2Fb/c", 2), ("/%20", 0)] {
            assert_eq!(found(path), Ok(route), "{path}");
        }
        let some = Routes::new([(matcher("", "/a", &[], &[]), ())]);
        let missed = |path| some.find_for_all("h", path, &Method::GET, &HeaderMap::new());
        assert_eq!((missed("/b"), missed("/a/..%2fb")), (Err(Miss::NoRoute), Err(Miss::Unclear)));
    }

    #[test]
    fn methods_and_headers_must_all_match() {
        let routes = Routes::new([(matcher("", "", &["POST"], &[("x-v", "2")]), 0)]);
        let mut headers = HeaderMap::new();
        assert_eq!(routes.find("h", "/", &Method::POST, &headers), None);
        headers.append("x-v", HeaderValue::from_static("1"));
        headers.append("x-v", HeaderValue::from_static("2"));
        assert_eq!(routes.find("h", "/", &Method::POST, &headers), Some(&0));
        assert_eq!(routes.find("h", "/", &Method::GET, &headers), None);
    }

    #[test]
    fn a_route_that_an_earlier_one_covers_is_known() {
        let all = matcher("", "", &[], &[]);
        let get = matcher("", "/a", &["GET"], &[]);
        let both = matcher("", "/a", &["GET", "POST"], &[]);
        assert!(all.covers(&get) && both.covers(&get) && !get.covers(&both) && !get.covers(&all));
        assert!(both.precedes(&get) && !all.precedes(&get));
        let below = matcher("*.example.com", "", &[], &[]);
        assert!(below.covers(&matcher("a.example.com", "", &[], &[])));
        assert!(!below.covers(&matcher("example.com", "", &[], &[])));
        assert!(!matcher("", "/a", &[], &[]).covers(&matcher("", "/ab", &[], &[])));
    }

    #[test]
    fn what_is_no_host_or_path_is_refused() {
        for host in ["", "*", "*example.com", "a.*.com", "http://a", "a:80", "a/b", "a..b", "[::1", "*.[::1]"]
        {
            assert_eq!(Matcher::parse_host(host), Err(InvalidMatch::Host), "{host}");
        }
        assert_eq!(Matcher::parse_host("[::1]"), Ok(()));
        for path in ["", "orders", "/a?b", "/a#b", "/a/../b", "/a b"] {
            assert_eq!(Matcher::parse_path(path), Err(InvalidMatch::Path), "{path}");
        }
    }
}
