//! The throttle of a fleet: what its callers use.

use std::{fmt, sync::Arc, time::Duration};

use tidegate_core::{
    By, Call, Instant, Refused,
    credit::Terms,
    ledger::{Law, Rule, Standing as Account},
};

use super::{
    FleetBuilder, FleetPermit,
    error::LedgerError,
    ledger::{Adjusted, Adjustment, Ledger, Subject},
    parcel::Home as _,
    shared::{OnStoreFailure, Shared},
    slot::Receipt,
    stats::FleetStats,
    step::{Errands, Local, Patience},
};
use crate::{
    Gate, clock,
    limiter::Histogram,
    sync,
    sync::Ordering,
    throttle::{Key, Mode, Ruling, Standing},
};

/// A limit on calls per time and key that a fleet shares: never exceeded by all nodes together, and decided without
/// asking as long as credit is in hand.
///
/// A call's `now` should be read when it is decided: credit is spent up to a deadline by it. All clones share one
/// throttle; when the last one is dropped, what it holds is lost to the fleet until its window is over:
/// [`close`](Self::close) gives it back.
///
/// ```
/// use tidegate::{Call, clock, fleet::{FleetThrottle, LocalLedger, Rule}, throttle::{Key, Quota}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rule = Rule::of(Quota::of("2/min".parse()?).build()?).build()?;
/// let ledger = LocalLedger::new(); // or one that other processes share
/// let throttle = FleetThrottle::builder("per-client", rule, ledger).build()?;
/// let (call, alice) = (Call::at(clock::now()), Key::of(b"alice"));
/// assert!(throttle.enter(&call, &alice).await.is_ok());
/// throttle.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FleetThrottle {
    pub(super) shared: Arc<Shared>,
}

impl FleetThrottle {
    /// Begins the throttle of the limit `name`, which has the same name and rule on all nodes.
    pub fn builder(name: impl Into<Arc<str>>, rule: Rule, ledger: impl Ledger) -> FleetBuilder {
        FleetBuilder::new(name.into(), rule, ledger)
    }

    /// Decides by what is in hand, without waiting, and without allocating but for a new key or a question, which is asked
    /// in the background.
    ///
    /// # Errors
    /// [`By::Quota`] when the limit is used up; without `retry_after` when the call costs more than it ever
    /// grants. [`By::WaitTooLong`] when the ledger must be asked. [`By::Store`] when it does not answer,
    /// [`By::Pressure`] when there is no room for another key, [`By::Closed`]. Nothing was taken then.
    #[inline]
    pub fn try_enter(&self, call: &Call, key: &Key) -> Result<FleetPermit<&Self>, Refused> {
        self.take_now(call, key).map(|receipt| FleetPermit::new(self, *key, receipt))
    }

    /// Decides by what is in hand, or waits for the ledger: at most for its deadline and the call's own. Callers of one
    /// key wait for one answer together, and are polled twice. It never waits for a limit to regenerate.
    ///
    /// # Errors
    /// As [`try_enter`](Self::try_enter); and [`By::Deadline`] when the call's own passed first, [`By::QueueFull`] when
    /// 10 000 callers wait for the key.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing and changes nothing for others: the question goes on, and what it brings is
    /// for the next call.
    #[inline]
    pub async fn enter(&self, call: &Call, key: &Key) -> Result<FleetPermit<&Self>, Refused> {
        self.take(call, key).await.map(|receipt| FleetPermit::new(self, *key, receipt))
    }

    /// The name of the limit.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Whether two are clones of one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The rule now in force.
    pub fn rule(&self) -> Rule {
        self.shared.shards[0].0.lock().rule
    }

    /// Whether the limit refuses.
    pub fn mode(&self) -> Mode {
        self.shared.shards[0].0.lock().mode
    }

    /// Changes whether the limit refuses.
    pub fn set_mode(&self, mode: Mode) {
        for shard in &self.shared.shards {
            shard.0.lock().mode = mode;
        }
    }

    /// Changes what becomes of calls that need the ledger while it does not answer.
    pub fn set_on_store_failure(&self, on_failure: OnStoreFailure) {
        *self.shared.on_failure.lock() = on_failure;
    }

    /// Changes the rule. What was counted stays, and every node has to be told.
    ///
    /// From then on this node asks for credit of the new limit, and gives back what it holds. What is in hand on other
    /// nodes may still be spent while it lives: so much more than a lowered limit may be admitted until then, see
    /// [`FleetStats::largest_over`]. A rule that counts in another way (another algorithm, or windows of another
    /// length) begins with an empty account.
    pub fn update(&self, rule: Rule) {
        let (now, before) = (clock::now(), self.rule());
        if admits_less(&rule, &before) {
            let until = now + Duration::from_micros(before.life());
            self.shared.lowered_until.store(until.as_nanos(), Ordering::Relaxed);
        }
        for shard in &self.shared.shards {
            let mut told = Vec::new();
            shard.0.lock().update(rule, Terms::of(&rule).drift(self.shared.drift), &mut told);
            for (key, deliveries) in told {
                self.shared.deliver(key, deliveries);
            }
        }
        let shared = Arc::clone(&self.shared);
        self.shared.handle.spawn(async move { shared.recall().await });
    }

    /// Refuses every call from now on, gives all credit back, and ends when the ledger has it, or does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the throttle closed, and what it holds to its end.
    pub async fn close(&self) {
        self.shared.close().await;
    }

    /// Reads a key's account in the ledger.
    ///
    /// # Errors
    /// [`LedgerError`] when there is no answer.
    pub async fn inspect(&self, key: &Key) -> Result<Account, LedgerError> {
        let (rule, subject) = (self.rule(), Subject { limit: &self.shared.name, key: *key });
        self.shared.ledger.inspect(subject, &rule).await
    }

    /// Changes a key's account in the ledger, by an operator's hand.
    ///
    /// # Errors
    /// [`LedgerError`] when there is no answer; the change may have been made.
    pub async fn adjust(&self, key: &Key, adjustment: Adjustment) -> Result<Adjusted, LedgerError> {
        let (rule, subject) = (self.rule(), Subject { limit: &self.shared.name, key: *key });
        self.shared.ledger.adjust(subject, &rule, adjustment).await
    }

    /// What was done so far and is held now.
    pub fn stats(&self) -> FleetStats {
        let (shared, now) = (&self.shared, clock::now());
        let mut stats = FleetStats::default();
        for shard in &shared.shards {
            let mut state = shard.0.lock();
            stats.local += state.local;
            stats.keys += state.accounts.held();
            stats.bytes += state.accounts.bytes();
            for slot in state.accounts.iter_mut() {
                stats.in_hand += u64::from(slot.account.in_hand(now));
                stats.stranded += u64::from(slot.account.stranded(now));
                stats.debt += u64::from(slot.account.debt());
                stats.aside += slot.aside.as_ref().map_or(0, |aside| u64::from(aside.units(now)));
            }
            stats.debt += state.owed.units();
            state.counts.add(&mut stats);
        }
        let store = &shared.store;
        stats.parts = shared.away.parts();
        let (parts_away, since) = shared.away.known();
        (stats.is_away, stats.parts_away) = (parts_away > 0, parts_away);
        stats.outages = shared.away.found();
        stats.away_for = since.map(|since| now.since(since));
        stats.asking = shared.most_asks as usize - shared.places.available_permits();
        stats.asked = store.asked.load(Ordering::Relaxed);
        stats.withheld = store.withheld.load(Ordering::Relaxed);
        for (sum, errors) in stats.errors.iter_mut().zip(&store.errors) {
            *sum = errors.load(Ordering::Relaxed);
        }
        stats.latency = Duration::from_nanos(store.latency.load(Ordering::Relaxed));
        stats.round_trip = shared.trip();
        stats.losses = u64::from(shared.losses.load(Ordering::Relaxed));
        stats.largest_over = self.largest_over(stats.in_hand, now);
        stats
    }

    /// How long the ledger took to answer, of all questions that were answered in time.
    pub fn latencies(&self) -> Histogram {
        self.shared.store.latencies.read()
    }

    fn largest_over(&self, in_hand: u64, now: Instant) -> Option<u64> {
        let early = match self.rule().law() {
            Law::Bucket { count, period, .. } => {
                let tolerance = self.rule().tolerance().as_micros();
                (tolerance * u128::from(count)).div_ceil(u128::from(period)) as u64
            }
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month | Law::Sliding { .. } => 0,
        };
        let lowered_until = Instant::from_nanos(self.shared.lowered_until.load(Ordering::Relaxed));
        let lowered = if now < lowered_until { in_hand } else { 0 };
        match *self.shared.on_failure.lock() {
            OnStoreFailure::Open => None,
            OnStoreFailure::Deny | OnStoreFailure::Share { .. } => Some(early + lowered),
        }
    }

    #[inline]
    fn take_now(&self, call: &Call, key: &Key) -> Result<Receipt, Refused> {
        match self.shared.spend(*key, call.cost, call.now) {
            Some(receipt) => Ok(receipt),
            None => self.try_later(call, key),
        }
    }

    #[cold]
    fn try_later(&self, call: &Call, key: &Key) -> Result<Receipt, Refused> {
        match self.shared.enter(*key, call.cost, call.now, Patience::None, None) {
            Local::Granted(receipt) => Ok(receipt),
            Local::Unknown if self.shared.away.is_known(*key) => {
                self.shared.without_ledger(*key, call.cost, call.now)
            }
            Local::Unknown => Err(Refused::after(By::WaitTooLong, self.shared.trip())),
            other => Err(refused(other, call.now)),
        }
    }

    #[inline]
    async fn take(&self, call: &Call, key: &Key) -> Result<Receipt, Refused> {
        if let Some(receipt) = self.shared.spend(*key, call.cost, call.now) {
            return Ok(receipt);
        }
        match self.shared.enter(*key, call.cost, call.now, Patience::Waits, None) {
            Local::Granted(receipt) => Ok(receipt),
            Local::Waiting(told) => self.take_later(call, key, told).await,
            Local::Unknown => self.shared.without_ledger(*key, call.cost, call.now),
            other => Err(refused(other, call.now)),
        }
    }

    async fn take_later(
        &self,
        call: &Call,
        key: &Key,
        mut told: tokio::sync::oneshot::Receiver<super::slot::Answer>,
    ) -> Result<Receipt, Refused> {
        for _ in 0..ROUNDS {
            let answer = self.shared.wait(told, call, *key, sync::now()).await;
            let now = sync::now();
            match answer {
                // Its credit may have been over before this was polled.
                Some(Ok(receipt)) if receipt.is_over(now) => {}
                Some(answer) => return answer,
                None => {}
            }
            match self.shared.enter(*key, call.cost, now, Patience::Waits, None) {
                Local::Granted(receipt) => return Ok(receipt),
                Local::Waiting(next) => told = next,
                Local::Unknown => return self.shared.without_ledger(*key, call.cost, now),
                other => return Err(refused(other, now)),
            }
        }
        Err(Refused::after(By::WaitTooLong, Duration::ZERO))
    }

    pub(super) fn refund(&self, key: Key, receipt: Receipt, now: Instant) {
        if receipt.cost > 0 {
            self.shared.refund(key, receipt, now);
        }
    }

    /// Gives back what was taken for a call that another limit refused.
    pub(super) fn undo(&self, key: Key, receipt: Receipt, now: Instant) {
        self.shared.take_back(key, receipt, now);
    }

    pub(super) fn settle(&self, key: Key, receipt: Receipt, actual: u32, now: Instant) {
        let (mut errands, told): (Errands, _) = ([None, None], self.shared.losses.load(Ordering::Relaxed));
        self.shared.shard(key).0.lock().settle(key, receipt, actual, now, told, &mut errands);
        self.shared.send(errands, now);
    }

    pub(super) fn glance(&self, key: Key, ruling: Ruling) -> Standing {
        self.shared.shard(key).0.lock().glance(key, ruling)
    }
}

/// Whether credit granted under the rule before may be more than the new one admits.
fn admits_less(rule: &Rule, before: &Rule) -> bool {
    let slower = match (rule.law(), before.law()) {
        (
            Law::Bucket { count, period, .. },
            Law::Bucket { count: count_before, period: period_before, .. },
        ) => u128::from(count) * u128::from(period_before) < u128::from(count_before) * u128::from(period),
        _ => false,
    };
    slower || rule.limit() < before.limit()
}

/// Times that a call is decided: anew when its credit was over before it was polled.
const ROUNDS: u32 = 3;

/// The refusal for what a shard said.
pub(super) fn refused(local: Local, now: Instant) -> Refused {
    match local {
        Local::Denied(retry_at) => Refused::after(By::Quota, retry_at.since(now)),
        Local::Impossible => Refused::new(By::Quota),
        Local::Full => Refused::new(By::Pressure),
        Local::Crowded => Refused::new(By::QueueFull),
        Local::Closed => Refused::new(By::Closed),
        Local::Granted(_) | Local::Waiting(_) | Local::Unknown => Refused::new(By::WaitTooLong),
    }
}

impl AsRef<FleetThrottle> for FleetThrottle {
    fn as_ref(&self) -> &FleetThrottle {
        self
    }
}

impl<'a> Gate<Key> for &'a FleetThrottle {
    type Permit = FleetPermit<&'a FleetThrottle>;

    fn try_enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        FleetThrottle::try_enter(self, call, key)
    }

    async fn enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        FleetThrottle::enter(self, call, key).await
    }
}

impl Gate<Key> for FleetThrottle {
    type Permit = FleetPermit<FleetThrottle>;

    fn try_enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        self.take_now(call, key).map(|receipt| FleetPermit::new(self.clone(), *key, receipt))
    }

    async fn enter(&self, call: &Call, key: &Key) -> Result<Self::Permit, Refused> {
        self.take(call, key).await.map(|receipt| FleetPermit::new(self.clone(), *key, receipt))
    }
}

impl fmt::Debug for FleetThrottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetThrottle")
            .field("name", &self.shared.name)
            .field("rule", &self.rule())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
