//! What a request is for: one host, and a path that means what it says.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{HeaderValue, Request, Uri, Version, header, uri::PathAndQuery};

use crate::{key::hex, refusal::Cause};

/// The authority that the client named: one, and only one (RFC 9112 §3.2).
///
/// # Errors
/// When the request names none, several, or what is none.
pub(crate) fn host<B>(request: &Request<B>) -> Result<HeaderValue, Cause> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = named.next();
    if named.next().is_some() {
        return Err(Cause::BadRequest("the request names more than one host"));
    }
    let no_host = Cause::BadRequest("the request's host is none; write a name or an address, and a port");
    match (request.uri().authority(), host) {
        (Some(authority), _) if is_host(authority.as_str()) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| no_host)
        }
        (None, Some(host)) if host.to_str().is_ok_and(is_host) => Ok(host.clone()),
        (Some(_), _) | (None, Some(_)) => Err(no_host),
        (None, None) if request.version() == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        (None, None) => Err(Cause::BadRequest("the request names no host")),
    }
}

/// Whether a text is a host with or without a port (RFC 9110 §7.2): no user, and nothing that another reader could
/// take for the end of the host.
fn is_host(text: &str) -> bool {
    let (is_name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, port)) => {
            (ip.parse::<Ipv6Addr>().is_ok(), port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => {
            let (name, port) = text.split_once(':').unwrap_or((text, ""));
            (name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b)), Some(port))
        }
    };
    is_name && port.is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Reduces the target to a path without dot segments, which is what routes match and upstreams get.
///
/// # Errors
/// When the path climbs above its root.
pub(crate) fn normalise<B>(request: &mut Request<B>) -> Result<(), Cause> {
    let uri = request.uri();
    let path = normalised(uri.path()).ok_or(Cause::BadRequest("the path climbs above its root"))?;
    let target = match (path, uri.query()) {
        (Cow::Borrowed(_), _) if uri.authority().is_none() => return Ok(()),
        (Cow::Borrowed(_), _) => uri.path_and_query().cloned(),
        (Cow::Owned(path), None) => PathAndQuery::try_from(path).ok(),
        (Cow::Owned(path), Some(query)) => PathAndQuery::try_from(format!("{path}?{query}")).ok(),
    };
    *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Ok(())
}

/// The host of an authority: without user and port, brackets kept.
pub fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Removes dot segments (RFC 3986 §5.2.4), encoded ones too, so that no call reaches behind a prefix it matched.
///
/// `None` when the path climbs above its root.
pub fn normalised(path: &str) -> Option<Cow<'_, str>> {
    let suspicious = |segment: &str| segment.starts_with('.') || segment.starts_with("%2");
    if !path.split('/').any(suspicious) {
        return Some(Cow::Borrowed(path));
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').peekable();
    let mut changed = false;
    segments.next();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment) {
            Some(1) => changed = true,
            Some(_) => {
                changed = true;
                kept.pop()?;
            }
            None => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    if changed { Some(Cow::Owned(format!("/{}", kept.join("/")))) } else { Some(Cow::Borrowed(path)) }
}

/// How many dots a dot segment has; none when it is another segment.
fn dots(segment: &str) -> Option<usize> {
    let bytes = segment.as_bytes();
    let (mut at, mut dots) = (0, 0);
    while at < bytes.len() {
        at += match &bytes[at..] {
            [b'.', ..] => 1,
            [b'%', high, low, ..] if hex(*high) == Some(2) && hex(*low) == Some(14) => 3,
            _ => return None,
        };
        dots += 1;
    }
    (dots == 1 || dots == 2).then_some(dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_reaches_behind_its_prefix() {
        for (path, normal) in [
            ("/a/b", Some("/a/b")),
            ("/a/./b", Some("/a/b")),
            ("/public/../admin", Some("/admin")),
            ("/public/%2e%2E/admin", Some("/admin")),
            ("/public/.%2e", Some("/")),
            ("/a/b/..", Some("/a/")),
            ("/a/.", Some("/a/")),
            ("/..", None),
            ("/a/../../b", None),
            ("/.well-known/x", Some("/.well-known/x")),
            ("/%2fx", Some("/%2fx")),
            ("/...", Some("/...")),
            ("/a//b", Some("/a//b")),
        ] {
            assert_eq!(normalised(path).as_deref(), normal, "{path}");
        }
    }

    #[test]
    fn hosts_lose_their_port() {
        for (authority, host) in
            [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("u:p@a:1", "a")]
        {
            assert_eq!(host_of(authority), host);
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        for host in ["", "a", "a.b:80", "a_b", "192.0.2.1:1", "[::1]", "[::1]:8080", "a:"] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "u@a", "u:p@a", "a b", "a/b", "a?b", "a#b", "a\\b", "a\tb", "a:80:81", "a:x", "a:123456", "[::1",
            "[x]", "[::1]x", "é", "a\"b", "<a>",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    fn request(uri: &str, hosts: &[&'static str]) -> Request<()> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
        }
        request
    }

    #[test]
    fn a_request_is_for_one_host() {
        assert_eq!(host(&request("/", &["a:80"])).unwrap(), "a:80");
        assert_eq!(
            host(&request("http://b/", &["a"])).unwrap(),
            "b",
            "an absolute target wins (RFC 9112 §3.2.2)"
        );
        assert!(matches!(host(&request("http://u@b/", &["b"])), Err(Cause::BadRequest(_))));
        assert!(matches!(host(&request("/", &["u@b"])), Err(Cause::BadRequest(_))));
        assert!(matches!(host(&request("/", &["a", "b"])), Err(Cause::BadRequest(_))));
        assert!(matches!(host(&request("/", &[])), Err(Cause::BadRequest(_))));
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(host(&old).unwrap(), "");
    }

    #[test]
    fn what_is_passed_on_has_no_dot_segments_and_keeps_its_query() {
        for (from, to) in [
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("http://h/a/./b", "/a/b"),
            ("http://h", "/"),
            ("/a?b", "/a?b"),
        ] {
            let mut request = request(from, &[]);
            normalise(&mut request).unwrap();
            assert_eq!(request.uri().to_string(), to, "{from}");
        }
        assert!(normalise(&mut request("/../a", &[])).is_err());
    }
}
