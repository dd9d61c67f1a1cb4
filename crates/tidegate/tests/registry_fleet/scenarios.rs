//! What happens to the fleet and its registry.

use std::future::Future;

use tidegate::registry::testing::Behaviour;
use tokio::task::LocalSet;

use crate::{
    clients::Client,
    fleet::{Fleet, INSTANCES, Record, SERVICES, seconds, service},
};

/// Runs a scenario on the paused clock, with the same jitter each time.
pub(crate) fn simulate(scenario: impl Future<Output = Record>) -> Record {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime with a paused clock").block_on(LocalSet::new().run_until(scenario))
}

/// The fleet starts while the registry is down; after eleven minutes it comes back.
pub(crate) async fn outage_with_empty_caches<C: Client>(clients: usize) -> Record {
    let mut fleet = Fleet::start::<C>(clients, Behaviour::Down, seconds(10));
    fleet.run("first minute", 60).await;
    fleet.run("outage", 600).await;
    fleet.registry.behave(Behaviour::Up);
    fleet.run("recovery", 240).await;
    fleet.run("after it", 10).await;
    fleet.finish()
}

/// The registry goes away from a fleet that knows every service, for eleven minutes, and comes back weak.
pub(crate) async fn outage_with_warm_caches<C: Client>(clients: usize) -> Record {
    let mut fleet = Fleet::start::<C>(clients, Behaviour::Up, seconds(180));
    fleet.run("start", 240).await;
    fleet.run("steady", 180).await;
    fleet.registry.behave(Behaviour::Down);
    fleet.registry.cut_watches();
    fleet.run("first minute", 60).await;
    fleet.run("outage", 600).await;
    fleet.registry.capacity((clients * SERVICES / 50).max(4) as u64);
    fleet.registry.behave(Behaviour::Up);
    fleet.run("recovery", 240).await;
    // A watch that the weak registry refused pauses for up to two minutes more.
    fleet.run("late watches", 300).await;
    fleet.run("after it", 10).await;
    fleet.finish()
}

/// Every lease ends at once under watches that are well; the owners register again within twenty seconds.
pub(crate) async fn mass_expiry<C: Client>(clients: usize) -> Record {
    let mut fleet = Fleet::start::<C>(clients, Behaviour::Up, seconds(180));
    fleet.run("start", 240).await;
    (0..SERVICES).for_each(|of| fleet.registry.remove_all(&service(of)));
    fleet.run("expired", 5).await;
    for id in 0..INSTANCES {
        fleet.put(id);
        fleet.run("expired", 2).await;
    }
    fleet.run("after it", 60).await;
    fleet.finish()
}

/// Every instance of every service is replaced by another, one after the other.
pub(crate) async fn rolling_deployment<C: Client>(clients: usize) -> Record {
    let mut fleet = Fleet::start::<C>(clients, Behaviour::Up, seconds(180));
    fleet.run("start", 240).await;
    for id in 0..INSTANCES {
        fleet.put(100 + id);
        fleet.remove(id);
        fleet.run("deployment", 5).await;
    }
    fleet.run("after it", 60).await;
    fleet.finish()
}
