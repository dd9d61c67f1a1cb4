//! The instance's side: what it may use, until when, and what it asks for.

use std::time::Duration;

use super::{Answer, Demand, usable};
use crate::Instant;

/// What one instance has of a limit that a fleet shares.
#[derive(Clone, Debug)]
pub struct Holder {
    life: Duration,
    permits: u32,
    until: Instant,
    /// The last request, and when it was asked.
    seq: u64,
    asked: Instant,
}

impl Holder {
    /// Holds nothing, and asks for leases of `life`.
    pub const fn new(life: Duration) -> Self {
        Self { life, permits: 0, until: Instant::EPOCH, seq: 0, asked: Instant::EPOCH }
    }

    /// Permits it may use at `now`: none after its lease has ended. Calls beyond them must not begin, and none must run
    /// once the lease has ended.
    pub fn permits(&self, now: Instant) -> u32 {
        if now < self.until { self.permits } else { 0 }
    }

    /// When its lease ends, unless it is renewed; in the past when there is none.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Lets go of what is more than `wanted`; what it may use from now on.
    ///
    /// To be done before [`ask`](Self::ask): the store may lease to others what this one does not keep, before its answer is here.
    pub fn let_go(&mut self, wanted: u32, now: Instant) -> u32 {
        self.permits = self.permits(now).min(wanted);
        self.permits
    }

    /// Asks for `wanted` permits. `in_flight` are its calls, read after it has [let go](Self::let_go); those above what it
    /// may use are on their way out.
    pub fn ask(&mut self, in_flight: u32, wanted: u32, now: Instant) -> Demand {
        (self.seq, self.asked) = (self.seq + 1, now);
        let kept = if now < self.until { in_flight.max(self.permits) } else { 0 };
        Demand { seq: self.seq, kept, wanted }
    }

    /// Learns the answer to the request numbered `seq`; that of an earlier request than the last one changes nothing.
    pub fn answered(&mut self, seq: u64, answer: Answer) {
        if seq == self.seq {
            (self.permits, self.until) = match answer {
                Answer::Leased(permits) => (permits, self.asked + usable(self.life)),
                // Somebody has its number, or had it before: it has nothing that the store knows of.
                Answer::OutOfOrder => (0, Instant::EPOCH),
            };
        }
    }

    /// Gives everything back: it may use nothing any more, and no call must run. The number of this, for the store.
    pub const fn give_back(&mut self) -> u64 {
        (self.permits, self.until) = (0, Instant::EPOCH);
        self.seq += 1;
        self.seq
    }
}
