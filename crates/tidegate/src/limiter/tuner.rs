//! Lets an adaptive limit learn from the calls of a limiter, off their fast path.

use parking_lot::Mutex;
use tidegate_core::{
    gate::Load,
    limit::{Adaptive, Sample},
};

use crate::{
    Instant,
    sync::{AtomicU32, Ordering},
};

/// Samples that make a good window; what is more only costs.
const PLENTY: u32 = 64;
/// Samples in a window after which fewer are taken, each time.
const MORE_THAN_PLENTY: u32 = 2 * PLENTY;
/// Most calls to a sample.
const SPARSEST: u32 = 1 << 10;

pub(super) struct Tuner {
    /// One call in `mask + 1` reads the clock to be a sample, where it does not know its times anyhow.
    mask: AtomicU32,
    learning: Mutex<Learning>,
}

struct Learning {
    adaptive: Adaptive,
    samples: u32,
    /// Calls that the samples stand for.
    calls: f64,
    began: Option<Instant>,
}

impl Tuner {
    pub(super) fn new(adaptive: Adaptive) -> Self {
        let learning = Learning { adaptive, samples: 0, calls: 0.0, began: None };
        Self { mask: AtomicU32::new(0), learning: Mutex::new(learning) }
    }

    pub(super) fn is_sample(&self, load: Load) -> bool {
        load.admitted() & self.mask.load(Ordering::Relaxed) == 0
    }

    /// Learns from a call; the limit, if it is to change.
    ///
    /// A sample that meets another at the lock is dropped: there are plenty then.
    pub(super) fn record(&self, sample: &Sample, now: Instant) -> Option<u32> {
        let mut learning = self.learning.try_lock()?;
        let each = self.mask.load(Ordering::Relaxed) + 1;
        learning.samples += 1;
        learning.calls += f64::from(each);
        let began = *learning.began.get_or_insert(now);
        let Some(limit) = learning.adaptive.record(sample, now) else {
            if learning.samples.is_multiple_of(MORE_THAN_PLENTY) {
                // A sudden crowd: not each of them is to be a sample until the window ends.
                self.mask.store((each * 2).min(SPARSEST) - 1, Ordering::Relaxed);
            }
            return None;
        };
        learning.samples = 0;
        let (calls, took) = (std::mem::take(&mut learning.calls), now.since(began));
        learning.began = None;
        // What one window of 100 ms would have seen of all calls, and which share of that is plenty.
        let each = calls * 0.1 / took.as_secs_f64().max(0.1) / f64::from(PLENTY);
        let each = (each.max(1.0) as u32).next_power_of_two().min(SPARSEST);
        self.mask.store(each - 1, Ordering::Relaxed);
        Some(limit)
    }
}
