//! Holds what was admitted against the limit, by the store's clock.

use std::collections::{BTreeMap, VecDeque};

use crate::ledger::{Law, Micros, Rule};

/// What one key would have been admitted by a limiter that knows everything at once.
#[derive(Debug, Default)]
pub(super) struct Ideal {
    window: (Micros, u64),
    recent: VecDeque<(Micros, u64)>,
    sum: u64,
    level: u128,
    last: Micros,
}

impl Ideal {
    /// Whether a call of `cost` at `at` would have been admitted.
    pub(super) fn admits(&mut self, rule: &Rule, at: Micros, cost: u32) -> bool {
        let (limit, cost) = (u64::from(rule.limit()), u64::from(cost));
        match rule.law() {
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month => {
                let over = match rule.law() {
                    Law::Aligned { period } => at - at % period > self.window.0,
                    _ => at >= self.window.0 + rule.window(),
                };
                if over {
                    let start = if let Law::Aligned { period } = rule.law() { at - at % period } else { at };
                    self.window = (start, 0);
                }
                let admits = self.window.1 + cost <= limit;
                self.window.1 += if admits { cost } else { 0 };
                admits
            }
            Law::Sliding { slice, slices } => {
                while let Some((_, units)) =
                    self.recent.pop_front_if(|(then, _)| *then + slice * slices <= at)
                {
                    self.sum -= units;
                }
                let admits = self.sum + cost <= limit;
                if admits {
                    self.recent.push_back((at, cost));
                    self.sum += cost;
                }
                admits
            }
            Law::Bucket { count, period, .. } => {
                let flowed = u128::from(at - self.last) * u128::from(count);
                self.last = at;
                self.level = self.level.saturating_sub(flowed);
                let taken = u128::from(cost) * u128::from(period);
                let admits = self.level + taken <= u128::from(limit) * u128::from(period);
                self.level += if admits { taken } else { 0 };
                admits
            }
        }
    }
}

/// What one key was admitted.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The window, and what it holds.
    window: (Micros, u64),
    /// Windows that begin with calls may be spent from for a while beside each other.
    windows: BTreeMap<Micros, u64>,
    /// The last period, sliding.
    recent: VecDeque<(Micros, u64)>,
    sum: u64,
    /// A bucket: when it is full again, in parts of a unit that flow in in a microsecond.
    level: u128,
    last: Micros,
}

impl Judge {
    /// Notes that `cost` of the credit of window `of` was spent at `at`, and tells by how much that is too much.
    pub(super) fn note(&mut self, rule: &Rule, at: Micros, of: Micros, cost: u32) -> u64 {
        let (limit, cost) = (u64::from(rule.limit()), u64::from(cost));
        match rule.law() {
            Law::Aligned { period } => self.in_window(at - at % period, cost).saturating_sub(limit),
            Law::FirstCall { .. } | Law::Month => {
                let sum = self.windows.entry(of).or_default();
                *sum += cost;
                let over = sum.saturating_sub(limit);
                if self.windows.len() > 8 {
                    self.windows.pop_first();
                }
                over
            }
            Law::Sliding { slice, slices } => {
                let period = slice * slices;
                while let Some((_, units)) = self.recent.pop_front_if(|(then, _)| *then + period <= at) {
                    self.sum -= units;
                }
                self.recent.push_back((at, cost));
                self.sum += cost;
                self.sum.saturating_sub(limit)
            }
            Law::Bucket { count, period, .. } => {
                let (count, period) = (u128::from(count), u128::from(period));
                self.level =
                    self.level.saturating_sub(u128::from(at - self.last) * count) + u128::from(cost) * period;
                self.last = at;
                let most = u128::from(limit) * period + rule.tolerance().as_micros() * count;
                u64::try_from(self.level.saturating_sub(most).div_ceil(period)).unwrap_or(u64::MAX)
            }
        }
    }

    fn in_window(&mut self, start: Micros, cost: u64) -> u64 {
        if self.window.0 != start {
            self.window = (start, 0);
        }
        self.window.1 += cost;
        self.window.1
    }
}
