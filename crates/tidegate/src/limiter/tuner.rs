//! Lets an adaptive limit learn from the calls of a limiter, off their fast path.

use parking_lot::Mutex;
use tidegate_core::{
    gate::Load,
    limit::{Adaptive, Sample},
};

use crate::{
    Instant,
    sync::{AtomicBool, AtomicU32, Ordering},
};

/// Samples that make a good window; what is more only costs.
const PLENTY: u32 = 64;
/// Samples in a window after which fewer are taken, each time.
const MORE_THAN_PLENTY: u32 = 2 * PLENTY;
/// Most calls to a sample.
const SPARSEST: u32 = 1 << 10;

pub(super) struct Tuner {
    /// Whether there is a law.
    on: AtomicBool,
    /// One call in `mask + 1` reads the clock to be a sample, where it does not know its times anyhow.
    mask: AtomicU32,
    learning: Mutex<Learning>,
}

struct Learning {
    law: Option<Adaptive>,
    samples: u32,
    /// Calls that the samples stand for.
    calls: f64,
    began: Option<Instant>,
}

impl Tuner {
    pub(super) fn new(law: Option<Adaptive>) -> Self {
        let on = AtomicBool::new(law.is_some());
        Self { on, mask: AtomicU32::new(0), learning: Mutex::new(Learning::by(law)) }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn is_sample(&self, load: Load) -> bool {
        self.is_on() && load.admitted() & self.mask.load(Ordering::Relaxed) == 0
    }

    /// Goes on by another law, or by none. `apply` sets the limit that it begins with; what the old law still had to say
    /// is not heard any more.
    pub(super) fn replace(&self, law: Option<Adaptive>, apply: impl FnOnce()) {
        let mut learning = self.learning.lock();
        self.on.store(law.is_some(), Ordering::Relaxed);
        self.mask.store(0, Ordering::Relaxed);
        *learning = Learning::by(law);
        apply();
    }

    /// Learns from a call, and hands the limit to `apply` if it is learnt anew.
    ///
    /// A sample that meets another at the lock is dropped: there are plenty then. The limit is applied under the lock, so
    /// that a law which is replaced meanwhile has not the last word.
    pub(super) fn record(&self, sample: &Sample, now: Instant, apply: impl FnOnce(u32)) {
        let Some(mut learning) = self.learning.try_lock() else { return };
        let Some(limit) = learning.record(sample, now, &self.mask) else { return };
        apply(limit);
    }
}

impl Learning {
    const fn by(law: Option<Adaptive>) -> Self {
        Self { law, samples: 0, calls: 0.0, began: None }
    }

    fn record(&mut self, sample: &Sample, now: Instant, mask: &AtomicU32) -> Option<u32> {
        let law = self.law.as_mut()?;
        let each = mask.load(Ordering::Relaxed) + 1;
        self.samples += 1;
        self.calls += f64::from(each);
        let began = *self.began.get_or_insert(now);
        let Some(limit) = law.record(sample, now) else {
            if self.samples.is_multiple_of(MORE_THAN_PLENTY) {
                // A sudden crowd: not each of them is to be a sample until the window ends.
                mask.store((each * 2).min(SPARSEST) - 1, Ordering::Relaxed);
            }
            return None;
        };
        let (calls, took) = (self.calls, now.since(began));
        (self.samples, self.calls, self.began) = (0, 0.0, None);
        // What one window of 100 ms would have seen of all calls, and which share of that is plenty.
        let each = calls * 0.1 / took.as_secs_f64().max(0.1) / f64::from(PLENTY);
        let each = (each.max(1.0) as u32).next_power_of_two().min(SPARSEST);
        mask.store(each - 1, Ordering::Relaxed);
        Some(limit)
    }
}
