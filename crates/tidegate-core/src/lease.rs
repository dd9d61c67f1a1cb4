//! Divides the permits of one limit among the instances of a fleet, by demand, as leases with an end.
//!
//! [`Leases`] keeps the books on the side of the store, [`Holder`] those of one instance. Messages between them may be
//! lost, late, repeated and out of order, and instances may die: the sum of what instances use stays within the limit
//! all the same, because
//!
//! - the store counts a permit before an instance uses it, and an instance lets go of a permit before it says so;
//! - both count a lease's life by their own clocks, the store from when it hears, the instance from when it asked: the
//!   instance stops first;
//! - requests are numbered: one that was overtaken by a later one of its instance changes nothing.

mod books;
mod holder;

use std::time::Duration;

pub use books::{Leases, MOST_NODES};
pub use holder::Holder;

/// One instance of a fleet: a number that no other instance has, and a new one with every start.
///
/// An instance that starts again under its old number gets nothing until its old lease has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u64);

/// What an instance asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The number of the request, higher than those of all the instance's earlier ones. A repeated request has the same.
    pub seq: u64,
    /// Permits it goes on using until it hears the answer: it has let go of all others before it asked.
    pub kept: u32,
    /// How many permits it could use.
    pub wanted: u32,
}

/// What the store says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The instance may have so many calls in flight, in place of what it had. To a repeated request: as before.
    Leased(u32),
    /// A later request of this instance came first; nothing changed.
    OutOfOrder,
}

/// How much faster the store's clock may run than an instance's, in millionths.
pub const MOST_DRIFT: u32 = 200;

/// The part of a lease's `life` that an instance uses, counted from when it asked: less than the store counts, whatever
/// their clocks do within [`MOST_DRIFT`].
pub fn usable(life: Duration) -> Duration {
    life.saturating_sub(life / (1_000_000 / MOST_DRIFT))
}
