//! The bounds of a connection.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::config::Bounds;

/// HTTP/1 is not read in smaller pieces than this.
const LEAST_HEADER_BYTES: u64 = 8192;
/// Long enough that a connection in steady use never pays for it.
const QUIET: Duration = Duration::from_secs(1);
/// Longest without progress: of a response that the client does not read, of a request body that it does not send.
const IDLE: Duration = Duration::from_secs(60);

/// The bounds of each connection. A connection keeps those it began with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once.
    pub connections: usize,
    /// Most bytes of a request head, and of what is buffered each way on HTTP/1.
    pub header_bytes: usize,
    /// Most header fields in an HTTP/1 request.
    pub header_count: usize,
    /// Longest TLS handshake, and longest from the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Longest without a request.
    pub keep_alive: Duration,
    /// After so long without a request, an HTTP/1 connection gives its buffers back; it loses nothing else by it.
    pub quiet: Duration,
    /// Longest without progress while a client should read, and the window over which `min_body_rate` counts.
    pub idle: Duration,
    /// Least bytes a second of an HTTP/1 request body while we wait for it; 0 for one byte in `idle`.
    pub min_body_rate: u64,
    /// Most HTTP/2 streams at once.
    pub streams: u32,
}

/// Bounds that can be changed while connections live; new connections take the new ones.
pub type LiveLimits = Arc<ArcSwap<Limits>>;

impl Limits {
    /// Wraps them so that they can be changed.
    pub fn live(self) -> LiveLimits {
        Arc::new(ArcSwap::from_pointee(self))
    }
}

impl From<&Bounds> for Limits {
    fn from(bounds: &Bounds) -> Self {
        let header_bytes = bounds.header_bytes.0.clamp(LEAST_HEADER_BYTES, u64::from(u32::MAX));
        Self {
            connections: bounds.connections.get() as usize,
            header_bytes: header_bytes as usize,
            header_count: bounds.header_count as usize,
            header_timeout: *bounds.header_timeout,
            keep_alive: *bounds.keep_alive,
            quiet: QUIET,
            idle: IDLE,
            min_body_rate: bounds.min_body_rate.0,
            streams: bounds.streams.get(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&Bounds::default())
    }
}
