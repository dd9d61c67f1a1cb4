//! The store of counters now, and the credit that limits hold of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Durations;

/// Credit of a limit that is shared through a ledger.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CreditState {
    /// What happens once the store cannot be asked and the credit in hand is spent.
    pub on_store_failure: &'static str,
    /// Longest life of credit, in seconds.
    pub life_seconds: f64,
    /// Units that this gateway holds and may spend.
    pub in_hand: u64,
    /// Units set aside for when the store is away.
    pub aside: u64,
    /// Units that ran out in hand and were not given back yet.
    pub stranded: u64,
    /// Units granted to this gateway that it neither spent nor gave back: in hand, aside and stranded.
    pub outstanding: u64,
    /// Units spent beyond what was reserved, which the ledger is not told of yet.
    pub debt: u64,
    /// Units that were owed and are not any more: there was no room to remember them until the store could be told.
    pub forgiven: u64,
    /// Calls admitted at once, from credit in hand.
    pub local: u64,
    /// Calls admitted after they waited for the store.
    pub waited: u64,
    /// Calls admitted from what was set aside, while the store was away.
    pub from_aside: u64,
    /// Calls admitted without credit, as the limit is open while the store is away.
    pub open: u64,
    /// Calls refused because the store did not answer.
    pub unanswered: u64,
    /// Questions to the store under way.
    pub asking: u64,
    /// Questions to the store.
    pub operations: u64,
    /// Questions to the store for each decision.
    pub operations_per_decision: f64,
    /// Questions not sent, as too many were under way or the store was given a rest.
    pub withheld: u64,
    /// How often the ledger was found to have lost what it knew.
    pub losses: u64,
    /// Questions that were not answered, by what kept the store from it.
    pub failures: BTreeMap<&'static str, u64>,
    /// For how many seconds the store, or a part of it, has been known to be away for this limit; none while it answers.
    pub away_seconds: Option<f64>,
    /// How much of the store is known to be away, from 0 to 1: of a cluster, a part may be.
    pub away_share: f64,
    /// How often the store, or a part of it, was found to be away.
    pub outages: u64,
    /// How long the store takes to answer, lately, in seconds.
    pub latency_seconds: f64,
    /// How long it took, of all questions that were answered in time.
    pub latency: Durations,
}

/// Whether a store can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorePhase {
    /// Counters live in this process: there is nobody to ask.
    #[default]
    Memory,
    /// It is being connected to for the first time.
    Connecting,
    /// Every server of it can be asked.
    Up,
    /// Some servers of it can be asked, and some cannot.
    PartlyAway,
    /// No server of it can be asked.
    Away,
}

impl StorePhase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Connecting, Self::Up, Self::PartlyAway, Self::Away];

    /// The name used in metrics and state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::PartlyAway => "partly-away",
            Self::Away => "away",
        }
    }
}

/// Where counters live.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreState {
    /// Its URL, without a password.
    pub url: String,
    /// The prefix of every key in it.
    pub namespace: String,
    /// Whether it can be asked.
    pub state: StorePhase,
    /// Questions to it under way.
    pub in_flight: u64,
    /// Most questions to it under way.
    pub max_in_flight: u64,
    /// Its servers; of a cluster, the masters.
    pub servers: Vec<StoreServerState>,
}

/// A server of a store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreServerState {
    /// Which; none while that is not known.
    pub server: Option<String>,
    /// Whether it can be asked.
    pub state: StorePhase,
    /// The id of its process, which another process has not.
    pub run_id: Option<String>,
    /// Why it cannot be asked.
    pub error: Option<String>,
}
