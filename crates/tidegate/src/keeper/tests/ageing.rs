//! From fresh to dead: when a value is fetched again, and what is served meanwhile.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_failing_key_is_asked_by_the_backoff_however_often_callers_come() {
    let backoff = Backoff { floor: Duration::ZERO, base: Duration::from_millis(200), cap: seconds(60) };
    let (keeper, fake) = keeper_with(Does::RefusesKey(1), Settings { backoff, ..settings() });
    for _ in 0..5000 {
        let refusal = refused(keeper.get(&call(), &1).await);
        assert!(matches!(refusal, Refusal::Failing { why: Why::Failed("refused"), .. }));
        advance(Duration::from_micros(100)).await;
    }
    assert!(fake.calls() <= 9, "{} calls in 0.5 s", fake.calls());
    assert_eq!(fresh(keeper.get(&call(), &2).await), fake.calls(), "another key does not notice");
}

#[tokio::test(start_paused = true)]
async fn a_value_is_refreshed_beside_its_callers_before_it_ends() {
    let (keeper, fake) = keeper(Does::Answers);
    assert_eq!(fresh(keeper.get(&call(), &1).await), 1);
    fake.now(Does::AnswersAfter(seconds(2)));
    advance(seconds(50)).await;
    assert_eq!(fresh(keeper.get(&call(), &1).await), 1, "due: served while it is fetched");
    assert_eq!(fresh(keeper.get(&call(), &1).await), 1);
    sleep(seconds(3)).await;
    assert_eq!(fresh(keeper.get(&call(), &1).await), 2);
    assert_eq!(fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_at_once_with_its_age_and_the_reason_and_dies_at_last() {
    let (keeper, fake) = keeper(Does::Answers);
    keeper.get(&call(), &1).await;
    fake.now(Does::Hangs);
    advance(seconds(100)).await;
    let before = clock::now();
    assert_eq!(stale(keeper.get(&call(), &1).await), (1, seconds(100), None));
    assert_eq!(clock::now(), before, "nobody waited");
    sleep(seconds(6)).await;
    assert_eq!(stale(keeper.get(&call(), &1).await).2, Some(Why::TimedOut(seconds(5))));
    fake.now(Does::IsDown);
    sleep(seconds(400)).await;
    assert_eq!(stale(keeper.get(&call(), &1).await).0, 1);
    settle().await;
    assert_eq!(stale(keeper.get(&call(), &1).await).2, Some(Why::Failed("down")));
    sleep(seconds(200)).await;
    assert!(
        matches!(refused(keeper.get(&call(), &1).await), Refusal::Failing { .. }),
        "older than its last age"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_counts_from_the_end_of_an_attempt() {
    let (keeper, fake) = keeper(Does::Hangs);
    let began = clock::now();
    let refusal = refused(keeper.get(&call(), &1).await);
    let Refusal::Failing { why: Why::TimedOut(_), retry_after } = refusal else { panic!("{refusal:?}") };
    assert_eq!(clock::now().since(began), seconds(5));
    assert!(retry_after >= seconds(1), "{retry_after:?}");
    sleep(Duration::from_millis(999)).await;
    refused(keeper.get(&call(), &1).await);
    assert_eq!(fake.calls(), 1);
    sleep(seconds(1)).await;
    drop(keeper.try_get(&call(), &1));
    settle().await;
    assert_eq!(fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_is_known_for_a_while_and_differs_from_not_knowing() {
    let (keeper, fake) = keeper(Does::HasNothing);
    for _ in 0..10 {
        assert!(matches!(keeper.get(&call(), &1).await, Answer::Nothing { .. }));
    }
    assert_eq!(fake.calls(), 1);
    fake.now(Does::Answers);
    advance(seconds(6)).await;
    assert_eq!(fresh(keeper.get(&call(), &1).await), 2);
}

#[tokio::test(start_paused = true)]
async fn values_fetched_together_are_refreshed_apart() {
    let settings = Settings { keys: 2000, attempts: generous(), ..settings() };
    let (keeper, fake) = keeper_with(Does::Answers, settings);
    for key in 0..1000 {
        fresh(keeper.get(&call(), &key).await);
    }
    let mut most = 0;
    for _ in 0..60 {
        let before = fake.calls();
        for key in 0..1000 {
            fresh(keeper.get(&call(), &key).await);
        }
        settle().await;
        most = most.max(fake.calls() - before);
        advance(seconds(1)).await;
    }
    assert!(fake.calls() >= 2000 && most < 200, "{most} in one second");
}

#[tokio::test(start_paused = true)]
async fn a_value_from_elsewhere_ends_a_failure_and_a_late_fetch_does_not_replace_it() {
    let (keeper, fake) = keeper(Does::IsDown);
    refused(keeper.get(&call(), &1).await);
    assert_eq!(keeper.put(&1, Fetched::value(100).version(100)), Landed::Taken);
    assert_eq!(fresh(keeper.get(&call(), &1).await), 100);
    fake.now(Does::AnswersAfter(seconds(1)));
    assert_eq!(keeper.refresh(&1, clock::now()), Refresh::Begun);
    assert_eq!(keeper.refresh(&1, clock::now()), Refresh::UnderWay);
    keeper.put(&1, Fetched::value(101).version(101));
    sleep(seconds(2)).await;
    assert_eq!(fresh(keeper.get(&call(), &1).await), 101);
    assert_eq!(keeper.put(&1, Fetched::value(7).version(7)), Landed::Late);
    assert_eq!(keeper.stats().late, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_cleared_stays_away_though_its_fetch_was_under_way() {
    let (keeper, fake) = keeper(Does::AnswersAfter(seconds(1)));
    let waiter = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.get(&call(), &1).await }
    });
    settle().await;
    keeper.clear(&1);
    assert_eq!(refused(waiter.await.unwrap()), Refusal::Cleared);
    assert!(keeper.peek(&1).is_none());
    assert_eq!(fresh(keeper.get(&call(), &1).await), 2);
    assert_eq!(fake.calls(), 2);
}
