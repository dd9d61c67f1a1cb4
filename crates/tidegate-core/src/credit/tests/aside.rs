//! Credit held aside for when the store is away, and what a ledger is told that lost its memory.

use super::*;

#[test]
fn a_new_epoch_is_told_what_was_seen_once() {
    let mut node = Node1::new(fixed("100/h"));
    assert!(node.call(40, 0));
    assert_eq!(node.account.reassert(Epoch::WHOLE.id, &node.terms, at(1)), None, "the same one");
    let spent = 100 - node.book.inspect(&node.rule, NOON).remaining;
    (node.book, node.epoch) = (Book::default(), Epoch::new(NOON + 5000));
    let draft = node.account.reassert(node.epoch.id, &node.terms, at(6000)).unwrap();
    node.answer(draft, 6000);
    assert_eq!(100 - node.book.inspect(&node.rule, NOON + 7000).remaining, spent);
    assert_eq!(node.account.reassert(node.epoch.id, &node.terms, at(8000)), None);
    let (_, later) = node.ask(Draft { seen: Seen::default(), least: 1, need: 1, ..draft }, 9000);
    assert_eq!(later.granted, 0, "the pause is not over");
}

#[test]
fn an_account_that_saw_nothing_used_has_nothing_to_tell() {
    let bucket = Rule::of(Quota::of("100/s".parse().unwrap()).build().unwrap()).build().unwrap();
    for rule in [fixed("100/s"), bucket] {
        let mut node = Node1::new(rule);
        assert!(node.call(40, 0));
        assert!(node.account.counts(&node.terms, at(2000)));
        let draft = node.account.reassert(u64::MAX, &node.terms, at(900_000)).unwrap();
        node.answer(draft, 1_900_000);
        assert!(
            !node.account.counts(&node.terms, at(1_902_000))
                && node.account.is_recent(&node.terms, at(1_902_000))
        );
        assert_eq!(node.account.reassert(u64::MAX, &node.terms, at(1_902_000)), None, "{rule:?}");
    }
}

#[test]
fn credit_held_aside_is_there_when_the_store_is_not() {
    let mut node = Node1::new(fixed("1000/s"));
    let mut aside = Aside::default();
    let ask = aside.ask(50, &node.terms, at(0)).unwrap();
    assert_eq!(aside.ask(50, &node.terms, at(1)), None, "one question at a time");
    let (ask, reply) = node.ask(ask, 500);
    aside.replied(&reply, &node.terms, at(0));
    assert_eq!((ask.need, aside.units(at(1000)), node.book.inspect(&node.rule, NOON).used), (0, 50, 50));
    assert_eq!(aside.ask(50, &node.terms, at(1000)), None, "it is fresh");
    assert!(aside.spend(49, at(2000)) && !aside.spend(2, at(2000)) && aside.spend(1, at(2000)));
    assert!(aside.ask(50, &node.terms, at(600_000)).is_some());
    assert_eq!(aside.units(at(1_000_000)), 0, "it died with its window");
}

#[test]
fn credit_held_aside_is_kept_where_the_limit_is_used_up() {
    let mut node = Node1::new(fixed("1000/d"));
    let mut aside = Aside::default();
    let ask = aside.ask(50, &node.terms, at(0)).unwrap();
    let (_, reply) = node.ask(ask, 0);
    aside.replied(&reply, &node.terms, at(0));
    let others = Draft { least: 1, need: 950, want: 950, back: 0, of: 0, debt: 0, seen: Seen::default() };
    assert_eq!(node.ask(others, 1).1.granted, 950);
    let half_a_life = node.terms.life() / 2_000;
    for turn in 1..5 {
        let ask = aside.ask(50, &node.terms, at(turn * half_a_life)).unwrap();
        let (_, reply) = node.ask(ask, turn * half_a_life);
        aside.replied(&reply, &node.terms, at(turn * half_a_life));
        assert_eq!((aside.units(at(turn * half_a_life)), reply.remaining), (50, 0));
    }
}

#[test]
fn credit_held_aside_goes_back_when_the_node_shuts_down() {
    let mut node = Node1::new(fixed("1000/d"));
    let mut aside = Aside::default();
    assert_eq!(aside.hand_back(at(0)), None);
    let ask = aside.ask(50, &node.terms, at(0)).unwrap();
    assert_eq!(aside.hand_back(at(0)), None, "one question at a time");
    let (_, reply) = node.ask(ask, 500);
    aside.replied(&reply, &node.terms, at(0));
    let back = aside.hand_back(at(1000)).unwrap();
    let (_, reply) = node.ask(back, 1000);
    aside.replied(&reply, &node.terms, at(1000));
    assert_eq!((reply.remaining, aside.units(at(2000))), (1000, 0));
    assert_eq!(aside.hand_back(at(2000)), None);
    assert!(aside.ask(50, &node.terms, at(2000)).is_some(), "and is there again when calls go on");
}
