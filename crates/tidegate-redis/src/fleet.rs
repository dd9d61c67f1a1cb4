//! Calls in flight over a fleet: the permits of a limit as leases in the store, equal to `tidegate_core::lease::Leases`.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use redis::{Cmd, Value};
use tidegate::limiter::FleetStore;
use tidegate_core::{
    lease::{Answer, Demand, Node},
    ledger::Micros,
};

use crate::{
    RedisLedger, StoreError, client::Work, hints::channel, ledger::Seeing, link::Up, script::Script,
    slot::slot_of, watch::Watched,
};

#[cfg(test)]
mod equality;

static LEASES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("ledger/epoch.lua"), include_str!("ledger/leases.lua")))
});

/// The permits of one limit of calls in flight, leased to the instances of a fleet.
///
/// They stand beside the accounts of a [`RedisLedger`], in the same namespace. When what was leased may be forgotten,
/// nobody gets more than what it has for one life of a lease: as [`Leases::learning`](tidegate_core::lease::Leases). So all
/// leases of a limit live equally long: while others hold any, one of another life is refused with
/// [`StoreError::MixedLeases`].
#[derive(Clone)]
pub struct RedisFleet {
    watched: Arc<Watched>,
    name: Arc<str>,
    limit: u32,
}

impl RedisFleet {
    /// The limit `name`, of `limit` permits. The name is the same on all instances; where they differ in the number,
    /// each is given what its own allows beside what others have.
    pub fn new(ledger: &RedisLedger, name: &str, limit: u32) -> Self {
        Self { watched: ledger.watched().clone(), name: name.into(), limit }
    }

    async fn call(
        &self,
        verb: &str,
        node: Node,
        demand: Demand,
        life: Duration,
        seen_as: &Seeing<'_>,
    ) -> Result<Answer, StoreError> {
        let Watched { client, namespace, .. } = &*self.watched;
        let bucket = slot_of(self.name.as_bytes()).to_le_bytes()[0];
        let (epoch, leases) =
            (self.watched.marker(bucket), namespace.key(bucket, &format!("leases:{}", self.name)));
        // As whole microseconds, rounded up: the store counts at least as long as the node.
        let life = u64::try_from(life.as_nanos().div_ceil(1000)).unwrap_or(1 << 52).min(1 << 52);
        let arguments = |command: &mut Cmd, up: &Up| {
            command.arg(verb).arg(seen_as.run_id.unwrap_or(&up.checked.run_id));
            match seen_as.clock {
                Some(clock) => command.arg(clock),
                None => command.arg(""),
            };
            // As a text: a node's number may be more than a double holds.
            command.arg(self.limit).arg(format!("{:x}", node.0)).arg(demand.seq);
            command.arg(demand.kept).arg(demand.wanted).arg::<Micros>(life);
            let (publish, channel) = channel(namespace, bucket, up, client);
            command.arg(publish).arg(channel);
        };
        let keys = [epoch.as_bytes(), leases.as_bytes()];
        let work = Work::Script { script: &LEASES, keys: &keys, arguments: &arguments };
        let answer = client.run(namespace.slot(bucket), &work).await?;
        let garbled = || StoreError::Garbled { what: format!("{answer:?}") };
        let Value::Array(values) = &answer else { return Err(garbled()) };
        match values.as_slice() {
            [Value::Int(taken), Value::Int(permits), Value::Int(seq)]
                if u64::try_from(*seq) == Ok(demand.seq) =>
            {
                match taken {
                    0 => Ok(Answer::OutOfOrder),
                    2 => Err(StoreError::MixedLeases {
                        limit: self.name.clone(),
                        here: Duration::from_micros(life),
                        others: Duration::from_micros(u64::try_from(*permits).map_err(|_| garbled())?),
                    }),
                    _ => Ok(Answer::Leased(u32::try_from(*permits).map_err(|_| garbled())?)),
                }
            }
            _ => Err(garbled()),
        }
    }
}

impl FleetStore for RedisFleet {
    type Error = StoreError;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<Answer, StoreError> {
        self.call("lease", node, demand, life, &Seeing::REAL).await
    }

    async fn give_back(&self, node: Node, seq: u64) -> Result<(), StoreError> {
        let nothing = Demand { seq, kept: 0, wanted: 0 };
        self.call("give_back", node, nothing, Duration::ZERO, &Seeing::REAL).await.map(drop)
    }
}
