//! What of a limiter's settings may change while calls go on, off its fast path.

use std::time::Duration;

use tidegate_core::nanos;

use super::{builder::Settings, tuner::Tuner};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// How long callers wait, and what is measured of them.
pub(crate) struct Watch {
    /// Whether anybody learns from the end of a call: the one word that a plain limiter's fast path reads.
    learns: AtomicBool,
    max_wait: AtomicU64,
    /// 0 for never.
    held_long: AtomicU64,
    measure_hold: bool,
}

impl Watch {
    pub(super) fn new(settings: Settings, tuner: &Tuner) -> Self {
        let watch = Self {
            learns: AtomicBool::new(false),
            max_wait: AtomicU64::new(0),
            held_long: AtomicU64::new(0),
            measure_hold: settings.measure_hold,
        };
        watch.set(settings, tuner);
        watch
    }

    /// Takes over other settings; whether holds are measured stays as it was.
    pub(super) fn set(&self, settings: Settings, tuner: &Tuner) {
        self.max_wait.store(nanos(settings.max_wait), Ordering::Relaxed);
        self.held_long.store(settings.held_long.map_or(0, |age| nanos(age).max(1)), Ordering::Relaxed);
        let learns = tuner.is_on() || self.measure_hold || settings.held_long.is_some();
        self.learns.store(learns, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn learns(&self) -> bool {
        self.learns.load(Ordering::Relaxed)
    }

    pub(super) fn max_wait(&self) -> Duration {
        Duration::from_nanos(self.max_wait.load(Ordering::Relaxed))
    }

    pub(super) fn held_long(&self) -> Option<Duration> {
        match self.held_long.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    pub(super) const fn measures_hold(&self) -> bool {
        self.measure_hold
    }

    /// Whether somebody needs to know when each call began.
    pub(super) fn times_all(&self) -> bool {
        self.measure_hold || self.held_long().is_some()
    }
}
