//! A store that is away, or has lost its memory: who waits, what is spent, what the policy decides.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_the_store_credit_in_hand_is_spent_and_then_calls_are_refused_at_once() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100000/min"));
    for _ in 0..2000 {
        go(&throttle).await;
        sleep(MS).await;
    }
    wire.cut(true);
    let in_hand = throttle.stats().in_hand;
    assert!(in_hand > 100, "{in_hand}");
    for _ in 0..in_hand {
        assert!(throttle.try_enter(&call(), &KEY).is_ok());
    }
    for _ in 0..10 {
        let refused = throttle.enter(&call(), &KEY).await.unwrap_err();
        assert_eq!(refused.by, By::Store);
    }
    let (asks, began) = (wire.asks(), now());
    for _ in 0..1000 {
        assert!(throttle.enter(&call(), &KEY).await.is_err());
    }
    assert!(wire.asks() <= asks + 1 && now().since(began) <= MS * 60, "the store is given a rest");
    wire.cut(false);
    sleep(MS * 200).await;
    assert!(throttle.enter(&call(), &KEY).await.is_ok(), "and comes back by itself");
}

/// Makes a store away, and known to be so.
async fn cut_and_noticed(wire: &Wire, throttle: &FleetThrottle) {
    wire.cut(true);
    while !throttle.stats().is_away {
        let _ = throttle.enter(&call(), &Key::of(b"somebody")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_store_that_is_known_to_be_away() {
    let wire = wire().await;
    let throttle = node(&wire, windows("10/min"));
    go(&throttle).await;
    cut_and_noticed(&wire, &throttle).await;
    let (asked, in_hand) = (wire.asks(), throttle.stats().in_hand);
    let mut most_out = 0;
    for turn in 0..2000_u32 {
        let (call, key) = (call(), if turn % 2 == 0 { KEY } else { Key::of(&turn.to_le_bytes()) });
        let mut entered = task::spawn(throttle.enter(&call, &key));
        match assert_ready!(entered.poll()) {
            Ok(_) => assert!(u64::from(turn) < 2 * in_hand && key == KEY),
            Err(refused) => assert_eq!((refused.by, refused.retry_after), (By::Store, Some(MS * 100))),
        }
        most_out = most_out.max(throttle.stats().asking + wire.under_way());
        if turn % 2 == 1 {
            sleep(MS).await;
        }
    }
    let asked = wire.asks() - asked;
    assert_eq!(most_out, 1, "one probe at a time");
    assert!((4..=1000 / 75).contains(&asked), "{asked} probes in a second");
    wire.cut(false);
    sleep(MS * 200).await;
    assert!(!throttle.stats().is_away);
    go(&throttle).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_nobody_needs_is_probed_seldom_and_found_all_the_same() {
    let wire = wire().await;
    let throttle = node(&wire, windows("10/min"));
    go(&throttle).await;
    cut_and_noticed(&wire, &throttle).await;
    let asked = wire.asks();
    sleep(MS * 60_000).await;
    assert!((50..=66).contains(&(wire.asks() - asked)), "{} probes in a minute", wire.asks() - asked);
    wire.cut(false);
    sleep(MS * 1100).await;
    let call = call();
    let mut entered = task::spawn(throttle.enter(&call, &KEY));
    assert_pending!(entered.poll(), "it waits for an answer again");
    assert!(entered.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_the_policy_decides_at_once_and_what_is_used_up_stays_so() {
    let wire = wire().await;
    let open = |name: &'static str| {
        let builder = FleetThrottle::builder(name, windows("2/min"), wire.clone());
        builder.on_store_failure(OnStoreFailure::Open).build().unwrap()
    };
    let (used_up, fresh) = (open("used up"), open("fresh"));
    go(&used_up).await;
    go(&used_up).await;
    assert_eq!(used_up.enter(&call(), &KEY).await.unwrap_err().by, By::Quota);
    wire.cut(true);
    while !(used_up.stats().is_away && fresh.stats().is_away) {
        for throttle in [&used_up, &fresh] {
            let _ = throttle.enter(&call(), &Key::of(b"somebody")).await;
        }
    }
    let call = call();
    let mut refused = task::spawn(used_up.enter(&call, &KEY));
    assert_eq!(assert_ready!(refused.poll()).unwrap_err().by, By::Quota);
    assert!(assert_ready!(task::spawn(fresh.enter(&call, &KEY)).poll()).is_ok());
    let limits = [(&fresh, KEY), (&used_up, KEY)];
    let verdict = assert_ready!(task::spawn(enter_all(&limits, &call)).poll());
    assert_eq!(verdict.refusal().map(|refusal| (refusal.limit, refusal.refused.by)), Some((1, By::Quota)));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_blames_no_store() {
    let wire = wire().await;
    let throttle = node(&wire, windows("10/min"));
    for round in 0..5_u8 {
        let (call, key) = (call(), Key::of(&[round]));
        let mut entered = task::spawn(throttle.enter(&call, &key));
        assert_pending!(entered.poll());
        while wire.under_way() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(MS * 3000).await;
        // Whether its answer was there at once or not, it is no evidence.
        let _ = entered.await;
        assert!(!throttle.stats().is_away, "in round {round}");
    }
    wire.cut(true);
    let began = now();
    while !throttle.stats().is_away {
        let (call, key) = (call(), Key::of(b"somebody"));
        assert!(throttle.enter(&call, &key).await.is_err());
    }
    assert!(now().since(began) < MS * 110, "two deadlines of silence are evidence");
}

#[tokio::test(start_paused = true)]
async fn credit_in_hand_is_kept_and_spent_while_the_store_is_away() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100000/min"));
    for _ in 0..1000 {
        go(&throttle).await;
        sleep(MS).await;
    }
    cut_and_noticed(&wire, &throttle).await;
    let held = throttle.stats().in_hand;
    // Longer than it takes to hand idle credit back to a store that is there.
    sleep(MS * 3000).await;
    assert_eq!(throttle.stats().in_hand, held);
    for _ in 0..held {
        assert!(throttle.try_enter(&call(), &KEY).is_ok());
    }
    assert_eq!(throttle.try_enter(&call(), &KEY).unwrap_err().by, By::Store);
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_is_lost_makes_no_store_away() {
    let wire = wire().await;
    let throttle = node(&wire, windows("1000/min"));
    for turn in 0..100 {
        wire.lose_replies(turn % 2 == 0);
        let _ = throttle.enter(&call(), &Key::of(&[turn])).await;
        assert!(!throttle.stats().is_away, "in turn {turn}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_held_aside_bridges_an_outage_within_the_limit() {
    let wire = wire().await;
    let rule = windows("100/min");
    let fleet: Vec<_> = (0..2)
        .map(|_| {
            FleetThrottle::builder("limit", rule, wire.clone())
                .on_store_failure(OnStoreFailure::Share { units: 10 })
                .build()
                .unwrap()
        })
        .collect();
    let mut admitted = 0;
    for turn in 0..20 {
        admitted += u32::from(fleet[turn % 2].enter(&call(), &KEY).await.is_ok());
        sleep(MS * 10).await;
    }
    assert!(fleet.iter().all(|node| node.stats().aside > 0), "{:?}", fleet[0].stats());
    wire.cut(true);
    let mut bridged = 0;
    for turn in 0..400 {
        bridged += u32::from(fleet[turn % 2].enter(&call(), &KEY).await.is_ok());
    }
    assert!(bridged >= 10, "{bridged}");
    assert!(admitted + bridged <= 100);
    assert!(fleet[0].stats().from_aside > 0);
    assert_eq!(fleet[0].stats().largest_over, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_fails_open_says_that_nothing_bounds_it() {
    let wire = wire().await;
    wire.cut(true);
    let open = FleetThrottle::builder("limit", windows("1/min"), wire.clone())
        .on_store_failure(OnStoreFailure::Open)
        .build()
        .unwrap();
    for _ in 0..10 {
        assert!(open.enter(&call(), &KEY).await.is_ok());
    }
    let stats = open.stats();
    assert_eq!((stats.open, stats.largest_over), (10, None));
}

#[tokio::test(start_paused = true)]
async fn lost_answers_cost_credit_and_never_mint_any() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100/min"));
    let mut admitted = 0;
    for turn in 0..2000 {
        wire.lose_replies(turn % 3 == 0);
        admitted += u32::from(throttle.enter(&call(), &KEY).await.is_ok());
        sleep(MS * 5).await;
    }
    assert!((1..=100).contains(&admitted), "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_lost_everything_is_told_by_nodes_that_have_nothing_to_do() {
    let ledger = LocalLedger::new();
    let wire = wire_to(&ledger).await;
    let (spent, fresh) = (node(&wire, windows("10/min")), node(&wire, windows("10/min")));
    let others: Vec<_> = (0..20).map(|key: u8| Key::of(&[key])).collect();
    for _ in 0..10 {
        go(&spent).await;
        for key in &others {
            assert!(spent.enter(&call(), key).await.is_ok());
        }
    }
    sleep(MS * 100).await;
    ledger.lose();
    // Of these keys only the node knows that has no calls.
    let mut keys: Vec<_> = others.iter().collect();
    keys.push(&KEY);
    for turn in 0..200 {
        for key in &keys {
            assert!(fresh.enter(&call(), key).await.is_err(), "in turn {turn}");
        }
        sleep(MS * 100).await;
    }
    assert_eq!(spent.stats().losses, 1);
}
