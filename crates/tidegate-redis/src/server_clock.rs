//! What a server's clock shows, as far as its probes told: so that a question that comes late can be seen to be late.

use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidegate_core::{Instant, ledger::Micros};

/// For how long a reading is believed: clocks drift apart, and may be set.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// The clock of a server, told from here. It may be read as later than it is, by the time a probe took.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerClock(Arc<Reading>);

#[derive(Debug, Default)]
struct Reading {
    /// What its clock showed at `at`, in microseconds.
    shown: AtomicU64,
    /// Nanoseconds; 0 before the first reading.
    at: AtomicU64,
}

impl ServerClock {
    /// Takes a reading that was asked for at `asked_at`.
    pub(crate) fn set(&self, shown: Micros, asked_at: Instant) {
        // Of two at once one wins in each: both are of this moment.
        self.0.shown.store(shown, Relaxed);
        self.0.at.store(asked_at.as_nanos(), Relaxed);
    }

    /// What it shows at `now` at most, if that is known.
    pub(crate) fn at(&self, now: Instant) -> Option<Micros> {
        let at = self.0.at.load(Relaxed);
        let passed = now.since(Instant::from_nanos(at));
        let shown = self.0.shown.load(Relaxed);
        let passed_micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        (at > 0 && passed < BELIEVED_FOR).then(|| shown.saturating_add(passed_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_goes_on_and_is_forgotten() {
        let (clock, asked_at) = (ServerClock::default(), Instant::from_nanos(7_000_000_000));
        assert_eq!(clock.at(asked_at), None);
        clock.set(1_000_000, asked_at);
        assert_eq!(clock.at(asked_at + Duration::from_millis(3)), Some(1_003_000));
        assert_eq!(clock.at(asked_at + BELIEVED_FOR), None);
    }
}
