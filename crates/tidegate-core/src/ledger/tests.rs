use super::*;
use crate::{Algorithm, Quota, lease::Node};

/// Noon of a day in 2026, in microseconds: numbers as large as real ones.
const NOON: Micros = 1_780_056_000_000_000;
const SECOND: Micros = 1_000_000;

fn rule(rate: &str, algorithm: Algorithm) -> Rule {
    Rule::of(Quota::of(rate.parse().unwrap()).algorithm(algorithm).build().unwrap()).build().unwrap()
}

fn asks(node: u64, seq: u64, need: u32, want: u32) -> Ask {
    Ask {
        node: Node(node),
        seq,
        least: need.min(1),
        need,
        want,
        back: 0,
        of: 0,
        debt: 0,
        seen: Seen::default(),
    }
}

fn grant(book: &mut Book, rule: &Rule, ask: Ask, now: Micros) -> Reply {
    book.grant(rule, &ask, now, Epoch::WHOLE)
}

#[test]
fn a_window_grants_the_limit_and_then_says_when_the_next_one_begins() {
    let (rule, mut book) = (rule("10/s", Algorithm::FixedWindow), Book::default());
    let first = grant(&mut book, &rule, asks(1, 1, 7, 7), NOON + 250_000);
    assert_eq!((first.granted, first.of, first.life, first.remaining), (7, NOON, 750_000, 3));
    let second = grant(&mut book, &rule, asks(2, 1, 7, 7), NOON + 500_000);
    assert_eq!(
        (second.granted, second.remaining, second.retry_in),
        (3, 0, 500_000),
        "what is there of the need"
    );
    let third = grant(&mut book, &rule, asks(1, 2, 1, 9), NOON + 999_999);
    assert_eq!((third.granted, third.retry_in, third.reset_in), (0, 1, 1));
    assert_eq!(grant(&mut book, &rule, asks(1, 3, 1, 1), NOON + SECOND).granted, 1);
}

#[test]
fn less_than_the_least_that_helps_is_not_granted() {
    let (rule, mut book) = (rule("10/s", Algorithm::FixedWindow), Book::default());
    assert_eq!(grant(&mut book, &rule, asks(1, 1, 8, 8), NOON).granted, 8);
    let large = Ask { least: 3, ..asks(1, 2, 3, 3) };
    assert_eq!(grant(&mut book, &rule, large, NOON).granted, 0);
    assert_eq!(grant(&mut book, &rule, asks(1, 3, 2, 2), NOON).granted, 2, "and nothing was taken");
}

#[test]
fn a_share_is_by_what_a_node_wants_beside_what_others_want() {
    let (rule, mut book) = (rule("1000/s", Algorithm::FixedWindow), Book::default());
    let mut granted = |node, seq, want| grant(&mut book, &rule, asks(node, seq, 0, want), NOON).granted;
    assert_eq!([granted(1, 1, 100), granted(2, 1, 100)], [100, 100], "nobody else wants anything");
    assert_eq!(granted(3, 1, 1000), 200, "800 / 4");
    assert_eq!(granted(1, 2, 400), 50, "600 / 4 / 3: others want 800 more, or twice as much");
    assert_eq!(granted(2, 2, 20), 20, "550 / 4 / 3 is more than that");
    assert_eq!(granted(2, 3, 9000), 66, "530 / 4 / 2: others want less than this");
    assert_eq!(granted(3, 2, 0), 0);
    assert_eq!(granted(2, 4, 100), 38, "464 / 4 / 3: others want 350, but an equal share is more");
}

#[test]
fn beyond_the_need_a_node_gets_a_part_of_its_share() {
    let (rule, mut book) = (rule("1000/s", Algorithm::FixedWindow), Book::default());
    assert_eq!(grant(&mut book, &rule, asks(1, 1, 0, 9000), NOON).granted, 250, "a quarter for one node");
    assert_eq!(grant(&mut book, &rule, asks(2, 1, 0, 9000), NOON).granted, 93, "750 / (4 × 2)");
    assert_eq!(grant(&mut book, &rule, asks(3, 1, 200, 9000), NOON).granted, 200, "callers wait");
    assert_eq!(grant(&mut book, &rule, asks(3, 2, 0, 5), NOON).granted, 5, "no more than wanted");
    for seq in 3..60 {
        let _ = grant(&mut book, &rule, asks(3, seq, 0, 9000), NOON);
    }
    let last = grant(&mut book, &rule, asks(3, 60, 0, 9000), NOON);
    assert_eq!((last.granted, last.remaining), (0, 11), "near the limit nothing is granted ahead of need");
}

#[test]
fn what_is_given_back_is_booked_once_and_only_in_its_window() {
    let (rule, mut book) = (rule("10/s", Algorithm::FixedWindow), Book::default());
    let all = grant(&mut book, &rule, asks(1, 1, 10, 10), NOON);
    let back = Ask { back: 4, of: all.of, ..asks(1, 2, 0, 0) };
    assert_eq!(grant(&mut book, &rule, back, NOON + 1).remaining, 4);
    assert_eq!(grant(&mut book, &rule, back, NOON + 2).remaining, 4, "repeated");
    let stranger = Ask { node: Node(9), ..back };
    assert_eq!(
        grant(&mut book, &rule, stranger, NOON + 3).remaining,
        4,
        "of a node that was granted nothing"
    );
    let next = grant(&mut book, &rule, asks(2, 1, 10, 10), NOON + SECOND);
    let late = Ask { seq: 3, ..back };
    assert_eq!(next.granted, 10);
    assert_eq!(grant(&mut book, &rule, late, NOON + SECOND + 1).remaining, 0, "of a window that is over");
}

#[test]
fn debt_is_paid_before_anything_is_granted_and_carried_over_windows() {
    let (rule, mut book) = (rule("10/s", Algorithm::FixedWindow), Book::default());
    let spent = Ask { debt: 25, ..asks(1, 1, 1, 1) };
    assert_eq!(grant(&mut book, &rule, spent, NOON).granted, 0);
    assert_eq!(book.inspect(&rule, NOON).debt, 15);
    assert_eq!(grant(&mut book, &rule, spent, NOON).granted, 0);
    assert_eq!(book.inspect(&rule, NOON).debt, 15, "a repeated question owes nothing more");
    assert_eq!(grant(&mut book, &rule, asks(1, 2, 1, 1), NOON + SECOND).granted, 0);
    let third = grant(&mut book, &rule, asks(1, 3, 1, 1), NOON + 2 * SECOND);
    assert_eq!((third.granted, third.remaining), (1, 4), "5 of the third window were owed");
}

#[test]
fn a_limit_of_0_denies_and_a_limit_of_1_admits_one() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        let (none, mut book) = (rule("0/s", algorithm), Book::default());
        let reply = grant(&mut book, &none, asks(1, 1, 1, 100), NOON);
        assert_eq!((reply.granted, reply.retry_in), (0, FAR), "{algorithm:?}");
        let (one, mut book) = (rule("1/s", algorithm), Book::default());
        let granted: u32 =
            (0..8).map(|node| grant(&mut book, &one, asks(node, 1, 1, 100), NOON).granted).sum();
        assert_eq!(granted, 1, "{algorithm:?}");
    }
}

#[test]
fn a_changed_limit_holds_for_what_is_granted_from_then_on() {
    let (high, low) = (rule("100/s", Algorithm::FixedWindow), rule("50/s", Algorithm::FixedWindow));
    let mut book = Book::default();
    assert_eq!(grant(&mut book, &high, asks(1, 1, 70, 70), NOON).granted, 70);
    assert_eq!(grant(&mut book, &low, asks(1, 2, 1, 1), NOON + 1).granted, 0);
    assert_eq!(grant(&mut book, &high, asks(1, 3, 99, 99), NOON + 2).granted, 30);
}

#[test]
fn a_prohibition_lasts_its_time_and_gives_nothing_early() {
    let quota = Quota::of("10/s".parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
    let rule = Rule::of(quota).prohibit(Duration::from_secs(3)).build().unwrap();
    let mut book = Book::default();
    assert_eq!(grant(&mut book, &rule, asks(1, 1, 10, 10), NOON).granted, 10);
    assert_eq!(
        grant(&mut book, &rule, asks(1, 2, 0, 5), NOON + 1).retry_in,
        999_999,
        "nobody waits: no excess"
    );
    assert_eq!(grant(&mut book, &rule, asks(1, 3, 1, 1), NOON + 2).retry_in, 3 * SECOND);
    let during = grant(&mut book, &rule, asks(2, 1, 1, 1), NOON + 2 * SECOND);
    assert_eq!((during.granted, during.retry_in), (0, SECOND + 2), "and more excess does not prolong it");
    assert_eq!(grant(&mut book, &rule, asks(2, 2, 1, 1), NOON + 3 * SECOND + 2).granted, 1);
}

#[test]
fn a_window_of_the_first_call_begins_with_it() {
    let quota = Quota::of("10/s".parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
    let rule = Rule::of(quota).opening(Opening::FirstCall).build().unwrap();
    let mut book = Book::default();
    let at = NOON + 700_000;
    assert_eq!(grant(&mut book, &rule, asks(1, 1, 0, 0), at - 5).remaining, 10, "looking opens no window");
    let first = grant(&mut book, &rule, asks(1, 2, 10, 10), at);
    assert_eq!((first.granted, first.of, first.life), (10, at, SECOND));
    assert_eq!(grant(&mut book, &rule, asks(1, 3, 1, 1), at + SECOND - 1).granted, 0);
    let second = grant(&mut book, &rule, asks(1, 4, 1, 1), at + SECOND + 300_000);
    assert_eq!((second.granted, second.of), (1, at + SECOND + 300_000));
}

#[test]
fn a_month_ends_with_the_calendar() {
    let (rule, mut book) = (Rule::each(Calendar::Month, 5).build().unwrap(), Book::default());
    let first = grant(&mut book, &rule, asks(1, 1, 5, 5), NOON);
    let end = NOON + first.reset_in;
    assert_eq!(grant(&mut book, &rule, asks(1, 2, 1, 1), end - 1).granted, 0);
    let next = grant(&mut book, &rule, asks(1, 3, 1, 1), end);
    assert_eq!((next.granted, next.of), (1, end));
    assert!((28..=31).contains(&((next.reset_in) / 86_400_000_000)));
}

#[test]
fn slices_count_until_no_span_of_a_period_touches_them_and_the_newest() {
    let (rule, mut book) = (rule("10/s", Algorithm::SlidingWindow), Book::default());
    let Law::Sliding { slice: 10_000, slices: 100 } = rule.law() else { panic!("{:?}", rule.law()) };
    let first = grant(&mut book, &rule, asks(1, 1, 6, 6), NOON + 3000);
    assert_eq!((first.granted, first.life), (6, 7000), "to the end of its slice");
    let second = grant(&mut book, &rule, asks(1, 2, 9, 9), NOON + 500_000);
    assert_eq!((second.granted, second.retry_in), (4, 510_000));
    assert_eq!(grant(&mut book, &rule, asks(1, 3, 1, 1), NOON + 1_009_999).granted, 0);
    assert_eq!(grant(&mut book, &rule, asks(1, 4, 9, 9), NOON + 1_010_000).granted, 6);
    let back = Ask { back: 4, of: second.of, ..asks(1, 5, 0, 0) };
    assert_eq!(grant(&mut book, &rule, back, NOON + 1_020_000).remaining, 4, "late, but it still counted");
}

#[test]
fn a_bucket_keeps_back_what_flows_in_while_credit_lives() {
    let quota = Quota::of("100/s".parse().unwrap()).burst(50).build().unwrap();
    let rule = Rule::of(quota).life(Duration::from_millis(100)).build().unwrap();
    assert_eq!((rule.largest(), rule.life(), rule.tolerance()), (39, 100_000, Duration::ZERO));
    let mut book = Book::default();
    let all = grant(&mut book, &rule, asks(1, 1, 50, 50), NOON);
    assert_eq!((all.granted, all.retry_in, all.reset_in), (39, 10_000, 390_000));
    assert_eq!(grant(&mut book, &rule, asks(1, 2, 1, 1), NOON + 9999).granted, 0);
    assert_eq!(grant(&mut book, &rule, asks(1, 3, 1, 1), NOON + 10_000).granted, 1);
    let back = Ask { back: 10, of: NOON, ..asks(1, 4, 0, 0) };
    assert_eq!(grant(&mut book, &rule, back, NOON + 40_000).remaining, 9, "3 flowed in, 6 of 10 come back");
    let single = Rule::of(Quota::of("10/s".parse().unwrap()).burst(1).build().unwrap()).build().unwrap();
    assert_eq!((single.largest(), single.tolerance()), (1, Duration::from_micros(10_001)));
}

#[test]
fn a_ledger_that_lost_everything_waits_and_is_told() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        let (rule, mut book) = (rule("10/s", algorithm), Book::default());
        let before = Epoch::new(NOON - 9 * SECOND);
        let at = NOON + 1000;
        let first = book.grant(&rule, &asks(1, 1, 4, 4), at, before);
        let second = book.grant(&rule, &asks(2, 1, 3, 3), at, before);
        let (mut lost, after) = (Book::default(), Epoch::new(at));
        let saw = |reply: Reply| Seen { epoch: reply.epoch, mark: reply.mark };
        let asked = lost.grant(&rule, &Ask { seen: saw(first), ..asks(1, 2, 4, 4) }, at + 1, after);
        assert_eq!((asked.granted, asked.retry_in >= rule.life() - 1), (0, true), "{algorithm:?}");
        let more = Ask { seen: saw(second), ..asks(2, 2, 0, 0) };
        let _ = lost.grant(&rule, &more, at + 2, after);
        let later = at + rule.life();
        let (kept, repaired) = (book.inspect(&rule, later), lost.inspect(&rule, later));
        assert_eq!(kept.remaining, repaired.remaining, "{algorithm:?}");
    }
}

#[test]
fn a_sliding_window_that_was_lost_counts_what_it_is_told_as_long_as_it_may_count() {
    let (rule, epoch) = (rule("100/s", Algorithm::SlidingWindow), Epoch::new(NOON));
    let told = |of, level| Seen { epoch: 7, mark: Mark { of, level } };
    let first = NOON / 10_000;
    // 50 were used when the first saw it, in slices that are forgotten by now; 30 of the 60 the second saw are new.
    for marks in [[told(first + 1, 50), told(first + 3, 60)], [told(first + 3, 60), told(first + 1, 50)]] {
        let mut book = Book::default();
        for (seq, seen) in marks.into_iter().enumerate() {
            let ask = Ask { seen, ..asks(seq as u64, 1, 0, 0) };
            let _ = book.grant(&rule, &ask, NOON + 40_000, epoch);
        }
        assert_eq!(book.inspect(&rule, NOON + 40_000).used, 60);
        assert!(
            book.inspect(&rule, NOON + 1_030_000).used >= 30,
            "all it knows of may be in the newest slice"
        );
        assert_eq!(book.inspect(&rule, NOON + 1_040_000).used, 0);
    }
}

#[test]
fn a_later_epoch_that_was_seen_begins_a_new_one() {
    let old = Epoch::new(NOON);
    assert_eq!(old.at(NOON, NOON + 5), old);
    assert_eq!(old.at(NOON + 9, NOON + 5), Epoch { id: NOON + 10, begun: NOON + 5 });
    assert_eq!(old.at(0, NOON - 5), Epoch { id: NOON, begun: NOON - 5 }, "the clock was set back");
    assert_eq!(Epoch::WHOLE.pause(&rule("1/s", Algorithm::FixedWindow), 5), 0);
}

#[test]
fn a_clock_that_is_set_back_grants_nothing_twice() {
    let (day, mut book) = (Rule::each(Calendar::Day, 10).build().unwrap(), Book::default());
    assert_eq!(grant(&mut book, &day, asks(1, 1, 10, 10), NOON).granted, 10);
    assert_eq!(grant(&mut book, &day, asks(1, 2, 1, 1), NOON - SECOND).granted, 0, "by less than a life");
    assert_eq!(grant(&mut book, &day, asks(1, 3, 1, 1), NOON - 86_400 * SECOND).granted, 0, "by a day");
    let next = grant(&mut book, &day, asks(1, 4, 1, 1), NOON - 43_200 * SECOND);
    assert_eq!(next.granted, 1, "and the day after is a day after");
}

#[test]
fn an_operator_reads_gives_takes_and_resets() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        let (rule, mut book) = (rule("100/s", algorithm), Book::default());
        let largest = rule.largest() as u32;
        let _ = grant(&mut book, &rule, asks(1, 1, largest, largest), NOON);
        assert_eq!(book.inspect(&rule, NOON).remaining, 0, "{algorithm:?}");
        book.relieve(&rule, 30, NOON);
        assert_eq!(book.inspect(&rule, NOON).remaining, 30, "{algorithm:?}");
        book.charge(&rule, 40, NOON);
        let standing = book.inspect(&rule, NOON);
        assert_eq!((standing.remaining, standing.debt), (0, 10), "{algorithm:?}");
        book.reset();
        assert_eq!(book.inspect(&rule, NOON).remaining, rule.largest(), "{algorithm:?}");
        assert_eq!(book.inspect(&rule, NOON).nodes, 1, "{algorithm:?}");
    }
}

#[test]
fn nodes_that_are_silent_for_two_lives_share_no_more() {
    let (rule, mut book) = (rule("1000/s", Algorithm::FixedWindow), Book::default());
    let nodes = |book: &mut Book, node, seq, at| grant(book, &rule, asks(node, seq, 1, 1), at).nodes;
    assert_eq!((1..=5).map(|node| nodes(&mut book, node, 1, NOON)).last(), Some(5));
    assert_eq!(nodes(&mut book, 1, 2, NOON + SECOND), 5);
    assert_eq!(nodes(&mut book, 1, 3, NOON + 2 * SECOND), 1);
    assert_eq!(book.state().nodes.len(), 1);
}

fn bucket(rate: &str, burst: u32) -> Rule {
    Rule::of(Quota::of(rate.parse().unwrap()).burst(burst).build().unwrap()).build().unwrap()
}

/// Drains a bucket at noon.
fn drained(rule: &Rule) -> Book {
    let (mut book, largest) = (Book::default(), rule.largest() as u32);
    assert_eq!(grant(&mut book, rule, asks(1, 1, largest, largest), NOON).granted, largest);
    book
}

#[test]
fn a_drained_bucket_whose_rate_is_raised_fills_at_the_new_rate() {
    let (slow, fast) = (bucket("1/min", 10), bucket("10/s", 10));
    let mut book = drained(&slow);
    let (now, out) = (NOON + 1000, slow.largest() - fast.largest());
    let refused = grant(&mut book, &fast, asks(1, 2, 1, 1), now);
    let wait = (1 + out) * 100_000;
    assert_eq!(refused.granted, 0);
    assert!((wait - 1000..=wait + 2).contains(&refused.retry_in), "{refused:?}");
    assert_eq!(grant(&mut book, &fast, asks(1, 3, 1, 1), now + refused.retry_in).granted, 1);
    assert_eq!(grant(&mut book, &fast, asks(1, 4, 1, 1), now + refused.retry_in).granted, 0);
    assert_eq!(book.inspect(&fast, NOON + 2 * SECOND).remaining, fast.largest(), "it is full");
}

#[test]
fn a_drained_bucket_whose_rate_is_lowered_is_not_full_at_once() {
    let (fast, slow) = (bucket("100/s", 100), bucket("1/s", 100));
    let mut book = drained(&fast);
    let later = NOON + SECOND / 2;
    let there = grant(&mut book, &slow, asks(1, 2, 0, 0), later).remaining;
    let out = fast.largest() - 50;
    assert_eq!(
        u64::from(there),
        slow.largest() - out - 1,
        "50 have flowed in; a part of a unit is rounded up"
    );
}

#[test]
fn gateways_that_have_a_new_rate_and_those_that_have_the_old_one_share_a_bucket() {
    let rules = [bucket("100/s", 100), bucket("3/s", 100)];
    let mut book = drained(&rules[0]);
    let before = book.inspect(&rules[0], NOON).used;
    for turn in 0..2000 {
        assert_eq!(grant(&mut book, &rules[turn % 2], asks(1, 2, 0, 0), NOON).granted, 0);
    }
    assert_eq!(book.inspect(&rules[0], NOON).used, before, "nothing is forgotten in between");
    let held_up = book.inspect(&rules[0], NOON).reset_in - before * 10_000;
    assert!(held_up < 2000 * 200, "nor much added: {held_up} µs");
}

#[test]
fn what_is_owed_is_booked_even_when_a_later_question_came_first() {
    // An account that was forgotten tells its debt while the next one of the key already asks.
    let (rule, mut book) = (rule("100/h", Algorithm::FixedWindow), Book::default());
    let _ = grant(&mut book, &rule, asks(1, 2, 10, 10), NOON);
    let overtaken = Ask { debt: 30, back: 5, of: book.state().of, ..asks(1, 1, 0, 0) };
    assert_eq!(grant(&mut book, &rule, overtaken, NOON + 1).remaining, 60, "it pays, and gives nothing back");
}

#[test]
fn what_died_in_hand_is_taken_back_whenever_it_was_asked_for() {
    for (rate, life) in [("1000/d", 5000), ("1000/h", 20)] {
        let quota = Quota::of(rate.parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
        let rule = Rule::of(quota).life(Duration::from_millis(life)).build().unwrap();
        for part in 0..20 {
            let (mut book, asked) = (Book::default(), NOON + part * rule.memory() / 20);
            let granted = grant(&mut book, &rule, asks(1, 1, 100, 100), asked);
            let back = Ask { back: 60, of: granted.of, ..asks(1, 2, 0, 0) };
            let noticed = asked + rule.life() + 900_000;
            assert_eq!(grant(&mut book, &rule, back, noticed).remaining, 960, "{rate} {part}");
        }
    }
}

#[test]
fn rates_too_fine_for_a_double_are_a_little_slower_never_faster() {
    for (rate, burst) in [
        ("999999937/30d", 999_999_937),
        ("4294967295/ms", u32::MAX),
        ("7/366d", 60),
        ("4294967291/d", 9_000_000),
    ] {
        let quota = Quota::of(rate.parse().unwrap()).burst(burst).build().unwrap();
        let rule = Rule::of(quota).build().unwrap();
        let Law::Bucket { count, period, burst, refill } = rule.law() else { panic!() };
        assert!(u128::from(burst) * u128::from(period) + u128::from(count) < 1 << 53, "{rate}");
        assert!(refill < 1 << 50, "{rate}");
        let (told, kept) = (quota.rate(), u128::from(count) * told_micros(quota.rate()));
        assert!(kept <= u128::from(told.count()) * u128::from(period), "{rate}");
        assert!(
            kept * 1000 >= u128::from(told.count()) * u128::from(period) * 999,
            "{rate}: {count}/{period}"
        );
    }
}

fn told_micros(rate: crate::Rate) -> u128 {
    rate.period().as_micros()
}
