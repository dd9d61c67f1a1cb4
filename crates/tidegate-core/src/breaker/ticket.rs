//! What an admitted call carries, so that its end is judged by the breaker that admitted it and no later one.

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
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number; eras are numbered upwards from 1.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The era after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for its answer. Leaves when the answer begins.
    Waiting { since: Instant, deadline: Option<Instant> },
    /// The dependency has begun to answer: to walk away now says nothing about it.
    Answered,
}

/// What an admitted call carries: the era that admitted it and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) era: Era,
    pub(super) progress: Progress,
}

impl Ticket {
    /// Makes the ticket of a call admitted in `era`.
    pub const fn new(era: Era, call: &Call) -> Self {
        Self { era, progress: Progress::Waiting { since: call.now, deadline: call.deadline } }
    }

    /// The era in which the call was admitted.
    pub const fn era(&self) -> Era {
        self.era
    }

    /// Makes the ticket count nothing any more.
    pub const fn spend(&mut self) {
        self.era = Era::NONE;
    }

    /// Marks that the answer has begun.
    pub const fn answer(&mut self) {
        self.progress = Progress::Answered;
    }

    /// How long the call has waited for an answer, unless it has one.
    pub const fn waited(&self, now: Instant) -> Option<std::time::Duration> {
        match self.progress {
            Progress::Waiting { since, .. } => Some(now.since(since)),
            Progress::Answered => None,
        }
    }
}
