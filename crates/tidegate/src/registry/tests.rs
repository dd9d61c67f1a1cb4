//! The registry over one that counts its calls, on a paused clock.
//!
//! What must not happen, and the test that shows it (`d`: `defects`, `p`: `preserved`, `s`: `shared`, `r`:
//! `service::tests`, `g`: the gateway's):
//!
//! | what must not happen | tests |
//! |---|---|
//! | many first lookups are many calls, or share no error | s `ten_first_lookups_*` |
//! | an outage is an error though something is known, or somebody waits | s `when_the_registry_fails_*`, `fifty_lookups_*` |
//! | nothing is known, and every lookup asks | s `without_anything_*`, `many_at_once_*` |
//! | lookups of what is known ask; a success does not last | s `lookups_of_what_*`, `after_a_failure_*` |
//! | a mass expiry empties, at once or one by one | d `a_mass_expiry_*`, `leases_that_end_*`, `endpoints_that_register_again_*` |
//! | a suspect stays one though it serves, or for ever | d `calls_that_succeed_*`, `suspects_are_kept_*`; r; g `a_suspect_that_*` |
//! | a deployment is taken for an expiry | r `a_rolling_deployment_*`, `those_that_were_replaced_*` |
//! | one service's trouble is another's | d `the_health_of_one_*` |
//! | what is stale passes for fresh | d `only_an_answer_*` |
//! | what is gone is served for ever | d `a_decommissioned_*`, `what_is_known_is_served_*` |
//! | "could not ask" is "there is none" | d `none_unavailable_*`; s `a_list_of_a_hung_*` |
//! | "there is none" outlives the start of a service | d `a_watch_that_tells_*`, `a_service_that_registers_after_*` |
//! | a hung registry holds callers | d `nobody_waits_*` |
//! | an outage is asked after at a fixed pace, in step, by each service | d `an_outage_is_asked_*`; `tests/registry_fleet` |
//! | services that are watched are polled | d `a_live_watch_*`; `tests/registry_fleet` |
//! | a late reader wins; a snapshot changes in its holder's hands | d `a_reader_that_lands_late_*`; r `an_older_word_*` |
//! | a service has two watches | d `however_many_*` |
//! | unknown names, or forgotten ones, cost memory or watches | d `unknown_names_*`, `a_service_that_nobody_*` |
//! | a watch is reopened in a loop, or late after a success | d `a_watch_that_keeps_breaking_*` |
//! | no endpoints pass for endpoints | d `a_service_without_*` |
//! | names that look alike are one | d `names_that_differ_*` |
//! | nothing can be seen, forced, or kept over a restart | d `a_refresh_can_*`; s `pages_show_*`; p |
//! | tasks outlive the registry | d `with_the_last_clone_*`; s `a_subscriber_gets_*` |
//! | many readers of an emptied service see what is gone | d `a_thousand_readers_*` |

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
