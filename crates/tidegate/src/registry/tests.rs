//! The registry over one that counts its calls, on a paused clock.

use std::time::Duration;

use tokio::{
    task::yield_now,
    time::{advance, sleep},
};

use super::{
    testing::{Behaviour, FakeRegistry},
    *,
};
use crate::{Call, clock};

mod defects;
mod preserved;
mod shared;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn call() -> Call {
    Call::at(clock::now())
}

fn name(name: &str) -> ServiceName {
    name.parse().expect("a name")
}

fn orders() -> ServiceName {
    name("orders")
}

fn instance(service: &ServiceName, id: usize) -> Instance {
    let address = format!("10.0.0.1:{}", 9000 + id).parse().expect("an address");
    Instance::new(service.clone(), format!("{id:03}"), address)
}

fn instances(service: &ServiceName, count: usize) -> Vec<Instance> {
    (0..count).map(|id| instance(service, id)).collect()
}

fn settings() -> Settings {
    Settings { attempts: plenty(), ..Settings::default() }
}

fn plenty() -> tidegate_core::attempts::Settings {
    tidegate_core::attempts::Settings { attempts: std::num::NonZeroU32::MAX, ..Default::default() }
}

/// A registry with `count` instances of `orders`, and the guard over it.
fn over(count: usize, settings: Settings) -> (Registry, FakeRegistry) {
    let fake = FakeRegistry::new();
    fake.put(instances(&orders(), count));
    (Registry::new(fake.clone(), settings).expect("valid settings"), fake)
}

/// The same, not to be watched.
fn unwatched(count: usize) -> (Registry, FakeRegistry) {
    let (registry, fake) = over(count, settings());
    fake.forbid_watches();
    (registry, fake)
}

async fn lookup(registry: &Registry, service: &ServiceName) -> Result<(usize, Provenance), LookupError> {
    let found = registry.lookup(&call(), service).await?;
    Ok((found.endpoints.len(), found.provenance))
}

/// Lets all tasks that can run do so.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// Looks up once a second.
async fn look_for(registry: &Registry, service: &ServiceName, how_long: u64) {
    for _ in 0..how_long {
        drop(registry.try_lookup(&call(), service));
        sleep(seconds(1)).await;
    }
}
