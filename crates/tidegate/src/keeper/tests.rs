//! What a keeper answers, and how often it asks.

use std::{
    future::pending,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tidegate_core::{Backoff, attempts, recovery::Reach};
use tokio::{
    task::yield_now,
    time::{advance, sleep},
};

use super::*;
use crate::clock;

/// What the source does.
#[derive(Clone, Copy)]
enum Does {
    Answers,
    AnswersAfter(Duration),
    HasNothing,
    IsDown,
    RefusesKey(u32),
    Panics,
    Hangs,
}

#[derive(Clone)]
struct Fake(Arc<State>);

struct State {
    does: Mutex<Does>,
    calls: AtomicUsize,
    evicted: Mutex<Vec<u32>>,
}

impl Fake {
    fn new(does: Does) -> Self {
        let state = State { does: Mutex::new(does), calls: AtomicUsize::new(0), evicted: Mutex::default() };
        Self(Arc::new(state))
    }

    fn now(&self, does: Does) {
        *self.0.does.lock() = does;
    }

    fn calls(&self) -> usize {
        self.0.calls.load(SeqCst)
    }
}

impl Fetch for Fake {
    type Key = u32;
    type Value = usize;
    type Error = &'static str;

    /// The value is the number of the call, and so is its version.
    async fn fetch(&self, key: &u32) -> Result<Fetched<usize>, Failed<&'static str>> {
        let call = self.0.calls.fetch_add(1, SeqCst) + 1;
        let does = *self.0.does.lock();
        let answer = Fetched::value(call).version(call as u64);
        match does {
            Does::Answers => Ok(answer),
            Does::AnswersAfter(delay) => {
                sleep(delay).await;
                Ok(answer)
            }
            Does::HasNothing => Ok(Fetched::nothing().version(call as u64)),
            Does::IsDown => Err(Failed::source("down")),
            Does::RefusesKey(refused) if refused == *key => Err(Failed::key("refused")),
            Does::RefusesKey(_) => Ok(answer),
            Does::Panics => panic!("oh no"),
            Does::Hangs => pending().await,
        }
    }

    fn evicted(&self, key: &u32) {
        self.0.evicted.lock().push(*key);
    }
}

fn settings() -> Settings {
    Settings {
        lifetime: Lifetime::of(seconds(60), seconds(600)),
        backoff: Backoff { floor: seconds(1), base: seconds(1), cap: seconds(30) },
        ..Settings::default()
    }
}

fn keeper_with(does: Does, settings: Settings) -> (Keeper<Fake>, Fake) {
    let fake = Fake::new(does);
    (Keeper::new(fake.clone(), settings).expect("valid settings"), fake)
}

fn keeper(does: Does) -> (Keeper<Fake>, Fake) {
    keeper_with(does, settings())
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn call() -> Call {
    Call::at(clock::now())
}

/// Lets the tasks that can run do so.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

fn fresh(answer: Answer<usize, &'static str>) -> usize {
    let Answer::Fresh(value) = answer else { panic!("{answer:?} is not fresh") };
    *value
}

fn stale(answer: Answer<usize, &'static str>) -> (usize, Duration, Option<Why<&'static str>>) {
    let Answer::Stale { value, age, why } = answer else { panic!("{answer:?} is not stale") };
    (*value, age, why)
}

fn refused(answer: Answer<usize, &'static str>) -> Refusal<&'static str> {
    let Answer::Refused(refusal) = answer else { panic!("{answer:?} is no refusal") };
    refusal
}

#[tokio::test(start_paused = true)]
async fn a_value_is_fetched_once_and_then_known() {
    let (keeper, fake) = keeper(Does::Answers);
    assert!(keeper.peek(&1).is_none());
    for _ in 0..100 {
        assert_eq!(fresh(keeper.get(&call(), &1).await), 1);
    }
    assert_eq!((fake.calls(), keeper.peek(&1).map(|kept| *kept)), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_fetch_and_a_dropped_caller_does_not_stop_it() {
    let (keeper, fake) = keeper(Does::AnswersAfter(seconds(1)));
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let keeper = keeper.clone();
            tokio::spawn(async move { fresh(keeper.get(&call(), &1).await) })
        })
        .collect();
    while keeper.stats().waiting < 1000 {
        yield_now().await;
    }
    waiting.iter().take(500).for_each(tokio::task::JoinHandle::abort);
    for waiter in waiting.into_iter().skip(500) {
        assert_eq!(waiter.await.unwrap(), 1);
    }
    assert_eq!((fake.calls(), keeper.stats().waiting), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_hung_key_is_fetched_once_and_only_those_past_their_own_deadline_fail() {
    let (keeper, fake) = keeper(Does::AnswersAfter(Duration::from_millis(3500)));
    let mut calls = Vec::new();
    for _ in 0..200 {
        let keeper = keeper.clone();
        calls.push((
            clock::now(),
            tokio::spawn(async move { keeper.get(&call().within(seconds(1)), &1).await }),
        ));
        advance(Duration::from_millis(20)).await;
    }
    let began = calls[0].0;
    for (at, task) in calls {
        match task.await.unwrap() {
            Answer::Fresh(value) => assert_eq!(*value, 1),
            Answer::Refused(Refusal::Deadline) => assert!(at.since(began) <= Duration::from_millis(2500)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fake.calls(), 1);
}

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
async fn a_panic_reaches_all_who_wait_and_the_keeper_goes_on() {
    let (keeper, fake) = keeper(Does::Panics);
    let (call, key) = (call(), 1);
    let (first, second) = tokio::join!(keeper.get(&call, &key), keeper.get(&call, &key));
    for answer in [first, second] {
        assert!(matches!(refused(answer), Refusal::Failing { why: Why::Panicked(_), .. }));
    }
    fake.now(Does::Answers);
    sleep(seconds(3)).await;
    assert_eq!(fresh(keeper.get(&Call::at(clock::now()), &1).await), 2);
}

#[tokio::test(start_paused = true)]
async fn all_keys_together_ask_no_more_than_the_budget() {
    let attempts = attempts::Settings {
        attempts: NonZeroU32::new(10).unwrap(),
        within: seconds(10),
        cooldown: Duration::ZERO,
    };
    let (keeper, fake) = keeper_with(Does::Answers, Settings { attempts, ..settings() });
    for key in 0..100 {
        let answer = keeper.get(&call(), &key).await;
        assert_eq!(matches!(answer, Answer::Fresh(_)), key < 10, "{key}: {answer:?}");
        if key >= 10 {
            let Refusal::Throttled { retry_after } = refused(answer) else { panic!("throttled") };
            assert!(retry_after > seconds(9) && retry_after <= seconds(11));
        }
    }
    assert_eq!((fake.calls(), keeper.stats().throttled), (10, 90));
}

#[tokio::test(start_paused = true)]
async fn while_the_source_is_down_one_probe_goes_for_all_keys() {
    let (keeper, fake) = keeper(Does::IsDown);
    for key in 0..3 {
        refused(keeper.get(&call(), &key).await);
    }
    assert!(matches!(keeper.stats().reach, Reach::Down { .. }));
    for key in 0..1000 {
        let refusal = refused(keeper.get(&call(), &key).await);
        assert!(matches!(refusal, Refusal::Failing { why: Why::Failed("down"), .. }));
    }
    assert_eq!(fake.calls(), 3);
    for _ in 0..600 {
        sleep(seconds(1)).await;
        for key in 0..20 {
            drop(keeper.try_get(&call(), &key));
        }
        settle().await;
    }
    let calls = fake.calls() - 3;
    assert!((15..=120).contains(&calls), "{calls} probes in 600 s, with pauses of 1 s to 31 s");
}

#[tokio::test(start_paused = true)]
async fn after_a_recovery_all_keys_return_within_the_while_and_not_at_once() {
    let settings = Settings { recovery: seconds(5), ..settings() };
    let (keeper, fake) = keeper_with(Does::IsDown, settings);
    for _ in 0..300 {
        for key in 0..20 {
            drop(keeper.try_get(&call(), &key));
        }
        sleep(seconds(1)).await;
    }
    fake.now(Does::Answers);
    while !matches!(keeper.stats().reach, Reach::Up) {
        sleep(Duration::from_millis(100)).await;
        drop(keeper.try_get(&call(), &0));
        settle().await;
    }
    let mut most = 0;
    for _ in 0..50 {
        let before = fake.calls();
        for key in 0..20 {
            drop(keeper.try_get(&call(), &key));
        }
        settle().await;
        most = most.max(fake.calls() - before);
        advance(Duration::from_millis(100)).await;
    }
    assert!(most <= 10, "{most} at once");
    for key in 0..20 {
        fresh(keeper.get(&call(), &key).await);
    }
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

fn generous() -> attempts::Settings {
    attempts::Settings { attempts: NonZeroU32::MAX, ..attempts::Settings::default() }
}

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

#[tokio::test(start_paused = true)]
async fn more_callers_than_may_wait_are_turned_away_and_the_others_served() {
    let settings = Settings { waiters: 2, ..settings() };
    let (keeper, _fake) = keeper_with(Does::AnswersAfter(seconds(1)), settings);
    let get = || {
        let keeper = keeper.clone();
        tokio::spawn(async move { keeper.get(&call(), &1).await })
    };
    let (first, second) = (get(), get());
    settle().await;
    assert_eq!(refused(get().await.unwrap()), Refusal::Full);
    fresh(first.await.unwrap());
    fresh(second.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_deadline_has_passed_does_not_wait_and_still_gets_what_is_known() {
    let (keeper, fake) = keeper(Does::Answers);
    let late = call().within(Duration::ZERO);
    assert_eq!(refused(keeper.get(&late, &1).await), Refusal::Deadline);
    settle().await;
    assert_eq!(fake.calls(), 1, "the fetch it began goes on");
    fresh(keeper.get(&late, &1).await);
}

#[test]
fn a_fetch_that_ends_with_its_runtime_leaves_the_key_for_the_next_caller() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (keeper, fake) = keeper(Does::Hangs);
    let first = runtime();
    assert!(first.block_on(async { keeper.try_get(&call(), &1) }).is_none());
    first.block_on(settle());
    assert_eq!(fake.calls(), 1);
    drop(first);
    fake.now(Does::Answers);
    assert_eq!(runtime().block_on(async { fresh(keeper.get(&call(), &1).await) }), 2);
    assert_eq!(keeper.stats().lost, 1);
}

#[test]
fn settings_out_of_range_are_named_with_a_remedy() {
    let wrong = |settings| Keeper::new(Fake::new(Does::Answers), settings).err().unwrap().to_string();
    let good = Settings::default();
    assert!(wrong(Settings { timeout: Duration::ZERO, ..good }).ends_with("like 5s"));
    assert!(wrong(Settings { keys: 0, ..good }).ends_with("like 10000"));
    assert!(wrong(Settings { waiters: 0, ..good }).ends_with("like 100000"));
}
