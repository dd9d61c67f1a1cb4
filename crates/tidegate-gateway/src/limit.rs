//! A limit as the request path uses it: what it counts per, what a call costs in it, and the guard that decides.

mod operate;

use std::{sync::Arc, time::Duration};

use tidegate::{
    Throttle,
    fleet::{self, FleetThrottle},
    throttle::{Key, Mode},
};

use crate::{
    config::{self, Counting, OnStoreFailure, WindowStart},
    cost::{CostSource, number_in, units},
    key::{Extractor, Facts},
    refusal::Policy,
    store::Store,
    table::{BuildError, Change},
};

/// A limit on calls per time, and what it counts per.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: Arc<str>,
    pub(crate) guard: Guard,
    pub(crate) key: Vec<Extractor>,
    pub(crate) policy: Policy,
    pub(crate) config: config::Limit,
    /// Where its counters live.
    pub(crate) store: Arc<Store>,
}

/// Who decides.
#[derive(Clone, Debug)]
pub(crate) enum Guard {
    /// Counters in this process, exact and decided at once.
    Here(Arc<Throttle>),
    /// Accounts in a ledger: one that a fleet shares, or one in this process for what counters do not know.
    Shared(FleetThrottle),
}

impl Guard {
    /// The counters in this process, if these decide.
    pub(crate) fn here(&self) -> Option<&Throttle> {
        match self {
            Self::Here(throttle) => Some(throttle),
            Self::Shared(_) => None,
        }
    }

    /// The accounts in a ledger, if these decide.
    pub(crate) const fn shared(&self) -> Option<&FleetThrottle> {
        match self {
            Self::Here(_) => None,
            Self::Shared(throttle) => Some(throttle),
        }
    }
}

impl Limit {
    /// The key of a call in this limit.
    pub(crate) fn key(&self, facts: &Facts<'_>) -> Key {
        let mut hasher = self.store.hasher();
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

    /// What a call reserves, whose request body is so long, if that is known.
    pub(crate) fn cost(&self, facts: &Facts<'_>, body: Option<u64>) -> u32 {
        let estimate = self.config.cost.estimate().get();
        match self.config.cost.source() {
            // A client that says 0 still makes a call, and so does one that sends nothing.
            Some(CostSource::RequestHeader(name)) => {
                number_in(facts.headers, name).map_or(estimate, |units| units.max(1))
            }
            Some(CostSource::RequestBytes) => body.map_or(estimate, |bytes| units(bytes).max(1)),
            None | Some(CostSource::ResponseBytes | CostSource::ResponseHeader(_)) => estimate,
        }
    }

    /// Builds the limit `name`, taking over the counters of the `running` one where it still counts the same.
    pub(crate) fn build(
        name: &str,
        config: &config::Limit,
        running: Option<&Self>,
        store: &Arc<Store>,
        changes: &mut Vec<Change>,
    ) -> Result<Self, BuildError> {
        let place = || format!("limits.{name}");
        let wrong = |why| BuildError::value(place(), why);
        let key = config
            .key
            .iter()
            .map(|text| {
                text.parse().map_err(|why| BuildError::value(format!("{}.key: {text}", place()), why))
            })
            .collect::<Result<Vec<Extractor>, _>>()?;
        let taken_over = running.filter(|old| {
            Arc::ptr_eq(&old.store, store) && old.key == key && old.config.max_keys == config.max_keys
        });
        let rule = config.rule().map_err(wrong)?;
        let (guard, quota, window) = if needs_ledger(config, store) {
            let running = taken_over.and_then(|old| match &old.guard {
                Guard::Shared(throttle) => Some(throttle),
                Guard::Here(_) => None,
            });
            let guard = shared(name, config, rule, running, store, changes)?;
            (guard, rule.limit(), Duration::from_micros(rule.window()))
        } else {
            let quota = config.quota_of_rate().map_err(wrong)?;
            let running = taken_over.and_then(|old| match &old.guard {
                Guard::Here(throttle) => (old.config.counting().map(|old| old.name())
                    == config.counting().map(|new| new.name()))
                .then_some(throttle),
                Guard::Shared(_) => None,
            });
            (here(config, quota, running, changes), quota.limit(), quota.window())
        };
        let policy = Policy::new(name, quota, window);
        Ok(Self { name: name.into(), guard, key, policy, config: config.clone(), store: Arc::clone(store) })
    }
}

/// Whether counters in this process cannot do it.
fn needs_ledger(config: &config::Limit, store: &Store) -> bool {
    let from_first_call_or_calendar = match config.counting() {
        Some(Counting::FixedWindow { start, .. }) => start == WindowStart::FirstCall,
        Some(Counting::Calendar(_)) => true,
        Some(Counting::TokenBucket { .. } | Counting::SlidingWindow { .. }) | None => false,
    };
    store.is_shared()
        || from_first_call_or_calendar
        || config.prohibit.is_some()
        || config.cost.source().is_some_and(CostSource::is_told_later)
}

fn mode(config: &config::Limit) -> Mode {
    if config.shadow { Mode::Shadow } else { Mode::Enforce }
}

fn here(
    config: &config::Limit,
    quota: tidegate_core::Quota,
    running: Option<&Arc<Throttle>>,
    changes: &mut Vec<Change>,
) -> Guard {
    let mode = mode(config);
    let Some(throttle) = running else {
        return Guard::Here(Arc::new(Throttle::builder(quota).max_keys(config.max_keys).mode(mode).build()));
    };
    let changed = Arc::clone(throttle);
    changes.push(Box::new(move || {
        changed.set_mode(mode);
        changed.update(quota).expect("the algorithm is the same");
    }));
    Guard::Here(Arc::clone(throttle))
}

fn shared(
    name: &str,
    config: &config::Limit,
    rule: fleet::Rule,
    running: Option<&FleetThrottle>,
    store: &Store,
    changes: &mut Vec<Change>,
) -> Result<Guard, BuildError> {
    let mode = mode(config);
    let on_failure = match config.on_store_failure {
        OnStoreFailure::Deny => fleet::OnStoreFailure::Deny,
        OnStoreFailure::Share => fleet::OnStoreFailure::Share { units: config.aside_units() },
        OnStoreFailure::Open => fleet::OnStoreFailure::Open,
    };
    if let Some(throttle) = running {
        let changed = throttle.clone();
        changes.push(Box::new(move || {
            changed.set_mode(mode);
            changed.set_on_store_failure(on_failure);
            if changed.rule() != rule {
                changed.update(rule);
            }
        }));
        return Ok(Guard::Shared(throttle.clone()));
    }
    let builder =
        store.throttle(name, rule).mode(mode).on_store_failure(on_failure).max_keys(config.max_keys);
    let throttle = builder.build().map_err(|why| BuildError::value(format!("limits.{name}"), why))?;
    Ok(Guard::Shared(throttle))
}
