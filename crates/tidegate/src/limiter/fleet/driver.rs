//! Keeps the lease of an instance: one task that asks, listens, renews, and gives back in the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidegate_core::lease::Holder;
use tokio::{
    sync::{Notify, watch},
    time::{sleep_until, timeout, timeout_at},
};

use super::{
    super::Limiter,
    store::{FleetStore, Node},
};
use crate::{Instant, clock};

/// What the instance's callers wish from its driver.
#[derive(Debug, Default)]
pub(in crate::limiter) struct Wishes {
    heard: Notify,
    leaving: AtomicBool,
}

impl Wishes {
    /// More permits, soon.
    pub(in crate::limiter) fn more(&self) {
        self.heard.notify_one();
    }

    /// To leave the fleet.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.heard.notify_one();
    }
}

pub(super) struct Driver<S> {
    store: S,
    node: Node,
    life: Duration,
    holder: Holder,
    limiter: Limiter,
    lease: watch::Sender<Instant>,
    wishes: Arc<Wishes>,
}

/// Parts of a lease's life: between two renewals, at most for an answer, and at least between two questions.
const RENEWALS: u32 = 3;
const ANSWERS: u32 = 4;
const QUESTIONS: u32 = 50;
/// For how many lives of a lease an instance that leaves waits for its calls.
const LEAVING: u32 = 10;

impl<S: FleetStore> Driver<S> {
    pub(super) fn new(
        store: S,
        node: Node,
        life: Duration,
        limiter: Limiter,
        lease: watch::Sender<Instant>,
        wishes: Arc<Wishes>,
    ) -> Self {
        Self { store, node, life, holder: Holder::new(life), limiter, lease, wishes }
    }

    pub(super) async fn run(mut self) {
        while !self.is_leaving() {
            let asked = clock::now();
            self.renew(asked).await;
            let ends = self.holder.until();
            let renewal = (asked + self.life / RENEWALS).min(ends.max(asked + self.life / QUESTIONS));
            let heard = timeout_at(clock::timer_at(renewal), self.wishes.heard.notified()).await;
            if heard.is_ok() && !self.is_leaving() {
                sleep_until(clock::timer_at(asked + self.life / QUESTIONS)).await;
            }
        }
        self.leave().await;
    }

    fn is_leaving(&self) -> bool {
        self.wishes.leaving.load(Ordering::Acquire)
    }

    /// Keeps the lease for the calls that still run, then gives it back.
    async fn leave(&mut self) {
        let began = clock::now();
        let mut drained = std::pin::pin!(self.limiter.close());
        loop {
            let renewal = clock::timer_at(clock::now() + self.life / RENEWALS);
            if timeout_at(renewal, drained.as_mut()).await.is_ok() {
                break;
            }
            if clock::now().since(began) >= self.life * LEAVING {
                // Somebody keeps a permit for good: the lease runs out.
                return;
            }
            self.renew(clock::now()).await;
        }
        let until = self.holder.until();
        let seq = self.holder.give_back();
        self.lease.send_replace(self.holder.until());
        while clock::now() < until {
            // A repetition has the same number, and does no more than the first that arrives.
            let given_back = timeout(self.life / ANSWERS, self.store.give_back(self.node, seq)).await;
            if matches!(given_back, Ok(Ok(()))) {
                return;
            }
            sleep_until(clock::timer_at(clock::now() + self.life / QUESTIONS)).await;
        }
    }

    async fn renew(&mut self, asked: Instant) {
        let permits = &self.limiter.shared.permits;
        let load = permits.load();
        let calls = load.in_flight() + load.queued();
        // A quarter more than it needs now, so that not every new call has to ask. One that leaves needs no more, nor one
        // without calls: what idle instances kept in hand, busy ones would lack where the limit is small.
        let wanted = if load.is_closed() || calls == 0 { calls } else { calls + calls / 4 + 1 };
        permits.resize(self.holder.let_go(wanted, asked));
        let demand = self.holder.ask(permits.load().in_flight(), wanted, asked);
        // No longer than its lease lasts: whoever waits for the store must not go on without one.
        let until = self.holder.until();
        let patience = asked + self.life / ANSWERS;
        let patience = if until > asked { patience.min(until) } else { patience };
        let answer = self.store.lease(self.node, demand, self.life);
        if let Ok(Ok(answer)) = timeout_at(clock::timer_at(patience), answer).await {
            self.holder.answered(demand.seq, answer);
            self.lease.send_replace(self.holder.until());
        }
        permits.resize(self.holder.permits(clock::now()));
    }
}
