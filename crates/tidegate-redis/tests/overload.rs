//! A server that has too much to do is late, and not away: on a real server that is held up.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use support::{Redis, eventually};
use tidegate::{
    Rate, clock,
    fleet::{Ledger, LedgerErrorKind, Node, Rule, Subject},
    throttle::Key,
};
use tidegate_core::{
    Algorithm, Quota,
    ledger::{Ask, Seen},
};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings, StoreUrl};

/// How long the server is held up: longer than an operation's deadline, shorter than a probe may be left unanswered.
const HELD_UP: &str = "CLIENT PAUSE 200 ALL";

fn rule() -> Rule {
    let rate = Rate::new(1_000_000, Duration::from_secs(3600)).expect("a rate");
    let quota = Quota::of(rate).algorithm(Algorithm::FixedWindow).build().expect("a quota");
    Rule::of(quota).life(Duration::from_millis(100)).build().expect("a rule")
}

fn subject(number: u64) -> Subject<'static> {
    Subject { limit: "per-client", key: Key::from_bits(u128::from(number) << 64) }
}

/// Asks by numbers that were never used before.
struct Asker {
    ledger: RedisLedger,
    seq: AtomicU64,
}

impl Asker {
    async fn start(redis: &Redis) -> Self {
        let url: StoreUrl = redis.url().parse().expect("a URL");
        let client = Client::start(&url, Settings::default()).expect("good settings");
        eventually("the store is reached", async || client.ready().await.ok()).await;
        let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
        let asker = Self { ledger, seq: AtomicU64::new(0) };
        asker.answered().await;
        asker
    }

    async fn ask(&self, key: u64) -> Result<(), (LedgerErrorKind, String)> {
        let (seq, seen) = (self.seq.fetch_add(1, Relaxed) + 1, Seen::default());
        let ask = Ask { node: Node(1), seq, least: 1, need: 1, want: 1, back: 0, of: 0, debt: 0, seen };
        let answer = self.ledger.ask(subject(key), &rule(), &ask).await;
        answer.map(drop).map_err(|error| (error.kind(), error.to_string()))
    }

    async fn answered(&self) {
        eventually("a question is answered in time", async || self.ask(0).await.ok()).await;
    }
}

async fn scripts(redis: &Redis) -> u64 {
    let info: String = redis.say("INFO commandstats").await;
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.expect("it runs scripts").parse().expect("a number")
}

#[tokio::test]
async fn a_server_that_is_late_again_and_again_is_asked_on() {
    /// More than the failures that open the breaker, well within the time in which they count.
    const TIMES: u32 = 12;
    let redis = Redis::start(&[]);
    let asker = Asker::start(&redis).await;
    let mut late = 0;
    for _ in 0..TIMES {
        let () = redis.say(HELD_UP).await;
        for answer in join_all((0..40).map(|key| asker.ask(key))).await {
            let Err((kind, said)) = answer else { continue };
            assert!(!said.contains("is left alone"), "it is there: {said}");
            late += u32::from(kind == LedgerErrorKind::Late);
        }
        asker.answered().await;
    }
    assert!(late >= TIMES, "{late} were late");
}

#[tokio::test]
async fn a_server_that_answers_too_late_is_heard() {
    let redis = Redis::start(&[]);
    let asker = Asker::start(&redis).await;
    let () = redis.say(HELD_UP).await;
    let asked_at = clock::now();
    let (kind, said) = asker.ask(1).await.expect_err("it is held up");
    assert_eq!(kind, LedgerErrorKind::Late, "{said}");
    // Nobody asks, and it is heard all the same.
    let heard_at = || asker.ledger.heard_at(subject(1).key);
    eventually("it is heard", async || heard_at().filter(|at| *at > asked_at)).await;
}

#[tokio::test]
async fn a_server_that_is_held_up_is_given_no_more_scripts_than_may_be_under_way() {
    /// As many as may be under way of one rule, and as many again for what is asked unasked.
    const MOST: u64 = 2 * 64;
    let redis = Redis::start(&[]);
    let asker = Arc::new(Asker::start(&redis).await);
    let before = scripts(&redis).await;
    let () = redis.say("CLIENT PAUSE 350 ALL").await;
    // Each asks again as soon as it is told that its question is late, for as long as the server is held up.
    let rounds = AtomicU64::new(0);
    join_all((0..1000).map(async |key| {
        for _ in 0..6 {
            if asker.ask(key).await.is_ok() {
                break;
            }
            rounds.fetch_add(1, Relaxed);
        }
    }))
    .await;
    assert!(rounds.load(Relaxed) > 1000, "it was held up for several deadlines");
    asker.answered().await;
    let arrived = scripts(&redis).await - before;
    assert!(arrived <= MOST, "{arrived} scripts");
}
