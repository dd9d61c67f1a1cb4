//! The throttle of a fleet over a ledger in memory, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/wire.rs"]
mod wire;

use std::{num::NonZeroU32, pin::pin, time::Duration};

use futures_util::future::join_all;
use tidegate::{
    By, Call, Outcome, Permit as _,
    clock::now,
    fleet::{Adjustment, FleetThrottle, LocalLedger, OnStoreFailure, Rule, enter_all, enter_all_at},
    throttle::{Algorithm, Key, Mode, Quota, Ruling},
};
use tokio::time::sleep;
use tokio_test::{assert_pending, assert_ready, task};
use wire::Wire;

const MS: Duration = Duration::from_millis(1);
const KEY: Key = Key::ALL;

fn call() -> Call {
    Call::at(now())
}

fn windows(rate: &str) -> Rule {
    let quota = Quota::of(rate.parse().expect("a rate")).algorithm(Algorithm::FixedWindow);
    Rule::of(quota.build().expect("a quota")).build().expect("a rule")
}

fn node(wire: &Wire, rule: Rule) -> FleetThrottle {
    FleetThrottle::builder("limit", rule, wire.clone()).build().expect("a runtime")
}

/// A call that must go.
async fn go(throttle: &FleetThrottle) {
    let _ = throttle.enter(&call(), &KEY).await.expect("there is credit");
}

/// A ledger behind a wire, at the beginning of a minute.
async fn wire() -> Wire {
    wire_to(&LocalLedger::new()).await
}

async fn wire_to(ledger: &LocalLedger) -> Wire {
    let into_minute = now().as_nanos() % 60_000_000_000;
    sleep(Duration::from_nanos(60_000_000_000 - into_minute)).await;
    Wire::new(ledger.clone())
}

#[tokio::test(start_paused = true)]
async fn a_fleet_admits_its_limit_and_not_one_more() {
    let wire = wire().await;
    let fleet: Vec<_> = (0..4).map(|_| node(&wire, windows("1000/min"))).collect();
    let mut admitted = 0;
    for turn in 0..3000 {
        // One node is busier than the others.
        let node = if turn % 4 == 0 { turn / 4 % 4 } else { 0 };
        admitted += u32::from(fleet[node].enter(&call(), &KEY).await.is_ok());
        sleep(MS * 5).await;
    }
    assert!((990..=1000).contains(&admitted), "{admitted}");
    let refused = fleet[0].enter(&call(), &KEY).await.unwrap_err();
    assert_eq!(refused.by, By::Quota);
    let retry = refused.retry_after.unwrap();
    assert!(retry <= MS * 60_000 && retry > MS * 30_000, "{retry:?}");
    assert!(fleet.iter().all(|node| node.stats().largest_over == Some(0)));
}

#[tokio::test(start_paused = true)]
async fn far_from_the_limit_calls_are_decided_without_asking() {
    let (wire, calls) = (wire().await, 10_000);
    let throttle = node(&wire, windows("1000000/min"));
    for _ in 0..calls {
        go(&throttle).await;
        sleep(MS).await;
    }
    let stats = throttle.stats();
    assert!(stats.local >= calls * 99 / 100, "{stats:?}");
    assert!(u64::from(wire.asks()) <= calls / 100, "{} questions", wire.asks());
    assert_eq!((stats.local + stats.waited, stats.asked), (calls, u64::from(wire.asks())));
}

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
async fn a_limit_that_denies_answers_without_asking() {
    let wire = wire().await;
    let throttle = node(&wire, windows("0/min"));
    assert_eq!(throttle.enter(&call(), &KEY).await.unwrap_err(), tidegate::Refused::new(By::Quota));
    let one = node(&wire, windows("1/h"));
    let key = Key::of(b"another");
    assert!(one.enter(&call(), &key).await.is_ok());
    assert!(one.enter(&call(), &key).await.is_err());
    let asks = wire.asks();
    for _ in 0..100 {
        assert!(one.try_enter(&call(), &key).is_err());
    }
    assert_eq!(wire.asks(), asks);
}

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
async fn a_peek_takes_nothing() {
    let wire = wire().await;
    let throttle = node(&wire, windows("1/min"));
    for _ in 0..3 {
        assert!(throttle.enter(&call().cost(0), &KEY).await.is_ok());
    }
    assert!(throttle.enter(&call(), &KEY).await.is_ok());
    assert!(throttle.enter(&call().cost(0), &KEY).await.is_err());
}

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
async fn a_throttle_at_rest_falls_silent_once_its_windows_are_over() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100/s"));
    go(&throttle).await;
    sleep(MS * 5000).await;
    let asked = wire.asks();
    sleep(MS * 60_000).await;
    assert_eq!(wire.asks(), asked, "there is nothing left to tell a ledger that is lost");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_without_room_for_new_keys_goes_on_with_those_it_knows() {
    let ledger = LocalLedger::with_room_for(NonZeroU32::MIN);
    let throttle = FleetThrottle::builder("limit", windows("100/h"), ledger).build().unwrap();
    go(&throttle).await;
    let mut refused = 0;
    for key in 0..2000_u32 {
        refused += u32::from(throttle.enter(&call(), &Key::of(&key.to_le_bytes())).await.is_err());
    }
    assert!(refused > 100, "{refused}");
    assert!(throttle.enter(&call().cost(20), &KEY).await.is_ok(), "{:?}", throttle.stats());
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
async fn keys_beyond_the_bound_make_room_and_never_admit_too_much() {
    let wire = wire().await;
    let throttle = FleetThrottle::builder("limit", windows("2/min"), wire.clone())
        .max_keys(NonZeroU32::new(50).unwrap())
        .build()
        .unwrap();
    let mut admitted = vec![0; 500];
    for turn in 0..5000 {
        let client = turn * 7919 % 500;
        let key = Key::of(format!("{client}").as_bytes());
        admitted[client] += u32::from(throttle.enter(&call(), &key).await.is_ok());
    }
    assert!(admitted.iter().all(|admitted| *admitted == 2), "{admitted:?}");
    let stats = throttle.stats();
    assert!(stats.keys <= 57 && stats.evicted > 100, "{stats:?}");
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
