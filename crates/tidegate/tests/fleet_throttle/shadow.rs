//! A limit that runs as a shadow: it counts, and refuses nobody.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_shadow_never_refuses_nor_waits_and_counts_what_it_would_refuse() {
    let wire = wire().await;
    let shadow =
        FleetThrottle::builder("limit", windows("3/min"), wire.clone()).mode(Mode::Shadow).build().unwrap();
    for _ in 0..10 {
        let call = call();
        let entered = pin!(shadow.enter(&call, &KEY));
        assert!(futures_util::FutureExt::now_or_never(entered).unwrap().is_ok());
        sleep(MS * 10).await;
    }
    assert_eq!(shadow.stats().shadow_refused, 7, "{:?}", shadow.stats());
}

#[tokio::test(start_paused = true)]
async fn a_shadow_whose_credit_is_over_on_arrival_does_not_ask_for_ever() {
    let wire = wire().await;
    wire.slow(40);
    let builder = FleetThrottle::builder("limit", windows("10/20ms"), wire.clone()).mode(Mode::Shadow);
    let shadow = builder.build().unwrap();
    go(&shadow).await;
    sleep(MS * 2000).await;
    let asked = wire.asks();
    assert!(asked > 10, "its first answers are all over on arrival: {asked}");
    sleep(MS * 10_000).await;
    assert_eq!(wire.asks(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_charges_what_a_call_cost_in_the_end_once() {
    let wire = wire().await;
    let shadow =
        FleetThrottle::builder("limit", windows("100/min"), wire.clone()).mode(Mode::Shadow).build().unwrap();
    // Counted by its trace, as nothing is in hand yet.
    let permit = shadow.enter(&call().cost(10), &KEY).await.unwrap();
    sleep(MS * 10).await;
    permit.settle_cost(25, now());
    let charged = async || {
        shadow.close().await;
        let account = shadow.inspect(&KEY).await.unwrap();
        account.used + account.debt
    };
    assert_eq!(charged().await, 25);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_shadow_would_have_refused_costs_nothing() {
    let wire = wire().await;
    let shadow =
        FleetThrottle::builder("limit", windows("10/min"), wire.clone()).mode(Mode::Shadow).build().unwrap();
    for _ in 0..3 {
        let permit = shadow.enter(&call().cost(10), &KEY).await.unwrap();
        sleep(MS * 10).await;
        permit.settle_cost(10, now());
    }
    sleep(MS * 1000).await;
    let account = shadow.inspect(&KEY).await.unwrap();
    assert_eq!((account.used, account.debt, shadow.stats().debt), (10, 0, 0), "{:?}", shadow.stats());
    assert_eq!(shadow.stats().shadow_refused, 2);
}
