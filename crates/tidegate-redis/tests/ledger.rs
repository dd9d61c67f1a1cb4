//! What a ledger in Redis does beside granting: hints, times to live, bounds, and errors that say what is wrong.

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{Redis, cluster::Cluster, eventually};
use tidegate::{
    Rate,
    fleet::{Adjustment, Calendar, Hint, Ledger, LedgerErrorKind, Node, Rule, Subject, Tidings},
    throttle::{Key, KeyHasher, Seed},
};
use tidegate_core::{
    Algorithm, Quota,
    ledger::{Ask, Seen},
};
use tidegate_redis::{Client, Namespace, RIGHTS, RedisLedger, Settings, StoreUrl};
use tokio::sync::broadcast;

/// A window whose edge no test meets, but for one every six weeks.
const LONG_WINDOW: Duration = Duration::from_secs(1000 * 3600);
const LIFE: Duration = Duration::from_millis(100);
/// For how long a new ledger grants nothing: a life of credit, and until all have noticed.
const PAUSE: Duration = Duration::from_millis(1100);

fn rule(limit: u32, period: Duration, algorithm: Algorithm) -> Rule {
    let quota = Quota::of(Rate::new(limit, period).expect("a rate")).algorithm(algorithm);
    Rule::of(quota.build().expect("a quota")).life(LIFE).build().expect("a rule")
}

fn lasting(limit: u32) -> Rule {
    rule(limit, LONG_WINDOW, Algorithm::FixedWindow)
}

fn key(name: &str) -> Key {
    KeyHasher::seeded(Seed::of(b"test")).part(name.as_bytes()).finish()
}

fn subject(name: &str) -> Subject<'static> {
    Subject { limit: "per client", key: key(name) }
}

fn ask(node: u64, seq: u64, need: u32) -> Ask {
    Ask {
        node: Node(node),
        seq,
        least: need,
        need,
        want: need,
        back: 0,
        of: 0,
        debt: 0,
        seen: Seen::default(),
    }
}

async fn ledger_with(url: &str, settings: Settings) -> RedisLedger {
    let url: StoreUrl = url.parse().expect("a URL");
    let client = Client::start(&url, settings).expect("good settings");
    eventually("the store is reached", async || client.ready().await.ok()).await;
    RedisLedger::new(client, Namespace::new("test").expect("a namespace"))
}

async fn ledger(url: &str) -> RedisLedger {
    // An answer that comes late is lost with what it grants, so none does.
    let settings = Settings {
        deadline: support::PATIENCE,
        heartbeat: Duration::from_millis(200),
        ..Settings::default()
    };
    ledger_with(url, settings).await
}

/// Asks until the pause of a new ledger is over. A connection that is lost takes along what was granted over it: then it
/// begins anew.
async fn granted(ledger: &RedisLedger, subject: Subject<'_>, rule: &Rule, node: u64, need: u32) -> u32 {
    let mut seq = 0;
    eventually("the pause is over", async || {
        seq += 1;
        match ledger.ask(subject, rule, &ask(node, seq, need)).await {
            Ok(reply) => (reply.granted > 0).then_some(reply.granted),
            Err(_) => {
                let _ = ledger.adjust(subject, rule, Adjustment::Reset).await;
                None
            }
        }
    })
    .await
}

async fn hint(hints: &mut broadcast::Receiver<Hint>, wanted: impl Fn(&Tidings) -> bool) -> Hint {
    tokio::time::timeout(support::PATIENCE, async {
        loop {
            match hints.recv().await {
                Ok(hint) if wanted(&hint.tidings) => return hint,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => panic!("the ledger is gone"),
            }
        }
    })
    .await
    .expect("a hint comes")
}

/// Hints of every kind reach another node, also after the server was lost.
async fn hints_arrive(url: &str, lose: impl AsyncFnOnce()) {
    let (here, there) = (ledger(url).await, ledger(url).await);
    let rule = rule(5, LONG_WINDOW, Algorithm::FixedWindow);
    let mut hints = there.hints();
    let heard = async |hints: &mut broadcast::Receiver<Hint>, name: &str| {
        let subject = subject(name);
        granted(&here, subject, &rule, 1, 5).await;
        // The listener may not be there yet: hints may be lost, so the question is repeated.
        let mut seq = 100;
        let exhausted = eventually("exhausted is heard", async || {
            let _ = here.adjust(subject, &rule, Adjustment::Reset).await;
            seq += 1;
            let _ = here.ask(subject, &rule, &ask(1, seq, 5)).await;
            let _ = here.ask(subject, &rule, &ask(2, seq, 1)).await;
            while let Ok(hint) = hints.try_recv() {
                if let Tidings::Exhausted(retry_in) = hint.tidings {
                    return Some((hint.clone(), retry_in));
                }
            }
            None
        })
        .await;
        assert_eq!((&*exhausted.0.limit, exhausted.0.key), ("per client", subject.key));
        assert!(exhausted.1 > Duration::ZERO && exhausted.1 <= LONG_WINDOW);
        here.adjust(subject, &rule, Adjustment::Charge(1)).await.expect("the store answers");
        hint(hints, |tidings| *tidings == Tidings::Recall).await;
        here.adjust(subject, &rule, Adjustment::Relieve(3)).await.expect("the store answers");
        hint(hints, |tidings| *tidings == Tidings::Relieved).await;
    };
    heard(&mut hints, "alice").await;
    lose().await;
    for name in ["bob", "carol", "dave"] {
        heard(&mut hints, name).await;
    }
}

#[tokio::test]
async fn hints_reach_other_nodes_and_again_after_connections_were_cut() {
    let redis = Redis::start(&[]);
    hints_arrive(&redis.url(), async || {
        let _: i64 = redis.say("CLIENT KILL TYPE pubsub").await;
        let _: i64 = redis.say("CLIENT KILL TYPE normal").await;
    })
    .await;
}

#[tokio::test]
async fn who_heard_that_nothing_is_left_hears_that_something_was_given_back() {
    let redis = Redis::start(&[]);
    let (here, there) = (ledger(&redis.url()).await, ledger(&redis.url()).await);
    let (rule, subject) = (lasting(1000), subject("alice"));
    granted(&here, subject, &rule, 1, 1000).await;
    let (mut hints, mut heard, mut seq) = (there.hints(), Vec::new(), 1000);
    eventually("both are heard", async || {
        seq += 1;
        let refused = here.ask(subject, &rule, &ask(2, seq, 1)).await.ok()?;
        assert_eq!(refused.granted, 0);
        let back = Ask { back: 1, of: refused.of, ..ask(1, seq, 0) };
        assert_eq!(here.ask(subject, &rule, &back).await.ok()?.remaining, 1);
        assert_eq!(here.ask(subject, &rule, &ask(2, seq + 1, 1)).await.ok()?.granted, 1);
        seq += 1;
        while let Ok(hint) = hints.try_recv() {
            heard.push(hint.tidings);
        }
        let told = heard.iter().position(|tidings| matches!(tidings, Tidings::Exhausted(_)))?;
        heard[told..].contains(&Tidings::Relieved).then_some(())
    })
    .await;
}

#[tokio::test]
async fn hints_reach_other_nodes_of_a_cluster_and_again_after_a_failover() {
    let cluster = Cluster::start(2, true).await;
    hints_arrive(&cluster.url(), async || {
        for replica in &cluster.nodes[2..] {
            let () = replica.say("CLUSTER FAILOVER").await;
            eventually("the replica is a master", async || replica.is_master().await).await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_key_of_a_ledger_dies_when_nobody_asks_any_more() {
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis.url()).await;
    let second = Duration::from_secs(1);
    for (name, rule) in [
        ("window", rule(10, second, Algorithm::FixedWindow)),
        ("sliding", rule(10, second, Algorithm::SlidingWindow)),
        ("bucket", rule(10, second, Algorithm::TokenBucket)),
        ("month", Rule::each(Calendar::Month, 10).life(LIFE).build().unwrap()),
    ] {
        granted(&ledger, subject(name), &rule, 1, 1).await;
    }
    let keys: Vec<String> = redis.say("KEYS *").await;
    assert_eq!(keys.len(), 5, "four accounts and the epoch: {keys:?}");
    let mut connection = redis.connect().await;
    for key in &keys {
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        let most = if key.ends_with(":epoch") { 172_800_000 } else { 45 * 86_400_000 };
        assert!((1..=most).contains(&left), "{key} lives for {left} ms");
        assert!(key.starts_with("test:"), "{key}");
    }
    eventually("short accounts are gone", async || {
        let keys: Vec<String> = redis.say("KEYS *").await;
        (keys.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_operator_reads_adjusts_and_resets() {
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis.url()).await;
    let (rule, subject) = (lasting(100), subject("alice"));
    granted(&ledger, subject, &rule, 1, 40).await;
    let standing = ledger.inspect(subject, &rule).await.unwrap();
    assert_eq!((standing.used, standing.remaining, standing.nodes), (40, 60, 1));
    let charged = ledger.adjust(subject, &rule, Adjustment::Charge(70)).await.unwrap();
    assert_eq!((charged.before.remaining, charged.after.remaining, charged.after.debt), (60, 0, 10));
    let relieved = ledger.adjust(subject, &rule, Adjustment::Relieve(30)).await.unwrap();
    assert_eq!((relieved.after.debt, relieved.after.remaining), (0, 20));
    let reset = ledger.adjust(subject, &rule, Adjustment::Reset).await.unwrap();
    assert_eq!((reset.before.used, reset.after.used, reset.after.remaining), (80, 0, 100));
    assert_eq!(ledger.inspect(self::subject("nobody"), &rule).await.unwrap().remaining, 100);
}

#[tokio::test]
async fn a_hanging_server_costs_a_deadline_then_nothing_and_one_question_too_many_is_refused() {
    let redis = Redis::start(&[]);
    let settings = Settings { in_flight: 2, ..Settings::default() };
    let ledger = ledger_with(&redis.url(), settings).await;
    let rule = lasting(100);
    granted(&ledger, subject("alice"), &rule, 1, 1).await;
    redis.signal(Signal::STOP);
    let (a, b, c) = (ask(1, 101, 1), ask(1, 102, 1), ask(1, 103, 1));
    let results = tokio::join!(
        ledger.ask(subject("alice"), &rule, &a),
        ledger.ask(subject("alice"), &rule, &b),
        ledger.ask(subject("alice"), &rule, &c),
    );
    let kinds = [results.0, results.1, results.2].map(|result| result.unwrap_err().kind());
    // The ledger's own looks take their places, too.
    assert!(kinds.contains(&LedgerErrorKind::Late) && kinds.contains(&LedgerErrorKind::Busy), "{kinds:?}");
    // By the breaker, or by the beat of the connection: whichever finds out first.
    eventually("it is known to be away", async || {
        let error = ledger.ask(subject("alice"), &rule, &ask(1, 200, 1)).await.unwrap_err();
        (error.kind() == LedgerErrorKind::Unreachable).then_some(())
    })
    .await;
    redis.signal(Signal::CONT);
    granted(&ledger, subject("alice"), &rule, 7, 1).await;
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_takes_nothing() {
    let redis = Redis::start(&[]);
    // The connection outlives the stop, and what was sent over it is answered in turn.
    let ledger = ledger_with(&redis.url(), Settings { in_flight: 64, ..Settings::default() }).await;
    let rule = lasting(1000);
    granted(&ledger, subject("alice"), &rule, 1, 10).await;
    redis.signal(Signal::STOP);
    let stopped = tokio::time::Instant::now();
    let owing = Ask { debt: 7, ..ask(1, 1001, 100) };
    assert_eq!(ledger.ask(subject("alice"), &rule, &owing).await.unwrap_err().kind(), LedgerErrorKind::Late);
    // Not to wait for something, but to be late.
    tokio::time::sleep_until(stopped + 3 * ledger.client().settings().deadline).await;
    redis.signal(Signal::CONT);
    let standing =
        eventually("it answers", async || ledger.inspect(subject("alice"), &rule).await.ok()).await;
    assert_eq!((standing.used, standing.debt), (17, 0), "what is owed is charged, what was asked for is not");
}

#[tokio::test]
async fn a_server_that_cannot_write_says_why() {
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis.url()).await;
    granted(&ledger, subject("alice"), &lasting(10), 1, 1).await;
    let refusal = async || ledger.ask(subject("alice"), &lasting(10), &ask(1, 999, 1)).await.err();
    let () = redis.say("CONFIG SET maxmemory 1").await;
    let error = eventually("it is out of memory", refusal).await;
    assert_eq!(error.kind(), LedgerErrorKind::Unready, "{error}");
    assert!(error.message().contains("OOM"), "{error}");
    let () = redis.say("CONFIG SET maxmemory 0").await;
    let () = redis.say("CONFIG SET min-replicas-to-write 1").await;
    let error = eventually("it has too few replicas", async || {
        refusal().await.filter(|error| error.message().contains("NOREPLICAS"))
    })
    .await;
    assert_eq!(error.kind(), LedgerErrorKind::Unready, "{error}");
}

#[tokio::test]
async fn another_use_of_the_same_key_is_an_error_and_no_panic() {
    let redis = Redis::start(&[]);
    let ledger = ledger(&redis.url()).await;
    granted(&ledger, subject("alice"), &lasting(10), 1, 1).await;
    let keys: Vec<String> = redis.say("KEYS *a3600000000000*").await;
    let [account] = &keys[..] else { panic!("{keys:?}") };
    let mut connection = redis.connect().await;
    let () = redis::cmd("SET").arg(account).arg("nonsense").query_async(&mut connection).await.unwrap();
    let error = ledger.ask(subject("alice"), &lasting(10), &ask(1, 999, 1)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Broken, "{error}");
    granted(&ledger, subject("bob"), &lasting(10), 1, 1).await;
}

/// Who asked before and does not any more tells a lost ledger all the same.
async fn what_was_seen_is_told(url: &str, keys: usize, lose: impl AsyncFnOnce()) {
    let (idle, rule) = (ledger(url).await, lasting(10));
    let names: Vec<String> = (0..keys).map(|n| format!("client {n}")).collect();
    for name in &names {
        assert_eq!(granted(&idle, subject(name), &rule, 1, 10).await, 10);
    }
    lose().await;
    let newcomer = ledger(url).await;
    let mut seq = 0;
    for name in &names {
        let refusal = eventually("the pause is over", async || {
            seq += 1;
            let reply = newcomer.ask(subject(name), &rule, &ask(2, seq, 1)).await.ok()?;
            // In the pause it says when to come back: within a life of credit, not of a window.
            (reply.granted > 0 || reply.retry_in > PAUSE.as_micros() as u64).then_some(reply)
        })
        .await;
        assert_eq!((refusal.granted, refusal.remaining), (0, 0), "{name}");
    }
}

#[tokio::test]
async fn a_loss_is_mended_by_who_does_not_ask_any_more() {
    let redis = Redis::start(&[]);
    // More than are told at once.
    what_was_seen_is_told(&redis.url(), 300, async || {
        let () = redis.say("FLUSHALL").await;
    })
    .await;
}

#[tokio::test]
async fn a_loss_in_a_cluster_is_mended_by_who_does_not_ask_any_more() {
    let cluster = Cluster::start(3, false).await;
    what_was_seen_is_told(&cluster.url(), 20, async || {
        for node in &cluster.nodes {
            let () = node.say("FLUSHALL").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_who_may_do_only_what_is_told_is_enough() {
    let mut arguments = vec!["--user", "app", "on", ">pw", "~test:*", "&test:*", "-@all"];
    arguments.extend(RIGHTS.split_ascii_whitespace());
    let redis = Redis::start(&arguments);
    let ledger = ledger(&format!("redis://app:pw@127.0.0.1:{}/1", redis.port)).await;
    assert_eq!(granted(&ledger, subject("alice"), &lasting(10), 1, 4).await, 4);
    let mut hints = ledger.hints();
    eventually("hints come", async || {
        let _ = ledger.adjust(subject("alice"), &lasting(10), Adjustment::Charge(1)).await;
        hints.try_recv().ok()
    })
    .await;
    for right in ["time", "get", "evalsha"] {
        let () = redis.say(&format!("ACL SETUSER app -{right}")).await;
        let error = eventually("it is refused", async || {
            ledger.ask(subject("alice"), &lasting(10), &ask(1, 999, 1)).await.err()
        })
        .await;
        assert_eq!(error.kind(), LedgerErrorKind::Denied, "without {right}: {error}");
        assert!(error.message().contains(RIGHTS), "{error}");
        let () = redis.say(&format!("ACL SETUSER app +{right}")).await;
        granted(&ledger, subject("bob"), &lasting(1_000_000), 1, 1).await;
    }
}
