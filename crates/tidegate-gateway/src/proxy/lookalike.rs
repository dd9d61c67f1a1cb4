//! Header fields that only look like others: what stands behind CGI, WSGI or PHP reads `X_User` as `X-User`.

use http::{HeaderMap, HeaderName};

/// Removes fields that would be `ours` with dashes in place of underscores: only we say what stands in those.
pub fn strip(headers: &mut HeaderMap, ours: impl Fn(&str) -> bool) {
    // Nearly no call has one.
    if !headers.keys().any(is_odd) {
        return;
    }
    let looks = |name: &&HeaderName| is_odd(name) && ours(&name.as_str().replace('_', "-"));
    let listed: Vec<HeaderName> = headers.keys().filter(looks).cloned().collect();
    for name in listed {
        headers.remove(name);
    }
}

fn is_odd(name: &HeaderName) -> bool {
    name.as_str().bytes().any(|b| b == b'_')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_looks_like_ours_goes() {
        let mut headers = HeaderMap::new();
        for name in ["x_user", "x-user", "x_user-name", "x_other", "x_user_"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        strip(&mut headers, |name| name == "x-user" || name == "x-user-name");
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-user", "x_other", "x_user_"]);
    }
}
