//! Which calls are long-lived streams: as far as a request tells, and as the configuration says.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderValue, header};

use crate::config::RouteKind;

/// What a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It ends when it is answered: its duration is a latency.
    #[default]
    Call,
    /// It lives for as long as both sides like: its duration says nothing.
    Stream,
}

impl Kind {
    /// The kind of a call by its route, and by its request where the route leaves that open.
    pub(crate) fn of(
        route: RouteKind,
        paths: &[StreamPath],
        upgrade: Option<&HeaderValue>,
        path: &str,
        headers: &HeaderMap,
    ) -> Self {
        let streams = match route {
            RouteKind::Call => false,
            RouteKind::Stream => true,
            RouteKind::Auto => {
                upgrade.is_some() || wants_events(headers) || paths.iter().any(|known| known.covers(path))
            }
        };
        if streams { Self::Stream } else { Self::Call }
    }
}

/// Whether a client asks for Server-Sent Events before anything else, as `EventSource` does.
fn wants_events(headers: &HeaderMap) -> bool {
    let first =
        headers.get(header::ACCEPT).and_then(|accept| accept.as_bytes().split(|b| b",;".contains(b)).next());
    first.is_some_and(|first| first.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// A path, or the beginning of paths, whose calls are streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamPath {
    /// This path.
    Whole(String),
    /// Every path that begins so: written with a `*` at its end.
    Beginning(String),
}

impl StreamPath {
    fn covers(&self, path: &str) -> bool {
        match self {
            Self::Whole(whole) => path == whole,
            Self::Beginning(beginning) => path.starts_with(beginning),
        }
    }
}

/// Why a text is no path of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidStreamPath;

impl fmt::Display for InvalidStreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a path of streams; write /package.Service/Method, or a beginning and a * like /package.Service/*")
    }
}

impl FromStr for StreamPath {
    type Err = InvalidStreamPath;

    fn from_str(text: &str) -> Result<Self, InvalidStreamPath> {
        let (path, beginning) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        let fits =
            path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !b"*?#".contains(&b));
        match (fits, beginning) {
            (true, true) => Ok(Self::Beginning(path.into())),
            (true, false) => Ok(Self::Whole(path.into())),
            (false, _) => Err(InvalidStreamPath),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(route: RouteKind, upgrades: bool, path: &str, accept: &str) -> Kind {
        let paths = ["/etcd.Watch/Watch", "/chat.*"].map(|path| path.parse().unwrap());
        let headers = [(header::ACCEPT, accept.parse().unwrap())].into_iter().collect();
        let websocket = HeaderValue::from_static("websocket");
        Kind::of(route, &paths, upgrades.then_some(&websocket), path, &headers)
    }

    #[test]
    fn streams_are_known_by_their_route_their_path_or_what_they_ask_for() {
        use RouteKind::{Auto, Call, Stream};
        for (route, upgrades, path, accept, expected) in [
            (Auto, false, "/", "*/*", Kind::Call),
            (Auto, true, "/", "*/*", Kind::Stream),
            (Auto, false, "/", "text/event-stream", Kind::Stream),
            (Auto, false, "/", "Text/Event-Stream;q=1, */*", Kind::Stream),
            // Asks for either, and gets a whole answer as a rule.
            (Auto, false, "/", "application/json, text/event-stream", Kind::Call),
            (Auto, false, "/etcd.Watch/Watch", "*/*", Kind::Stream),
            (Auto, false, "/etcd.Watch/Watch2", "*/*", Kind::Call),
            (Auto, false, "/chat.Room/Join", "*/*", Kind::Stream),
            (Call, true, "/chat.Room/Join", "text/event-stream", Kind::Call),
            (Stream, false, "/", "*/*", Kind::Stream),
        ] {
            assert_eq!(kind(route, upgrades, path, accept), expected, "{route:?} {upgrades} {path} {accept}");
        }
    }

    #[test]
    fn a_path_of_streams_begins_with_a_slash_and_has_one_star_at_its_end() {
        for wrong in ["", "*", "Watch", "/a*b", "/a/**", "/a b", "/a?b"] {
            assert!(wrong.parse::<StreamPath>().is_err(), "{wrong}");
        }
        assert_eq!("/*".parse(), Ok(StreamPath::Beginning("/".into())));
    }
}
