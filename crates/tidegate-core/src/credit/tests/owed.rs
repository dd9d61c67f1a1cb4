//! What calls cost beyond what they reserved, and what they give back.

use super::*;

#[test]
fn what_a_call_cost_beyond_its_reserve_is_owed_and_paid_first() {
    let mut node = Node1::new(fixed("100/s"));
    let draft = waits(node.spend(10, 0));
    node.answer(draft, 0);
    let window = node.account.window();
    assert_eq!(node.spend(10, 1000), Spend::Allow);
    let hand = node.account.in_hand(at(2000));
    node.account.settle(10, 4, window, at(2000));
    assert_eq!(node.account.in_hand(at(2000)), hand + 6, "6 were not used");
    node.account.settle(0, hand + 6 + 30, window, at(3000));
    assert_eq!((node.account.in_hand(at(3000)), node.account.debt()), (0, 30));
    let reply = {
        let draft = node.account.hand_back(at(4000)).unwrap();
        node.answer(draft, 4000)
    };
    assert_eq!((reply.remaining, node.account.debt()), (100 - 10 - hand - 30, 0));
}

#[test]
fn what_is_owed_is_told_though_no_call_asks() {
    let mut node = Node1::new(fixed("100/d"));
    assert!(node.call(10, 0));
    let window = node.account.window();
    node.account.settle(10, 10 + node.account.in_hand(at(2000)) + 30, window, at(2000));
    assert_eq!(node.account.debt(), 30);
    assert!(!node.account.is_idle(&node.terms, at(3000)), "a call may come that asks");
    let later = node.rule.life() / 2 + 1000;
    assert!(node.account.is_idle(&node.terms, at(later)));
    let draft = node.account.hand_back(at(later)).unwrap();
    assert!(node.answer(draft, later).remaining <= 60);
    assert!(!node.account.is_idle(&node.terms, at(later + 2000)));
}

#[test]
fn a_question_that_failed_owes_again_what_it_owed() {
    let mut node = Node1::new(fixed("100/s"));
    node.account.settle(0, 30, 0, at(0));
    let draft = node.account.hand_back(at(0)).unwrap();
    let ask = draft.send(Node(1), 1);
    assert_eq!(node.account.debt(), 0);
    node.account.failed(&ask);
    assert_eq!(node.account.debt(), 30);
    assert!(node.account.hand_back(at(1)).is_some());
}

#[test]
fn a_refund_goes_into_its_own_window_only() {
    let mut node = Node1::new(fixed("10/s"));
    assert!(node.call(10, 0));
    let window = node.account.window();
    node.account.refund(4, window, at(5000));
    assert_eq!(node.account.in_hand(at(5000)), 4);
    assert!(node.call(10, 1_000_000));
    node.account.refund(4, window, at(1_005_000));
    assert_eq!(node.account.in_hand(at(1_005_000)), 0, "that window is over");
}
