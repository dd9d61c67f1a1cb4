//! How many keys are known, and which go.

use super::*;

#[tokio::test(start_paused = true)]
async fn unknown_keys_by_the_thousand_stay_bounded_and_do_not_push_out_what_is_known() {
    let settings = Settings { keys: 100, attempts: generous(), ..settings() };
    let (keeper, fake) = keeper_with(Does::Answers, settings);
    for key in 0..50 {
        fresh(keeper.get(&call(), &key).await);
    }
    fake.now(Does::HasNothing);
    for key in 1000..20_000 {
        assert!(matches!(keeper.get(&call(), &key).await, Answer::Nothing { .. }));
    }
    assert_eq!(keeper.stats().keys, 100);
    for key in 0..50 {
        fresh(keeper.get(&call(), &key).await);
    }
    assert!(fake.0.evicted.lock().iter().all(|key| *key >= 1000));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_being_fetched_is_never_evicted_and_when_all_are_the_next_is_turned_away() {
    let settings = Settings { keys: 4, attempts: generous(), ..settings() };
    let (keeper, fake) = keeper_with(Does::AnswersAfter(seconds(1)), settings);
    for key in 0..4 {
        assert!(keeper.try_get(&call(), &key).is_none());
    }
    settle().await;
    assert_eq!(refused(keeper.get(&call(), &4).await), Refusal::Full);
    for key in 0..4 {
        fresh(keeper.get(&call(), &key).await);
    }
    assert_eq!(fake.calls(), 4);
    fresh(keeper.get(&call(), &4).await);
    assert_eq!((keeper.stats().keys, keeper.stats().evicted), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_and_used_ones_are_not() {
    let (keeper, fake) = keeper(Does::Answers);
    fresh(keeper.get(&call(), &1).await);
    fresh(keeper.get(&call(), &2).await);
    for _ in 0..30 {
        advance(seconds(30)).await;
        drop(keeper.get(&call(), &2).await);
    }
    keeper.evict_idle(clock::now());
    assert_eq!((&*fake.0.evicted.lock(), keeper.stats().keys), (&vec![1], 1));
}

#[test]
fn settings_out_of_range_are_named_with_a_remedy() {
    let wrong = |settings| Keeper::new(Fake::new(Does::Answers), settings).err().unwrap().to_string();
    let good = Settings::default();
    assert!(wrong(Settings { timeout: Duration::ZERO, ..good }).ends_with("like 5s"));
    assert!(wrong(Settings { keys: 0, ..good }).ends_with("like 10000"));
    assert!(wrong(Settings { waiters: 0, ..good }).ends_with("like 100000"));
}
