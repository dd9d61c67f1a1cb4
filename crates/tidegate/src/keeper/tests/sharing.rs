//! One fetch a key: who waits, who leaves, who is turned away.

use super::*;

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
async fn what_is_over_as_soon_as_it_comes_is_still_the_answer_of_all_who_waited_for_it() {
    let lifetime = Lifetime::of(Duration::ZERO, Duration::ZERO);
    let (keeper, fake) = keeper_with(Does::AnswersAfter(seconds(1)), Settings { lifetime, ..settings() });
    let asked = (0..10).map(|_| async { fresh(keeper.get(&call(), &1).await) });
    assert_eq!(futures_util::future::join_all(asked).await, [1; 10]);
    assert!(keeper.try_fresh(&call(), &1).is_none());
    assert_eq!(fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn to_look_for_a_fresh_value_begins_nothing() {
    let (keeper, fake) = keeper(Does::Answers);
    assert!(keeper.try_fresh(&call(), &1).is_none());
    settle().await;
    assert_eq!((fake.calls(), keeper.stats().keys), (0, 0));
    keeper.get(&call(), &1).await;
    let kept = keeper.try_fresh(&call(), &1).unwrap();
    assert_eq!((*kept.key(), *kept), (1, 1));
    advance(seconds(50)).await;
    assert!(keeper.try_fresh(&call(), &1).is_none(), "it is due");
    settle().await;
    assert_eq!(fake.calls(), 1);
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

#[tokio::test(start_paused = true)]
async fn ten_thousand_who_wait_for_one_fetch_are_polled_twice_each() {
    const CALLERS: usize = 10_000;
    let (keeper, fake) = keeper(Does::AnswersAfter(seconds(1)));
    let polls = Arc::new(AtomicUsize::new(0));
    let callers = (0..CALLERS).map(|_| {
        let (keeper, polls) = (keeper.clone(), Arc::clone(&polls));
        tokio::spawn(async move {
            let call = call();
            let mut answer = std::pin::pin!(keeper.get(&call, &1));
            let answer = std::future::poll_fn(|context| {
                polls.fetch_add(1, SeqCst);
                answer.as_mut().poll(context)
            });
            fresh(answer.await)
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 1);
    }
    assert_eq!((fake.calls(), polls.load(SeqCst)), (1, 2 * CALLERS));
}
