//! Calls that arrive at a fleet.

use std::time::Duration;

use super::Dice;
use crate::ledger::Micros;

/// A call that arrives at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Microseconds since the start.
    pub at: Micros,
    /// Which node it arrives at, from 0.
    pub node: usize,
    /// Whose limit it counts against.
    pub key: u64,
    /// What it costs, in units.
    pub cost: u32,
}

/// Calls that arrive independently of each other.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many nodes they arrive at. Default: 1.
    pub nodes: usize,
    /// Calls a second, over all nodes and keys. Default: 100.
    pub calls_per_second: f64,
    /// How unevenly nodes are called: node n gets a share of 1/n to this power (Zipf). Default: 0, all alike.
    pub skew: f64,
    /// How many keys there are. Default: 1.
    pub keys: usize,
    /// How unevenly keys are called, like `skew`. Default: 0.
    pub key_skew: f64,
    /// What a call costs, in units. Default: 1.
    pub cost: u32,
    /// The seed of the dice. Default: 1.
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { nodes: 1, calls_per_second: 100.0, skew: 0.0, keys: 1, key_skew: 0.0, cost: 1, seed: 1 }
    }
}

impl Load {
    /// The calls of the first `length`, in order.
    pub fn calls(self, length: Duration) -> impl Iterator<Item = Call> {
        let (nodes, keys) = (Zipf::new(self.nodes, self.skew), Zipf::new(self.keys, self.key_skew));
        let (mut dice, mut at) = (Dice::new(self.seed), 0.0);
        let mean = 1e6 / self.calls_per_second.max(f64::MIN_POSITIVE);
        std::iter::from_fn(move || {
            at += dice.apart(mean);
            let (node, key) = (nodes.pick(&mut dice), keys.pick(&mut dice) as u64);
            (at < length.as_micros() as f64).then_some(Call { at: at as Micros, node, key, cost: self.cost })
        })
    }
}

/// Chooses among things that are more and less popular: the n-th has a share of 1/n to a power (Zipf).
#[derive(Clone, Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Of `count` things, at least one; with a `skew` of 0 all are alike.
    pub fn new(count: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count.max(1)).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Self(sums.collect())
    }

    /// One of them, from 0.
    pub fn pick(&self, dice: &mut Dice) -> usize {
        let all = self.0.last().copied().unwrap_or(1.0);
        let point = dice.unit() * all;
        self.0.partition_point(|sum| *sum <= point).min(self.0.len() - 1)
    }
}
