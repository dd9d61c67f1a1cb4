//! A limit as the request path uses it: what it counts per, what a call costs in it, and the guard that decides.

use std::sync::Arc;

use tidegate::{
    Throttle,
    throttle::{self, Mode},
};
use tidegate_core::{self as core, Quota};

use crate::{
    config::{self, Cost, Counting, WindowStart},
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
        if config.prohibit.is_some() || config.cost != Cost::default() {
            return Err(BuildError::value(place(), "a cost and a prohibition are not there yet"));
        }
        let builder = match counting {
            Counting::TokenBucket { rate, burst } => match burst {
                Some(burst) => Quota::of(rate).burst(burst.get()),
                None => Quota::of(rate),
            },
            Counting::FixedWindow { rate, start: WindowStart::Clock } => {
                Quota::of(rate).algorithm(core::Algorithm::FixedWindow)
            }
            Counting::SlidingWindow { rate } => Quota::of(rate).algorithm(core::Algorithm::SlidingWindow),
            Counting::FixedWindow { start: WindowStart::FirstCall, .. } | Counting::Calendar(_) => {
                return Err(BuildError::value(place(), "this window is not there yet"));
            }
        };
        let quota = builder.build().map_err(|why| BuildError::value(place(), why))?;
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
