//! What an admitted call carries, so that its end is judged by the breaker that admitted it and no later one.

use std::time::Duration;

use crate::{Call, Instant};

/// A stretch of time in one state of one breaker. Every change of state begins the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Era(pub(super) u64);

impl Era {
    /// No breaker is ever in it: a ticket of this era counts nothing.
    pub(super) const NONE: Self = Self(0);
    /// The first era of a new breaker.
    pub const FIRST: Self = Self(1);

    /// Makes an era from its number.
    #[inline]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number; eras are numbered upwards from 1.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The era after this one.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What an admitted call carries: the era that admitted it, and how long it has waited.
///
/// Three plain words, because every call makes one, moves it and reads it: absence is [`Instant::NEVER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) era: Era,
    /// When the call began; never, once the dependency has begun to answer.
    since: Instant,
    /// When its caller gives up; never, if that is not known.
    deadline: Instant,
}

impl Ticket {
    /// Makes the ticket of a call admitted in `era`.
    #[inline]
    pub const fn new(era: Era, call: &Call) -> Self {
        let deadline = match call.deadline {
            Some(deadline) => deadline,
            None => Instant::NEVER,
        };
        Self { era, since: call.now, deadline }
    }

    /// The era in which the call was admitted.
    #[inline]
    pub const fn era(&self) -> Era {
        self.era
    }

    /// Makes the ticket count nothing any more.
    #[inline]
    pub const fn spend(&mut self) {
        self.era = Era::NONE;
    }

    /// Whether the ticket counts nothing in any era.
    #[inline]
    pub const fn is_spent(&self) -> bool {
        self.era.0 == Era::NONE.0
    }

    /// Marks that the answer has begun.
    #[inline]
    pub const fn answer(&mut self) {
        self.since = Instant::NEVER;
    }

    /// Whether the answer has begun.
    #[inline]
    pub const fn is_answered(&self) -> bool {
        self.since.as_nanos() == Instant::NEVER.as_nanos()
    }

    /// How long the call has waited for an answer, unless one has begun.
    pub(super) fn waited(&self, now: Instant) -> Option<Duration> {
        (!self.is_answered()).then(|| now.since(self.since))
    }

    /// Whether the call has used up its own deadline.
    pub(super) fn timed_out(&self, now: Instant) -> bool {
        self.deadline != Instant::NEVER && now >= self.deadline
    }
}
