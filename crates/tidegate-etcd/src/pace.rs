//! How fast we may come back: delays with full jitter, and the budget of logins.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A delay between nothing and `most`, evenly spread ("full jitter").
pub(crate) fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

/// A delay of `most`, or up to a fifth less: so that what began together does not stay together.
pub(crate) fn about(most: Duration) -> Duration {
    most.mul_f64(0.8 + 0.2 * fastrand::f64())
}

/// Delays that double from `first` to `most`, with full jitter, until something succeeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    /// The delay after one more failure, counted from its end.
    pub(crate) fn failed(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.tries.min(20)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        // Never nothing: a member that refuses at once must not be asked in a loop.
        ceiling / 10 + jitter(ceiling.mul_f64(0.9))
    }

    pub(crate) fn succeeded(&mut self) {
        self.tries = 0;
    }
}

/// How many logins may be sent to etcd per second, by all clients that share this budget.
///
/// etcd checks passwords slowly on purpose; a client that logs in more often than needed takes that time from others.
/// A login beyond the budget waits for its turn.
#[derive(Clone, Debug)]
pub struct LoginBudget {
    next: Arc<Mutex<Option<Instant>>>,
    interval: Duration,
    burst: u32,
}

static PROCESS: LazyLock<LoginBudget> = LazyLock::new(|| LoginBudget::new(Duration::from_secs(1), 5));

impl LoginBudget {
    /// Allows `burst` logins at once, and one more every `interval`.
    pub fn new(interval: Duration, burst: u32) -> Self {
        Self { next: Arc::default(), interval, burst: burst.max(1) }
    }

    /// The budget that all clients of the process share by default: one login per second, five at once.
    pub fn of_process() -> Self {
        PROCESS.clone()
    }

    /// When the next login may be sent; each call takes a turn.
    fn turn(&self, now: Instant) -> Instant {
        let saved = self.interval * (self.burst - 1);
        let mut next = self.next.lock();
        // The turns that came due while nobody asked are kept, up to the burst.
        let oldest = now.checked_sub(saved).unwrap_or(now);
        let due = next.unwrap_or(oldest).max(oldest);
        *next = Some(due + self.interval);
        due.max(now)
    }

    /// Waits for a turn. Dropping the future loses the turn.
    pub(crate) async fn take(&self) {
        let turn = self.turn(Instant::now());
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn logins_beyond_the_burst_wait_for_their_turn() {
        let budget = LoginBudget::new(Duration::from_secs(1), 3);
        let start = Instant::now();
        // Long idle before: no more than the burst is saved up.
        for second in [0, 0, 0, 1, 2, 3] {
            budget.take().await;
            assert_eq!(start.elapsed(), Duration::from_secs(second));
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let later = Instant::now();
        for second in [0, 0, 0, 1] {
            budget.take().await;
            assert_eq!(later.elapsed(), Duration::from_secs(second));
        }
    }

    #[test]
    fn delays_double_to_their_cap_and_are_never_nothing() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, most);
        for ceiling in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let ceiling = Duration::from_millis(ceiling);
            let delay = backoff.failed();
            assert!(delay >= ceiling / 10 && delay <= ceiling, "{delay:?} of {ceiling:?}");
        }
        backoff.succeeded();
        assert!(backoff.failed() <= first);
    }
}
