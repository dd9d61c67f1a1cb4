//! What all clones of a fleet's throttle share: shards of accounts, the way to the ledger, and what is known of it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidegate_core::{By, Instant, Refused, lease::Node};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
    task::AbortHandle,
};

use super::{
    any::AnyLedger,
    ask::Store,
    away::{Away, PROBES_APART},
    parcel::{Home, Parcel},
    shard::Shard,
    slot::{Answer, Receipt},
    step::{Caller, Delivery, Errands, Local, Patience},
};
use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    throttle::{Key, Standing},
};

/// What a limit does for calls that need the ledger while it does not answer. Credit in hand is spent first, whatever
/// the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// Refuses them.
    #[default]
    Deny,
    /// Spends units that were granted to this node ahead and held aside for that. The limit holds; while the ledger answers,
    /// so many units a key lie idle on each node that uses it. They live as long as other credit: give the rule
    /// a [life](tidegate_core::ledger::RuleBuilder::life) as long as the outage to be bridged.
    Share {
        /// Units of each key to hold aside.
        units: u32,
    },
    /// Admits them: nothing bounds what the fleet admits then.
    Open,
}

/// See the module.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) node: Node,
    pub(super) ledger: Box<dyn AnyLedger>,
    pub(super) handle: Handle,
    pub(super) shards: Box<[Shard]>,
    pub(super) patience: Duration,
    pub(super) drift: u32,
    pub(super) on_failure: Mutex<OnStoreFailure>,
    /// Places for questions under way.
    pub(super) places: Arc<Semaphore>,
    pub(super) most_asks: u32,
    pub(super) away: Away,
    pub(super) store: Store,
    /// Losses of the ledger noticed so far.
    pub(super) losses: AtomicU32,
    pub(super) loss_noticed: Notify,
    /// Until when credit of a higher limit may be spent, in nanoseconds.
    pub(super) lowered_until: AtomicU64,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl Home for Shared {
    fn take_back(&self, key: Key, receipt: Receipt, now: Instant) {
        let mut state = self.shard(key).0.lock();
        state.counts.undone += 1;
        state.give_back(key, receipt, now);
    }
}

impl Shared {
    pub(super) fn trip(&self) -> Duration {
        Duration::from_nanos(self.store.round_trip.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn shard(&self, key: Key) -> &Shard {
        &self.shards[key.bits() as usize & (self.shards.len() - 1)]
    }

    /// Takes a call from credit in hand, as nearly all are; with `None` nothing was taken.
    #[inline]
    pub(super) fn spend(&self, key: Key, cost: u32, now: Instant) -> Option<Receipt> {
        // Credit must not outlive its deadline in a machine that slept.
        let now = crate::clock::awake(now);
        self.shard(key).0.lock().spend(key, cost, now).map(|(receipt, _)| receipt)
    }

    /// Decides a call at once, as far as that is possible.
    pub(super) fn enter(
        self: &Arc<Self>,
        key: Key,
        cost: u32,
        now: Instant,
        patience: Patience,
        standing: Option<&mut Standing>,
    ) -> Local {
        let mut errands: Errands = [None, None];
        // Credit must not outlive its deadline in a machine that slept.
        let now = crate::clock::awake(now);
        // Nobody waits for a store that is known not to answer.
        let patience = if self.away.is_known(key) { Patience::Away } else { patience };
        let caller = Caller { key, cost, now, patience, told: self.losses.load(Ordering::Relaxed) };
        let local = self.shard(key).0.lock().enter(caller, &mut errands, standing);
        if errands[0].is_some() || errands[1].is_some() {
            self.send(errands, now);
        }
        local
    }

    /// Waits for what a call was put in line for: at most for the store's deadline and to the call's own. `None` when it is
    /// to be decided anew.
    pub(super) async fn wait(
        self: &Arc<Self>,
        waiting: tokio::sync::oneshot::Receiver<Answer>,
        call: &tidegate_core::Call,
        key: Key,
        since: Instant,
    ) -> Option<Result<Receipt, Refused>> {
        let patience = since + self.patience;
        let until = call.deadline.map_or(patience, |deadline| deadline.min(patience));
        let answer = tokio::time::timeout_at(crate::clock::timer_at(until), waiting).await;
        let now = crate::sync::now();
        match answer {
            Ok(Ok(Answer::Granted(parcel))) => {
                let receipt = parcel.open();
                // A peek leaves what it found.
                if call.cost == 0 {
                    self.refund(key, receipt, now);
                    return Some(Ok(Receipt::default()));
                }
                Some(Ok(receipt))
            }
            Ok(Ok(Answer::Denied(retry_at))) => Some(Err(Refused::after(By::Quota, retry_at.since(now)))),
            Ok(Ok(Answer::Impossible)) => Some(Err(Refused::new(By::Quota))),
            Ok(Ok(Answer::Closed)) => Some(Err(Refused::new(By::Closed))),
            Ok(Ok(Answer::Again)) => None,
            Err(_) if call.deadline.is_some_and(|deadline| deadline <= now) => {
                Some(Err(Refused::new(By::Deadline)))
            }
            // The runtime that asks may have gone, with the question.
            Ok(Ok(Answer::Failed) | Err(_)) | Err(_) => Some(self.without_ledger(key, call.cost, now)),
        }
    }

    /// Decides a call that needs the ledger while it does not answer.
    pub(super) fn without_ledger(&self, key: Key, cost: u32, now: Instant) -> Result<Receipt, Refused> {
        self.away.is_wanted();
        let policy = *self.on_failure.lock();
        let mut state = self.shard(key).0.lock();
        match policy {
            OnStoreFailure::Share { .. } if state.spend_aside(key, cost.max(1), now) => {
                state.counts.from_aside += 1;
                Ok(Receipt::beside(cost.max(1)))
            }
            OnStoreFailure::Open => {
                state.counts.open += 1;
                Ok(Receipt::default())
            }
            OnStoreFailure::Deny | OnStoreFailure::Share { .. } => {
                state.counts.unanswered += 1;
                Err(Refused::after(By::Store, PROBES_APART.max(self.patience)))
            }
        }
    }

    /// Gives back what a call took and did not use.
    pub(super) fn refund(&self, key: Key, receipt: Receipt, now: Instant) {
        self.shard(key).0.lock().refund(key, receipt, now);
    }

    /// Gives answers to waiters; what nobody takes goes back.
    pub(super) fn deliver(self: &Arc<Self>, key: Key, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            // Whoever is gone drops the answer, and a parcel goes back by that.
            let _ = match delivery {
                Delivery::Receipt(tell, receipt) => {
                    tell.send(Answer::Granted(Parcel::new(Arc::clone(self) as Arc<dyn Home>, key, receipt)))
                }
                Delivery::Plain(tell, answer) => tell.send(answer),
            };
        }
    }
}
