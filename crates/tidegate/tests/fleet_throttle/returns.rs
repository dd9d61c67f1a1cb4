//! Credit that goes back, and what a changed limit or an operator makes of what was counted.

use super::*;

#[tokio::test(start_paused = true)]
async fn closing_gives_all_credit_back() {
    let wire = wire().await;
    let (leaving, staying) = (node(&wire, windows("100/min")), node(&wire, windows("100/min")));
    let _ = leaving.enter(&call().cost(3), &KEY).await.unwrap();
    sleep(MS * 10).await;
    leaving.close().await;
    assert_eq!(leaving.enter(&call(), &KEY).await.unwrap_err().by, By::Closed);
    assert!(staying.enter(&call().cost(97), &KEY).await.is_ok());
    assert_eq!(leaving.stats().in_hand, 0);
}

#[tokio::test(start_paused = true)]
async fn closing_gives_back_what_was_held_aside() {
    let wire = wire().await;
    let staying = node(&wire, windows("100/min"));
    let leaving = FleetThrottle::builder("limit", windows("100/min"), wire.clone())
        .on_store_failure(OnStoreFailure::Share { units: 10 })
        .build()
        .unwrap();
    go(&leaving).await;
    sleep(MS * 10).await;
    assert!(leaving.stats().aside > 0, "{:?}", leaving.stats());
    leaving.close().await;
    assert_eq!(leaving.stats().aside, 0);
    assert!(staying.enter(&call().cost(99), &KEY).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn idle_credit_goes_back_to_who_needs_it() {
    let wire = wire().await;
    let (idle, busy) = (node(&wire, windows("1000/min")), node(&wire, windows("1000/min")));
    for _ in 0..100 {
        go(&idle).await;
        sleep(MS * 2).await;
    }
    let mut admitted = 0;
    for _ in 0..20_000 {
        admitted += u32::from(busy.enter(&call(), &KEY).await.is_ok());
        sleep(MS).await;
    }
    assert_eq!(admitted, 900, "idle: {:?}", idle.stats());
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_holds_for_what_was_counted() {
    let wire = wire().await;
    let throttle = node(&wire, windows("10/min"));
    for _ in 0..10 {
        go(&throttle).await;
    }
    assert!(throttle.enter(&call(), &KEY).await.is_err());
    throttle.update(windows("12/min"));
    for _ in 0..2 {
        go(&throttle).await;
    }
    assert!(throttle.enter(&call(), &KEY).await.is_err());
    throttle.update(windows("5/min"));
    assert!(throttle.enter(&call(), &KEY).await.is_err());
    throttle.update(windows("1/s"));
    assert!(throttle.enter(&call(), &KEY).await.is_ok(), "other windows count anew");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_flows_slower_says_what_may_still_be_spent_of_before() {
    let wire = wire().await;
    let bucket = |rate: &str| {
        let quota = Quota::of(rate.parse().unwrap()).burst(100).algorithm(Algorithm::TokenBucket);
        Rule::of(quota.build().unwrap()).life(MS * 50).build().unwrap()
    };
    let throttle = node(&wire, bucket("100/s"));
    for _ in 0..20 {
        go(&throttle).await;
        sleep(MS).await;
    }
    assert_eq!(throttle.stats().largest_over, Some(0));
    let in_hand = throttle.stats().in_hand;
    assert!(in_hand > 0);
    throttle.update(bucket("10/s"));
    assert_eq!(throttle.stats().largest_over, Some(in_hand));
    sleep(MS * 100).await;
    assert_eq!(throttle.stats().largest_over, Some(0));
    throttle.update(bucket("1000/s"));
    assert_eq!(throttle.stats().largest_over, Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_operator_gives_and_takes() {
    let wire = wire().await;
    let throttle = node(&wire, windows("5/min"));
    for _ in 0..5 {
        go(&throttle).await;
    }
    assert!(throttle.enter(&call(), &KEY).await.is_err());
    let adjusted = throttle.adjust(&KEY, Adjustment::Relieve(2)).await.unwrap();
    assert_eq!((adjusted.before.remaining, adjusted.after.remaining), (0, 2));
    sleep(MS * 10).await;
    for _ in 0..2 {
        go(&throttle).await;
    }
    assert!(throttle.enter(&call(), &KEY).await.is_err());
}
