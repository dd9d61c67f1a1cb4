//! Time in which the machine was suspended: the monotonic clock stands still in it, and the rest of the world does not.

use std::{sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed, time::Duration};

use tidegate_core::{Instant, nanos};

/// The least time between two looks: a look takes two readings of clocks more.
const LOOKS_APART: Duration = Duration::from_millis(1);
/// A suspension is longer; what is shorter is the time between the readings.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long the machine was suspended, as far as it was looked at.
pub(super) struct Asleep {
    /// Nanoseconds in all.
    sum: AtomicU64,
    /// What the latest look showed, in nanoseconds since the machine started, plus one; 0 before the first.
    seen: AtomicU64,
    /// The next look is due then, by the process's clock.
    look_at: AtomicU64,
}

impl Asleep {
    pub(super) const fn new() -> Self {
        Self { sum: AtomicU64::new(0), seen: AtomicU64::new(0), look_at: AtomicU64::new(0) }
    }

    /// In all, as far as is known.
    #[inline]
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum.load(Relaxed))
    }

    /// `now`, or as much later as the machine was suspended since the latest look, if a look is due. `suspended` says for
    /// how long it was since it started, if there is a clock that knows.
    #[inline]
    pub(super) fn after(&self, now: Instant, suspended: impl FnOnce() -> Option<Duration>) -> Instant {
        if now.as_nanos() < self.look_at.load(Relaxed) { now } else { self.look(now, suspended) }
    }

    #[cold]
    fn look(&self, now: Instant, suspended: impl FnOnce() -> Option<Duration>) -> Instant {
        let Some(shown) = suspended() else { return now };
        let shown = nanos(shown).saturating_add(1);
        let seen = self.seen.load(Relaxed);
        let jump = if seen == 0 { 0 } else { shown.saturating_sub(seen) };
        let is_jump = Duration::from_nanos(jump) >= SHORTEST;
        if seen == 0 || is_jump {
            // Of those who look at once, one counts it.
            match self.seen.compare_exchange(seen, shown, Relaxed, Relaxed) {
                Ok(_) if is_jump => _ = self.sum.fetch_add(jump, Relaxed),
                Ok(_) | Err(_) => {}
            }
        }
        let now = if is_jump { now + Duration::from_nanos(jump) } else { now };
        self.look_at.store((now + LOOKS_APART).as_nanos(), Relaxed);
        now
    }
}

/// How long this machine was suspended since it started, where the system tells.
#[cfg(target_os = "linux")]
pub(super) fn suspended() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    /// The longest time between readings that are taken for one moment.
    const AT_ONCE: Duration = Duration::from_millis(1);
    let read = |clock| Duration::try_from(clock_gettime(clock)).ok();
    for _ in 0..4 {
        let before = read(ClockId::Monotonic)?;
        let since_start = read(ClockId::Boottime)?;
        let after = read(ClockId::Monotonic)?;
        if after.saturating_sub(before) <= AT_ONCE {
            return since_start.checked_sub(before);
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn suspended() -> Option<Duration> {
    None
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_the_machine_slept_is_counted_once() {
        let (asleep, now) = (Asleep::new(), Instant::from_nanos(1_000_000_000));
        assert_eq!(asleep.after(now, || Some(SECOND * 5)), now, "before the first look is no matter");
        let later = now + SECOND;
        assert_eq!(asleep.after(later, || Some(SECOND * 5 + SHORTEST / 2)), later);
        assert_eq!(asleep.after(later, || Some(SECOND * 8)), later, "too early for another look");
        let awake = later + LOOKS_APART;
        assert_eq!(asleep.after(awake, || Some(SECOND * 8)), awake + SECOND * 3);
        assert_eq!(asleep.sum(), SECOND * 3);
        // The next reading has it.
        let next = awake + SECOND * 3 + LOOKS_APART;
        assert_eq!(asleep.after(next, || Some(SECOND * 8)), next);
        assert_eq!(asleep.sum(), SECOND * 3);
    }

    #[test]
    fn a_system_without_such_a_clock_is_never_asleep() {
        let asleep = Asleep::new();
        let now = Instant::from_nanos(1);
        assert_eq!((asleep.after(now, || None), asleep.sum()), (now, Duration::ZERO));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_how_long_it_slept() {
        let (first, second) = (suspended().expect("Linux knows"), suspended().expect("Linux knows"));
        assert!(second.saturating_sub(first) < SHORTEST);
    }
}
