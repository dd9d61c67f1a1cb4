//! What calls cost: several limits at once, what is known at the end, and what is owed.

use super::*;

#[tokio::test(start_paused = true)]
async fn several_limits_take_all_or_nothing() {
    let wire = wire().await;
    let make =
        |name: &'static str, rate| FleetThrottle::builder(name, windows(rate), wire.clone()).build().unwrap();
    let (client, backend) = (make("client", "100/min"), make("backend", "3/min"));
    let limits = [(&client, Key::of(b"alice")), (&backend, Key::ALL)];
    for left in [2, 1, 0] {
        let verdict = enter_all(&limits, &call()).await;
        assert_eq!(verdict.standings()[1].remaining(), left);
        assert!(verdict.into_grants().is_ok());
    }
    let verdict = enter_all(&limits, &call()).await;
    let refusal = verdict.refusal().unwrap();
    assert_eq!((refusal.limit, refusal.refused.by), (1, By::Quota));
    assert_eq!(
        verdict.standings().iter().map(|standing| standing.ruling()).collect::<Vec<_>>(),
        [Ruling::Admits, Ruling::Refuses]
    );
    assert_eq!((verdict.standings()[0].remaining(), verdict.standings()[0].limit()), (97, 100));
    assert_eq!(client.stats().undone, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_cost_something_else_in_each_limit_of_a_fleet() {
    let wire = wire().await;
    let throttle =
        |name, rate| FleetThrottle::builder(name, windows(rate), wire.clone()).build().expect("a runtime");
    let (calls, bytes) = (throttle("calls", "3/min"), throttle("bytes", "100/min"));
    let limits = [(&calls, KEY), (&bytes, KEY)];
    let mut receipts = match enter_all_at(&limits, &[1, 70], &call()).await.into_grants() {
        Ok(grants) => grants.into_receipts(),
        Err(refusal) => panic!("{refusal:?}"),
    };
    assert!(!receipts.are_over(now()) && receipts.are_over(now() + Duration::from_secs(60)));
    let refused = enter_all_at(&limits, &[1, 31], &call()).await;
    assert_eq!(refused.refusal().map(|refusal| refusal.limit), Some(1));
    assert!(
        enter_all_at(&limits, &[2, 10], &call()).await.into_grants().is_ok(),
        "all or none: two are left"
    );
    receipts.settle_cost(1, &limits, 50, now());
    assert!(
        enter_all_at(&limits[1..], &[40], &call()).await.into_grants().is_ok(),
        "what was too much came back"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unsent_call_gives_back_what_it_took() {
    let wire = wire().await;
    let throttle = node(&wire, windows("1/min"));
    for _ in 0..5 {
        let permit = throttle.enter(&call(), &KEY).await.unwrap();
        permit.settle(Outcome::Unsent, now());
    }
    throttle.enter(&call(), &KEY).await.unwrap().settle(Outcome::Success, now());
    assert!(throttle.enter(&call(), &KEY).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_is_known_at_the_end_is_settled_and_debt_is_paid_first() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100/min"));
    throttle.enter(&call().cost(50), &KEY).await.unwrap().settle_cost(10, now());
    let permit = throttle.enter(&call().cost(50), &KEY).await.unwrap();
    // A refill that is under way would come with new credit.
    sleep(MS * 10).await;
    permit.settle_cost(250, now());
    assert_eq!(throttle.enter(&call(), &KEY).await.unwrap_err().by, By::Quota);
    let used = throttle.inspect(&KEY).await.unwrap();
    assert_eq!((used.remaining, used.debt), (0, 160), "{used:?}");
    sleep(MS * 61_000).await;
    assert!(throttle.enter(&call(), &KEY).await.is_err(), "the next window pays");
    sleep(MS * 60_000).await;
    assert!(throttle.enter(&call().cost(40), &KEY).await.is_ok(), "and the one after it the rest");
    assert!(throttle.enter(&call(), &KEY).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_debt_outlives_its_account_and_a_ledger_that_does_not_answer() {
    let wire = wire().await;
    let throttle = FleetThrottle::builder("limit", windows("100/h"), wire.clone())
        .max_keys(NonZeroU32::new(8).unwrap())
        .build()
        .unwrap();
    throttle.enter(&call().cost(10), &KEY).await.unwrap().settle_cost(40, now());
    assert_eq!(throttle.stats().debt, 30);
    // Others take its place, and the answer to what it has to say is lost each time.
    for key in 0..20_u32 {
        wire.lose_replies(true);
        let _ = throttle.enter(&call(), &Key::of(&key.to_le_bytes())).await;
        assert_eq!(throttle.stats().debt, 30, "with {key} others");
        wire.lose_replies(false);
        while throttle.stats().is_away {
            sleep(MS * 10).await;
        }
    }
    assert!(throttle.stats().evicted > 10, "{:?}", throttle.stats());
    sleep(MS * 5000).await;
    let stats = throttle.stats();
    assert_eq!((stats.debt, stats.forgiven), (0, 0));
    let account = throttle.inspect(&KEY).await.unwrap();
    // A message whose answer is lost may have been heard: it may be charged twice, and never less than once.
    assert!(account.used + account.debt >= 40, "{account:?}");
}
