//! What a limiter counts off its fast path, and how it is read.

use std::time::Duration;

use super::{
    Shared,
    histogram::{Histogram, Recorder},
};
use crate::{
    By,
    sync::{AtomicU64, Ordering},
};

/// The rules by which a limiter refuses.
const REASONS: [By; 6] = [By::InFlight, By::QueueFull, By::WaitTooLong, By::Deadline, By::Nested, By::Closed];

pub(crate) struct Stats {
    refused: [AtomicU64; REASONS.len()],
    cancelled: AtomicU64,
    wait: Recorder,
    hold: Option<Recorder>,
}

impl Stats {
    pub(super) fn new(measure_hold: bool) -> Self {
        Self {
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            cancelled: AtomicU64::new(0),
            wait: Recorder::new(),
            hold: measure_hold.then(Recorder::new),
        }
    }

    #[cold]
    pub(super) fn refused(&self, by: By) {
        let reason = REASONS.iter().position(|reason| *reason == by);
        let reason = reason.expect("a limiter refuses by its own rules");
        self.refused[reason].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, wait: Duration) {
        self.wait.record(wait);
    }

    /// What is counted here, in a snapshot whose other fields are zero.
    pub(super) fn read(&self) -> Snapshot {
        Snapshot {
            in_flight: 0,
            limit: None,
            queued: 0,
            queue: 0,
            admitted: 0,
            refused: std::array::from_fn(|at| (REASONS[at], self.refused[at].load(Ordering::Relaxed))),
            cancelled_in_queue: self.cancelled.load(Ordering::Relaxed),
            wait: self.wait.read(),
            hold: self.hold.as_ref().map(Recorder::read),
            held_long: None,
        }
    }

    pub(super) fn held(&self, hold: Duration) {
        if let Some(recorder) = &self.hold {
            recorder.record(hold);
        }
    }
}

/// A reading of a limiter. Counts never fall, and start at 0 with the limiter.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Calls in flight.
    pub in_flight: u32,
    /// Most calls in flight; `None` when the limit is off.
    pub limit: Option<u32>,
    /// Callers in line.
    pub queued: u32,
    /// Most callers in line.
    pub queue: u32,
    /// Calls admitted so far.
    pub admitted: u64,
    /// Calls refused so far, by reason.
    pub refused: [(By, u64); REASONS.len()],
    /// Callers that went away while they waited.
    pub cancelled_in_queue: u64,
    /// How long admitted calls waited; those that did not wait are not in it.
    pub wait: Histogram,
    /// How long permits were held; `None` unless it is measured.
    pub hold: Option<Histogram>,
    /// Permits held now for longer than is watched for; `None` unless it is.
    pub held_long: Option<u32>,
}

impl Snapshot {
    /// Calls refused so far, for whatever reason.
    pub fn refused_in_all(&self) -> u64 {
        self.refused.iter().map(|(_, count)| count).sum()
    }

    /// Adds the calls of another limiter, or of another partition, to these. The limit stays.
    pub(super) fn add(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        self.queue = self.queue.saturating_add(other.queue);
        self.admitted += other.admitted;
        for ((_, count), (_, more)) in self.refused.iter_mut().zip(&other.refused) {
            *count += more;
        }
        self.cancelled_in_queue += other.cancelled_in_queue;
        self.wait.add(&other.wait);
        if let (Some(hold), Some(more)) = (&mut self.hold, &other.hold) {
            hold.add(more);
        }
        self.held_long = self.held_long.zip(other.held_long).map(|(held, more)| held + more);
    }
}

pub(super) fn snapshot(shared: &Shared) -> Snapshot {
    let load = shared.permits.load();
    Snapshot {
        in_flight: load.in_flight(),
        limit: Some(shared.permits.limit()).filter(|limit| *limit < tidegate_core::gate::MOST),
        queued: load.queued(),
        queue: shared.permits.queue(),
        admitted: shared.permits.admitted(),
        held_long: shared.watch.held_long().map(|age| shared.ages.longer_than(age, crate::sync::now())),
        ..shared.stats.read()
    }
}
