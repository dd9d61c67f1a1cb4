//! Calls per time over a fleet: a limit that is exact however many nodes share it, and decided without asking as long
//! as credit is in hand.
//!
//! A [`Ledger`] that all nodes share counts credit when it is granted. A node spends only what it was granted, until a
//! deadline that it counts on its own clock, so the fleet never spends more than the limit: whatever becomes of
//! messages, nodes and clocks. Far from the limit a node holds enough to decide by itself and asks for more before it
//! runs dry; near the limit credit is granted call by call, and callers of a key wait for one answer together; at the
//! limit "nothing is left before then" is known here, and refusing costs nothing.
//!
//! [`FleetThrottle`] is the guard, [`LocalLedger`] a ledger in memory; `tidegate-redis` has one that processes share.

mod accounts;
mod all;
mod answered;
mod any;
mod ask;
mod away;
mod background;
mod builder;
mod error;
#[cfg(all(test, shuttle))]
mod interleavings;
mod ledger;
mod local;
mod number;
mod owed;
mod parcel;
mod permit;
mod shard;
mod shared;
mod slot;
mod stats;
mod step;
mod throttle;

pub use tidegate_core::{
    lease::Node,
    ledger::{Calendar, InvalidRule, Opening, Rule, RuleBuilder, Standing as Account},
};

use self::throttle::refused;
pub use self::{
    all::{FleetGrants, FleetReceipts, FleetVerdict, enter_all, enter_all_at},
    builder::{FleetBuilder, NoRuntime},
    error::{LedgerError, LedgerErrorKind},
    ledger::{Adjusted, Adjustment, Hint, Ledger, MOST_PARTS, NOTICED_WITHIN, Subject, Tidings},
    local::LocalLedger,
    permit::FleetPermit,
    shared::OnStoreFailure,
    stats::FleetStats,
    throttle::FleetThrottle,
};
