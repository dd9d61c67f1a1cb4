//! Every server that cannot hold a ledger is told by name, with what to do about it.

mod support;

use std::time::Duration;

use support::{Redis, cluster::Cluster, eventually, ports};
use tidegate_redis::{Client, Fault, Health, Settings, StoreError, StoreUrl};

fn start(url: &str, settings: Settings) -> Client {
    let url: StoreUrl = url.parse().expect("a URL");
    Client::start(&url, settings).expect("good settings")
}

/// What is wrong with a store. It may take more than one try to find out: a busy machine may take longer than a
/// connection may.
async fn refusal_of(url: &str) -> StoreError {
    let client = start(url, Settings::default());
    eventually("it is found unfit", async || client.ready().await.err().filter(|e| e.fault().is_some())).await
}

async fn fault_of(url: &str) -> Fault {
    refusal_of(url).await.fault().expect("it is one").clone()
}

#[tokio::test]
async fn a_fit_server_is_ready_with_its_database_and_login() {
    let redis = Redis::start(&["--requirepass", "secret", "--databases", "4"]);
    for login in [":secret", "default:secret"] {
        let client = start(&format!("redis://{login}@127.0.0.1:{}/3", redis.port), Settings::default());
        eventually("it is reached", async || client.ready().await.ok()).await;
        assert!(matches!(&client.health()[..], [Health::Up { server, .. }] if server.port == redis.port));
    }
}

#[tokio::test]
async fn a_wrong_login_is_told_and_the_password_is_not() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let port = redis.port;
    assert_eq!(fault_of(&redis.url()).await, Fault::PasswordMissing);
    let wrong = refusal_of(&format!("redis://:hunter2@127.0.0.1:{port}")).await;
    assert!(matches!(wrong.fault(), Some(Fault::Login { user, .. }) if user == "default"), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("hunter2"));
    let stranger = fault_of(&format!("redis://app:hunter2@127.0.0.1:{port}")).await;
    assert!(matches!(stranger, Fault::Login { user, .. } if user == "app"));
}

#[tokio::test]
async fn a_user_who_may_not_ask_is_told_what_is_missing() {
    let redis = Redis::start(&["--user", "app", "on", ">pw", "~*", "&*", "-@all", "+ping", "+hello"]);
    let fault = fault_of(&format!("redis://app:pw@127.0.0.1:{}", redis.port)).await;
    assert!(matches!(&fault, Fault::Forbidden { .. }), "{fault}");
}

#[tokio::test]
async fn a_server_that_forgets_is_refused() {
    let redis = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    assert_eq!(fault_of(&redis.url()).await, Fault::Evicts { policy: "allkeys-lru".into() });
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let fault = fault_of(&replica.url()).await;
    assert_eq!(fault, Fault::Replica { master: format!("127.0.0.1:{}", master.port) });
}

#[tokio::test]
async fn a_cluster_and_a_single_server_are_not_taken_for_each_other() {
    let single = Redis::start(&[]);
    let cluster = Cluster::start(1, false).await;
    let node = cluster.nodes[0].port;
    assert_eq!(fault_of(&format!("redis-cluster://127.0.0.1:{}", single.port)).await, Fault::NotCluster);
    assert_eq!(fault_of(&format!("redis://127.0.0.1:{node}")).await, Fault::IsCluster);
    assert_eq!(fault_of(&format!("redis://127.0.0.1:{node}/1")).await, Fault::IsCluster);
    let told = fault_of(&format!("redis-sentinel://127.0.0.1:{}/cache", single.port)).await;
    assert!(matches!(told, Fault::NotSentinel { .. }), "{told}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told() {
    let redis = Redis::start(&["--databases", "2"]);
    assert_eq!(fault_of(&format!("{}/2", redis.url())).await, Fault::Database { database: 2 });
}

#[tokio::test]
async fn a_server_that_is_not_there_is_no_fault_and_is_found_when_it_comes() {
    let port = ports::free().port();
    let client = start(&format!("redis://127.0.0.1:{port}"), Settings::default());
    let error = client.ready().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let _redis = Redis::start_on(port, &[]);
    eventually("it is found", async || client.ready().await.ok()).await;
}

#[tokio::test]
async fn a_server_that_becomes_unfit_is_told_while_it_runs() {
    let redis = Redis::start(&[]);
    let settings = Settings { heartbeat: Duration::from_millis(10), ..Settings::default() };
    let client = start(&redis.url(), settings);
    eventually("it is reached", async || client.ready().await.ok()).await;
    let fault_now = async || {
        client.health().iter().find_map(|health| match health {
            Health::Down(StoreError::Fault { fault, .. }) => Some(fault.clone()),
            _ => None,
        })
    };
    let () = redis.say("CONFIG SET maxmemory-policy volatile-lru").await;
    let fault = eventually("the policy is noticed", fault_now).await;
    assert_eq!(fault, Fault::Evicts { policy: "volatile-lru".into() });
    let () = redis.say("CONFIG SET maxmemory-policy noeviction").await;
    eventually("it is taken back", async || client.ready().await.ok()).await;
    let () = redis.say("REPLICAOF 127.0.0.1 1").await;
    let fault = eventually("the role is noticed", fault_now).await;
    assert_eq!(fault, Fault::Replica { master: "127.0.0.1:1".into() });
}
