//! What a coordinator did, as counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tidegate_core::{Instant, recovery::Reach};

use super::{GrantError, Tokens};
use crate::keeper;

/// How a grant ended. Each grant that was sent counts once, however many waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantOutcome {
    /// New tokens.
    Granted,
    /// New tokens, after callers had stopped to wait.
    Late,
    /// The session is over.
    Terminal,
    /// The client is not what the endpoint expects.
    Misconfigured,
    /// The endpoint cannot now.
    Transient,
    /// It was not sent.
    NotSent,
    /// Nobody knows.
    Unknown,
    /// The answer could not be read, or its ID token was wrong.
    Protocol,
}

impl GrantOutcome {
    /// All of them, in the order of [`Stats::grants`].
    pub const ALL: [Self; 8] = [
        Self::Granted,
        Self::Late,
        Self::Terminal,
        Self::Misconfigured,
        Self::Transient,
        Self::NotSent,
        Self::Unknown,
        Self::Protocol,
    ];

    /// How a grant ended in time.
    pub(super) const fn of(result: &Result<Tokens, GrantError>) -> Self {
        match result {
            Ok(_) => Self::Granted,
            Err(GrantError::Terminal { .. }) => Self::Terminal,
            Err(GrantError::Scope | GrantError::Misconfigured { .. }) => Self::Misconfigured,
            Err(GrantError::Transient { .. }) => Self::Transient,
            Err(GrantError::NotSent { .. }) => Self::NotSent,
            Err(GrantError::Unknown { .. }) => Self::Unknown,
            Err(GrantError::Protocol { .. }) => Self::Protocol,
        }
    }

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "success",
            Self::Late => "late",
            Self::Terminal => "invalid_grant",
            Self::Misconfigured => "client_error",
            Self::Transient => "transient",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
            Self::Protocol => "protocol",
        }
    }
}

/// What a coordinator did since the beginning, and how it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Grants that were sent, by how they ended: in the order of [`GrantOutcome::ALL`].
    pub grants: [u64; 8],
    /// Grants that are out now.
    pub in_flight: usize,
    /// Sessions that wait for their turn, another process, or a grant.
    pub queued: usize,
    /// Refreshes for which another process had, or got, the tokens.
    pub shared: u64,
    /// Waits for the lease of another process.
    pub lease_waits: u64,
    /// Leases that were lost while a grant was out.
    pub leases_lost: u64,
    /// Leases whose holder died after it had sent a grant.
    pub orphans: u64,
    /// Writes for which another version stood in the store.
    pub conflicts: u64,
    /// Sessions of which the store had forgotten the last writes, and was told.
    pub forgotten: u64,
    /// Operations of the store that failed.
    pub store_failures: u64,
    /// Whether the last operation of the store failed.
    pub store_failing: bool,
    /// Sessions that ended, other than by a logout here.
    pub over: u64,
    /// Refreshes that brought somebody else's tokens: an operator should look.
    pub mismatches: u64,
    /// Tokens that came back for a session that had been logged out, and were revoked.
    pub revoked: u64,
    /// Refreshes that were held back: endpoint resting, session cooling down.
    pub held_back: u64,
    /// Whether the endpoint can be reached.
    pub reach: Reach,
    /// Until when it asked to be left alone.
    pub paused_until: Instant,
    /// The keeper's own counts: sessions held, callers waiting.
    pub keeper: keeper::Stats,
}

impl Stats {
    /// These and the counts of another coordinator of the same endpoint; what is a state and no count stays.
    #[must_use]
    pub(super) fn with(mut self, other: &Self) -> Self {
        for (grants, more) in self.grants.iter_mut().zip(other.grants) {
            *grants += more;
        }
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        self.held_back += other.held_back;
        self.keeper.keys += other.keeper.keys;
        self.keeper.waiting += other.keeper.waiting;
        self.paused_until = self.paused_until.max(other.paused_until);
        self
    }

    /// Grants that ended in `outcome`.
    pub fn grants(&self, outcome: GrantOutcome) -> u64 {
        self.grants[outcome as usize]
    }
}

#[derive(Default)]
pub(super) struct Counters {
    grants: [AtomicU64; 8],
    pub(super) in_flight: AtomicUsize,
    pub(super) shared: AtomicU64,
    pub(super) lease_waits: AtomicU64,
    pub(super) leases_lost: AtomicU64,
    pub(super) orphans: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) forgotten: AtomicU64,
    store_failures: AtomicU64,
    store_failing: AtomicUsize,
    pub(super) over: AtomicU64,
    pub(super) mismatches: AtomicU64,
    pub(super) revoked: AtomicU64,
    pub(super) held_back: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    pub(super) fn granted(&self, outcome: GrantOutcome) {
        count(&self.grants[outcome as usize]);
    }

    /// Learns how an operation of the store ended, and passes it on.
    pub(super) fn store<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            count(&self.store_failures);
        }
        self.store_failing.store(usize::from(result.is_err()), Relaxed);
        result
    }

    pub(super) fn stats(
        &self,
        queued: usize,
        reach: Reach,
        paused_until: Instant,
        keeper: keeper::Stats,
    ) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            grants: std::array::from_fn(|outcome| read(&self.grants[outcome])),
            in_flight: self.in_flight.load(Relaxed),
            queued,
            shared: read(&self.shared),
            lease_waits: read(&self.lease_waits),
            leases_lost: read(&self.leases_lost),
            orphans: read(&self.orphans),
            conflicts: read(&self.conflicts),
            forgotten: read(&self.forgotten),
            store_failures: read(&self.store_failures),
            store_failing: self.store_failing.load(Relaxed) != 0,
            over: read(&self.over),
            mismatches: read(&self.mismatches),
            revoked: read(&self.revoked),
            held_back: read(&self.held_back),
            reach,
            paused_until,
            keeper,
        }
    }
}
