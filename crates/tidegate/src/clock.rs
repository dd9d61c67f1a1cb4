//! The only place that reads a clock.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use tidegate_core::Instant;

mod asleep;

use asleep::Asleep;

/// Where the process started, on both clocks.
struct Anchor {
    monotonic: tokio::time::Instant,
    unix: Duration,
}

static ANCHOR: LazyLock<Anchor> = LazyLock::new(|| Anchor {
    monotonic: tokio::time::Instant::now(),
    unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
});

static ASLEEP: Asleep = Asleep::new();

/// Reads the clock: nanoseconds since the Unix epoch as it stood when the process first asked, monotonic ever since.
///
/// A stepped wall clock moves nothing. Time in which the machine was suspended counts once it was noticed, which is before
/// credit of a fleet's limit is spent: on Linux; other systems do not tell. Under tokio's paused test clock it stands
/// still and moves with it.
pub fn now() -> Instant {
    Instant::EPOCH + ANCHOR.unix + ANCHOR.monotonic.elapsed() + ASLEEP.sum()
}

/// The tokio instant at which a timer for `instant` fires.
pub fn timer_at(instant: Instant) -> tokio::time::Instant {
    ANCHOR.monotonic + instant.since(Instant::EPOCH + ANCHOR.unix + ASLEEP.sum())
}

/// `now`, which was read a moment ago, or later when the machine was suspended meanwhile. It looks once in a millisecond.
#[inline]
pub(crate) fn awake(now: Instant) -> Instant {
    ASLEEP.after(now, asleep::suspended)
}
