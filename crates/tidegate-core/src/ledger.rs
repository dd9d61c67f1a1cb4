//! The fleet's ledger: counts credit when it is GRANTED, so that nodes which spend only what they hold never spend
//! more than the limit together, however many they are and whatever becomes of messages.
//!
//! [`Rule`] says what a limit is, [`Ask`] and [`Reply`] are what a node and the ledger say to each other, and [`Book`]
//! is one subject's account: the reference that every store equals, reply by reply. Nothing depends on the number
//! of nodes, on what they are told out of turn, or on their clocks.
//!
//! Everything is a whole number below 2^53, so that a store whose numbers are doubles computes exactly the same:
//! times are in microseconds of the store's clock.

use std::time::Duration;

mod book;
mod bucket;
mod calendar;
mod census;
mod fixed;
mod message;
mod rule;
mod sliding;
#[cfg(test)]
mod tests;
mod used;

pub use book::{Book, FAR, MOST_DEBT, Standing, State};
pub use census::MOST_NODES;
pub use message::{Ask, Epoch, Mark, Reply, Seen};
pub use rule::{
    Calendar, DEFAULT_DIVISOR, DEFAULT_LIFE, InvalidRule, Law, MAX_LIFE, MAX_PROHIBIT, MIN_LIFE, MOST_SLICES,
    Opening, Rule, RuleBuilder,
};

/// Microseconds: a time of the store's clock, since the Unix epoch, or a duration.
pub type Micros = u64;

/// Whole microseconds, a part counted as one.
pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}
