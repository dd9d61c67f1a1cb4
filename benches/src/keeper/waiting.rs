//! Ten thousand callers that wait for one fetch, beside what else wakes many.

use std::sync::Arc;

use tidegate::{
    Call, clock,
    keeper::{Failed, Fetch, Fetched, Keeper, Settings},
};
use tokio::sync::{Notify, broadcast, watch};

use crate::{
    harness::Suite,
    waiters::{Gate, Told, rows},
};

/// A source that answers when it is told to.
struct Gated(Gate);

impl Fetch for Gated {
    type Key = u32;
    type Value = u64;
    type Error = std::convert::Infallible;

    async fn fetch(&self, _key: &u32) -> Result<Fetched<u64>, Failed<Self::Error>> {
        self.0.pass().await;
        Ok(Fetched::value(7))
    }
}

async fn ours(gate: Gate) -> Told {
    let keeper = Keeper::new(Gated(gate.clone()), Settings::default()).expect("valid settings");
    gate.told(|| {
        let keeper = keeper.clone();
        async move { keeper.get(&Call::at(clock::now()), &1).await.value().is_some() }
    })
    .await
}

async fn moka(gate: Gate) -> Told {
    let moka = moka::future::Cache::<u32, u64>::new(100);
    gate.told(|| {
        let (moka, gate) = (moka.clone(), gate.clone());
        async move {
            let fetch = async move {
                gate.pass().await;
                7
            };
            moka.get_with(1, fetch).await == 7
        }
    })
    .await
}

/// No cache and no value: what it costs tokio to wake them.
async fn notify(gate: Gate) -> Told {
    let notify = Arc::new(Notify::new());
    tokio::spawn({
        let (gate, notify) = (gate.clone(), Arc::clone(&notify));
        async move {
            gate.pass().await;
            notify.notify_waiters();
        }
    });
    gate.told(|| {
        let notify = Arc::clone(&notify);
        async move {
            notify.notified().await;
            true
        }
    })
    .await
}

async fn watched(gate: Gate) -> Told {
    let (tell, _) = watch::channel(0);
    let tell = Arc::new(tell);
    tokio::spawn({
        let (gate, tell) = (gate.clone(), Arc::clone(&tell));
        async move {
            gate.pass().await;
            tell.send_replace(7)
        }
    });
    gate.told(|| {
        let mut told = tell.subscribe();
        async move { told.changed().await.is_ok() && *told.borrow() == 7 }
    })
    .await
}

async fn broadcasted(gate: Gate) -> Told {
    let (tell, _) = broadcast::channel(1);
    tokio::spawn({
        let (gate, tell) = (gate.clone(), tell.clone());
        async move {
            gate.pass().await;
            tell.send(7)
        }
    });
    gate.told(|| {
        let mut told = tell.subscribe();
        async move { told.recv().await == Ok(7) }
    })
    .await
}

pub(super) fn tables(suite: &mut Suite) {
    suite.counts("keeper: 10 000 callers wait for one fetch", |table| {
        rows(
            table,
            9,
            [
                ("tidegate Keeper", &|runtime| runtime.block_on(ours(Gate::default()))),
                ("moka get_with", &|runtime| runtime.block_on(moka(Gate::default()))),
                ("tokio Notify, no value", &|runtime| runtime.block_on(notify(Gate::default()))),
                ("tokio watch", &|runtime| runtime.block_on(watched(Gate::default()))),
                ("tokio broadcast", &|runtime| runtime.block_on(broadcasted(Gate::default()))),
            ],
        );
    });
}
