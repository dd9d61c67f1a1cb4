//! Calls per time over a fleet: a limit that is exact however many nodes share it, and decided without asking as long
//! as credit is in hand.
//!
//! A [`Ledger`] that all nodes share counts credit when it is granted. A node spends only what it was granted, until a
//! deadline that it counts on its own clock, so the fleet never spends more than the limit: whatever becomes of
//! messages, nodes and clocks.

mod error;
mod ledger;
mod local;

pub use tidegate_core::{
    lease::Node,
    ledger::{Calendar, InvalidRule, Opening, Rule, RuleBuilder, Standing as Account},
};

pub use self::{
    error::{LedgerError, LedgerErrorKind},
    ledger::{Adjusted, Adjustment, Hint, Ledger, Subject, Tidings},
    local::LocalLedger,
};
