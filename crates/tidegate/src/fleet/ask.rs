//! Questions on their way to the ledger: each in a task of its own, so that no caller can break it; a bounded number,
//! and none but probes while the store is away.

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    Instant,
    ledger::{Ask, Reply, Rule},
    nanos,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::{LedgerError, LedgerErrorKind},
    ledger::Subject,
    number,
    shared::{OnStoreFailure, Shared},
    step::{Errand, Errands, Landed, Whose},
};
use crate::{
    clock,
    limiter::histogram::Recorder,
    sync::{AtomicU64, Ordering},
};

/// What is known of the store.
pub(super) struct Store {
    pub(super) asked: AtomicU64,
    pub(super) withheld: AtomicU64,
    pub(super) errors: [AtomicU64; LedgerErrorKind::ALL.len()],
    /// Nanoseconds.
    pub(super) latency: AtomicU64,
    pub(super) round_trip: AtomicU64,
    /// How long answers took.
    pub(super) latencies: Recorder,
    /// When it answered last.
    pub(super) heard_at: AtomicU64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            asked: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            latency: AtomicU64::new(0),
            round_trip: AtomicU64::new(1_000_000),
            latencies: Recorder::new(),
            heard_at: AtomicU64::new(0),
        }
    }

    fn answered(&self, took: Duration, now: Instant) {
        let (took, before) = (nanos(took), self.round_trip.load(Ordering::Relaxed));
        self.latency.store(took, Ordering::Relaxed);
        self.latencies.record(Duration::from_nanos(took));
        // Several at once may lose one of them: an average all the same.
        self.round_trip.store(before - before / 8 + took / 8, Ordering::Relaxed);
        self.heard_at.store(now.as_nanos(), Ordering::Relaxed);
    }
}

/// A question under way: when its task ends without an answer, whoever waits hears that.
struct UnderWay {
    shared: Arc<Shared>,
    errand: Option<Errand>,
    told: u32,
    /// Goes to the question that the answer brings up, if it brings one up.
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(errand) = self.errand.take() {
            let now = crate::sync::now();
            self.shared.away.failed(errand.key, now, now);
            self.shared.unanswered(errand, now);
        }
    }
}

impl Shared {
    /// Sends questions, as far as there are places for them.
    #[cold]
    pub(super) fn send(self: &Arc<Self>, errands: Errands, now: Instant) {
        self.send_from(None, errands, now);
    }

    /// Sends questions, the first in a place that another one leaves, if there is one.
    fn send_from(self: &Arc<Self>, mut left: Option<OwnedSemaphorePermit>, errands: Errands, now: Instant) {
        for errand in errands.into_iter().flatten() {
            match left.take().map_or_else(|| Arc::clone(&self.places).try_acquire_owned(), Ok) {
                Ok(place) => _ = self.send_in(place, errand, now),
                Err(_) => self.withhold(errand, now),
            }
        }
    }

    /// Sends a question in a place that was waited for. Whether it was sent.
    pub(super) fn send_in(
        self: &Arc<Self>,
        place: OwnedSemaphorePermit,
        errand: Errand,
        now: Instant,
    ) -> Option<tokio::task::JoinHandle<()>> {
        if self.away.is_known(errand.key) {
            self.withhold(errand, now);
            return None;
        }
        let told = self.losses.load(Ordering::Relaxed);
        let under_way = UnderWay { shared: Arc::clone(self), errand: Some(errand), told, place: Some(place) };
        Some(self.handle.spawn(under_way.ask()))
    }

    fn withhold(self: &Arc<Self>, errand: Errand, now: Instant) {
        self.store.withheld.fetch_add(1, Ordering::Relaxed);
        self.unanswered(errand, now);
    }

    /// A question was not answered: whoever waits hears that.
    fn unanswered(self: &Arc<Self>, errand: Errand, now: Instant) {
        let ask = errand.draft.send(self.node, 0);
        let next = self.landed(&errand, &ask, 0, None, [now, now]);
        self.send(next, now);
    }

    /// Tells the account what became of its question, and its waiters what becomes of them. What is to be asked next.
    fn landed(
        self: &Arc<Self>,
        errand: &Errand,
        ask: &Ask,
        told: u32,
        reply: Option<&Reply>,
        [sent_at, now]: [Instant; 2],
    ) -> Errands {
        let Errand { whose, key, era, .. } = *errand;
        let mut deliveries = Vec::new();
        let mut state = self.shard(key).0.lock();
        let (lost, next) = match whose {
            Whose::Account => {
                let aside = match *self.on_failure.lock() {
                    OnStoreFailure::Share { units } => units,
                    OnStoreFailure::Deny | OnStoreFailure::Open => 0,
                };
                state.terms = state.terms.round_trip(self.trip());
                let landed = Landed { key, ask, era, told, reply, sent_at, now };
                state.answered(&landed, aside, &mut deliveries)
            }
            Whose::Aside => {
                state.aside_answered(key, era, ask, reply, sent_at);
                (false, [None, None])
            }
            Whose::Nobody => {
                if reply.is_none() {
                    state.owe(key, ask.debt);
                }
                (false, [None, None])
            }
        };
        drop(state);
        self.deliver(key, deliveries);
        if lost && self.losses.compare_exchange(told, told + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.loss_noticed.notify_one();
        }
        next
    }
}

impl UnderWay {
    async fn ask(mut self) {
        let shared = Arc::clone(&self.shared);
        let (key, draft, rule) = {
            let errand = self.errand.as_ref().expect("it is taken at the end");
            (errand.key, errand.draft, errand.rule)
        };
        let ask = draft.send(shared.node, number::next());
        let (reply, times) = shared.put(Subject { limit: &shared.name, key }, &rule, &ask).await;
        let errand = self.errand.take().expect("it is taken once");
        let next = shared.landed(&errand, &ask, self.told, reply.as_ref(), times);
        // The place is free now: waiters are not to be told that there is none.
        shared.send_from(self.place.take(), next, times[1]);
    }
}

impl Shared {
    /// Puts a question to the ledger, within the deadline, and learns of the store by what becomes of it. The answer, when
    /// it was sent and when it was over.
    pub(super) async fn put(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        ask: &Ask,
    ) -> (Option<Reply>, [Instant; 2]) {
        self.store.asked.fetch_add(1, Ordering::Relaxed);
        // Credit lives from before the question leaves.
        let sent_at = clock::now();
        let answer = tokio::time::timeout(self.patience, self.ledger.ask(subject, rule, ask)).await;
        let now = clock::awake(clock::now());
        let late = || LedgerError::new(LedgerErrorKind::Late, "no answer in time");
        match answer.unwrap_or_else(|_| Err(late())) {
            Ok(reply) => {
                self.store.answered(now.since(sent_at), now);
                self.away.answered(subject.key, now);
                (Some(reply), [sent_at, now])
            }
            Err(error) => {
                self.store.errors[error.kind().index()].fetch_add(1, Ordering::Relaxed);
                // What a process missed that stood still itself says nothing of the store.
                let stood_still = now.since(sent_at) > self.patience * 2;
                let is_answering = error.kind() == LedgerErrorKind::Late
                    && self.ledger.heard_at(subject.key).is_some_and(|heard_at| heard_at >= sent_at);
                if is_evidence(error.kind()) && !stood_still && !is_answering {
                    self.away.failed(subject.key, sent_at, now);
                }
                (None, [sent_at, now])
            }
        }
    }
}

/// Whether a failure says something of the store. That there is no room for one more key or question does not: the keys
/// that are known go on being asked for.
const fn is_evidence(kind: LedgerErrorKind) -> bool {
    match kind {
        LedgerErrorKind::Busy => false,
        LedgerErrorKind::Unreachable
        | LedgerErrorKind::Late
        | LedgerErrorKind::Unready
        | LedgerErrorKind::Denied
        | LedgerErrorKind::Broken => true,
    }
}
