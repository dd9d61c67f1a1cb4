//! Why a call does not go on to its upstream: whether its client is led to a login, or told that it needs one.

use http::{HeaderMap, Method, header};

use crate::oidc::service::Refused;

/// Why a call does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The user has to log in, and it is a page that the user looks at.
    Login,
    /// The user has to log in, and a program asks.
    Unauthorized,
    /// The user is on no list.
    Forbidden,
    /// It can not be told now.
    Refused(Refused),
}

impl Denied {
    /// What a call without a session is told: a browser that goes to a page is sent to log in, programs are not.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        if is_navigation(method, headers) { Self::Login } else { Self::Unauthorized }
    }
}

/// Whether somebody goes to a page: what is fetched for a page must not begin a login each.
pub(super) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if *method != Method::GET && *method != Method::HEAD {
        return false;
    }
    if text("x-requested-with").is_some() || headers.contains_key(header::UPGRADE) {
        return false;
    }
    match text("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => text("accept").is_some_and(|accept| accept.contains("text/html")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn pages_are_navigations_and_what_they_fetch_is_none() {
        for (method, fields, is) in [
            (Method::GET, &[("sec-fetch-mode", "navigate")][..], true),
            (Method::GET, &[("accept", "text/html,*/*")], true),
            (Method::GET, &[("accept", "*/*")], false),
            (Method::GET, &[], false),
            (Method::GET, &[("sec-fetch-mode", "cors"), ("accept", "text/html")], false),
            (Method::GET, &[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")], false),
            (Method::GET, &[("accept", "text/html"), ("upgrade", "websocket")], false),
            (Method::GET, &[("accept", "text/event-stream")], false),
            (Method::POST, &[("sec-fetch-mode", "navigate")], false),
            (Method::OPTIONS, &[("accept", "text/html")], false),
        ] {
            assert_eq!(is_navigation(&method, &headers(fields)), is, "{method} {fields:?}");
        }
    }
}
