//! One test for each defect that was found in go-micro's registry cache (v6).

use super::*;

// C1
#[tokio::test(start_paused = true)]
async fn a_mass_expiry_on_a_healthy_watch_fails_no_lookup_inside_the_grace_and_is_true_after_it() {
    let (registry, fake) = over(40, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.remove_all(&orders());
    for _ in 0..29 {
        sleep(seconds(1)).await;
        let found = registry.lookup(&call(), &orders()).await.unwrap();
        assert_eq!((found.endpoints.len(), found.suspects().count()), (40, 40));
    }
    sleep(seconds(3)).await;
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
    assert_eq!(fake.counts().gets, 2, "the first, and one to confirm");
}

// C1
#[tokio::test(start_paused = true)]
async fn endpoints_that_register_again_after_a_mass_expiry_were_never_missed() {
    let (registry, fake) = over(40, settings());
    let mut subscription = registry.watch(&orders());
    subscription.next().await.unwrap();
    settle().await;
    fake.remove_all(&orders());
    for id in 0..40 {
        assert_eq!(lookup(&registry, &orders()).await, Ok((40, Provenance::Live)));
        fake.put([instance(&orders(), id)]);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(registry.stats().suspects, 0);
}

// C1
#[tokio::test(start_paused = true)]
async fn suspects_are_kept_while_the_registry_cannot_confirm_that_they_are_gone() {
    let (registry, fake) = over(5, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.remove_all(&orders());
    settle().await;
    fake.behave(Behaviour::Down);
    fake.cut_watches();
    look_for(&registry, &orders(), 600).await;
    assert!(matches!(lookup(&registry, &orders()).await, Ok((5, Provenance::Stale { .. }))));
    registry.failed(&orders(), "003");
    assert!(matches!(lookup(&registry, &orders()).await, Ok((4, _))), "somebody called it in vain");
    fake.behave(Behaviour::Up);
    look_for(&registry, &orders(), 200).await;
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
}

// C1
#[tokio::test(start_paused = true)]
async fn leases_that_end_one_after_the_other_are_a_mass_expiry_too() {
    let (registry, fake) = over(6, settings());
    let mut changes = registry.watch(&orders()).changes();
    for _ in 0..6 {
        assert!(matches!(changes.next().await, Some(EndpointChange::Insert(_))));
    }
    fake.remove(&orders(), ["000"]);
    assert_eq!(changes.next().await, Some(EndpointChange::Remove("000".into())), "one alone may go");
    for id in 1..6 {
        sleep(seconds(4)).await;
        fake.remove(&orders(), [&*format!("{id:03}")]);
    }
    settle().await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((6, Provenance::Live)));
    assert_eq!(registry.stats().suspects, 6);
    // A balancer hears that the first came back, and of nothing else.
    assert!(matches!(changes.next().await, Some(EndpointChange::Insert(back)) if back.id == "000"));
    sleep(seconds(60)).await;
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
}

// C1
#[tokio::test(start_paused = true)]
async fn calls_that_succeed_clear_a_suspect_and_an_authoritative_answer_still_ends_it() {
    let (registry, fake) = over(5, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.remove_all(&orders());
    settle().await;
    let doubts = async || {
        let found = registry.lookup(&call(), &orders()).await.unwrap();
        (found.endpoints.len(), found.suspects().count(), found.unlisted().count())
    };
    registry.succeeded(&orders(), "001");
    registry.succeeded(&orders(), "003");
    registry.succeeded(&orders(), "of another");
    assert_eq!(doubts().await, (5, 3, 5));
    assert_eq!((registry.stats().suspects, registry.services()[0].suspects), (3, 3));
    // One bad moment takes no endpoint away that has served.
    registry.failed(&orders(), "003");
    assert_eq!(doubts().await, (5, 4, 5));
    registry.failed(&orders(), "003");
    assert_eq!(doubts().await, (4, 3, 4));
    for _ in 0..25 {
        sleep(seconds(1)).await;
        registry.succeeded(&orders(), "001");
        assert_eq!(doubts().await, (4, 3, 4));
    }
    sleep(seconds(10)).await;
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
}

// C2
#[tokio::test(start_paused = true)]
async fn the_health_of_one_service_says_nothing_about_another() {
    let (registry, fake) = over(5, settings());
    let other = name("other");
    fake.put(instances(&other, 5));
    lookup(&registry, &orders()).await.unwrap();
    lookup(&registry, &other).await.unwrap();
    settle().await;
    // Deletions of one service are heard, whatever the other goes through.
    fake.remove_all(&other);
    fake.remove(&orders(), ["000"]);
    settle().await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((4, Provenance::Live)));
    assert_eq!(lookup(&registry, &other).await, Ok((5, Provenance::Live)));
    let suspects: Vec<_> = registry.services().iter().map(|status| status.suspects).collect();
    assert_eq!(suspects, [0, 5]);
}

// C3
#[tokio::test(start_paused = true)]
async fn only_an_answer_of_the_registry_renews_what_is_known() {
    let (registry, fake) = unwatched(1);
    lookup(&registry, &orders()).await.unwrap();
    fake.behave(Behaviour::Down);
    for after in 1..20 {
        sleep(seconds(60)).await;
        let expected = Provenance::Stale { age: seconds(60 * after) };
        assert_eq!(lookup(&registry, &orders()).await, Ok((1, expected)));
    }
}

// C4
#[tokio::test(start_paused = true)]
async fn a_decommissioned_service_is_not_found_after_the_grace_and_not_served_for_ever() {
    let (registry, fake) = unwatched(2);
    lookup(&registry, &orders()).await.unwrap();
    fake.remove_all(&orders());
    look_for(&registry, &orders(), 120).await;
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
}

// C4
#[tokio::test(start_paused = true)]
async fn what_is_known_is_served_up_to_its_last_age_and_no_longer() {
    let (registry, fake) = over(1, Settings { max_stale: seconds(600), ..settings() });
    fake.forbid_watches();
    lookup(&registry, &orders()).await.unwrap();
    fake.behave(Behaviour::Down);
    advance(seconds(659)).await;
    assert!(lookup(&registry, &orders()).await.is_ok());
    advance(seconds(2)).await;
    assert!(matches!(lookup(&registry, &orders()).await, Err(LookupError::Unavailable { .. })));
}

// C5
#[tokio::test(start_paused = true)]
async fn none_unavailable_throttled_and_too_late_are_four_answers() {
    let few = tidegate_core::attempts::Settings { attempts: std::num::NonZeroU32::MIN, ..Default::default() };
    let (registry, fake) = over(0, Settings { attempts: few, ..settings() });
    assert_eq!(lookup(&registry, &name("none")).await, Err(LookupError::NotFound));
    let throttled = lookup(&registry, &name("next")).await;
    assert!(matches!(throttled, Err(LookupError::Throttled { retry_after }) if !retry_after.is_zero()));
    sleep(seconds(11)).await;
    fake.behave(Behaviour::Down);
    assert!(matches!(lookup(&registry, &name("down")).await, Err(LookupError::Unavailable { .. })));
    sleep(seconds(11)).await;
    fake.behave(Behaviour::Hangs);
    let hurried = call().within(Duration::from_millis(10));
    assert_eq!(registry.lookup(&hurried, &name("slow")).await.unwrap_err(), LookupError::Deadline);
}

// C6
#[tokio::test(start_paused = true)]
async fn a_watch_that_tells_of_a_service_ends_its_failure_at_once() {
    let fake = FakeRegistry::new();
    fake.behave(Behaviour::Down);
    let registry = Registry::new(fake.clone(), settings()).unwrap();
    assert!(lookup(&registry, &orders()).await.is_err());
    fake.behave(Behaviour::Up);
    let mut subscription = registry.watch(&orders());
    while subscription.next().await.unwrap().endpoints.is_empty() {
        fake.put(instances(&orders(), 1));
    }
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Live)));
}

// C6
#[tokio::test(start_paused = true)]
async fn a_service_that_registers_after_it_was_not_found_is_found_within_the_interval() {
    let (registry, fake) = unwatched(0);
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
    fake.put(instances(&orders(), 1));
    sleep(seconds(5)).await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Fresh)));
}

// C4
#[tokio::test(start_paused = true)]
async fn a_thousand_readers_after_the_end_of_a_service_see_no_endpoint() {
    let (registry, fake) = over(3, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.remove_all(&orders());
    look_for(&registry, &orders(), 40).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let registry = registry.clone();
        readers.spawn(async move { lookup(&registry, &orders()).await });
    }
    let calls = fake.counts();
    assert!(readers.join_all().await.iter().all(|found| *found == Err(LookupError::NotFound)));
    assert_eq!(fake.counts(), calls);
}

// C7
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_hung_registry_while_there_is_something_to_serve_nor_past_a_deadline() {
    let (registry, fake) = unwatched(1);
    lookup(&registry, &orders()).await.unwrap();
    fake.behave(Behaviour::Hangs);
    for _ in 0..600 {
        advance(seconds(1)).await;
        let before = clock::now();
        assert!(lookup(&registry, &orders()).await.is_ok());
        assert_eq!(clock::now(), before);
    }
    let before = clock::now();
    let hurried = call().within(Duration::from_millis(100));
    assert!(registry.lookup(&hurried, &name("unknown")).await.is_err());
    assert!(clock::now().since(before) <= Duration::from_millis(101));
}

// C8
#[tokio::test(start_paused = true)]
async fn an_outage_is_asked_after_less_and_less_often_and_by_one_service_for_all() {
    let (registry, fake) = unwatched(1);
    fake.behave(Behaviour::Down);
    let services: Vec<_> = (0..20).map(|service| name(&format!("service-{service}"))).collect();
    let mut first_minute = 0;
    for second in 0..660 {
        for service in &services {
            drop(registry.try_lookup(&call(), service));
        }
        sleep(seconds(1)).await;
        if second == 59 {
            first_minute = fake.counts().gets;
        }
    }
    let later = fake.counts().gets - first_minute;
    assert!(first_minute <= 40, "{first_minute} in the first minute");
    assert!(later <= 80, "{later} in ten minutes; a fixed interval of 5 s is 2400");
}

// C9
#[tokio::test(start_paused = true)]
async fn a_live_watch_is_validity_and_nobody_polls() {
    let (registry, fake) = over(3, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    let before = fake.counts();
    for _ in 0..3600 {
        assert_eq!(lookup(&registry, &orders()).await, Ok((3, Provenance::Live)));
        sleep(seconds(1)).await;
    }
    assert_eq!(fake.counts(), before);
}

// C10
#[tokio::test(start_paused = true)]
async fn a_reader_that_lands_late_does_not_overwrite_what_the_watch_told_meanwhile() {
    let (registry, fake) = over(3, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    let held = registry.lookup(&call(), &orders()).await.unwrap();
    let old = Listing {
        revision: held.revision,
        instances: instances(&orders(), 3).into_iter().map(std::sync::Arc::new).collect(),
        malformed: 0,
    };
    fake.remove(&orders(), ["002"]);
    settle().await;
    let entry = registry.0.books.known(&orders()).unwrap();
    let heard = entry.change(|known| known.service.read(old, clock::now(), clock::now()));
    assert_eq!(heard, service::Heard::Late);
    assert_eq!(lookup(&registry, &orders()).await, Ok((2, Provenance::Live)));
    assert_eq!(held.endpoints.len(), 3, "a snapshot that is held stays as it was");
}

// C11
#[tokio::test(start_paused = true)]
async fn however_many_look_up_at_once_a_service_has_one_watch() {
    let (registry, fake) = over(1, settings());
    for _ in 0..100 {
        drop(registry.watch(&orders()));
        let registry = registry.clone();
        tokio::spawn(async move { lookup(&registry, &orders()).await });
    }
    settle().await;
    assert_eq!((fake.watches(), fake.counts().watches), (1, 1));
}

// C12
#[tokio::test(start_paused = true)]
async fn unknown_names_by_the_thousand_are_not_watched_and_stay_bounded() {
    let (registry, fake) = over(1, Settings { services: 100, ..settings() });
    lookup(&registry, &orders()).await.unwrap();
    // A million, when asked for: it is as bounded, and takes a minute.
    let names: u32 = std::env::var("REGISTRY_UNKNOWN_NAMES").map_or(20_000, |names| names.parse().unwrap());
    for unknown in 0..names {
        let found = lookup(&registry, &name(&format!("unknown-{unknown}"))).await;
        assert_eq!(found, Err(LookupError::NotFound));
    }
    settle().await;
    assert_eq!(fake.watched(), [orders()].into());
    assert_eq!((registry.stats().services, registry.stats().lookups.keys), (1, 100));
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Live)));
}

// C12
#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_looks_up_is_no_longer_watched() {
    let (registry, fake) = over(1, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    assert_eq!(fake.watches(), 1);
    sleep(seconds(700)).await;
    assert_eq!((fake.watches(), registry.stats().services), (0, 0));
    assert_eq!(lookup(&registry, &orders()).await.map(|(count, _)| count), Ok(1));
}

// C13
#[tokio::test(start_paused = true)]
async fn a_watch_that_keeps_breaking_is_reopened_less_and_less_often() {
    let (registry, fake) = over(1, settings());
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.behave(Behaviour::Down);
    fake.cut_watches();
    sleep(seconds(1200)).await;
    let opened = fake.counts().watches - 1;
    assert!((5..=60).contains(&opened), "{opened} in 20 min, with pauses of 5 s to 125 s");
    fake.behave(Behaviour::Up);
    look_for(&registry, &orders(), 130).await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((1, Provenance::Live)));
    fake.cut_watches();
    sleep(seconds(11)).await;
    assert_eq!(fake.watches(), 1, "a watch that had lived is reopened soon");
}

// C14
#[tokio::test(start_paused = true)]
async fn a_service_without_an_endpoint_is_not_found() {
    let (registry, fake) = over(1, settings());
    fake.remove_all(&orders());
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
}

// C15
#[tokio::test(start_paused = true)]
async fn names_that_differ_by_a_separator_are_different_services() {
    let (registry, fake) = over(0, settings());
    fake.put([instance(&name("a/b"), 1)]);
    assert_eq!(lookup(&registry, &name("a/b")).await.map(|(count, _)| count), Ok(1));
    assert_eq!(lookup(&registry, &name("a-b")).await, Err(LookupError::NotFound));
}

// C16
#[tokio::test(start_paused = true)]
async fn a_refresh_can_be_asked_for_and_the_books_tell_what_happened() {
    let (registry, fake) = unwatched(1);
    lookup(&registry, &orders()).await.unwrap();
    fake.put([instance(&orders(), 7)]);
    assert_eq!(registry.refresh(&orders()), crate::keeper::Refresh::Begun);
    settle().await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((2, Provenance::Fresh)));
    let stats = registry.stats().lookups;
    assert_eq!((stats.begun, stats.fetched, stats.failed), (2, 2, 0));
}

// C17
#[tokio::test(start_paused = true)]
async fn with_the_last_clone_everything_ends() {
    let (registry, fake) = over(1, settings());
    let clone = registry.clone();
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    drop(registry);
    assert_eq!(lookup(&clone, &orders()).await, Ok((1, Provenance::Live)));
    drop(clone);
    sleep(seconds(2)).await;
    assert_eq!(fake.watches(), 0);
    let calls = fake.counts();
    sleep(seconds(3600)).await;
    assert_eq!(fake.counts(), calls);
}
