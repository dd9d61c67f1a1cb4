//! A question before it has a number.

use crate::{
    lease::Node,
    ledger::{Ask, Micros, Seen},
};

/// A question that an account wants asked: it becomes an [`Ask`] when it is sent.
///
/// It must be sent, or [failed](super::Account::failed): until one of both the account asks nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Draft {
    pub(super) least: u32,
    pub(super) need: u32,
    pub(super) want: u32,
    pub(super) back: u32,
    pub(super) of: Micros,
    pub(super) debt: u32,
    pub(super) seen: Seen,
}

impl Draft {
    /// Whether a call waits for the answer.
    pub const fn is_awaited(&self) -> bool {
        self.least > 0
    }

    /// Asks for all that wait: `need` units together, of which the account may hold some already.
    pub fn for_all(mut self, need: u32) -> Self {
        self.need = self.need.max(need);
        self.want = self.want.max(self.need);
        self
    }

    /// The question of `node` with a number that it never used before for this subject: see [`Ask::seq`].
    pub const fn send(self, node: Node, seq: u64) -> Ask {
        let Self { least, need, want, back, of, debt, seen } = self;
        Ask { node, seq, least, need, want, back, of, debt, seen }
    }
}
