//! Stores that are unfit: told at the start with the remedy, and while it runs by the state.

use std::{fs, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{Fleet, config};
use crate::{
    servers::{Redis, cluster::Cluster, say, sentinels::Sentinels},
    support::{
        eventually,
        gateway::{Gateway, command},
        load::Load,
        nginx::Nginx,
        ports,
        process::Process,
        tally::Tally,
    },
};

/// Starts a gateway that must not start, and returns its exit code and what it said.
async fn refused(store: &str) -> (Option<i32>, String) {
    let upstream = Tally::default().upstream().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    let (http, admin) = (ports::free(), ports::free());
    let text = format!(
        "listen: {{ http: \"{http}\", admin: \"{admin}\" }}\n{}",
        config(&upstream, store, "rate: 1/s")
    );
    fs::write(&file, text).unwrap();
    fs::write(directory.path().join("short"), "hunter2").unwrap();
    loop {
        let mut process = Process::start("tidegate", command().args(["serve", "--config"]).arg(&file));
        // A store that takes its time on a busy machine counts as away at first: then this is tried again.
        let is_away = |process: &Process| process.output().contains("the store is away");
        eventually("it says what is wrong", async || process.ended().is_some() || is_away(&process)).await;
        if process.ended().is_some() {
            let status = process.end().await;
            return (status.code(), process.output());
        }
    }
}

/// A server that is an old Redis by what it says: one that knows `HELLO` is of this version, one that does not is older.
async fn old_redis(version: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_as(stream, version));
        }
    });
    addr
}

/// Answers commands, each of which is so many pairs of lines: the length of a word, and the word.
async fn answer_as(mut stream: TcpStream, version: Option<&'static str>) -> Option<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    loop {
        let words = lines.next_line().await.ok()??.strip_prefix('*')?.parse().ok()?;
        let mut command = Vec::new();
        for _ in 0..words {
            lines.next_line().await.ok()??;
            command.push(lines.next_line().await.ok()??);
        }
        let answer = match (command.first()?.as_str(), version) {
            ("HELLO", Some(_)) => "%1\r\n+server\r\n+redis\r\n".to_owned(),
            ("INFO", Some(version)) => {
                let text = format!("redis_version:{version}\r\nredis_mode:standalone\r\nrun_id:0\r\n");
                format!("${}\r\n{text}\r\n", text.len())
            }
            (word, _) => format!("-ERR unknown command `{word}`, with args beginning with: \r\n"),
        };
        write.write_all(answer.as_bytes()).await.ok()?;
    }
}

#[tokio::test]
async fn a_store_that_is_unfit_is_told_at_the_start() {
    let redis = |arguments: &[&str]| Redis::start(arguments);
    let guarded = redis(&["--requirepass", "hunter2"]);
    let evicting = redis(&["--maxmemory-policy", "allkeys-lru"]);
    let cluster = Cluster::start(3, false).await;
    let master = redis(&[]);
    let replica = redis(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let few = redis(&["--databases", "4"]);
    let stranger = redis(&["--user", "app", "on", ">hunter2", "~*", "&*", "-@all", "+ping", "+hello"]);
    let sentinels = Sentinels::start().await;
    let nginx = Nginx::start("location / { return 200 hello; }").await;
    let (old, older) = (old_redis(Some("6.0.16")).await, old_redis(None).await);
    for (store, why) in [
        (guarded.url(), "wants a password"),
        (format!("redis://:hunter3@127.0.0.1:{}", guarded.port), "refuses the login"),
        (evicting.url(), "maxmemory-policy is allkeys-lru"),
        (cluster.nodes[0].url(), "write redis-cluster://"),
        (format!("redis-cluster://127.0.0.1:{}", master.port), "not in cluster mode"),
        (replica.url(), "is a replica of"),
        (format!("{}/9", few.url()), "has no database 9"),
        (format!("redis://app:hunter2@127.0.0.1:{}", stranger.port), "allow it +eval"),
        (format!("redis://127.0.0.1:{}", sentinels.ports[0]), "write redis-sentinel://"),
        (format!("redis-sentinel://127.0.0.1:{}/nobody", sentinels.ports[0]), "knows no master `nobody`"),
        (format!("redis://{old}"), "is Redis 6.0.16; 6.2 or newer is needed"),
        (format!("redis://{older}"), "is Redis older than 6; 6.2 or newer is needed"),
        (format!("redis://{}", nginx.addr()), "name a Redis or Valkey"),
        (format!("rediss://127.0.0.1:{}", master.port), "write redis:// (not rediss://)"),
        (format!("{{ url: {}, key_secret: {{ file: short }} }}", master.url()), "it has 7 bytes"),
    ] {
        let (code, said) = refused(&store).await;
        assert_eq!(code, Some(2), "{store}: {said}");
        assert!(said.contains(why), "{store}: {said}");
        assert!(!said.contains("hunter"), "{said}");
    }
}

#[tokio::test]
async fn a_store_that_is_merely_away_lets_the_gateway_start_and_is_found_later() {
    let port = ports::free().port();
    let url = format!("redis://127.0.0.1:{port}");
    let upstream = Tally::default().upstream().await;
    let mut gateway = Gateway::start(&config(&upstream, &url, "rate: 100/s, algorithm: fixed-window")).await;
    gateway.state_is("the store being called away", |state| state["store"]["state"] == "away").await;
    gateway.process().printed("the store").await;
    let load = Load::start(&[gateway.http()], "early", 1);
    load.refuses(10).await;
    let _redis = Redis::start_on(port, &[]);
    load.admits(10).await;
    gateway.state_is("the store being back", |state| state["store"]["state"] == "up").await;
}

#[tokio::test]
async fn a_reload_to_an_unfit_store_is_refused_and_the_running_one_stays() {
    let (redis, evicting) = (Redis::start(&[]), Redis::start(&["--maxmemory-policy", "allkeys-lru"]));
    let fleet = Fleet::start(1, &redis.url(), "rate: 100/s, algorithm: fixed-window").await;
    let load = fleet.load("stays");
    load.admits(10).await;
    fleet.gateways[0].write(&config(
        &fleet.upstream,
        &evicting.url(),
        "rate: 100/s, algorithm: fixed-window",
    ));
    fleet.gateways[0]
        .state_is("the refusal", |state| {
            state["config"]["last_reload_error"].as_str().is_some_and(|why| why.contains("allkeys-lru"))
        })
        .await;
    load.admits(10).await;
}

#[tokio::test]
async fn a_password_is_read_from_a_file() {
    let redis = Redis::start(&["--requirepass", "hunter2"]);
    let upstream = Tally::default().upstream().await;
    let gateway = Gateway::start_with(|directory| {
        fs::write(directory.join("password"), "hunter2\n").unwrap();
        let store = format!("{{ url: \"{}\", user: default, password: {{ file: password }} }}", redis.url());
        config(&upstream, &store, "rate: 100/s, algorithm: fixed-window")
    })
    .await;
    let load = Load::start(&[gateway.http()], "in", 1);
    load.admits(10).await;
    gateway.state_is("the store being up", |state| state["store"]["state"] == "up").await;
}

#[tokio::test]
async fn a_store_that_becomes_unfit_is_told_by_the_state_and_used_again_once_it_is_mended() {
    let redis = Redis::start(&[]);
    let limit = "rate: 40/s, algorithm: fixed-window, lease: 200ms";
    let mut fleet = Fleet::start(1, &redis.url(), limit).await;
    let load = fleet.load("unfit");
    load.admits(10).await;
    // It stays logged in whatever becomes of logins.
    let mut operator = redis.connect().await;
    for (spoil, mend, why) in [
        (
            vec!["CONFIG SET maxmemory-policy allkeys-lru"],
            "CONFIG SET maxmemory-policy noeviction",
            "maxmemory-policy is allkeys-lru",
        ),
        (
            vec!["CONFIG SET requirepass hunter2", "CLIENT KILL TYPE normal"],
            "ACL SETUSER default nopass",
            "wants a password",
        ),
    ] {
        for words in spoil {
            let _: redis::Value = say(&mut operator, words).await;
        }
        fleet.gateways[0]
            .state_is("the reason", |state| {
                let server = &state["store"]["servers"][0];
                state["store"]["state"] == "away" && server["error"].as_str().is_some_and(|e| e.contains(why))
            })
            .await;
        fleet.gateways[0].process().printed(why).await;
        load.refuses(50).await;
        assert_eq!(super::limit(&fleet.gateways[0]).await["over_admission_possible"], 0);
        let () = say(&mut operator, mend).await;
        load.admits(50).await;
        fleet.gateways[0].state_is("the store being up", |state| state["store"]["state"] == "up").await;
    }
    assert_eq!(load.other(), 0);
    assert!(!fleet.gateways[0].process().output().contains("hunter2"));
}
