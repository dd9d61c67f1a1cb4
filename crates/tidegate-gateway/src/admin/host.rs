//! Who may read the pages: on loopback, no page of another site that had its name point here (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{StatusCode, header::HOST};

use super::{TEXT, answer};

/// Whom the listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This machine: the `Host` must be an IP address or a name below `localhost`.
    Loopback,
    /// Whoever reaches the address that was configured.
    Network,
}

impl Audience {
    /// The audience of a listener bound to `address`.
    pub fn of(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// Lets a request pass unless its `Host` is a name that somebody else's DNS controls.
pub(super) async fn guard(State(audience): State<Audience>, request: Request, next: Next) -> Response {
    // An absolute-form target names the host too, and wins over the header (RFC 9112, 3.2.2).
    let header = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("not text"));
    let host = request.uri().authority().map(|authority| authority.as_str()).or(header);
    // Browsers always send a host; whoever sends none is no browser.
    if audience == Audience::Network || host.is_none_or(is_local) {
        return next.run(request).await;
    }
    let why = "the host of this request is not this machine; ask for 127.0.0.1 or localhost, or bind listen.admin to an \
               address of the network\n";
    answer(StatusCode::MISDIRECTED_REQUEST, TEXT, why)
}

/// Whether a host, with or without a port, cannot be a name that was rebound.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').or((rest.is_empty()).then_some(""))),
        None => host.split_once(':').map_or((host, Some("")), |(name, port)| (name, Some(port))),
    };
    let Some(port) = port else { return false };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_this_machine() {
        for local in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "localhost:9900",
            "LOCALHOST",
            "localhost.",
            "a.localhost:1",
            "[::1]",
            "[::1]:9900",
            "10.0.0.7:9900",
        ] {
            assert!(is_local(local), "{local}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:9900",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1:99x",
            "[::1]evil",
            "user@127.0.0.1",
            "localhost:80:evil",
        ] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_audience_follows_from_the_address() {
        for (address, audience) in [
            ("127.0.0.1:9900", Audience::Loopback),
            ("[::1]:9900", Audience::Loopback),
            ("[::ffff:127.0.0.1]:9900", Audience::Loopback),
            ("0.0.0.0:9900", Audience::Network),
            ("10.1.2.3:9900", Audience::Network),
        ] {
            assert_eq!(Audience::of(address.parse().unwrap()), audience, "{address}");
        }
    }
}
