//! A call that is over, in one piece: what is counted, logged and traced about it.

use std::{net::IpAddr, time::Duration};

use http::Version;
use tidegate_core::Instant;

use crate::trace::Trace;

/// How a call was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallProtocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC, on HTTP/2.
    Grpc,
    /// A connection that was upgraded, like a WebSocket.
    Upgrade,
}

impl CallProtocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Grpc, Self::Upgrade];

    /// The name used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Upgrade => "upgrade",
        }
    }
}

/// How a call ended: answered by the upstream, refused, failed, or left by its client (499).
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The status sent to the client; 499 when the client went away before there was one.
    pub status: u16,
    /// The `grpc-status` that ended it, for gRPC.
    pub grpc_status: Option<u16>,
    /// From the request head to the end of the response body.
    pub duration: Duration,
    /// From the request head to the upstream's response head; none when the upstream never answered.
    pub head_duration: Option<Duration>,
    /// Bytes of the request body that were passed on.
    pub request_bytes: u64,
    /// Bytes of the response body that were passed on.
    pub response_bytes: u64,
    /// How the call was spoken.
    pub protocol: CallProtocol,
}

/// What is logged and traced about a call. Values are as they were sent: whoever writes them makes them safe.
#[derive(Clone, Copy, Debug)]
pub struct CallRecord<'a> {
    /// When the call began.
    pub at: Instant,
    /// How it ended.
    pub finished: Finished,
    /// The client's address.
    pub client: IpAddr,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The method.
    pub method: &'a str,
    /// The request target: path and query.
    pub target: &'a str,
    /// The version of HTTP.
    pub version: Version,
    /// The `Host` or `:authority`.
    pub host: Option<&'a [u8]>,
    /// The `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The name of the route.
    pub route: &'a str,
    /// The name of the upstream.
    pub upstream: &'a str,
    /// The endpoint that was called.
    pub endpoint: Option<&'a str>,
    /// Why the gateway answered for itself: the rule that refused, or what failed.
    pub reason: Option<&'a str>,
    /// The limit that refused.
    pub limit: Option<&'a str>,
    /// The request id.
    pub request_id: &'a [u8],
    /// Where the call stands in a trace.
    pub trace: Trace,
}

/// A record to look at.
#[cfg(test)]
pub(crate) fn example<'a>() -> CallRecord<'a> {
    CallRecord {
        at: Instant::from_nanos(1_795_228_256_123_456_789),
        finished: Finished {
            status: 200,
            grpc_status: None,
            duration: Duration::from_micros(3_124),
            head_duration: Some(Duration::from_micros(2_900)),
            request_bytes: 0,
            response_bytes: 1024,
            protocol: CallProtocol::Http1,
        },
        client: IpAddr::from([192, 0, 2, 10]),
        scheme: "http",
        method: "GET",
        target: "/orders/1?page=2",
        version: Version::HTTP_11,
        host: Some(b"orders.example"),
        referer: None,
        user_agent: Some(b"curl/8.0"),
        route: "orders",
        upstream: "orders",
        endpoint: Some("127.0.0.1:9001"),
        reason: None,
        limit: None,
        request_id: b"00112233445566778899aabbccddeeff",
        trace: Trace::default(),
    }
}
