//! Facts about the guards leave the library as one [`Event`], told to an [`Observer`]; what they become (a metric, a
//! line in a log) is the observer's business.

use tidegate_core::{
    Instant,
    breaker::{Era, Phase},
};

/// Something that happened to a guard. Per call there is none: only what would interest an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A breaker changed its state.
    BreakerChanged {
        /// The name its owner gave it.
        name: &'a str,
        /// The era that began. Threads may report out of order; the higher era is the later one.
        era: Era,
        /// The state it left.
        from: Phase,
        /// The state it is in now.
        to: Phase,
        /// When it changed.
        at: Instant,
    },
}

/// Someone who is told what happens. Called on the path of a call, outside all locks: count and return.
pub trait Observer: Send + Sync {
    /// Learns of one event.
    fn observe(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>) + Send + Sync> Observer for F {
    fn observe(&self, event: Event<'_>) {
        self(event);
    }
}
