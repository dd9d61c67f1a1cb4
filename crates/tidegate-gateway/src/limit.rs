//! A limit as the request path uses it: what it counts per, what a call costs in it, and the guard that decides.

use std::{net::IpAddr, sync::Arc};

use tidegate::{
    Throttle, clock,
    throttle::{self, Mode},
};

use crate::{
    config::{self, Counting, WindowStart},
    cost::{CostSource, number_in},
    counter::{self, CounterChange, CounterError, CounterState, KeyParts, masked},
    key::{Extractor, Facts},
    refusal::Policy,
    table::{BuildError, Change},
};

/// A limit on calls per time, and what it counts per.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: Arc<str>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) key: Vec<Extractor>,
    pub(crate) policy: Policy,
    pub(crate) config: config::Limit,
}

impl Limit {
    /// The key of a call in this limit.
    pub(crate) fn key(&self, facts: &Facts<'_>) -> throttle::Key {
        let mut hasher = throttle::KeyHasher::new();
        for part in &self.key {
            part.feed(facts, |part| {
                match part {
                    Some(bytes) => hasher.part(bytes),
                    None => hasher.absent(),
                };
            });
        }
        hasher.finish()
    }

    /// What a call reserves.
    pub(crate) fn cost(&self, facts: &Facts<'_>) -> u32 {
        let estimate = self.config.cost.estimate().get();
        match self.config.cost.source() {
            Some(CostSource::RequestHeader(name)) => {
                // A client that says 0 still makes a call.
                number_in(facts.headers, name).map_or(estimate, |units| units.max(1))
            }
            None
            | Some(CostSource::RequestBytes | CostSource::ResponseBytes | CostSource::ResponseHeader(_)) => {
                estimate
            }
        }
    }

    /// The key that an operator means.
    fn key_of(&self, parts: &KeyParts) -> Result<throttle::Key, CounterError> {
        if parts.len() != self.key.len() {
            let names: Vec<String> = self.key.iter().map(ToString::to_string).collect();
            let (wanted, given) = (names.len(), parts.len());
            let parts = if names.is_empty() { "one counter for all".into() } else { names.join(" ") };
            return Err(CounterError::Parts { wanted, parts, given });
        }
        let mut hasher = throttle::KeyHasher::new();
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

    /// Where a counter stands.
    pub(crate) async fn counter(&self, parts: KeyParts) -> Result<CounterState, CounterError> {
        let key = self.key_of(&parts)?;
        Ok(self.told(parts, &self.throttle.standing(&key, clock::now())))
    }

    /// Changes a counter, and says so in the log.
    pub(crate) async fn change(
        &self,
        parts: KeyParts,
        change: counter::Change,
        by: IpAddr,
    ) -> Result<CounterChange, CounterError> {
        let key = self.key_of(&parts)?;
        let now = clock::now();
        let changed = match change {
            counter::Change::Add(units) => self.throttle.adjust(&key, units, now),
            counter::Change::Reset => self.throttle.reset(&key, now),
        };
        let changed = changed.map_err(|shared| CounterError::Shared(shared.to_string()))?;
        let changed = CounterChange {
            before: self.told(parts.clone(), &changed.before),
            after: self.told(parts, &changed.after),
        };
        tracing::info!(
            target: "tidegate::audit",
            %by,
            limit = &*self.name,
            counter = ?key,
            key = masked(&self.key, &changed.before.key),
            ?change,
            before = changed.before.remaining,
            after = changed.after.remaining,
            "an operator changed a counter"
        );
        Ok(changed)
    }

    fn told(&self, key: KeyParts, standing: &throttle::Standing) -> CounterState {
        CounterState {
            limit: self.name.to_string(),
            key,
            remaining: standing.remaining().into(),
            most: standing.limit().into(),
            reset_in_seconds: standing.reset_in().as_secs_f64(),
            in_hand: None,
            nodes: None,
        }
    }

    /// Builds the limit `name`, taking over the counters of the `running` one where it still counts the same.
    pub(crate) fn build(
        name: &str,
        config: &config::Limit,
        running: Option<&Self>,
        changes: &mut Vec<Change>,
    ) -> Result<Self, BuildError> {
        let place = || format!("limits.{name}");
        let key = config
            .key
            .iter()
            .map(|text| {
                text.parse().map_err(|why| BuildError::value(format!("{}.key: {text}", place()), why))
            })
            .collect::<Result<Vec<Extractor>, _>>()?;
        let counting = config
            .counting()
            .ok_or_else(|| BuildError::value(place(), "there is neither a rate nor a quota"))?;
        let told_later = !matches!(config.cost.source(), None | Some(CostSource::RequestHeader(_)));
        if config.prohibit.is_some() || told_later {
            return Err(BuildError::value(place(), "this cost or a prohibition is not there yet"));
        }
        if matches!(
            counting,
            Counting::FixedWindow { start: WindowStart::FirstCall, .. } | Counting::Calendar(_)
        ) {
            return Err(BuildError::value(place(), "this window is not there yet"));
        }
        let quota = config.quota_of_rate().map_err(|why| BuildError::value(place(), why))?;
        let mode = if config.shadow { Mode::Shadow } else { Mode::Enforce };
        let taken_over = running.filter(|old| {
            old.key == key
                && old.config.counting().map(|old| old.name()) == Some(counting.name())
                && old.config.max_keys == config.max_keys
        });
        let throttle = match taken_over {
            Some(old) => {
                let throttle = Arc::clone(&old.throttle);
                changes.push(Box::new({
                    let throttle = Arc::clone(&throttle);
                    move || {
                        throttle.set_mode(mode);
                        throttle.update(quota).expect("the algorithm is the same");
                    }
                }));
                throttle
            }
            None => Arc::new(Throttle::builder(quota).max_keys(config.max_keys).mode(mode).build()),
        };
        let policy = Policy::new(name, quota.limit(), quota.window());
        Ok(Self { name: name.into(), throttle, key, policy, config: config.clone() })
    }
}
