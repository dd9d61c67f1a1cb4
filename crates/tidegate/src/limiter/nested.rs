//! Tells a call that is already inside a limiter, so that it does not wait for itself.

use std::{cell::RefCell, marker::PhantomData};

/// What a call gets that asks for a second permit of a limiter it is inside of.
///
/// Being inside is known to [`Limiter::run`](super::Limiter::run) and to the layer, on the task that runs the call;
/// what that task spawns is not inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nested {
    /// A permit that is free; it never waits for one, but is refused by `nested`. The limit stays exact.
    #[default]
    Refuse,
    /// Nothing more: the outer call's permit counts for both.
    CountOnce,
}

thread_local! {
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, the thread is inside a call of a limiter.
pub(crate) struct Inside {
    not_send: PhantomData<*const ()>,
}

impl Inside {
    pub(crate) fn of(limiter: usize) -> Self {
        INSIDE.with_borrow_mut(|inside| inside.push(limiter));
        Self { not_send: PhantomData }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(Vec::pop);
    }
}

pub(crate) fn is_inside(limiter: usize) -> bool {
    INSIDE.with_borrow(|inside| inside.contains(&limiter))
}
