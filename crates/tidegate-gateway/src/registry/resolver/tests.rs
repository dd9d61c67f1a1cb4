use std::time::Duration;

use tidegate::registry::{
    Change, Instance, Registry,
    testing::{Behaviour, FakeRegistry},
};

use super::*;
use crate::{config, state::ServiceState};

fn name() -> ServiceName {
    "orders".parse().unwrap()
}

fn instance(port: u16) -> Instance {
    Instance::new(name(), port.to_string(), format!("127.0.0.1:{port}").parse().unwrap())
}

fn service_registry(fake: &FakeRegistry, settings: &config::Registry) -> ServiceRegistry {
    let guard = Registry::new(fake.clone(), settings.settings()).unwrap();
    ServiceRegistry::around(settings, guard)
}

fn registry(fake: &FakeRegistry) -> ServiceRegistry {
    service_registry(fake, &config::Registry::at("file:none"))
}

fn upstream() -> Arc<Upstream> {
    let config = config::Upstream { service: Some("orders".into()), ..config::Upstream::at(Vec::new()) };
    Arc::new(Upstream::new("main", &config).unwrap())
}

fn resolver(upstream: &Arc<Upstream>, registry: &ServiceRegistry) -> Resolver {
    Resolver::new(name(), Arc::clone(upstream), "http", registry.clone(), Arc::default())
}

fn state(resolver: &Resolver) -> ServiceState {
    resolver.state(&resolver.inner.registry.guard().services())
}

fn call() -> Call {
    Call::at(clock::now())
}

fn authorities(upstream: &Upstream) -> Vec<String> {
    upstream.endpoints().iter().map(|endpoint| endpoint.authority().to_string()).collect()
}

/// Lets the tasks do what is due, and virtual time pass.
async fn pass(seconds: u64) {
    time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn calls_before_the_first_answer_wait_for_it_and_no_longer() {
    let fake = FakeRegistry::new();
    fake.put([instance(1)]);
    fake.delay(Duration::from_millis(300));
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    assert!(!resolver.try_resolve(&call()));
    let start = clock::now();
    let hasty = call().within(Duration::from_millis(100));
    assert_eq!(resolver.resolve(&hasty).await, Err(Cause::Refused(Refused::new(By::Deadline))));
    resolver.resolve(&call()).await.unwrap();
    assert_eq!(clock::now().since(start), Duration::from_millis(300));
    assert!(resolver.try_resolve(&call()));
    assert_eq!(authorities(&upstream), ["127.0.0.1:1"]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_come_and_go_and_the_last_goes_when_the_registry_insists() {
    let fake = FakeRegistry::new();
    fake.put([instance(1), instance(2)]);
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    resolver.resolve(&call()).await.unwrap();
    fake.change(&name(), vec![Change::Put(instance(3).into()), Change::Removed("1".into())]);
    pass(1).await;
    assert_eq!(authorities(&upstream), ["127.0.0.1:2", "127.0.0.1:3"]);
    fake.change(&name(), vec![Change::Removed("2".into()), Change::Removed("3".into())]);
    pass(1).await;
    assert!(resolver.try_resolve(&call()), "suspects serve");
    assert!(upstream.endpoints().iter().all(|endpoint| endpoint.vouched() == Vouched::No));
    assert_eq!((state(&resolver).suspects, state(&resolver).provenance), (2, "live"));
    pass(60).await;
    assert!(!resolver.try_resolve(&call()));
    let none = NoEndpoint { why: Why::NotFound, retry_after: None };
    assert_eq!(resolver.resolve(&call()).await, Err(Cause::NoEndpoint(none)));
    assert_eq!(state(&resolver).lookups["not-found"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_cannot_be_reached_goes_unless_it_is_the_last() {
    let fake = FakeRegistry::new();
    fake.put([instance(1), instance(2)]);
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    resolver.resolve(&call()).await.unwrap();
    let endpoints = upstream.endpoints();
    resolver.unreachable(&endpoints[0]);
    pass(1).await;
    assert_eq!(upstream.count(), 2, "the registry vouches for it");
    fake.change(&name(), vec![Change::Removed("1".into()), Change::Removed("2".into())]);
    pass(1).await;
    endpoints.iter().for_each(|endpoint| resolver.unreachable(endpoint));
    pass(1).await;
    assert_eq!(authorities(&upstream), ["127.0.0.1:2"]);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_serves_is_none_any_more_and_is_again_once_it_cannot_be_reached() {
    let fake = FakeRegistry::new();
    fake.put([instance(1), instance(2), instance(3)]);
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    resolver.resolve(&call()).await.unwrap();
    fake.change(&name(), ["1", "2", "3"].map(|id| Change::Removed(id.into())).into());
    pass(1).await;
    let endpoints = upstream.endpoints();
    let vouched = || endpoints.iter().map(|endpoint| endpoint.vouched()).collect::<Vec<_>>();
    assert_eq!(vouched(), [Vouched::No; 3]);
    for _ in 0..3 {
        resolver.succeeded(&endpoints[1]);
        pass(1).await;
    }
    assert_eq!(vouched(), [Vouched::No, Vouched::ByCalls, Vouched::No]);
    let told = state(&resolver);
    let proven: Vec<_> = told.endpoints.iter().filter(|one| one.proven_seconds.is_some()).collect();
    assert_eq!((told.suspects, proven.len(), &*proven[0].id), (2, 1, "2"));
    resolver.unreachable(&endpoints[1]);
    pass(1).await;
    assert_eq!((vouched(), upstream.count()), (vec![Vouched::No; 3], 3), "doubted again");
    resolver.unreachable(&endpoints[1]);
    pass(1).await;
    assert_eq!(authorities(&upstream), ["127.0.0.1:1", "127.0.0.1:3"]);
    resolver.succeeded(&endpoints[0]);
    pass(60).await;
    assert!(!resolver.try_resolve(&call()), "the registry insists after the grace");
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_the_zone_of_the_gateway_come_first() {
    let fake = FakeRegistry::new();
    let zoned = |port: u16, zone: &str| instance(port).zone(zone);
    fake.put([zoned(1, "a"), zoned(2, "b"), instance(3)]);
    let in_b = config::Registry { zone: Some("b".into()), ..config::Registry::at("file:none") };
    let (registry, upstream) = (service_registry(&fake, &in_b), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    resolver.resolve(&call()).await.unwrap();
    let picked = || upstream.pick(None, |_| true).unwrap().authority().to_string();
    assert!((0..50).all(|_| picked() == "127.0.0.1:2"));
    fake.put([zoned(1, "b"), zoned(2, "a")]);
    pass(1).await;
    assert!((0..50).all(|_| picked() == "127.0.0.1:1"), "it moved");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_asked_is_told_from_one_that_knows_nothing() {
    let fake = FakeRegistry::new();
    fake.behave(Behaviour::Down);
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    let Err(Cause::NoEndpoint(none)) = resolver.resolve(&call()).await else {
        panic!("there is an endpoint")
    };
    assert_eq!(none.why, Why::Unavailable);
    assert!(none.retry_after.is_some_and(|after| after > Duration::ZERO), "{none:?}");
    let told = state(&resolver);
    assert_eq!((told.provenance, told.error.as_deref()), ("unavailable", Some("the registry is down")));
    fake.behave(Behaviour::Up);
    fake.put([instance(1)]);
    pass(200).await;
    assert!(resolver.try_resolve(&call()));
}

#[tokio::test(start_paused = true)]
async fn another_registry_takes_no_endpoint_away_until_it_says_so() {
    let fake = FakeRegistry::new();
    fake.put([instance(1)]);
    let upstream = upstream();
    let before = resolver(&upstream, &registry(&fake));
    before.start(None);
    before.resolve(&call()).await.unwrap();
    let away = FakeRegistry::new();
    away.behave(Behaviour::Down);
    let after = resolver(&upstream, &registry(&away));
    after.start(Some(&before));
    drop(before);
    assert!(after.try_resolve(&call()), "at once");
    pass(30).await;
    assert!(after.try_resolve(&call()), "while it is down");
    assert_eq!((state(&after).provenance, state(&after).lookups["stale"]), ("stale", 2));
    away.behave(Behaviour::Up);
    away.put([instance(2)]);
    pass(200).await;
    assert_eq!(authorities(&upstream), ["127.0.0.1:2"]);
}

#[tokio::test(start_paused = true)]
async fn entries_that_cannot_be_called_do_not_make_the_last_endpoint_one_of_several() {
    let fake = FakeRegistry::new();
    let grpc = Instance::new(name(), "g", "grpc://127.0.0.1:5".parse().unwrap());
    fake.put([instance(1), instance(2).weight(0), grpc]);
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    resolver.resolve(&call()).await.unwrap();
    fake.change(&name(), vec![Change::Removed("1".into())]);
    pass(1).await;
    assert!(resolver.try_resolve(&call()), "the last that takes calls is kept");
    assert_eq!((upstream.count(), state(&resolver).suspects), (1, 1));
    pass(60).await;
    assert!(!resolver.try_resolve(&call()));
}

#[tokio::test(start_paused = true)]
async fn instances_that_take_no_calls_are_told_from_none() {
    let fake = FakeRegistry::new();
    let grpc = Instance::new(name(), "g", "grpc://127.0.0.1:5".parse().unwrap());
    fake.put([instance(1).weight(0), grpc]);
    let (registry, upstream) = (registry(&fake), upstream());
    let resolver = resolver(&upstream, &registry);
    resolver.start(None);
    let none = NoEndpoint { why: Why::Closed, retry_after: None };
    assert_eq!(resolver.resolve(&call()).await, Err(Cause::NoEndpoint(none)));
    let told = state(&resolver);
    assert_eq!((told.provenance, told.unusable), ("closed", 1));
    assert!(told.problems[0].contains("grpc://127.0.0.1:5"), "{:?}", told.problems);
}
