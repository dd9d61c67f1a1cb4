//! The script is the reference: reply by reply and state by state, on a real server whose clock the test sets.

use std::time::Duration;

use proptest::prelude::*;
use redis::Value;
use tidegate::{Rate, fleet::Adjustment, throttle::Key};
use tidegate_core::{
    Algorithm, Quota,
    lease::Node,
    ledger::{Book, Calendar, Epoch, Opening, Seen, State},
};

use super::*;
use crate::{
    equality::{Bench, config},
    support,
    watch::NOTICED_WITHIN,
};

/// Prints an account: what `head.lua` read, as text.
const SHOW: &str = "
local function show(list)
  for i = 1, #list do
    if type(list[i]) == 'number' then list[i] = string.format('%.0f', list[i]) end
  end
  return table.concat(list, ' ')
end
local seats = {}
for name, seat in pairs(book.seats) do
  seats[#seats + 1] = name .. ' ' .. show(seat)
end
return {
  show({ book.at, book.of, book.level, book.debt, book.barred, book.generation, book.present, book.before, book.unmet }),
  show(book.slices), table.concat(seats, ';'), show(book.rate),
}";

/// A rule, and the same one changed: an account goes on under it.
fn rules() -> impl Strategy<Value = [Rule; 2]> {
    let limits = || prop_oneof![0..4_u32, 1..200_u32, Just(u32::MAX)];
    let lives = || prop_oneof![Just(None), (10_000..5_000_000_u64).prop_map(Some)];
    let prohibits = || prop_oneof![Just(0), Just(1_500_000_u64)];
    let one = || (limits(), lives(), prohibits(), 1..6_u32, 1..9_u32);
    let periods = prop_oneof![
        Just(1_000_u64),
        50_000..2_000_000_u64,
        Just(1_000_000),
        Just(60_000_000),
        Just(86_400_000_000)
    ];
    (0..7, periods, one(), one()).prop_filter_map("no such rules", |(kind, period, first, second)| {
        let rule = |(limit, life, prohibit, divisor, per): (u32, Option<u64>, u64, u32, u32)| {
            let micros = Duration::from_micros;
            let quota = |count: u32, algorithm: Algorithm| {
                Some(Quota::of(Rate::new(count, micros(period)).ok()?).algorithm(algorithm))
            };
            let rule = match kind {
                0 => Rule::of(quota(limit, Algorithm::FixedWindow)?.build().ok()?),
                1 => {
                    Rule::of(quota(limit, Algorithm::FixedWindow)?.build().ok()?).opening(Opening::FirstCall)
                }
                2 => Rule::each(Calendar::Month, limit),
                3 | 4 => Rule::of(quota(limit, Algorithm::SlidingWindow)?.build().ok()?),
                _ => {
                    let bucket = quota(limit.div_ceil(per), Algorithm::TokenBucket)?;
                    Rule::of(if limit == 0 { bucket } else { bucket.burst(limit) }.build().ok()?)
                }
            };
            let rule = life.map_or(rule, |life| rule.life(micros(life)));
            rule.prohibit(micros(prohibit)).divisor(divisor).build().ok()
        };
        let rules = [rule(first)?, rule(second)?];
        (rules[0].law().to_string() == rules[1].law().to_string()).then_some(rules)
    })
}

/// What happens to an account.
#[derive(Clone, Debug)]
enum Event {
    /// Node `who` asks, as its next question or one back; it saw the last reply, one of another epoch, or nothing.
    Ask {
        who: u64,
        repeat: u64,
        least: u32,
        more: u32,
        want: u32,
        back: u32,
        debt: u32,
        saw: Saw,
    },
    /// The clock moves, and not always forward: in parts of a window.
    Forward {
        windows: u64,
        part: u64,
    },
    Backward {
        windows: u64,
        part: u64,
    },
    /// Another process serves the same data, or none of it.
    AnotherServer,
    Emptied,
    Adjusted(Adjustment),
    /// The limit and all that may change with it.
    AnotherRule,
}

#[derive(Clone, Copy, Debug)]
enum Saw {
    Nothing,
    Last,
    Earlier(u64, u64),
    Later(u64),
}

fn events() -> impl Strategy<Value = Event> {
    let saw = prop_oneof![
        2 => Just(Saw::Nothing),
        6 => Just(Saw::Last),
        1 => (0..1_000_u64, 0..300_u64).prop_map(|(by, level)| Saw::Earlier(by, level)),
        1 => (1..5_000_000_u64).prop_map(Saw::Later),
    ];
    let few = || prop_oneof![3 => Just(0_u32), 3 => 0..5_u32, 1 => 0..500_u32];
    let ask =
        (0..4_u64, prop_oneof![5 => Just(0_u64), 1 => 1..3_u64], few(), few(), few(), few(), few(), saw);
    let ask = ask.prop_map(|(who, repeat, least, more, want, back, debt, saw)| Event::Ask {
        who,
        repeat,
        least,
        more,
        want,
        back: if back > 50 { 0 } else { back },
        debt: if debt > 4 { 0 } else { debt },
        saw,
    });
    let adjustment = prop_oneof![
        (0..100_u64).prop_map(Adjustment::Relieve),
        (0..100_u64).prop_map(Adjustment::Charge),
        Just(Adjustment::Reset),
    ];
    let moves = || (prop_oneof![5 => Just(0_u64), 1 => 0..4_u64], 0..1_000_u64);
    prop_oneof![
        12 => ask,
        5 => moves().prop_map(|(windows, part)| Event::Forward { windows, part }),
        1 => moves().prop_map(|(windows, part)| Event::Backward { windows, part }),
        1 => Just(Event::AnotherServer),
        1 => Just(Event::Emptied),
        1 => Just(Event::AnotherRule),
        1 => adjustment.prop_map(Event::Adjusted),
    ]
}

/// The reference, and what the nodes of the test remember.
#[derive(Default)]
struct Model {
    book: Book,
    last: Option<Reply>,
    seqs: [u64; 4],
}

/// Which ledger it is, and who wrote that.
#[derive(Default)]
struct Marker(Option<(Epoch, u64)>);

impl Marker {
    /// As the store decides which epoch it is.
    fn epoch(&mut self, server: u64, seen: u64, now: Micros) -> Epoch {
        let epoch = match self.0 {
            None => Epoch::new(now),
            Some((epoch, wrote)) if wrote != server => Epoch { id: now.max(epoch.id + 1), begun: now },
            Some((epoch, _)) => epoch,
        };
        let epoch = epoch.at(seen, now);
        self.0 = Some((epoch, server));
        Epoch { begun: epoch.begun + NOTICED_WITHIN.as_micros() as u64, ..epoch }
    }
}

impl Model {
    fn ask(&mut self, event: &Event) -> Ask {
        let Event::Ask { who, repeat, least, more, want, back, debt, saw } = event.clone() else {
            unreachable!()
        };
        let last = self.last.map_or(Seen::default(), |last| Seen { epoch: last.epoch, mark: last.mark });
        let seen = match saw {
            Saw::Nothing => Seen::default(),
            Saw::Last => last,
            Saw::Earlier(by, level) => Seen {
                epoch: last.epoch.saturating_sub(by),
                mark: Mark { level: last.mark.level + level, ..last.mark },
            },
            Saw::Later(by) => Seen { epoch: last.epoch + by, mark: last.mark },
        };
        let seq = &mut self.seqs[who as usize];
        *seq += 1;
        let of = self.last.map_or(0, |last| last.of);
        let node = Node(u64::MAX - who);
        let need = least.saturating_add(more);
        Ask { node, seq: seq.saturating_sub(repeat), least, need, want, back, of, debt, seen }
    }
}

async fn state(ledger: &RedisLedger, subject: Subject<'_>, rule: &Rule) -> Result<State, StoreError> {
    static SHOWN: LazyLock<Script> = LazyLock::new(|| {
        Script::new(Box::leak(
            format!("{}{}{SHOW}", include_str!("epoch.lua"), include_str!("head.lua")).into_boxed_str(),
        ))
    });
    let answer =
        ledger.call_with(&SHOWN, "show", subject, rule, &Seeing { clock: Some(0), run_id: None }, |_| {});
    let Value::Array(parts) = answer.await?.0 else { panic!("not a list") };
    let texts: Vec<String> = parts.into_iter().map(|part| redis::from_redis_value(part).unwrap()).collect();
    let numbers =
        |text: &str| -> Vec<u64> { text.split_ascii_whitespace().map(|n| n.parse().unwrap()).collect() };
    let [at, of, level, debt, barred, generation, present, before, unmet] = numbers(&texts[0])[..] else {
        panic!()
    };
    let slices = numbers(&texts[1]).chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let mut nodes: Vec<_> = texts[2]
        .split(';')
        .filter(|seat| !seat.is_empty())
        .map(|seat| {
            let (node, rest) = seat.split_once(' ').unwrap();
            let rest = numbers(rest);
            (Node(u64::from_str_radix(node, 16).unwrap()), rest[0], rest[1], rest[2])
        })
        .collect();
    nodes.sort_unstable();
    let rate = numbers(&texts[3]);
    let small = |n: u64| u32::try_from(n).unwrap();
    let (present, before) = (small(present), small(before));
    Ok(State {
        at,
        of,
        level,
        slices,
        rate: (rate[0], rate[1]),
        debt,
        barred,
        generation,
        present,
        before,
        nodes,
        unmet,
    })
}

/// Compares them in accounts of their own.
fn agree(bench: &Bench, rules: [Rule; 2], events: &[Event]) {
    bench.compare(async |watched| agree_once(RedisLedger(watched), &bench.redis, rules, events).await);
}

async fn agree_once(
    ledger: RedisLedger,
    redis: &support::Redis,
    rules: [Rule; 2],
    events: &[Event],
) -> Result<(), StoreError> {
    let subjects = [b"alice", b"carol"].map(|key| Subject { limit: "per client", key: Key::of(key) });
    let mut models = [Model::default(), Model::default()];
    let (mut marker, mut server, mut which) = (Marker::default(), 0_u64, 0);
    // Not on any boundary, and far enough from 0 to go back.
    let mut now = 1_764_000_123_456_789_u64;
    for event in events {
        let rule = &rules[which];
        let (run_id, window) = (server.to_string(), rule.window());
        let seeing = Seeing { clock: Some(now), run_id: Some(&run_id) };
        let by = |windows: u64, part: u64| windows * window + window / 1_000 * part + part % 7;
        match event {
            Event::Ask { .. } => {
                // One script: both subjects, and the first one again, which saw no more than before.
                let (mut questions, mut expected) = (Vec::new(), Vec::new());
                for of in [0, 1, 0] {
                    let model = &mut models[of];
                    let ask = model.ask(event);
                    let epoch = marker.epoch(server, ask.seen.epoch, now);
                    expected.push((of, ask, model.book.grant(rule, &ask, now, epoch)));
                    questions.push(ledger.question(subjects[of], rule, &ask));
                }
                let route = Route { rule: *rule, bucket: 0 };
                let actual = ledger.grant_all(route, &questions, &seeing, None).await?;
                for ((of, ask, expected), actual) in expected.into_iter().zip(actual) {
                    assert_eq!(actual, expected, "{ask:?} at {now}");
                    models[of].last = Some(actual);
                }
                for (model, subject) in models.iter().zip(subjects) {
                    let state = state(&ledger, subject, rule).await?;
                    assert_eq!(state, model.book.state(), "{event:?} at {now}");
                    let standing = ledger.look(subject, rule, &seeing).await?;
                    assert_eq!(standing, model.book.inspect(rule, now), "at {now}");
                }
            }
            Event::Forward { windows, part } => now += by(*windows, *part),
            Event::Backward { windows, part } => now -= by(*windows, *part).min(now / 2),
            Event::AnotherServer => server += 1,
            Event::AnotherRule => which = 1 - which,
            Event::Emptied => {
                let () = redis.say("FLUSHALL").await;
                marker = Marker::default();
                for model in &mut models {
                    model.book = Book::default();
                }
            }
            Event::Adjusted(adjustment) => {
                let ([model, _], [subject, _]) = (&mut models, subjects);
                let before = model.book.inspect(rule, now);
                match *adjustment {
                    Adjustment::Relieve(units) => model.book.relieve(rule, units, now),
                    Adjustment::Charge(units) => model.book.charge(rule, units, now),
                    Adjustment::Reset => model.book.reset(),
                }
                let after = model.book.inspect(rule, now);
                let actual = ledger.change(subject, rule, *adjustment, &seeing).await?;
                assert_eq!(actual, Adjusted { before, after }, "{adjustment:?} at {now}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_script_is_the_reference() {
    let bench = Bench::new();
    proptest!(config(), |(rules in rules(), events in proptest::collection::vec(events(), 1..40))| {
        agree(&bench, rules, &events);
    });
}

#[test]
fn a_reset_after_the_clock_went_back_forgets_no_node() {
    let bench = Bench::new();
    let quota = Quota::of(Rate::new(10, Duration::from_secs(1)).unwrap()).algorithm(Algorithm::FixedWindow);
    let rule = Rule::of(quota.build().unwrap()).build().unwrap();
    let ask =
        |who| Event::Ask { who, repeat: 0, least: 1, more: 0, want: 0, back: 0, debt: 0, saw: Saw::Last };
    let events = [
        ask(0),
        ask(1),
        Event::Backward { windows: 3, part: 0 },
        Event::Adjusted(Adjustment::Reset),
        Event::Forward { windows: 3, part: 0 },
        ask(0),
    ];
    agree(&bench, [rule, rule], &events);
}
