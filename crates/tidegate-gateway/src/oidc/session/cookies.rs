//! The cookies of a session: an id that means nothing by itself, and one for each login under way.

use http::{HeaderMap, HeaderValue, header};

/// Longest value of a cookie that is looked at. Default: 4 KiB.
const MOST_BYTES: usize = 4 << 10;

/// How cookies are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// Browsers send them over TLS only.
    Secure,
    /// For tests over plain HTTP on loopback.
    Plain,
}

/// The value of a cookie. Of two with one name none is taken: a subdomain may have planted one of them.
pub(super) fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut found = pairs(headers).filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value);
    let value = found.next()?;
    let fits = found.next().is_none() && value.len() <= MOST_BYTES;
    std::str::from_utf8(value).ok().filter(|_| fits)
}

/// The names of cookies that begin with `prefix`, in the order in which the browser sends them: older ones first.
pub(super) fn names<'h>(headers: &'h HeaderMap, prefix: &'h str) -> impl Iterator<Item = &'h str> {
    let ours = |name: &&[u8]| name.starts_with(prefix.as_bytes());
    pairs(headers).map(|(name, _)| name).filter(ours).filter_map(|name| std::str::from_utf8(name).ok())
}

/// All cookies, as bytes: pages of other makers set values that are no text, and the browser sends them beside ours.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|b| *b == b';')).filter_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
    })
}

/// Takes out the cookie `name` and those whose names begin with `prefix`: they are between the browser and us.
pub(super) fn strip(headers: &mut HeaderMap, name: &str, prefix: &str) {
    let ours = |pair: &&[u8]| is_named(pair, name, prefix);
    let pairs = |line: &HeaderValue| line.as_bytes().split(|b| *b == b';').any(|pair| ours(&pair));
    if !headers.get_all(header::COOKIE).iter().any(pairs) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for line in lines {
        let pairs = line.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let kept: Vec<&[u8]> = pairs.filter(|pair| !ours(pair)).collect();
        if !kept.is_empty()
            && let Ok(kept) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
        {
            headers.append(header::COOKIE, kept);
        }
    }
}

/// Takes out of an answer what sets these cookies: only we give out sessions, and who could set one could have a user work
/// in somebody else's.
pub(super) fn keep_own(headers: &mut HeaderMap, name: &str, prefix: &str) {
    let ours = |line: &HeaderValue| is_named(line.as_bytes(), name, prefix);
    if !headers.get_all(header::SET_COOKIE).iter().any(ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for line in lines.into_iter().filter(|line| !ours(line)) {
        headers.append(header::SET_COOKIE, line);
    }
}

/// Whether a pair is of the cookie `name` or of one whose name begins with `prefix`. Without a name a browser sends the
/// value alone, which then reads like a pair.
fn is_named(pair: &[u8], name: &str, prefix: &str) -> bool {
    let mut parts = pair.split(|b| matches!(b, b'=' | b';')).map(<[u8]>::trim_ascii);
    let known = parts.find(|part| !part.is_empty()).unwrap_or_default();
    known == name.as_bytes() || known.starts_with(prefix.as_bytes())
}

/// A cookie for `seconds`; 0 takes it away.
pub(super) fn set(name: &str, value: &str, seconds: u64, marked: Marked) -> HeaderValue {
    let secure = if marked == Marked::Secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut cookie = HeaderValue::try_from(text).expect("names and values of cookies are visible ASCII");
    cookie.set_sensitive(true);
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn a_cookie_is_found_and_one_that_is_there_twice_is_not() {
        let all = headers(&["a=1; __Host-t=x=y", "b=2"]);
        assert_eq!(value(&all, "__Host-t"), Some("x=y"));
        assert_eq!(value(&all, "b"), Some("2"));
        assert_eq!(value(&all, "c"), None);
        assert_eq!(value(&headers(&["t=1; t=2"]), "t"), None);
        assert_eq!(names(&all, "__Host-").collect::<Vec<_>>(), ["__Host-t"]);
    }

    #[test]
    fn our_cookies_do_not_reach_an_upstream_and_others_do() {
        let mut all = headers(&["a=1; t=secret; b=2", "t-login-1=secret", "c=3; tt=4"]);
        strip(&mut all, "t", "t-login-");
        let left: Vec<_> = all.get_all(header::COOKIE).iter().collect();
        assert_eq!(left, ["a=1; b=2", "c=3; tt=4"]);
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing() {
        let line = HeaderValue::from_bytes(b"a=\xff; t=secret; \xe9=1").unwrap();
        let mut all = HeaderMap::from_iter([(header::COOKIE, line)]);
        assert_eq!(value(&all, "t"), Some("secret"));
        strip(&mut all, "t", "t-login-");
        assert_eq!(all[header::COOKIE].as_bytes(), b"a=\xff; \xe9=1");
    }

    #[test]
    fn only_we_set_our_cookies() {
        let mut answer = HeaderMap::new();
        for line in ["t=x; Path=/", "=t=x", "tt=1", " t-login-1 = x", "a=t=1", "b=2; t=3"] {
            answer.append(header::SET_COOKIE, HeaderValue::from_static(line));
        }
        keep_own(&mut answer, "t", "t-login-");
        let left: Vec<_> = answer.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(left, ["tt=1", "a=t=1", "b=2; t=3"]);
    }
}
