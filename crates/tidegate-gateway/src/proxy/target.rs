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

/// A path as it is meant: what need not be written as `%61` is not (RFC 3986 §6.2.2), and there are no dot segments
/// (§5.2.4). So no call reaches behind a prefix that it matched, and no spelling has a counter of its own.
///
/// `None` when the path climbs above its root.
pub fn normalised(path: &str) -> Option<Cow<'_, str>> {
    match spelt_out(path) {
        Cow::Borrowed(path) => without_dots(path),
        Cow::Owned(path) => without_dots(&path).map(|path| Cow::Owned(path.into_owned())),
    }
}

/// A path in which letters, digits and `-._~` stand for themselves.
pub(crate) fn spelt_out(path: &str) -> Cow<'_, str> {
    if !path.as_bytes().windows(3).any(|escape| needless(escape).is_some()) {
        return Cow::Borrowed(path);
    }
    let mut plain = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        plain.push(byte);
        // What was spelt out may complete what was broken before: `%%36%31`.
        while let Some(at) = plain.len().checked_sub(3)
            && let Some(byte) = needless(&plain[at..])
        {
            plain.truncate(at);
            plain.push(byte);
        }
    }
    Cow::Owned(String::from_utf8(plain).expect("ASCII takes the place of ASCII"))
}

/// What an escape at the beginning stands for, if that needs none.
fn needless(escape: &[u8]) -> Option<u8> {
    decoded(escape).filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte))
}

/// The byte that an escape at the beginning stands for.
fn decoded(escape: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = escape else { return None };
    Some(hex(*high)? << 4 | hex(*low)?)
}

fn without_dots(path: &str) -> Option<Cow<'_, str>> {
    if !path.split('/').any(|segment| segment.starts_with('.')) {
        return Some(Cow::Borrowed(path));
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').peekable();
    let mut changed = false;
    segments.next();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => {
                kept.pop()?;
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        changed = true;
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    if changed { Some(Cow::Owned(format!("/{}", kept.join("/")))) } else { Some(Cow::Borrowed(path)) }
}

/// A normalised path as the most generous of servers reads it: every escape decoded, a backslash taken for a slash, empty
/// segments and parameters (`;x`) left out, and nothing behind what may end a path. Borrowed: nobody reads it otherwise.
///
/// `None` when it then climbs above its root.
pub(crate) fn read_generously(path: &str) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    let odd = |pair: &[u8]| matches!(pair[0], b'%' | b'\\' | b';') || pair == b"//";
    if !bytes.windows(2).any(odd) && !matches!(bytes.last(), Some(b'%' | b'\\' | b';')) {
        return Some(Cow::Borrowed(path));
    }
    let mut read = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let (byte, next) = decoded(rest).map_or((*first, after), |byte| (byte, &rest[3..]));
        match byte {
            b'?' | b'#' | 0 => break,
            b'\\' => read.push(b'/'),
            _ => read.push(byte),
        }
        rest = next;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in read.split(|b| *b == b'/') {
        match segment.split(|b| *b == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => {
                kept.pop()?;
            }
            segment => kept.push(segment),
        }
    }
    Some(Cow::Owned(format!("/{}", String::from_utf8_lossy(&kept.join(&b'/')))))
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
            ("/%61dmin%2Fx", Some("/admin%2Fx")),
            ("/%7e%2d%5F%30%41", Some("/~-_0A")),
            ("/%20%c3%A9%", Some("/%20%c3%A9%")),
            ("/100%/%2", Some("/100%/%2")),
            ("/%%36%31", Some("/a")),
            ("/x%252e", Some("/x%252e")),
        ] {
            assert_eq!(normalised(path).as_deref(), normal, "{path}");
        }
        // Each escape completes the one before it: passing over the path again for each would cost the square of its length.
        let nested = format!("/{}%36", "%3".repeat(100_000));
        assert_eq!(normalised(&nested).as_deref(), Some("/6"));
    }

    #[test]
    fn a_generous_server_reads_more_into_a_path() {
        for (path, read) in [
            ("/a/b", Some("/a/b")),
            ("/a%2fb", Some("/a/b")),
            ("/a/..%2Fb", Some("/b")),
            ("/a/..%5cb", Some("/b")),
            ("/a/..;x=1/b", Some("/b")),
            ("//a///b", Some("/a/b")),
            ("/a;x/b;", Some("/a/b")),
            ("/a%3Fb", Some("/a")),
            ("/a%00b", Some("/a")),
            ("/a%", Some("/a%")),
            ("/..%2f", None),
        ] {
            assert_eq!(read_generously(path).as_deref(), read, "{path}");
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
