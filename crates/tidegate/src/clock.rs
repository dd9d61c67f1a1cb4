//! The only place that reads a clock.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use tidegate_core::Instant;

/// Where the process started, on both clocks.
struct Anchor {
    monotonic: tokio::time::Instant,
    unix: Duration,
}

static ANCHOR: LazyLock<Anchor> = LazyLock::new(|| Anchor {
    monotonic: tokio::time::Instant::now(),
    unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
});

/// Reads the clock: nanoseconds since the Unix epoch as it stood when the process first asked, monotonic ever since.
///
/// A stepped wall clock moves nothing. Under tokio's paused test clock it stands still and moves with it.
pub fn now() -> Instant {
    Instant::EPOCH + ANCHOR.unix + ANCHOR.monotonic.elapsed()
}

/// The tokio instant at which a timer for `instant` fires.
pub fn timer_at(instant: Instant) -> tokio::time::Instant {
    ANCHOR.monotonic + instant.since(Instant::EPOCH + ANCHOR.unix)
}
