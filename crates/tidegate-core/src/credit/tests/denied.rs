//! What is known to be used up: who is denied without a question, and when one is asked.

use super::*;

#[test]
fn exhaustion_is_known_without_asking_until_it_can_be_over() {
    let mut node = Node1::new(fixed("3/s"));
    for call in 0..3 {
        assert!(node.call(1, call * 2000));
    }
    let reset = at(4000) + Duration::from_micros(1_000_000 - 4000);
    assert_eq!(node.spend(1, 10_000), Spend::Deny { retry_at: reset });
    assert_eq!(node.spend(1, 999_000), Spend::Deny { retry_at: reset });
    assert!(matches!(node.spend(1, 1_000_000), Spend::Wait(Some(_))), "the next window may have begun");
}

#[test]
fn the_ledger_hears_of_the_call_that_exceeds_a_limit_with_a_prohibition() {
    let quota = Quota::of("3/s".parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
    let mut node = Node1::new(Rule::of(quota).prohibit(Duration::from_secs(60)).build().unwrap());
    for call in 0..3 {
        assert!(node.call(1, call * 2000));
    }
    assert!(!node.call(1, 10_000));
    let Spend::Deny { retry_at } = node.spend(1, 20_000) else {
        panic!("it is barred, and that is known here")
    };
    assert_eq!(retry_at, at(10_000) + Duration::from_secs(60));
}

#[test]
fn what_is_too_dear_now_does_not_deny_what_is_cheap() {
    let mut node = Node1::new(fixed("10/s"));
    assert!(node.call(6, 0));
    let hand = node.account.in_hand(at(1000));
    assert!(!node.call(9, 2000));
    assert!(matches!(node.spend(9, 3000), Spend::Deny { .. }));
    assert!(node.call(4, 4000), "{hand} in hand, 4 in all");
    assert_eq!(node.spend(11, 5000), Spend::Impossible);
}

#[test]
fn denied_calls_ask_nothing_until_they_may_go() {
    let quota = |algorithm| Quota::of("10/20s".parse().unwrap()).algorithm(algorithm).build().unwrap();
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        let life = Duration::from_millis(500);
        let mut node = Node1::new(Rule::of(quota(algorithm)).life(life).build().unwrap());
        let largest = node.rule.largest() as u32;
        assert!(node.call(largest, 0), "{algorithm:?}");
        assert!(!node.call(1, 2000), "{algorithm:?}");
        let Spend::Deny { retry_at } = node.spend(1, 4000) else { panic!("{algorithm:?}") };
        let wait = nanos(retry_at.since(at(0))) / 1000;
        assert!(wait > 3 * node.rule.life(), "{algorithm:?}: {wait}");
        for part in 1..1000 {
            assert_eq!(node.spend(1, 4000 + (wait - 4000) * part / 1000), Spend::Deny { retry_at });
        }
        assert!(matches!(node.spend(1, wait), Spend::Wait(Some(_))), "{algorithm:?}");
    }
}

#[test]
fn denied_calls_ask_when_they_hear_that_something_was_given_back_or_after_a_while() {
    let mut node = Node1::new(fixed("3/h"));
    assert!(node.call(3, 0) && !node.call(1, 2000));
    let give_back = |node: &mut Node1, micros| {
        let draft = Account::default().spend(1, &node.terms, at(micros));
        let _ = node.ask(Draft { least: 0, need: 0, want: 0, back: 1, of: NOON, ..waits(draft) }, micros);
    };
    give_back(&mut node, 3000);
    assert!(matches!(node.spend(1, 4000), Spend::Deny { .. }));
    node.account.replenished();
    assert!(node.call(1, 5000) && !node.call(1, 6000));
    give_back(&mut node, 7000);
    assert!(matches!(node.spend(1, 30_000_000), Spend::Deny { .. }));
    assert!(node.call(1, 30_006_000), "the hint was lost");
}
