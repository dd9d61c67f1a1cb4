//! What all keys of a keeper share: the budget of attempts, and whether their source can be reached.

use std::time::Duration;

use tidegate_core::{
    Backoff, Instant,
    attempts::Attempts,
    recovery::{Ended, Leave, Reach, Recovery},
};

use super::{InvalidSettings, Settings, Why, dice};
use crate::sync::Mutex;

pub(super) struct SourceState<E> {
    inner: Mutex<Inner<E>>,
    probes: Backoff,
}

struct Inner<E> {
    attempts: Attempts,
    recovery: Recovery,
    /// Why it could not be reached the last time.
    last: Option<Why<E>>,
}

/// Why a fetch may not begin.
pub(super) enum Barred<E> {
    /// The source is down, and not this key's fetch is the probe.
    Unreachable { why: Option<Why<E>>, until: Instant },
    /// The budget is used up.
    Throttled { retry_after: Duration },
}

impl<E: Clone> SourceState<E> {
    pub(super) fn new(settings: &Settings) -> Result<Self, InvalidSettings> {
        let attempts = Attempts::new(settings.attempts)?;
        let inner = Inner { attempts, recovery: Recovery::default(), last: None };
        Ok(Self { inner: Mutex::new(inner), probes: settings.probes })
    }

    pub(super) fn begin(&self, now: Instant) -> Result<Leave, Barred<E>> {
        let inner = &mut *self.inner.lock();
        let leave = inner.recovery.admit(now).map_err(|until| {
            // While a probe is out nobody knows; the shortest pause is as good a guess as any.
            let soonest = now + self.probes.floor.max(self.probes.base);
            let until = if until > now { until } else { soonest };
            Barred::Unreachable { why: inner.last.clone(), until }
        })?;
        inner.attempts.attempt(now).map_err(|refused| {
            inner.recovery.settle(leave, Ended::Abandoned, &self.probes, now, dice());
            Barred::Throttled { retry_after: refused.retry_after.unwrap_or_default() }
        })?;
        Ok(leave)
    }

    pub(super) fn answered(&self, leave: Leave, now: Instant) {
        self.settle(leave, Ended::Answered, now);
    }

    pub(super) fn abandoned(&self, leave: Leave, now: Instant) {
        self.settle(leave, Ended::Abandoned, now);
    }

    pub(super) fn unreachable(
        &self,
        leave: Leave,
        key: u64,
        retry_after: Option<Duration>,
        why: Why<E>,
        now: Instant,
    ) {
        let inner = &mut *self.inner.lock();
        inner.last = Some(why);
        inner.recovery.settle(leave, Ended::Unreachable { key, retry_after }, &self.probes, now, dice());
    }

    fn settle(&self, leave: Leave, ended: Ended, now: Instant) {
        self.inner.lock().recovery.settle(leave, ended, &self.probes, now, dice());
    }

    pub(super) fn recovered_at(&self) -> Option<Instant> {
        self.inner.lock().recovery.recovered_at()
    }

    pub(super) fn reach(&self) -> Reach {
        self.inner.lock().recovery.reach()
    }
}
