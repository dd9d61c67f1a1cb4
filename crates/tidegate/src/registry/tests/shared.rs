//! The cases that go-micro's registry cache is tested by, and what a lookup answers.

use tokio::task::JoinSet;

use super::*;

async fn together(registry: &Registry, count: usize) -> Vec<Result<(usize, Provenance), LookupError>> {
    let mut lookups = JoinSet::new();
    for _ in 0..count {
        let registry = registry.clone();
        lookups.spawn(async move { lookup(&registry, &orders()).await });
    }
    lookups.join_all().await
}

#[tokio::test(start_paused = true)]
async fn ten_first_lookups_at_once_are_one_call() {
    let (registry, fake) = unwatched(1);
    fake.delay(Duration::from_millis(100));
    let found = together(&registry, 10).await;
    assert!(found.iter().all(|found| *found == Ok((1, Provenance::Fresh))));
    assert_eq!(fake.counts().gets, 1);
}

#[tokio::test(start_paused = true)]
async fn ten_first_lookups_of_a_failing_registry_are_one_call_and_ten_errors() {
    let (registry, fake) = unwatched(1);
    fake.delay(Duration::from_millis(50));
    fake.behave(Behaviour::Down);
    let found = together(&registry, 10).await;
    assert!(found.iter().all(|found| matches!(found, Err(LookupError::Unavailable { .. }))));
    assert_eq!(fake.counts().gets, 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_registry_fails_stale_endpoints_are_served_with_their_age() {
    let (registry, fake) = unwatched(1);
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Fresh)));
    fake.behave(Behaviour::Down);
    advance(seconds(90)).await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Stale { age: seconds(90) })));
    settle().await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Stale { age: seconds(90) })));
    assert_eq!(fake.counts().gets, 2);
}

#[tokio::test(start_paused = true)]
async fn fifty_lookups_of_an_expired_service_are_one_call_and_all_are_served_at_once() {
    let (registry, fake) = unwatched(1);
    lookup(&registry, &orders()).await.unwrap();
    fake.behave(Behaviour::Down);
    fake.delay(Duration::from_millis(100));
    advance(seconds(90)).await;
    let before = clock::now();
    let found = together(&registry, 50).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(clock::now(), before, "nobody waited");
    sleep(seconds(4)).await;
    together(&registry, 50).await;
    settle().await;
    assert_eq!(fake.counts().gets, 2, "the first, and one while it is down");
}

#[tokio::test(start_paused = true)]
async fn without_anything_to_serve_a_failing_registry_is_asked_once_an_interval() {
    let (registry, fake) = unwatched(1);
    fake.behave(Behaviour::Down);
    assert!(lookup(&registry, &orders()).await.is_err());
    let Err(LookupError::Unavailable { retry_after, .. }) = lookup(&registry, &orders()).await else {
        panic!()
    };
    assert!(retry_after >= seconds(5) && retry_after <= seconds(10), "{retry_after:?}");
    assert_eq!(fake.counts().gets, 1);
    sleep(retry_after).await;
    assert!(lookup(&registry, &orders()).await.is_err());
    assert_eq!(fake.counts().gets, 2);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_without_anything_to_serve_are_one_call_an_interval() {
    let (registry, fake) = unwatched(1);
    fake.behave(Behaviour::Down);
    together(&registry, 20).await;
    together(&registry, 20).await;
    assert_eq!(fake.counts().gets, 1);
    sleep(seconds(10)).await;
    together(&registry, 20).await;
    assert_eq!(fake.counts().gets, 2);
}

#[tokio::test(start_paused = true)]
async fn lookups_of_what_is_known_ask_nobody() {
    let (registry, fake) = unwatched(1);
    for _ in 0..5 {
        assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Fresh)));
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(fake.counts().gets, 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_first_success_is_served_from_then_on() {
    let (registry, fake) = unwatched(1);
    fake.behave(Behaviour::Down);
    assert!(lookup(&registry, &orders()).await.is_err());
    fake.behave(Behaviour::Up);
    assert!(lookup(&registry, &orders()).await.is_err(), "not yet");
    sleep(seconds(10)).await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Fresh)));
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Fresh)));
    assert_eq!(fake.counts().gets, 2);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_the_first_snapshot_every_change_and_the_end() {
    let (registry, fake) = over(2, settings());
    let mut subscription = registry.watch(&orders());
    assert_eq!(subscription.next().await.unwrap().endpoints.len(), 2);
    fake.put([instance(&orders(), 7)]);
    assert_eq!(subscription.next().await.unwrap().endpoints.len(), 3);
    assert_eq!(subscription.current().unwrap().endpoints.len(), 3);
    sleep(seconds(3600)).await;
    assert_eq!(fake.watches(), 1, "a service with a subscriber is not idle");
    drop(registry);
    assert_eq!(subscription.next().await, None);
    settle().await;
    assert_eq!(fake.watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_of_a_registry_that_cannot_be_watched_hears_of_changes_within_the_ttl() {
    let (registry, fake) = unwatched(2);
    let mut subscription = registry.watch(&orders());
    assert_eq!(subscription.next().await.unwrap().endpoints.len(), 2);
    fake.put([instance(&orders(), 7)]);
    let before = clock::now();
    assert_eq!(subscription.next().await.unwrap().endpoints.len(), 3);
    assert!(clock::now().since(before) <= seconds(60));
}

#[tokio::test(start_paused = true)]
async fn an_instance_stays_registered_until_its_registration_is_dropped() {
    let fake = FakeRegistry::new();
    fake.behave(Behaviour::Down);
    let registry = Registry::new(fake.clone(), settings()).unwrap();
    let registration = registry.register(instance(&orders(), 1)).unwrap();
    settle().await;
    assert!(matches!(registration.standing(), Standing::Pending { why: Some(_) }));
    fake.behave(Behaviour::Up);
    registration.registered().await.unwrap();
    assert_eq!(registry.list().await.unwrap(), [orders()]);
    registration.deregister().await.unwrap();
    assert_eq!(registry.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_a_hung_registry_ends_with_an_error_and_never_empty() {
    let (registry, fake) = over(1, settings());
    fake.behave(Behaviour::Hangs);
    let error = registry.list().await.unwrap_err();
    assert_eq!(&*error.message, "memory: no answer within 5s");
}

#[tokio::test(start_paused = true)]
async fn pages_show_every_service_its_provenance_and_its_suspects() {
    let (registry, fake) = over(3, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.remove_all(&orders());
    settle().await;
    let status = &registry.services()[0];
    assert_eq!((&status.service, &status.provenance), (&orders(), &Ok(Provenance::Live)));
    assert_eq!((status.endpoints, status.suspects), (3, 3));
    assert_eq!((registry.stats().services, registry.stats().suspects), (1, 3));
}

#[test]
fn settings_out_of_range_are_named_with_a_remedy() {
    let wrong = |settings: Settings| settings.check().unwrap_err().to_string();
    let good = Settings::default;
    assert!(wrong(Settings { ttl: Duration::ZERO, ..good() }).ends_with("like 60s"));
    assert!(wrong(Settings { maximum_retry_interval: seconds(5), ..good() }).contains("longer than"));
    let share = Preservation { share: 101, ..Preservation::default() };
    assert!(wrong(Settings { preservation: share, ..good() }).ends_with("like 15"));
    let grace = Preservation { grace: seconds(86_400), ..Preservation::default() };
    assert!(wrong(Settings { preservation: grace, ..good() }).contains("grace"));
    assert!(wrong(Settings { services: 0, ..good() }).starts_with("registry: keeper: keys"));
}
