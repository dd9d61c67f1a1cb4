//! A limit in the hands of an operator: what it says of itself, and its counters read and changed.

use std::{net::IpAddr, time::Duration};

use tidegate::{
    clock,
    fleet::{Account, Adjustment, FleetStats, FleetThrottle, LedgerErrorKind},
    throttle::{self, Key},
};

use super::{Guard, Limit};
use crate::{
    config::Counting,
    counter::{Change, CounterChange, CounterError, CounterState, KeyParts, masked},
    state::{CreditState, Durations, LimitState},
};

impl Limit {
    /// What it did and holds now.
    pub(crate) fn state(&self) -> LimitState {
        let counting = self.config.counting();
        let state = LimitState {
            name: self.name.to_string(),
            rate: self.config.amount(),
            burst: match counting {
                Some(counting @ Counting::TokenBucket { .. }) => Some(counting.most().into()),
                Some(
                    Counting::FixedWindow { .. } | Counting::SlidingWindow { .. } | Counting::Calendar(_),
                )
                | None => None,
            },
            algorithm: counting.map_or("", |counting| counting.name()).into(),
            key: self.config.key.clone(),
            shadow: self.config.shadow,
            over_admission_possible: Some(0),
            ..LimitState::default()
        };
        match &self.guard {
            Guard::Here(throttle) => {
                let stats = throttle.stats();
                LimitState {
                    keys: stats.keys as u64,
                    max_keys: stats.capacity as u64,
                    admitted: stats.admitted,
                    refused: stats.refused,
                    shadow_refused: stats.shadow_refused,
                    shared: stats.shared,
                    ..state
                }
            }
            Guard::Shared(throttle) => {
                let stats = throttle.stats();
                LimitState {
                    keys: stats.keys as u64,
                    max_keys: self.config.max_keys.get().into(),
                    admitted: admitted(&stats),
                    refused: stats.refused + stats.unanswered,
                    shadow_refused: stats.shadow_refused,
                    over_admission_possible: stats.largest_over,
                    credit: self.store.is_shared().then(|| self.credit(&stats, throttle)),
                    ..state
                }
            }
        }
    }

    fn credit(&self, stats: &FleetStats, throttle: &FleetThrottle) -> CreditState {
        let decisions = admitted(stats) + stats.refused + stats.unanswered + stats.shadow_refused;
        CreditState {
            on_store_failure: self.config.on_store_failure.as_str(),
            life_seconds: Duration::from_micros(throttle.rule().life()).as_secs_f64(),
            in_hand: stats.in_hand,
            aside: stats.aside,
            stranded: stats.stranded,
            outstanding: stats.in_hand + stats.aside + stats.stranded,
            debt: stats.debt,
            forgiven: stats.forgiven,
            local: stats.local,
            waited: stats.waited,
            from_aside: stats.from_aside,
            open: stats.open,
            unanswered: stats.unanswered,
            asking: stats.asking as u64,
            operations: stats.asked,
            operations_per_decision: stats.asked as f64 / decisions.max(1) as f64,
            withheld: stats.withheld,
            losses: stats.losses,
            failures: LedgerErrorKind::ALL
                .iter()
                .map(|kind| (kind.as_str(), stats.errors[kind.index()]))
                .collect(),
            away_seconds: stats.away_for.map(|long| long.as_secs_f64()),
            away_share: stats.parts_away as f64 / stats.parts.max(1) as f64,
            outages: stats.outages,
            latency_seconds: stats.round_trip.as_secs_f64(),
            latency: Durations::from(&throttle.latencies()),
        }
    }

    /// Where a counter stands.
    pub(crate) async fn counter(&self, parts: KeyParts) -> Result<CounterState, CounterError> {
        let key = self.key_of(&parts)?;
        match &self.guard {
            Guard::Here(throttle) => Ok(self.told(parts, &throttle.standing(&key, clock::now()))),
            Guard::Shared(throttle) => {
                let account = throttle.inspect(&key).await;
                let account = account.map_err(|error| CounterError::Store(error.to_string()))?;
                Ok(self.told_by_ledger(parts, &account, throttle.rule().limit()))
            }
        }
    }

    /// Changes a counter, and says so in the log.
    pub(crate) async fn change(
        &self,
        parts: KeyParts,
        change: Change,
        by: IpAddr,
    ) -> Result<CounterChange, CounterError> {
        let key = self.key_of(&parts)?;
        let changed = match &self.guard {
            Guard::Here(throttle) => {
                let now = clock::now();
                let changed = match change {
                    Change::Add(units) => throttle.adjust(&key, units, now),
                    Change::Reset => throttle.reset(&key, now),
                };
                let changed = changed.map_err(|shared| CounterError::Shared(shared.to_string()))?;
                CounterChange {
                    before: self.told(parts.clone(), &changed.before),
                    after: self.told(parts, &changed.after),
                }
            }
            Guard::Shared(throttle) => {
                let adjustment = match change {
                    Change::Add(units @ 0..) => Adjustment::Relieve(units.unsigned_abs()),
                    Change::Add(units) => Adjustment::Charge(units.unsigned_abs()),
                    Change::Reset => Adjustment::Reset,
                };
                let changed = throttle.adjust(&key, adjustment).await;
                let changed = changed.map_err(|error| CounterError::Unknown(error.to_string()))?;
                let most = throttle.rule().limit();
                CounterChange {
                    before: self.told_by_ledger(parts.clone(), &changed.before, most),
                    after: self.told_by_ledger(parts, &changed.after, most),
                }
            }
        };
        tracing::info!(
            target: "tidegate::audit",
            %by,
            limit = &*self.name,
            counter = format!("{:032x}", key.bits()),
            key = masked(&self.key, &changed.before.key),
            ?change,
            before = changed.before.remaining,
            after = changed.after.remaining,
            "an operator changed a counter"
        );
        Ok(changed)
    }

    /// The key that an operator means.
    fn key_of(&self, parts: &KeyParts) -> Result<Key, CounterError> {
        if parts.len() != self.key.len() {
            let names: Vec<String> = self.key.iter().map(ToString::to_string).collect();
            let (wanted, given) = (names.len(), parts.len());
            return Err(CounterError::Parts { wanted, parts: names.join(" "), given });
        }
        let mut hasher = self.store.hasher();
        for (extractor, part) in self.key.iter().zip(parts) {
            let Some(value) = part else {
                hasher.absent();
                continue;
            };
            let feed = |part: Option<&[u8]>| {
                if let Some(bytes) = part {
                    hasher.part(bytes);
                }
            };
            extractor.feed_value(value, feed).map_err(|remedy| CounterError::Value {
                value: value.clone(),
                part: extractor.clone(),
                remedy,
            })?;
        }
        Ok(hasher.finish())
    }

    fn told(&self, key: KeyParts, standing: &throttle::Standing) -> CounterState {
        CounterState {
            limit: self.name.to_string(),
            key,
            remaining: standing.remaining().into(),
            most: standing.limit().into(),
            owed: 0,
            reset_in_seconds: standing.reset_in().as_secs_f64(),
            nodes: None,
        }
    }

    fn told_by_ledger(&self, key: KeyParts, account: &Account, most: u32) -> CounterState {
        CounterState {
            limit: self.name.to_string(),
            key,
            remaining: account.remaining,
            most: most.into(),
            owed: account.debt,
            reset_in_seconds: Duration::from_micros(account.reset_in.max(account.barred_in)).as_secs_f64(),
            nodes: self.store.is_shared().then_some(account.nodes.into()),
        }
    }
}

/// Calls admitted and not given back at once because another limit refused.
fn admitted(stats: &FleetStats) -> u64 {
    (stats.local + stats.waited + stats.from_aside + stats.open).saturating_sub(stats.undone)
}
