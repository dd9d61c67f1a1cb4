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
    let mut found = pairs(headers).filter(|(known, _)| *known == name).map(|(_, value)| value);
    let value = found.next()?;
    (found.next().is_none() && value.len() <= MOST_BYTES).then_some(value)
}

/// The names of cookies that begin with `prefix`.
pub(super) fn names<'h>(headers: &'h HeaderMap, prefix: &'h str) -> impl Iterator<Item = &'h str> {
    pairs(headers).map(|(name, _)| name).filter(move |name| name.starts_with(prefix))
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

/// Takes out the cookie `name` and those whose names begin with `prefix`: they are between the browser and us.
pub(super) fn strip(headers: &mut HeaderMap, name: &str, prefix: &str) {
    let ours = |pair: &str| {
        let known = pair.split('=').next().unwrap_or_default().trim();
        known == name || known.starts_with(prefix)
    };
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| line.to_str().is_ok_and(|line| line.split(';').any(ours))) {
        return;
    }
    headers.remove(header::COOKIE);
    for line in lines {
        // What is no text has no cookie of ours.
        let Ok(text) = line.to_str() else {
            headers.append(header::COOKIE, line);
            continue;
        };
        let kept: Vec<&str> = text.split(';').map(str::trim).filter(|pair| !ours(pair)).collect();
        if !kept.is_empty()
            && let Ok(kept) = HeaderValue::try_from(kept.join("; "))
        {
            headers.append(header::COOKIE, kept);
        }
    }
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
}
