//! Whose page opens a WebSocket. Browsers send cookies with it from wherever it is opened within one site, and no rule of
//! theirs keeps the opener from reading the answers: what tells a page of ours from another's is `Origin` (RFC 6455 §10.2).

use http::{Response, StatusCode, header};
use url::Url;

use super::{Session, Visit, page};
use crate::body::ResponseBody;

impl Session {
    /// What an upgrade is told that a page of another origin asks for; `None` for pages of ours, of the `origins` that are
    /// let in, and for programs, which name none.
    pub fn cross_site(&self, visit: &Visit<'_>) -> Option<Response<ResponseBody>> {
        let own = self.origin(visit);
        let known = || std::iter::once(own.as_str()).chain(self.config.origins.iter().map(String::as_str));
        let is_known = |told: &str| known().any(|known| is_same(told, known));
        let mut told = visit.headers.get_all(header::ORIGIN).iter();
        let stranger = told.find(|told| !told.to_str().is_ok_and(is_known))?;
        tracing::debug!(session = %self.name, origin = ?stranger, "an upgrade that a page of another origin asked for");
        let detail =
            "a page of another origin opened this; it is let in where the session's `origins` name it";
        Some(page::problem(StatusCode::FORBIDDEN, "cross-site", detail))
    }
}

/// Whether two texts name the same origin.
fn is_same(one: &str, other: &str) -> bool {
    origin(one).is_some_and(|one| origin(other) == Some(one))
}

/// An origin, in one spelling: scheme, host, and a port that is not the scheme's own. `None` for what is none, like `null`.
pub fn origin(text: &str) -> Option<String> {
    let (_, authority) = text.split_once("://")?;
    let is_bare = !authority.contains(['/', '\\', '?', '#', '@']);
    let url: Url = text.parse().ok().filter(|_| is_bare)?;
    let host = url.host_str().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}", url.scheme()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        for (one, other) in [
            ("https://app.example", "https://app.example"),
            ("https://app.example", "https://APP.example:443"),
            ("http://app.example:80", "http://app.example"),
            ("https://[::1]:8443", "https://[0::1]:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("https://app.example", "http://app.example"),
            ("https://app.example", "https://app.example:8443"),
            ("https://app.example", "https://other.app.example"),
            ("https://app.example", "https://app.example.evil.example"),
            ("https://app.example", "https://app.example@evil.example"),
            ("null", "null"),
            ("", ""),
            ("file://", "file://"),
            ("https://app.example/", "https://app.example"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }
}
