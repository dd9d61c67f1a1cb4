//! What a throttle does unasked: idle credit goes back, hints are followed, a ledger that lost what it knew is told.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tidegate_core::Instant;
use tokio::{sync::broadcast, time::timeout};

use super::{
    away::Away,
    ledger::{Hint, NOTICED_WITHIN, Subject, Tidings},
    shard::State,
    shared::Shared,
    slot::{Answer, Open},
    stats::tell,
    step::{Delivery, Errand, Whose},
};
use crate::{clock, sync::Ordering, throttle::Key};

/// The shortest time between two looks at all accounts.
const PASS: Duration = Duration::from_millis(250);
/// How often it is looked at whether the ledger needs a sign of life: so that a loss is noticed well within
/// [`NOTICED_WITHIN`].
const BEAT: Duration = NOTICED_WITHIN.checked_div(4).expect("4 is not 0");
/// Times that closing looks for credit that came in meanwhile.
const LAST_LOOKS: u32 = 4;

/// Follows what the ledger says unasked, as long as the throttle lives.
pub(super) async fn follow(shared: Weak<Shared>, mut hints: broadcast::Receiver<Hint>) {
    loop {
        match hints.recv().await {
            Ok(hint) => match shared.upgrade() {
                Some(shared) => shared.heed(&hint),
                None => return,
            },
            // What was missed costs speed, nothing else.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Looks after the accounts, as long as the throttle lives.
pub(super) async fn tend(shared: Weak<Shared>) {
    let (mut passed_at, mut told) = (Instant::EPOCH, 0);
    loop {
        let Some(this) = shared.upgrade() else { return };
        let (now, losses) = (clock::now(), this.losses.load(Ordering::Relaxed));
        // While the store is away, what would go back is kept to be spent.
        if !this.away.is_whole() {
            if now.since(passed_at) >= PASS || losses != told {
                passed_at = now;
                told = if this.pass(losses, now).await { losses } else { told };
            }
            this.beat(now);
        }
        let waited = timeout(BEAT, this.loss_noticed.notified()).await;
        drop(waited);
        drop(this);
    }
}

impl Shared {
    fn heed(self: &Arc<Self>, hint: &Hint) {
        if *hint.limit != *self.name {
            return;
        }
        let now = clock::now();
        let mut state = self.shard(hint.key).0.lock();
        let (rule, era, terms) = (state.rule, state.era, state.terms);
        let Some(at) = state.accounts.find(hint.key) else { return };
        let mut slot = state.accounts.slot(at);
        let account = &mut slot.account;
        let draft = match hint.tidings {
            Tidings::Exhausted(_) | Tidings::Recall if self.away.is_known(hint.key) => None,
            Tidings::Exhausted(_) => account.exhausted(&terms, now),
            Tidings::Recall => account.hand_back(now),
            Tidings::Relieved => {
                account.replenished();
                None
            }
        };
        drop(slot);
        drop(state);
        let errand = draft.map(|draft| Errand { whose: Whose::Account, key: hint.key, draft, rule, era });
        self.send([errand, None], now);
    }

    /// Looks at every account once: what is idle goes back, what the ledger may have lost is told. Whether all that
    /// had to be told was.
    async fn pass(self: &Arc<Self>, losses: u32, now: Instant) -> bool {
        let mut all_told = true;
        for shard in &self.shards {
            let errands = {
                let mut state = shard.0.lock();
                let is_told = |key| self.ledger.tells_again(Subject { limit: &self.name, key });
                let (errands, told) = state.tend(losses, &self.away, is_told, now);
                all_told &= told;
                errands
            };
            for errand in errands {
                self.send_when_there_is_room(errand).await;
            }
            // A thousand accounts at a time, so that calls on this runtime get their turn.
            tokio::task::yield_now().await;
        }
        all_told
    }

    async fn send_when_there_is_room(
        self: &Arc<Self>,
        errand: Errand,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("places are never closed");
        self.send_in(place, errand, clock::now())
    }

    /// Lets the ledger hear of this node while it may be needed to repair it.
    fn beat(self: &Arc<Self>, now: Instant) {
        let heard_at = Instant::from_nanos(self.store.heard_at.load(Ordering::Relaxed));
        if now.since(heard_at) >= BEAT {
            let sign = self.shards.iter().find_map(|shard| shard.0.lock().sign_of_life(&self.away, now));
            self.send([sign, None], now);
        }
    }

    /// Asks for nothing, gives all credit back, and refuses every call from now on.
    pub(super) async fn close(self: &Arc<Self>) {
        for shard in &self.shards {
            let told = shard.0.lock().close();
            for (key, deliveries) in told {
                self.deliver(key, deliveries);
            }
        }
        for _ in 0..LAST_LOOKS {
            self.recall().await;
            // Every place back: no question is under way any more, and what came in goes back with the next look.
            let all = self.places.acquire_many(self.most_asks).await;
            drop(all);
            if self.shards.iter().all(|shard| shard.0.lock().holds_nothing(clock::now())) {
                return;
            }
        }
    }

    /// Gives all credit in hand back.
    pub(super) async fn recall(self: &Arc<Self>) {
        for shard in &self.shards {
            let errands = shard.0.lock().hand_all_back(clock::now());
            for errand in errands {
                self.send_when_there_is_room(errand).await;
            }
        }
    }
}

impl State {
    fn tend(
        &mut self,
        losses: u32,
        away: &Away,
        is_told: impl Fn(Key) -> bool,
        now: Instant,
    ) -> (Vec<Errand>, bool) {
        let (rule, era, terms) = (self.rule, self.era, self.terms);
        let (mut errands, mut all_told) = (self.tell_debts(now), true);
        self.accounts.retain(|slot| {
            if !slot.is_at_rest() || away.is_known(slot.key) {
                all_told &= slot.told == losses;
                return true;
            }
            let account = &mut slot.account;
            let is_needed = account.counts(&terms, now);
            let is_due = slot.told != losses && is_needed;
            let draft = if is_due && !is_told(slot.key) {
                all_told = false;
                // Of whatever epoch it is: each part of a store may have its own.
                account.reassert(u64::MAX, &terms, now)
            } else {
                // Where another one tells it, its next question still finds the loss that is known.
                if !is_due {
                    slot.told = losses;
                }
                account.renew(&terms, now).or_else(|| {
                    let idle = account.is_idle(&terms, now);
                    if idle { account.hand_back(now) } else { None }
                })
            };
            let key = slot.key;
            errands.extend(draft.map(|draft| Errand { whose: Whose::Account, key, draft, rule, era }));
            let account = &slot.account;
            account.is_recent(&terms, now)
                || !slot.is_at_rest()
                || account.in_hand(now) > 0
                || account.debt() > 0
        });
        (errands, all_told)
    }

    /// What is owed without an account.
    fn tell_debts(&mut self, now: Instant) -> Vec<Errand> {
        let (rule, era) = (self.rule, self.era);
        let errand = |(key, draft)| Errand { whose: Whose::Nobody, key, draft, rule, era };
        self.owed.tell(now).map(errand).collect()
    }

    fn sign_of_life(&mut self, away: &Away, now: Instant) -> Option<Errand> {
        let (rule, era, terms) = (self.rule, self.era, self.terms);
        let mut heard = self.accounts.iter_mut().filter(|slot| slot.is_at_rest() && !away.is_known(slot.key));
        heard.find_map(|mut slot| {
            let draft = slot.account.reassert(u64::MAX, &terms, now)?;
            Some(Errand { whose: Whose::Account, key: slot.key, draft, rule, era })
        })
    }

    fn hand_all_back(&mut self, now: Instant) -> Vec<Errand> {
        let (rule, era) = (self.rule, self.era);
        let back = |mut slot: Open<'_>| {
            let (whose, draft) = match slot.account.hand_back(now) {
                Some(draft) => (Whose::Account, draft),
                // Not both at once: the later question would keep the earlier one from giving back.
                None if slot.account.is_asking() => return None,
                None => (Whose::Aside, slot.aside.as_mut()?.hand_back(now)?),
            };
            Some(Errand { whose, key: slot.key, draft, rule, era })
        };
        let mut errands: Vec<_> = self.accounts.iter_mut().filter_map(back).collect();
        errands.append(&mut self.tell_debts(now));
        errands
    }

    fn holds_nothing(&mut self, now: Instant) -> bool {
        self.owed.units() == 0
            && self.accounts.iter_mut().all(|slot| {
                let aside = slot.aside.as_ref().map_or(0, |aside| aside.units(now));
                slot.account.in_hand(now) == 0 && slot.account.debt() == 0 && aside == 0
            })
    }

    fn close(&mut self) -> Vec<(Key, Vec<Delivery>)> {
        self.is_closed = true;
        let waiting = self.accounts.iter_mut().filter(|slot| slot.line.is_some());
        waiting
            .map(|mut slot| {
                let mut deliveries = Vec::new();
                for waiter in slot.line.take().into_iter().flat_map(|line| line.0) {
                    tell(waiter, Answer::Closed, &mut deliveries);
                }
                (slot.key, deliveries)
            })
            .collect()
    }
}
