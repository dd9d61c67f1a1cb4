//! Many questions at once, and keys that come once and never again: on a real server.

mod support;

use std::{collections::BTreeSet, env, num::NonZeroU32, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use support::{PATIENCE, Redis, eventually};
use tidegate::{
    By, Call, Rate, clock,
    fleet::{FleetThrottle, Ledger, LedgerErrorKind, Node, Rule, Subject},
    throttle::Key,
};
use tidegate_core::{
    Algorithm, Quota,
    ledger::{Ask, Seen},
};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings, StoreUrl};
use tokio::task::JoinSet;

fn quota(limit: u32, window: Duration) -> Quota {
    let quota = Quota::of(Rate::new(limit, window).expect("a rate")).algorithm(Algorithm::FixedWindow);
    quota.build().expect("a quota")
}

/// A window whose edge no test meets.
fn lasting(limit: u32) -> Rule {
    let rule = Rule::of(quota(limit, Duration::from_secs(1000 * 3600)));
    rule.life(Duration::from_millis(100)).build().expect("a rule")
}

fn ask(node: u64, seq: u64) -> Ask {
    let seen = Seen::default();
    Ask { node: Node(node), seq, least: 1, need: 1, want: 1, back: 0, of: 0, debt: 0, seen }
}

fn subject(number: u64) -> Subject<'static> {
    Subject { limit: "per-client", key: Key::from_bits(u128::from(number) << 64) }
}

async fn ledger(redis: &Redis) -> RedisLedger {
    let url: StoreUrl = redis.url().parse().expect("a URL");
    let settings = Settings { deadline: PATIENCE, ..Settings::default() };
    let client = Client::start(&url, settings).expect("good settings");
    eventually("the store is reached", async || client.ready().await.ok()).await;
    let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
    let mut seq = 0;
    eventually("the pause of a new ledger is over", async || {
        seq += 1;
        let reply = ledger.ask(subject(u64::MAX), &lasting(100_000), &ask(9, seq)).await.ok()?;
        (reply.granted > 0).then_some(())
    })
    .await;
    ledger
}

async fn scripts(redis: &Redis) -> u64 {
    let info: String = redis.say("INFO commandstats").await;
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.expect("it runs scripts").parse().expect("a number")
}

#[tokio::test]
async fn questions_that_are_ready_together_share_scripts_and_are_answered_each_by_its_account() {
    const KEYS: u64 = 100;
    const NODES: u64 = 5;
    const LIMIT: u32 = 3;
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis).await;
    let (before, limit) = (scripts(&redis).await, lasting(LIMIT));
    let asks = (1..=NODES).flat_map(|node| (0..KEYS).map(move |key| (node, key)));
    let asked = asks.map(async |(node, key)| {
        // Each node has a limit of its own to ask for as well, in scripts of their own.
        let (one, more) = (ask(node, 1), Ask { least: 2, need: 2, want: 2, ..ask(node, 2) });
        let (their_limit, theirs) = (lasting(1_000_000 + node as u32), Ask { seq: key + 10, ..more });
        let own = Subject { limit: "per-node", key: Key::from_bits(u128::from(node) << 64) };
        let (first, second) =
            tokio::join!(ledger.ask(subject(key), &limit, &one), ledger.ask(own, &their_limit, &theirs));
        assert_eq!(second.expect("an answer").granted, 2);
        (key, first.expect("an answer").granted)
    });
    let granted = join_all(asked).await;
    for key in 0..KEYS {
        let sum: u32 = granted.iter().filter(|(of, _)| *of == key).map(|(_, units)| units).sum();
        assert_eq!(sum, LIMIT, "of {key}");
        let standing = ledger.inspect(subject(key), &limit).await.expect("an answer");
        assert_eq!(standing.used, u64::from(LIMIT));
    }
    // What it asks unasked is a few a second; looking takes one a key.
    let scripts = scripts(&redis).await - before - KEYS;
    assert!(scripts < NODES * KEYS, "{scripts} scripts for {} questions", 2 * NODES * KEYS);
}

#[tokio::test]
async fn an_account_that_makes_no_sense_costs_the_others_nothing() {
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis).await;
    let limit = lasting(10);
    let all = |of: &mut BTreeSet<String>, now: Vec<String>| {
        let new = now.into_iter().filter(|key| !of.contains(key)).collect::<Vec<_>>();
        of.extend(new.iter().cloned());
        new
    };
    let mut known = BTreeSet::new();
    all(&mut known, redis.say("KEYS *").await);
    ledger.ask(subject(1), &limit, &ask(1, 1)).await.expect("an answer");
    let [account] = &all(&mut known, redis.say("KEYS *").await)[..] else { panic!("one account is new") };
    let () = redis.say(&format!("SET {account} nonsense")).await;
    let limit = &limit;
    let answers = join_all((0..8).map(async |key| ledger.ask(subject(key), limit, &ask(1, 2)).await)).await;
    for (key, answer) in (0..).zip(answers) {
        match answer {
            Ok(reply) => assert_eq!((reply.granted, key == 1), (1, false)),
            Err(error) => assert_eq!((error.kind(), key), (LedgerErrorKind::Broken, 1), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_leaves_room_for_others() {
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis).await;
    let limit = &lasting(100_000);
    for round in 1..4 {
        let ledger = &ledger;
        let asked = (0..300).map(async |key| ledger.ask(subject(key), limit, &ask(1, round)).await);
        // Polled once: put into the way, and dropped there.
        let mut asked = Box::pin(join_all(asked.collect::<Vec<_>>()));
        assert!((&mut asked).now_or_never().is_none());
        drop(asked);
    }
    // As many again as may be under way at once; those before were not sent, or are back.
    eventually("there is room for all", async || {
        let asked =
            join_all((0..1000).map(async |key| ledger.ask(subject(key), limit, &ask(2, 1)).await)).await;
        asked.iter().all(Result::is_ok).then_some(())
    })
    .await;
}

/// Distinct keys as quick as they are answered, for `TIDEGATE_KEYS_SECONDS` or 20 000 of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_come_once_are_all_answered_within_a_bound_and_leave_nothing_behind() {
    /// More than may ask at once, so that some are told so.
    const CALLERS: u64 = 2048;
    const MOST: u32 = 8192;
    const KEYS: u64 = 20_000;
    let seconds = env::var("TIDEGATE_KEYS_SECONDS").ok().map(|text| text.parse::<u64>().expect("seconds"));
    let until = seconds.map(|seconds| clock::now() + Duration::from_secs(seconds));
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis).await;
    let most = NonZeroU32::new(MOST).expect("not zero");
    // Credit lives to the end of the window: longer than a machine that is busy with other things takes to answer.
    let rule = Rule::of(quota(10, Duration::from_secs(5))).build().expect("a rule");
    let throttle = FleetThrottle::builder("once", rule, ledger)
        .max_keys(most)
        .patience(PATIENCE)
        .build()
        .expect("a runtime");
    eventually("the pause is over", async || {
        throttle.enter(&Call::at(clock::now()), &Key::of(b"first")).await.ok().map(drop)
    })
    .await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let throttle = throttle.clone();
        callers.spawn(async move {
            let (mut admitted, mut refused, mut largest) = (0_u64, 0_u64, 0);
            let goes_on = |number: u64| match until {
                Some(until) => clock::now() < until,
                None => number * CALLERS < KEYS,
            };
            for number in (0..).take_while(|number| goes_on(*number)) {
                let key = Key::of(&(number * CALLERS + caller).to_le_bytes());
                match throttle.enter(&Call::at(clock::now()), &key).await {
                    Ok(_) => admitted += 1,
                    Err(error) => {
                        // At the edge of a window, what was granted may be over before it is here.
                        let is_edge = error.by == By::WaitTooLong;
                        let is_told = error.by == By::Store && error.retry_after.is_some();
                        assert!(is_told || is_edge, "{error:?}");
                        refused += 1;
                        tokio::task::yield_now().await;
                    }
                }
                if caller == 0 {
                    let stats = throttle.stats();
                    assert!(stats.keys <= MOST as usize * 9 / 8 + 8 && stats.asking <= 1024, "{stats:?}");
                    largest = largest.max(stats.bytes);
                }
            }
            (admitted, refused, largest)
        });
    }
    let (mut admitted, mut refused, mut largest) = (0, 0, 0);
    while let Some(met) = callers.join_next().await {
        let met = met.expect("no caller panics");
        (admitted, refused, largest) = (admitted + met.0, refused + met.1, largest.max(met.2));
    }
    let stats = throttle.stats();
    assert_eq!(stats.errors.iter().sum::<u64>(), 0, "{stats:?}");
    assert!(admitted > 0 && refused > 0, "{admitted} and {refused}: {stats:?}");
    assert!(largest <= MOST as usize * 220, "{largest} bytes");
    drop(throttle);
    eventually("the store forgets all accounts", async || {
        let keys: u64 = redis.say("DBSIZE").await;
        // Which ledger it is, and the account of the beginning.
        (keys <= 2).then_some(())
    })
    .await;
}
