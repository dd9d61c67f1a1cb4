//! Callers that wait for credit together, late, or not to the end.

use super::*;

#[tokio::test(start_paused = true)]
async fn callers_of_a_key_wait_for_one_answer_together_and_are_polled_twice() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100/min"));
    let call = call();
    let mut callers: Vec<_> = (0..50).map(|_| task::spawn(throttle.enter(&call, &KEY))).collect();
    for caller in &mut callers {
        assert_pending!(caller.poll());
    }
    let (first, others) = callers.split_at_mut(1);
    while !first[0].is_woken() {
        sleep(MS).await;
    }
    assert!(assert_ready!(first[0].poll()).is_ok());
    while !others.iter().all(|caller| caller.is_woken()) {
        sleep(MS).await;
    }
    for caller in others {
        assert!(assert_ready!(caller.poll()).is_ok());
    }
    assert!(wire.asks() <= 3, "{} questions for 50 callers", wire.asks());
    assert_eq!(throttle.stats().waited, 50);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_changes_nothing_for_the_others() {
    let wire = wire().await;
    let throttle = node(&wire, windows("2/min"));
    let call = call();
    let mut leader = task::spawn(throttle.enter(&call, &KEY));
    let mut follower = task::spawn(throttle.enter(&call, &KEY));
    assert_pending!(leader.poll());
    assert_pending!(follower.poll());
    drop(leader);
    while !follower.is_woken() {
        sleep(MS).await;
    }
    assert!(assert_ready!(follower.poll()).is_ok());
    assert!(throttle.enter(&call, &KEY).await.is_ok(), "what the leader left is for the next");
    assert_eq!(throttle.enter(&call, &KEY).await.unwrap_err().by, By::Quota);
}

#[tokio::test(start_paused = true)]
async fn credit_for_a_caller_that_went_away_unseen_is_for_the_next_one() {
    let wire = wire().await;
    let throttle = node(&wire, windows("1/min"));
    let call = call();
    let mut gone = task::spawn(throttle.enter(&call, &KEY));
    assert_pending!(gone.poll());
    while !gone.is_woken() {
        sleep(MS).await;
    }
    drop(gone);
    assert!(throttle.try_enter(&call, &KEY).is_ok());
}

#[tokio::test(start_paused = true)]
async fn credit_that_was_over_before_its_caller_looked_admits_nothing() {
    let wire = wire().await;
    let (late, other) = (node(&wire, windows("1/200ms")), node(&wire, windows("1/200ms")));
    let call = call();
    let mut caller = task::spawn(late.enter(&call, &KEY));
    assert_pending!(caller.poll());
    while !caller.is_woken() {
        sleep(MS).await;
    }
    // Granted in the first window, looked at in the second, whose one call is gone.
    sleep(MS * 210).await;
    go(&other).await;
    assert_pending!(caller.poll());
    while !caller.is_woken() {
        sleep(MS).await;
    }
    assert_eq!(assert_ready!(caller.poll()).unwrap_err().by, By::Quota);
}

#[tokio::test(start_paused = true)]
async fn one_question_at_a_time_is_enough_for_all_who_wait() {
    let wire = wire().await;
    let throttle = FleetThrottle::builder("limit", windows("100/min"), wire.clone())
        .max_asks(NonZeroU32::MIN)
        .build()
        .unwrap();
    let call = call();
    for (at, waiter) in join_all((0..5).map(|_| throttle.enter(&call, &KEY))).await.into_iter().enumerate() {
        assert!(waiter.is_ok(), "{at}: {:?}", throttle.stats());
    }
    assert!(wire.asks() > 1, "the first question is for one call");
}

#[tokio::test(start_paused = true)]
async fn closing_ends_those_who_wait() {
    let wire = wire().await;
    wire.cut(true);
    let throttle = node(&wire, windows("100/min"));
    let call = call();
    let mut waiter = task::spawn(throttle.enter(&call, &KEY));
    assert_pending!(waiter.poll());
    throttle.close().await;
    assert_eq!(assert_ready!(waiter.poll()).unwrap_err().by, By::Closed);
}

#[tokio::test]
async fn calls_come_from_other_threads_than_the_questions() {
    let wire = Wire::new(LocalLedger::new());
    let throttle = FleetThrottle::builder("limit", windows("1000000/min"), wire).build().unwrap();
    let callers = (0..2).map(|_| {
        let throttle = throttle.clone();
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime
                .block_on(join_all((0..100).map(|_| async { throttle.enter(&call(), &KEY).await.is_ok() })))
        })
    });
    for admitted in join_all(callers.collect::<Vec<_>>()).await {
        assert!(admitted.unwrap().into_iter().any(|admitted| admitted));
    }
}
