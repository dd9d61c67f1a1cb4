mod aside;
mod denied;
mod owed;

use std::time::Duration;

use super::*;
use crate::{
    Algorithm, Instant, Quota,
    lease::Node,
    ledger::{Ask, Book, Epoch, Micros, Reply, Rule, Seen},
    nanos,
};

const NOON: Micros = 1_780_056_000_000_000;
/// The node's clock has nothing to do with the store's.
const START: u64 = 77_000_000_000;

fn at(micros: u64) -> Instant {
    Instant::from_nanos(START + micros * 1000)
}

fn fixed(rate: &str) -> Rule {
    Rule::of(Quota::of(rate.parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap())
        .build()
        .unwrap()
}

/// One node and its ledger, with nothing in between.
struct Node1 {
    rule: Rule,
    terms: Terms,
    account: Account,
    book: Book,
    epoch: Epoch,
    seq: u64,
}

impl Node1 {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            terms: Terms::of(&rule),
            account: Account::default(),
            book: Book::default(),
            epoch: Epoch::WHOLE,
            seq: 0,
        }
    }

    fn spend(&mut self, cost: u32, micros: u64) -> Spend {
        self.account.spend(cost, &self.terms, at(micros))
    }

    fn ask(&mut self, draft: Draft, micros: u64) -> (Ask, Reply) {
        self.seq += 1;
        let ask = draft.send(Node(1), self.seq);
        (ask, self.book.grant(&self.rule, &ask, NOON + micros, self.epoch))
    }

    /// Asks, and hears the answer a millisecond later.
    fn answer(&mut self, draft: Draft, micros: u64) -> Reply {
        let (ask, reply) = self.ask(draft, micros);
        self.account.replied(&ask, &reply, &self.terms, at(micros), at(micros + 1000));
        reply
    }

    /// Spends `cost`, asking as it is told to, and says whether the call went.
    fn call(&mut self, cost: u32, micros: u64) -> bool {
        for _ in 0..3 {
            match self.spend(cost, micros) {
                Spend::Allow => return true,
                Spend::AllowAndAsk(draft) => {
                    self.answer(draft, micros);
                    return true;
                }
                Spend::Wait(Some(draft)) => {
                    self.answer(draft, micros);
                }
                Spend::Wait(None) | Spend::Deny { .. } | Spend::Impossible => return false,
            }
        }
        false
    }
}

fn waits(spend: Spend) -> Draft {
    let Spend::Wait(Some(draft)) = spend else { panic!("{spend:?}") };
    draft
}

#[test]
fn an_account_is_small() {
    assert_eq!(size_of::<Account>(), 96);
}

#[test]
fn calls_wait_for_one_question_together() {
    let mut node = Node1::new(fixed("1000/s"));
    let draft = waits(node.spend(1, 0));
    assert!(draft.is_awaited());
    assert_eq!(node.spend(1, 1), Spend::Wait(None));
    assert_eq!(node.spend(5, 2), Spend::Wait(None));
    assert_eq!(node.answer(draft.for_all(7), 10).granted, 7);
    assert_eq!([node.spend(1, 20), node.spend(1, 20)], [Spend::Allow, Spend::Allow]);
    assert!(matches!(node.spend(5, 20), Spend::AllowAndAsk(_)), "the last of it: a refill is due");
}

#[test]
fn a_refill_is_asked_for_before_credit_runs_out_and_calls_go_on_meanwhile() {
    let mut node = Node1::new(fixed("1000/s"));
    let (mut waited, mut asked) = (0, 0);
    // 400 a second, and answers take 5 ms.
    let mut under_way: Option<(Draft, u64)> = None;
    for call in 0..400 {
        let now = call * 2500;
        if let Some((draft, sent)) = under_way.take_if(|(_, sent)| now >= *sent + 5000) {
            let (ask, reply) = node.ask(draft, sent + 2500);
            node.account.replied(&ask, &reply, &node.terms, at(sent), at(now));
        }
        match node.spend(1, now) {
            Spend::Allow => {}
            Spend::AllowAndAsk(draft) => under_way = Some((draft, now)),
            Spend::Wait(draft) => {
                waited += 1;
                under_way = under_way.or(draft.map(|draft| (draft, now)));
            }
            other => panic!("{other:?}"),
        }
        asked += u32::from(under_way.is_some_and(|(_, sent)| sent == now));
    }
    assert!(waited <= 6, "only until the demand is known: {waited}");
    assert!(asked <= 40, "{asked} questions for 400 calls");
}

#[test]
fn credit_is_over_on_the_node_before_it_is_over_in_the_ledger() {
    let mut node = Node1::new(fixed("1000/s"));
    // Sent at 100 ms, decided at 400 ms: 600 ms of the window are left, counted from the sending.
    let draft = waits(node.spend(1, 100_000)).for_all(900);
    let (ask, reply) = node.ask(draft, 400_000);
    node.account.replied(&ask, &reply, &node.terms, at(100_000), at(500_000));
    assert_eq!((reply.granted, reply.life), (900, 600_000));
    let life = 600_000 * 1_000_000 / 1_000_200;
    assert_eq!(node.account.in_hand(at(100_000 + life)), 900, "rounded down to a nanosecond");
    assert_eq!(node.account.in_hand(at(100_001 + life)), 0);
    assert_eq!(node.account.stranded(at(100_001 + life)), 900);
    assert!(matches!(node.spend(1, 100_001 + life), Spend::Wait(Some(_))), "to be asked for again");
}

#[test]
fn near_the_limit_nothing_is_held_ahead() {
    let mut node = Node1::new(fixed("20/s"));
    let (mut went, mut most_in_hand) = (0, 0);
    for call in 0..60 {
        went += u32::from(node.call(1, call * 10_000));
        if went > 16 {
            most_in_hand = most_in_hand.max(node.account.in_hand(at(call * 10_000 + 1000)));
        }
    }
    assert_eq!((went, most_in_hand), (20, 0));
}

#[test]
fn an_idle_account_hands_back_once() {
    let mut node = Node1::new(fixed("1000/s"));
    let draft = waits(node.spend(1, 0)).for_all(50);
    node.answer(draft, 0);
    assert!(node.call(1, 2000));
    assert!(!node.account.is_idle(&node.terms, at(3000)));
    let busy = node.account.in_hand(at(3000));
    let draft = node.account.hand_back(at(3000)).unwrap();
    assert_eq!(node.answer(draft, 3000).remaining, 1000 - 50 + busy);
    assert!(node.account.is_idle(&node.terms, at(600_000)));
    assert_eq!(node.account.hand_back(at(600_000)), None, "it holds nothing");
    assert!(node.call(1, 700_000), "and goes on");
}

#[test]
fn credit_that_died_in_hand_goes_back_with_the_next_question() {
    let mut node = Node1::new(fixed("1000/h"));
    let draft = waits(node.spend(1, 0)).for_all(200);
    node.answer(draft, 0);
    let late = node.rule.life() + 1000;
    assert_eq!(node.account.in_hand(at(late)), 0);
    let draft = waits(node.spend(1, late));
    let reply = node.answer(draft, late);
    assert_eq!(reply.granted + reply.remaining, 1000, "nothing of it was spent, all of it is there");
}

#[test]
fn what_bursts_leave_over_is_not_lost_to_a_long_window() {
    let mut node = Node1::new(fixed("100000/d"));
    let (mut spent, mut asked) = (0, 0);
    // A burst of 200 calls a minute, for an hour, and a look at the account four times a second.
    for minute in 0..60 {
        for tick in 0..60 * 4 {
            let now = (minute * 60_190 + tick * 250) * 1000;
            if tick < 4 {
                spent += (0..50).filter(|call| node.call(1, now + call * 5000)).count() as u64;
            }
            if node.account.is_idle(&node.terms, at(now + 249_000))
                && let Some(draft) = node.account.hand_back(at(now + 249_000))
            {
                node.answer(draft, now + 249_000);
                asked += 1;
            }
        }
    }
    let used = node.book.inspect(&node.rule, NOON + 3_700_000_000).used;
    assert_eq!((spent, used), (12_000, 12_000));
    assert!(asked <= 120, "{asked} questions to hand back what 60 bursts left over");
}

#[test]
fn a_hint_of_exhaustion_returns_what_is_not_needed() {
    let mut node = Node1::new(fixed("10000/s"));
    let draft = waits(node.spend(1, 0)).for_all(1000);
    node.answer(draft, 0);
    let draft = node.account.exhausted(&node.terms, at(1000)).unwrap();
    assert_eq!(node.answer(draft, 1000).remaining, 10_000, "it has no demand that it knows of");
    assert_eq!(node.account.exhausted(&node.terms, at(2000)), None);
}

/// Sends what it asks, and hears the answer at once, every 10 ms for a second: `calls` in all.
fn busy(node: &mut Node1, calls: u64, from: u64) {
    for call in 0..calls {
        assert!(node.call(1, from + call * 1_000_000 / calls));
    }
}

#[test]
fn credit_that_calls_used_is_renewed_before_the_next_of_them_comes() {
    // Windows of a second, and credit that dies long before its window.
    for (rate, dies_at) in [("1000/s", 1_000_000), ("100000/h", 5_000_000)] {
        let mut node = Node1::new(fixed(rate));
        busy(&mut node, 100, 0);
        assert_eq!(node.account.renew(&node.terms, at(dies_at / 2)), None, "{rate}: it lives");
        let draft = node.account.renew(&node.terms, at(2 * dies_at)).unwrap();
        assert!(!draft.is_awaited());
        assert_eq!(node.account.renew(&node.terms, at(2 * dies_at)), None, "{rate}: one question at a time");
        assert!(node.answer(draft, 2 * dies_at).granted > 10, "{rate}");
        assert_eq!(node.spend(1, 2 * dies_at + 2000), Spend::Allow, "{rate}");
    }
}

#[test]
fn credit_that_nobody_used_is_not_renewed() {
    let mut node = Node1::new(fixed("1000/s"));
    busy(&mut node, 100, 0);
    let draft = node.account.renew(&node.terms, at(1_010_000)).unwrap();
    node.answer(draft, 1_010_000);
    assert_eq!(node.account.renew(&node.terms, at(2_100_000)), None, "no call came for it");
    let mut quiet = Node1::new(fixed("1000/s"));
    busy(&mut quiet, 2, 0);
    assert_eq!(quiet.account.renew(&quiet.terms, at(1_010_000)), None, "nor may one come");
}

#[test]
fn what_is_in_hand_and_lasts_is_not_added_to() {
    let mut node = Node1::new(fixed("1000/s"));
    busy(&mut node, 100, 0);
    busy(&mut node, 100, 1_000_000);
    let draft = waits(node.spend(1, 2_001_000)).for_all(400);
    node.answer(draft, 2_001_000);
    for call in 0..100 {
        assert_eq!(node.spend(1, 2_003_000 + call * 9000), Spend::Allow, "call {call}");
    }
}
