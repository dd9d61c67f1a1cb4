//! Sessions on real servers: what every store of sessions does, and coordinators that share one through faults.

#[path = "../../tidegate/tests/support/idp.rs"]
mod idp;
#[path = "../../tidegate/tests/support/session_suite.rs"]
mod session_suite;
mod support;
#[path = "../../tidegate/tests/support/trace.rs"]
mod trace;

use std::{sync::Arc, time::Duration};

use idp::Idp;
use rustix::process::Signal;
use support::{Redis, cluster::Cluster, eventually};
use tidegate::{
    Call, clock,
    token::{Login, Over, SessionId, SessionStore as _, Settings, TokenCoordinator, TokenError},
};
use tidegate_redis::{Client, Namespace, RedisSessions, StoreUrl};
use tokio::task::JoinSet;

async fn sessions(url: &str) -> RedisSessions {
    let url: StoreUrl = url.parse().expect("a URL");
    let client = Client::start(&url, tidegate_redis::Settings::default()).expect("good settings");
    client.ready().await.expect("a store");
    RedisSessions::new(client, Namespace::new("test").expect("a namespace"))
}

fn call() -> Call {
    Call::at(clock::now()).within(Duration::from_secs(20))
}

#[tokio::test]
async fn a_server_is_a_store_of_sessions() {
    let redis = Redis::start(&[]);
    session_suite::suite(&sessions(&redis.url()).await).await;
}

#[tokio::test]
async fn a_cluster_is_a_store_of_sessions() {
    let cluster = Cluster::start(3, false).await;
    session_suite::suite(&sessions(&cluster.url()).await).await;
}

type Replica = TokenCoordinator<Idp, RedisSessions>;

async fn fleet(idp: &Idp, url: &str, size: usize) -> Vec<Replica> {
    let mut fleet = Vec::new();
    for _ in 0..size {
        let replica = TokenCoordinator::new(idp.clone(), sessions(url).await, Settings::default());
        fleet.push(replica.expect("good settings"));
    }
    fleet
}

/// An identity provider whose tokens live for two seconds, so that an expiry is not far.
fn hasty() -> Idp {
    let idp = Idp::new();
    idp.with(|state| state.life = Duration::from_secs(2));
    idp
}

async fn begin(idp: &Idp, replica: &Replica, family: u64) -> SessionId {
    let id = SessionId::new(&format!("user-{family}")).expect("an id");
    assert!(replica.begin(&id, Login::of(idp.login(family))).await.expect("a store"));
    id
}

/// Waits until every replica would have to wait for another token. By the store's copy it is over as much later as the store
/// took to write it: on a busy machine some tenths of a second.
async fn expiry(replica: &Replica, id: &SessionId) {
    let token = replica.fresh(id, &call()).await.expect("a token");
    tokio::time::sleep_until(clock::timer_at(token.expires_at()) + Duration::from_secs(1)).await;
}

#[tokio::test]
async fn one_expiry_is_one_grant_for_1_2_and_5_replicas_and_a_thousand_callers() {
    let redis = Redis::start(&[]);
    for size in [1, 2, 5] {
        let idp = hasty();
        let fleet = fleet(&idp, &redis.url(), size).await;
        let id = begin(&idp, &fleet[0], size as u64).await;
        expiry(&fleet[size - 1], &id).await;
        let mut crowd = JoinSet::new();
        for caller in 0..1000 {
            let (replica, id) = (fleet[caller % size].clone(), id.clone());
            crowd.spawn(async move { replica.fresh(&id, &call()).await.expect("a token").generation() });
        }
        let answers = crowd.join_all().await;
        assert!(answers.iter().all(|generation| *generation == 2), "{size}: {answers:?}");
        assert_eq!((idp.grants(), idp.reuses()), (1, 0), "{size} replicas");
    }
}

#[tokio::test]
async fn a_logout_is_known_to_all_replicas_by_a_hint() {
    let redis = Redis::start(&[]);
    let idp = Idp::new();
    let fleet = fleet(&idp, &redis.url(), 2).await;
    let id = begin(&idp, &fleet[0], 1).await;
    fleet[1].fresh(&id, &call()).await.expect("a token");
    fleet[0].end(&id).await.expect("a store").expect("there was one");
    eventually("the other replica knows of the logout", async || {
        let answer = fleet[1].fresh(&id, &call()).await;
        matches!(answer, Err(TokenError::LoginNeeded(Over::Gone))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_the_store_hangs_good_tokens_are_served_and_nobody_is_logged_out() {
    let redis = Redis::start(&[]);
    let idp = Idp::new();
    let fleet = fleet(&idp, &redis.url(), 2).await;
    let id = begin(&idp, &fleet[0], 1).await;
    fleet[1].fresh(&id, &call()).await.expect("a token");
    redis.signal(Signal::STOP);
    for replica in &fleet {
        assert_eq!(replica.fresh(&id, &call()).await.expect("a token").generation(), 1);
        replica.forget(&id);
        let error = replica.fresh(&id, &call()).await.expect_err("nobody knows it now");
        assert!(matches!(error, TokenError::Unavailable { .. }), "{error}");
        assert!(replica.stats().store_failing);
    }
    redis.signal(Signal::CONT);
    for replica in &fleet {
        let served = async || replica.fresh(&id, &call()).await.ok();
        assert_eq!(eventually("it is served again", served).await.generation(), 1);
    }
    assert_eq!(idp.grants(), 0);
}

#[tokio::test]
async fn replicas_refresh_many_sessions_through_a_store_that_is_cut_off_again_and_again() {
    let redis = Arc::new(Redis::start(&[]));
    let idp = hasty();
    let fleet = fleet(&idp, &redis.url(), 3).await;
    let mut users = JoinSet::new();
    for family in 0..30 {
        let id = begin(&idp, &fleet[0], family).await;
        let fleet = fleet.clone();
        users.spawn(async move {
            let mut served = 0;
            for turn in 0.. {
                let answer = fleet[turn % 3].fresh(&id, &call()).await;
                match answer {
                    Ok(token) if token.generation() > 4 => return served,
                    Ok(_) => served += 1,
                    Err(TokenError::LoginNeeded(over)) => panic!("user {family} was logged out: {over:?}"),
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            served
        });
    }
    let cuts = {
        let redis = redis.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let _: i64 = redis.say("CLIENT KILL TYPE normal SKIPME yes").await;
            }
        })
    };
    while let Some(user) = users.join_next().await {
        assert!(user.expect("nobody is logged out") > 0);
    }
    cuts.abort();
    assert_eq!(idp.reuses(), 0);
}

#[tokio::test]
async fn nothing_of_a_session_but_its_record_stands_in_the_store_and_no_id_is_a_key_to_it() {
    let redis = Redis::start(&[]);
    let idp = Idp::new();
    let fleet = fleet(&idp, &redis.url(), 1).await;
    begin(&idp, &fleet[0], 1).await;
    let keys: Vec<String> = redis.say("KEYS *").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys[0].starts_with("test:{test:") && keys[0].ends_with(":session:user-1"), "{keys:?}");
    let life: i64 = redis.say(&format!("PTTL {}", keys[0])).await;
    assert!(life > 0, "it ends by itself: {life}");
}

#[tokio::test]
async fn a_session_of_the_store_is_found_by_a_process_that_starts_later() {
    let redis = Redis::start(&[]);
    let idp = Idp::new();
    let id = {
        let fleet = fleet(&idp, &redis.url(), 1).await;
        begin(&idp, &fleet[0], 1).await
    };
    let later = fleet(&idp, &redis.url(), 1).await;
    assert_eq!(later[0].fresh(&id, &call()).await.expect("a token").generation(), 1);
    let store = sessions(&redis.url()).await;
    assert!(store.read(&id, None).await.expect("a store").is_some());
}

#[tokio::test]
async fn who_comes_late_with_an_old_token_gets_what_became_of_it_from_every_replica() {
    let redis = Redis::start(&[]);
    let idp = Idp::new();
    let fleet = fleet(&idp, &redis.url(), 3).await;
    let (id, dead) = (begin(&idp, &fleet[0], 1).await, begin(&idp, &fleet[0], 2).await);
    idp.revoke_family(2);
    for replica in &fleet {
        for id in [&id, &dead] {
            assert_eq!(replica.fresh(id, &call()).await.unwrap().generation(), 1);
        }
    }
    for round in 0..3 {
        for replica in &fleet {
            replica.rejected(&id, 1, clock::now());
            assert_eq!(replica.fresh(&id, &call()).await.unwrap().generation(), 2, "round {round}");
            replica.rejected(&dead, 1, clock::now());
            let over = replica.fresh(&dead, &call()).await.unwrap_err();
            assert_eq!(over, TokenError::LoginNeeded(Over::Refused), "round {round}");
        }
    }
    assert_eq!((idp.grants(), idp.reuses()), (2, 0), "one for each session");
}

#[tokio::test]
async fn a_logout_gives_back_the_newest_tokens_and_a_login_under_the_old_name_is_known_to_all_replicas() {
    let redis = Redis::start(&[]);
    let idp = Idp::new();
    let fleet = fleet(&idp, &redis.url(), 2).await;
    let id = begin(&idp, &fleet[0], 1).await;
    fleet[1].fresh(&id, &call()).await.unwrap();
    fleet[1].rejected(&id, 1, clock::now());
    assert_eq!(fleet[1].fresh(&id, &call()).await.unwrap().generation(), 2);
    // It may not have heard of the rotation: what stands in the store counts.
    let ended = fleet[0].end(&id).await.unwrap().unwrap();
    assert_eq!(ended.refresh.unwrap().expose(), idp.newest(1));
    assert!(fleet[0].end(&id).await.unwrap().is_none());
    eventually("the end being known", async || fleet[1].fresh(&id, &call()).await.err()).await;
    let tokens = idp.login(2);
    let new = tokens.access.expose().to_owned();
    assert!(fleet[0].begin(&id, Login::of(tokens)).await.unwrap());
    for replica in &fleet {
        eventually("the new session being known", async || {
            replica.fresh(&id, &call()).await.ok().filter(|token| token.expose() == new)
        })
        .await;
    }
}
