//! Tells a call that is already inside a limiter, so that it does not wait for itself.

use std::{cell::Cell, marker::PhantomData};

use super::Permit;

/// What a call gets that asks for a second permit of a limiter it is inside of.
///
/// Being inside is known to [`Limiter::run`](super::Limiter::run), to [`Partition::run`](super::Partition::run) and to the
/// layer, on the task that runs the call; what that task spawns is not inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nested {
    /// A permit that is free; it never waits for one, but is refused by `nested`. The limit stays exact.
    #[default]
    Refuse,
    /// Nothing more: the outer call's permit counts for both.
    CountOnce,
}

/// How deep limiters are told apart inside each other; deeper calls wait as if they were not nested.
const DEPTH: usize = 16;

struct Nest {
    depth: Cell<usize>,
    limiters: [Cell<usize>; DEPTH],
}

thread_local! {
    static NEST: Nest = const { Nest { depth: Cell::new(0), limiters: [const { Cell::new(0) }; DEPTH] } };
}

/// While it lives, the thread is inside a call of a limiter.
pub(crate) struct Inside {
    not_send: PhantomData<*const ()>,
}

impl Inside {
    /// Marks what `permit` stands for, where calls inside it are counted once. A call that only waits, or not, needs no mark
    /// before it is polled.
    #[inline]
    pub(crate) fn counted(permit: &Permit) -> Option<Self> {
        permit.counts_nested().then(|| Self::of(permit.limiter()))
    }

    #[inline]
    pub(crate) fn of(limiter: usize) -> Self {
        NEST.with(|nest| {
            let depth = nest.depth.get();
            if let Some(place) = nest.limiters.get(depth) {
                place.set(limiter);
            }
            nest.depth.set(depth + 1);
        });
        Self { not_send: PhantomData }
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        NEST.with(|nest| nest.depth.set(nest.depth.get() - 1));
    }
}

pub(crate) fn is_inside(limiter: usize) -> bool {
    NEST.with(|nest| nest.limiters.iter().take(nest.depth.get()).any(|place| place.get() == limiter))
}
