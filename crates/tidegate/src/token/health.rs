//! Whether a token endpoint may be asked: after three grants in a row that it did not answer well it is left alone, and
//! one probe finds out when it is back. Each grant counts once, however many wait for it. And no more are sent within a while
//! than it may be asked for, where that is bounded.

use std::time::Duration;

use tidegate_core::{
    Backoff, Instant,
    attempts::{self, Attempts},
    recovery::{Ended, Leave, Reach, Recovery},
    token::Blame,
};

use super::{GrantError, Trouble};
use crate::sync::{Mutex, now};

/// The longest pause that an endpoint is given because it asked for it.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The pause of those who would ask while a probe is out: its success ends that, and no store is read all the time meanwhile.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Health {
    inner: Mutex<Inner>,
    backoff: Backoff,
}

#[derive(Default)]
struct Inner {
    recovery: Recovery,
    budget: Option<Attempts>,
    /// Until when it asked to be left alone.
    paused_until: Instant,
    /// When it last answered anybody.
    answered_at: Option<Instant>,
    grants: u64,
}

impl Health {
    /// # Errors
    /// [`attempts::InvalidSettings`] when a period of the budget is out of range.
    pub(super) fn new(
        open_for: Duration,
        budget: Option<attempts::Settings>,
    ) -> Result<Self, attempts::InvalidSettings> {
        // A tenth on top, so that processes do not probe together.
        let base = (open_for / 10).max(Duration::from_millis(1));
        let inner = Inner { budget: budget.map(Attempts::new).transpose()?, ..Inner::default() };
        Ok(Self { inner: Mutex::new(inner), backoff: Backoff { floor: open_for, base, cap: base } })
    }

    /// Asks for leave to ask the endpoint.
    pub(super) fn admit(&self, now: Instant) -> Result<Asking<'_>, Instant> {
        let inner = &mut *self.inner.lock();
        if now < inner.paused_until {
            return Err(inner.paused_until);
        }
        // While a probe is out nobody knows; its success ends the pauses.
        let leave = inner.recovery.admit(now).map_err(|until| until.max(now + PROBE_PAUSE))?;
        if let Some(Err(refused)) = inner.budget.as_mut().map(|budget| budget.attempt(now)) {
            let dice = tidegate_core::Dice(fastrand::u32(..));
            inner.recovery.settle(leave, Ended::Abandoned, &self.backoff, now, dice);
            return Err(now + refused.retry_after.unwrap_or_default());
        }
        inner.grants += 1;
        Ok(Asking { health: self, leave: Some(leave), number: inner.grants })
    }

    /// It wants to be left alone.
    pub(super) fn pause(&self, pause: Duration, now: Instant) {
        let inner = &mut *self.inner.lock();
        inner.paused_until = inner.paused_until.max(now + pause.min(LONGEST_PAUSE));
    }

    /// It answered a grant that was settled as failed.
    pub(super) fn answered_late(&self) {
        let now = now();
        let inner = &mut *self.inner.lock();
        inner.answered_at = Some(now);
        inner.recovery.answered_late(now);
    }

    /// Whether a session's trouble at `failed_at` was the endpoint's, which is back since.
    pub(super) fn has_lifted(&self, trouble: &Trouble, failed_at: Instant) -> bool {
        let since = match trouble {
            // An answer to somebody else is enough only of the cooldown, which is rare: who fails between good answers to
            // others is to wait longer each time.
            Trouble::Cooling { blame: Blame::Endpoint, .. } => self.answered_at(),
            Trouble::Resting { .. }
            | Trouble::Overdue(_)
            | Trouble::Grant(
                GrantError::Transient { .. } | GrantError::NotSent { .. } | GrantError::Unknown { .. },
            ) => self.inner.lock().recovery.recovered_at(),
            Trouble::Cooling { blame: Blame::Session, .. }
            | Trouble::Grant(
                GrantError::Terminal { .. }
                | GrantError::Scope
                | GrantError::Misconfigured { .. }
                | GrantError::Protocol { .. },
            )
            | Trouble::Store(_)
            | Trouble::Record(_)
            | Trouble::Stillborn
            | Trouble::Unverified(_)
            | Trouble::Closed
            | Trouble::Lost(_) => None,
        };
        since.is_some_and(|since| failed_at < since)
    }

    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.inner.lock().answered_at
    }

    pub(super) fn reach(&self) -> Reach {
        self.inner.lock().recovery.reach()
    }

    pub(super) fn paused_until(&self) -> Instant {
        self.inner.lock().paused_until
    }
}

/// A grant that is asked for. Dropped, nothing is known.
pub(super) struct Asking<'a> {
    health: &'a Health,
    leave: Option<Leave>,
    number: u64,
}

impl Asking<'_> {
    /// It answered, whatever it said.
    pub(super) fn answered(mut self) {
        let now = now();
        self.health.inner.lock().answered_at = Some(now);
        self.settle(Ended::Answered);
    }

    /// It could not be reached, or says that it cannot serve.
    pub(super) fn failed(mut self) {
        let key = self.number; // Every failed grant counts, also of one session.
        self.settle(Ended::Unreachable { key, retry_after: None });
    }

    fn settle(&mut self, ended: Ended) {
        if let Some(leave) = self.leave.take() {
            let dice = tidegate_core::Dice(fastrand::u32(..));
            self.health.inner.lock().recovery.settle(leave, ended, &self.health.backoff, now(), dice);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.settle(Ended::Abandoned);
    }
}
