//! What a fleet runs under.

use std::time::Duration;

use crate::ledger::{Micros, Rule};

/// What a fleet runs under.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The limit of every key.
    pub rule: Rule,
    /// What the store's clock shows at the start of a run, on which its windows stand. Default: the first of January 2026.
    pub start: Micros,
    /// How long a question takes to be answered, on average. Default: 0.5 ms.
    pub latency: Duration,
    /// How long a call waits for the store before it is refused. Default: 50 ms.
    pub patience: Duration,
    /// In which time all nodes notice that the store forgot everything: it pauses for that longer. Default: 1 s.
    pub notice: Duration,
    /// Whether nodes tell each other that a key is exhausted. Default: yes.
    pub hints: bool,
    /// What goes wrong, and when from the start. Default: nothing.
    pub faults: Vec<(Duration, Fault)>,
    /// The seed of the dice. Default: 1.
    pub seed: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store answers nothing for so long.
    Away(Duration),
    /// The store forgets everything.
    Lost,
    /// A node dies, and another takes its place at once.
    Dies(usize),
}

impl Scenario {
    /// A scenario in which nothing goes wrong.
    pub const fn new(rule: Rule) -> Self {
        Self {
            rule,
            start: 1_767_225_600_000_000,
            latency: Duration::from_micros(500),
            patience: Duration::from_millis(50),
            notice: Duration::from_secs(1),
            hints: true,
            faults: Vec::new(),
            seed: 1,
        }
    }
}
