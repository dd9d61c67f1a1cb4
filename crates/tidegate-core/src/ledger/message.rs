//! What a node asks of the ledger and what it is told.

use super::{Micros, Rule};
use crate::lease::Node;

/// What a node asks of one subject's account.
///
/// A repeated question may burn credit, never mint it: what is given back and what is owed is booked once by `seq`,
/// and what is granted to a question nobody waits for any more is lost until its window is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks. A process that starts anew is another node.
    pub node: Node,
    /// Grows with every question of this node on this subject. A number may not be used twice, not even after the
    /// node forgot the subject: one counter for all questions of a process is right.
    pub seq: u64,
    /// The least that helps: with less there, nothing is granted. 0 when nobody waits.
    pub least: u32,
    /// What the calls that wait need together, at least `least`: granted as far as it is there.
    pub need: u32,
    /// The most it could use, those calls included. Beyond `need` it is granted in small parts near the limit.
    pub want: u32,
    /// Credit that it gives back unspent and will not spend.
    pub back: u32,
    /// The window of that credit: [`Reply::of`], the earliest where it was granted by several.
    pub of: Micros,
    /// What it spent beyond the credit it held, in units: paid before anything else is granted, over windows.
    pub debt: u32,
    /// The last it saw of this subject.
    pub seen: Seen,
}

/// The last that a node saw of a subject: what a ledger that lost it is repaired with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// [`Reply::epoch`]; 0 when it saw nothing yet.
    pub epoch: u64,
    /// The highest [`Reply::mark`] of that epoch.
    pub mark: Mark,
}

/// How far an account is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The window: its start in microseconds of the store's clock; of a sliding window the newest slice's number; of
    /// a bucket 0.
    pub of: Micros,
    /// What was granted in that window and not given back; of a sliding window, in all slices that count; of a
    /// bucket the instant at which it is full again, in microseconds of the store's clock.
    pub level: u64,
}

/// What the ledger answers. Times are in microseconds from the instant at which the store decided, durations only:
/// no clock is compared with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Credit that the node may spend now.
    pub granted: u32,
    /// The window of this credit: start or slice as in [`Mark::of`]; of a bucket the instant of the grant.
    pub of: Micros,
    /// For how long it may be spent, from the instant at which the node SENT its question, on a clock that cannot
    /// be faster than the store's: see `tidegate_core::credit`.
    pub life: Micros,
    /// What is left to grant in this window.
    pub remaining: u32,
    /// When the window ends, or the bucket is full, or the sliding window empty.
    pub reset_in: Micros,
    /// When the least that was asked for (1 if nothing was) will be there, as far as it is known: 0 for now.
    pub retry_in: Micros,
    /// Nodes that asked lately. It sizes grants, nothing else.
    pub nodes: u32,
    /// How far the account is used, this grant included.
    pub mark: Mark,
    /// Which ledger answered.
    pub epoch: u64,
}

/// An unbroken memory of a ledger. One that lost what it knew begins another.
///
/// A new epoch begins with a pause of one life of credit in which nothing is granted: by its end all credit of the
/// epoch before is over, and every live node has had the time to say what it [saw](Seen). A ledger over-grants after
/// a loss only what no node that is left has seen. Where nodes may take long to notice the loss, the store asks for
/// answers with a [`begun`](Self::begun) that is so much later, which makes the pause so much longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Different for every epoch of a store, and growing; not 0.
    pub id: u64,
    /// When it began, on the store's clock; 0 for a ledger that knows its whole past, which need not pause.
    pub begun: Micros,
}

impl Epoch {
    /// The epoch of a ledger that lives and dies with those who hold its credit.
    pub const WHOLE: Self = Self { id: 1, begun: 0 };

    /// The epoch of a ledger that finds itself empty at `now`, the store's clock.
    pub const fn new(now: Micros) -> Self {
        let now = if now == 0 { 1 } else { now };
        Self { id: now, begun: now }
    }

    /// The epoch to go on with at `now`, after a node told which one it saw last. When it differs from `self` the
    /// store writes it down.
    ///
    /// A later one was seen: this ledger was set back to an earlier state, and a new epoch begins. Its own beginning
    /// is ahead: the clock was set back, and the pause is counted from now.
    #[must_use]
    pub const fn at(self, seen: u64, now: Micros) -> Self {
        if seen > self.id {
            let id = if now > seen { now } else { seen + 1 };
            Self { id, begun: now }
        } else if self.begun > now {
            Self { id: self.id, begun: now }
        } else {
            self
        }
    }

    /// How much of the pause is left: nothing is granted until it is over.
    #[must_use]
    pub const fn pause(self, rule: &Rule, now: Micros) -> Micros {
        if self.begun == 0 { 0 } else { (self.begun + rule.life()).saturating_sub(now) }
    }
}
