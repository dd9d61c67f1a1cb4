//! The retry budget: every first attempt pays a share of a retry in, and a retry takes one out, so that retries cannot
//! multiply an outage. What the share is worth is decided by [`tidegate_core::budget`].

use std::{
    future::{self, Future},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
pub use tidegate_core::budget::{InvalidSettings, Settings};
use tidegate_core::{
    Call, Instant, Outcome, Refused,
    budget::{Budget, Withdrawal},
    nanos,
};

use crate::gate::{self, Gate};

/// A retry budget that all clones share. Each upstream has its own.
///
/// ```
/// use tidegate::{clock, retry_budget::{RetryBudget, Settings}};
///
/// let budget = RetryBudget::new(Settings::default())?;
/// budget.deposit(clock::now()); // the first attempt, which fails before it is sent
/// if let Ok(_retry) = budget.withdraw(clock::now()) {
///     // try once more, elsewhere
/// }
/// # Ok::<(), tidegate::retry_budget::InvalidSettings>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// First attempts not yet told to the budget: a call adds one here and takes no lock.
    gathered: AtomicU32,
    /// Nanoseconds since when they were gathered; 0 before the first.
    gathered_since: AtomicU64,
    budget: Mutex<Budget>,
    slice_nanos: u64,
}

impl RetryBudget {
    /// Makes a budget without calls: only the reserve may be spent.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a number is out of range.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let budget = Budget::new(settings)?;
        let slice_nanos = nanos(budget.slice());
        let (gathered, gathered_since) = (AtomicU32::new(0), AtomicU64::new(0));
        Ok(Self {
            shared: Arc::new(Shared { gathered, gathered_since, budget: Mutex::new(budget), slice_nanos }),
        })
    }

    /// Learns of one first attempt. Retries are not told.
    pub fn deposit(&self, now: Instant) {
        let shared = &*self.shared;
        shared.gathered.fetch_add(1, Ordering::Relaxed);
        let since = shared.gathered_since.load(Ordering::Relaxed);
        if now.as_nanos() >= since.saturating_add(shared.slice_nanos)
            && let Some(mut budget) = shared.budget.try_lock()
        {
            shared.tell(&mut budget, now);
        }
    }

    /// Takes one retry. It is spent whatever becomes of it, unless it is settled as [`Outcome::Unsent`].
    ///
    /// # Errors
    /// [`Refused`] by `retry-budget` when the share is used up.
    pub fn withdraw(&self, now: Instant) -> Result<Retry, Refused> {
        let mut budget = self.shared.budget.lock();
        self.shared.tell(&mut budget, now);
        let withdrawal = budget.withdraw(now)?;
        drop(budget);
        Ok(Retry { shared: Arc::clone(&self.shared), withdrawal })
    }

    /// Retries that would be allowed at `now`.
    pub fn left(&self, now: Instant) -> u32 {
        let mut budget = self.shared.budget.lock();
        self.shared.tell(&mut budget, now);
        budget.left(now)
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.shared.budget.lock().settings()
    }
}

impl Shared {
    /// Tells the budget what was gathered, as of when gathering began: calls from before a pause must not pay for
    /// retries after it.
    fn tell(&self, budget: &mut Budget, now: Instant) {
        let since = self.gathered_since.swap(now.as_nanos(), Ordering::Relaxed);
        let since = if since == 0 { now } else { Instant::from_nanos(since) };
        budget.deposit(self.gathered.swap(0, Ordering::Relaxed), since);
    }
}

impl<K: ?Sized> Gate<K> for RetryBudget {
    type Permit = Retry;

    /// Withdraws one retry at `call.now`.
    fn try_enter(&self, call: &Call, _key: &K) -> Result<Retry, Refused> {
        self.withdraw(call.now)
    }

    /// Does what [`try_enter`](Gate::try_enter) does: a retry that would wait for budget is not worth its wait.
    fn enter(&self, call: &Call, _key: &K) -> impl Future<Output = Result<Retry, Refused>> + Send {
        future::ready(self.withdraw(call.now))
    }
}

/// One retry that the budget has paid for.
#[derive(Debug)]
#[must_use = "a retry that is dropped is spent"]
pub struct Retry {
    shared: Arc<Shared>,
    withdrawal: Withdrawal,
}

impl gate::Permit for Retry {
    fn settle(self, outcome: Outcome, _now: Instant) {
        match outcome {
            Outcome::Unsent => self.shared.budget.lock().refund(self.withdrawal),
            Outcome::Success | Outcome::Ignore | Outcome::Overload { .. } | Outcome::Abandoned => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::Permit as _;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn budget(percent: u32) -> RetryBudget {
        RetryBudget::new(Settings { percent, min_per_second: 0, ..Settings::default() }).unwrap()
    }

    fn retry(budget: &RetryBudget, now: Instant) -> Result<Retry, Refused> {
        budget.withdraw(now)
    }

    #[test]
    fn of_calls_from_many_threads_a_fifth_may_be_retried() {
        let budget = budget(20);
        let allowed = |budget: &RetryBudget| (0..1000).filter(|_| retry(budget, START).is_ok()).count();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| budget.deposit(START)));
            }
        });
        assert_eq!(budget.left(START), 400);
        let retries: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| allowed(&budget))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(retries, 400);
    }

    #[test]
    fn calls_from_before_a_pause_do_not_pay_for_retries_after_it() {
        let budget = budget(100);
        (0..100).for_each(|_| budget.deposit(START));
        let later = START + Duration::from_secs(3600);
        budget.deposit(later);
        assert!(budget.left(later) <= 1, "{}", budget.left(later));
    }

    #[test]
    fn steady_calls_keep_their_share_over_many_windows() {
        let budget = budget(20);
        for step in 0..60_000 {
            budget.deposit(START + Duration::from_millis(step));
        }
        let left = budget.left(START + Duration::from_secs(60));
        assert!((1900..=2200).contains(&left), "a fifth of the 1000 a second of 10 s, but {left}");
    }

    #[test]
    fn only_a_retry_that_was_not_sent_is_refunded() {
        let budget = budget(100);
        budget.deposit(START);
        retry(&budget, START).unwrap().settle(Outcome::Unsent, START);
        assert_eq!(budget.left(START), 1);
        drop(retry(&budget, START).unwrap());
        assert_eq!(budget.left(START), 0);
    }
}
