//! What every ledger must do, whichever store it is in: run on the one in memory here, and on a real server where a room
//! speaks to one. Windows are those of a day, so that it does not matter how long answers take.

use tidegate::{
    fleet::{Adjustment, Calendar, Ledger, Node, Rule, Subject, Tidings},
    throttle::Key,
};
use tidegate_core::ledger::{Ask, Reply, Seen};

pub(crate) fn rule(limit: u32) -> Rule {
    Rule::each(Calendar::Day, limit).build().expect("a rule")
}

fn subject(key: u8) -> Subject<'static> {
    Subject { limit: "suite", key: Key::from_bits(u128::from(key) + 1) }
}

pub(crate) fn ask(node: u64, seq: u64, need: u32) -> Ask {
    let seen = Seen::default();
    Ask { node: Node(node), seq, least: need, need, want: need, back: 0, of: 0, debt: 0, seen }
}

async fn grant(ledger: &impl Ledger, key: u8, ask: Ask) -> Reply {
    ledger.ask(subject(key), &rule(10), &ask).await.expect("the ledger answers")
}

/// Runs all of it. The ledger is empty, and not learning.
pub(crate) async fn all(ledger: &impl Ledger) {
    credit_is_counted_when_it_is_granted(ledger).await;
    keys_have_accounts_of_their_own(ledger).await;
    credit_that_goes_back_is_there_again_once(ledger).await;
    debt_is_paid_first(ledger).await;
    an_operator_reads_gives_takes_and_resets(ledger).await;
    a_changed_limit_keeps_what_was_counted(ledger).await;
    who_is_refused_makes_the_others_hear_of_it(ledger).await;
    a_number_far_beyond_small_ones_is_kept(ledger).await;
}

async fn credit_is_counted_when_it_is_granted(ledger: &impl Ledger) {
    let first = grant(ledger, 0, ask(1, 1, 7)).await;
    assert_eq!((first.granted, first.remaining), (7, 3));
    assert!(first.life > 0 && first.reset_in > 0 && first.epoch > 0, "{first:?}");
    let second = grant(ledger, 0, ask(2, 1, 4)).await;
    assert_eq!((second.granted, second.remaining), (0, 3), "all of what is needed, or nothing");
    assert!(second.retry_in > 0);
    assert_eq!(grant(ledger, 0, ask(2, 2, 3)).await.granted, 3);
    let none = grant(ledger, 0, ask(1, 2, 1)).await;
    assert_eq!((none.granted, none.remaining, none.nodes), (0, 0, 2));
    assert_eq!(grant(ledger, 0, ask(1, 3, 0)).await.granted, 0, "a look is no call");
}

async fn keys_have_accounts_of_their_own(ledger: &impl Ledger) {
    assert_eq!(grant(ledger, 1, ask(1, 1, 10)).await.granted, 10);
    assert_eq!(grant(ledger, 2, ask(1, 2, 10)).await.granted, 10);
    let other = Subject { limit: "another", ..subject(1) };
    let reply = ledger.ask(other, &rule(10), &ask(1, 3, 10)).await.expect("the ledger answers");
    assert_eq!(reply.granted, 10, "limits do, too");
}

async fn credit_that_goes_back_is_there_again_once(ledger: &impl Ledger) {
    let reply = grant(ledger, 3, ask(1, 1, 10)).await;
    let back = Ask { back: 4, of: reply.of, ..ask(1, 2, 0) };
    assert_eq!(grant(ledger, 3, back).await.remaining, 4);
    assert_eq!(grant(ledger, 3, back).await.remaining, 4, "a repeated question gives back nothing");
    assert_eq!(grant(ledger, 3, Ask { of: reply.of - 1, ..Ask { seq: 3, ..back } }).await.remaining, 4);
}

async fn debt_is_paid_first(ledger: &impl Ledger) {
    let reply = grant(ledger, 4, Ask { debt: 8, ..ask(1, 1, 3) }).await;
    assert_eq!((reply.granted, reply.remaining), (0, 2));
    let reply = grant(ledger, 4, Ask { debt: 5, ..ask(2, 1, 1) }).await;
    assert_eq!((reply.granted, reply.remaining), (0, 0));
    let account = ledger.inspect(subject(4), &rule(10)).await.expect("the ledger answers");
    assert_eq!((account.used, account.debt), (10, 3));
}

async fn an_operator_reads_gives_takes_and_resets(ledger: &impl Ledger) {
    let (of, rule) = (subject(5), rule(10));
    let account = ledger.inspect(of, &rule).await.expect("the ledger answers");
    assert_eq!((account.used, account.remaining), (0, 10));
    grant(ledger, 5, ask(1, 1, 6)).await;
    for (adjustment, before, after) in [
        (Adjustment::Relieve(2), 4, 6),
        (Adjustment::Charge(1), 6, 5),
        (Adjustment::Charge(9), 5, 0),
        (Adjustment::Reset, 0, 10),
    ] {
        let adjusted = ledger.adjust(of, &rule, adjustment).await.expect("the ledger answers");
        assert_eq!((adjusted.before.remaining, adjusted.after.remaining), (before, after), "{adjustment:?}");
    }
    assert_eq!(grant(ledger, 5, ask(1, 2, 10)).await.granted, 10);
}

async fn a_changed_limit_keeps_what_was_counted(ledger: &impl Ledger) {
    grant(ledger, 6, ask(1, 1, 8)).await;
    let lower = ledger.ask(subject(6), &rule(5), &ask(1, 2, 1)).await.expect("the ledger answers");
    assert_eq!(lower.granted, 0);
    let higher = ledger.ask(subject(6), &rule(12), &ask(1, 3, 4)).await.expect("the ledger answers");
    assert_eq!((higher.granted, higher.remaining), (4, 0));
}

async fn who_is_refused_makes_the_others_hear_of_it(ledger: &impl Ledger) {
    let mut hints = ledger.hints();
    grant(ledger, 7, ask(1, 1, 9)).await;
    grant(ledger, 7, ask(2, 1, 2)).await;
    loop {
        let hint = hints.recv().await.expect("the ledger lives");
        if hint.key == subject(7).key {
            assert_eq!(&*hint.limit, "suite");
            assert!(matches!(hint.tidings, Tidings::Exhausted(_)), "{hint:?}");
            return;
        }
    }
}

async fn a_number_far_beyond_small_ones_is_kept(ledger: &impl Ledger) {
    let rule = rule(4_000_000_000);
    let big = ask((1 << 53) - 1, (1 << 53) - 1, 3_999_999_999);
    let reply = ledger.ask(subject(8), &rule, &big).await.expect("the ledger answers");
    assert_eq!((reply.granted, reply.remaining), (3_999_999_999, 1));
}
