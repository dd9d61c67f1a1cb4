//! Several gateways on one store: what reaches the upstream stays within the limit in every window, whatever fails.

mod clocks;
mod failover;
mod faults;
mod meddler;
mod settings;
mod sizes;
mod stores;
mod wire;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use futures_util::future::join_all;

use crate::{
    servers::Redis,
    setup::guarded,
    support::{
        eventually,
        gateway::Gateway,
        load::Load,
        tally::{Tally, micros},
        upstream::Upstream,
    },
};

/// A window of the tests that look at many of them.
const WINDOW: Duration = Duration::from_secs(1);
/// A window whose edge no test meets, but for one every six weeks.
const LONG_WINDOW: Duration = Duration::from_secs(1000 * 3600);
/// Callers at each gateway.
const CALLERS: usize = 2;

/// Gateways that share a store and an upstream.
struct Fleet {
    gateways: Vec<Gateway>,
    tally: Tally,
    upstream: Upstream,
    store: String,
}

impl Fleet {
    /// Starts so many, with this store and a limit `all` of these settings, kept by key.
    async fn start(count: usize, store: &str, limit: &str) -> Self {
        let tally = Tally::default();
        let upstream = tally.upstream().await;
        let config = config(&upstream, store, limit);
        let gateways = join_all((0..count).map(|_| Gateway::start(&config))).await;
        Self { gateways, tally, upstream, store: store.to_owned() }
    }

    /// Adds so many more of these settings.
    async fn join(&mut self, count: usize, limit: &str) {
        let config = config(&self.upstream, &self.store, limit);
        self.gateways.extend(join_all((0..count).map(|_| Gateway::start(&config))).await);
    }

    /// The same with other settings of the limit.
    fn reload(&self, limit: &str) {
        for gateway in &self.gateways {
            gateway.write(&config(&self.upstream, &self.store, limit));
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(Gateway::http).collect()
    }

    /// Callers of one key at all of them.
    fn load(&self, key: &str) -> Load {
        Load::start(&self.addresses(), key, CALLERS)
    }
}

fn config(upstream: &Upstream, store: &str, limit: &str) -> String {
    let limits = format!("all: {{ key: [\"header:x-key\"], {limit} }}");
    format!(
        "log: {{ access: false }}\nstore: {store}\nnamespace: test\n{}",
        guarded(upstream.addr(), "", &limits, "limits: [all]")
    )
}

/// A store that is given time: credit is lost with an answer that comes too late, and who counts to the last unit
/// wants all of it.
fn patient(redis: &Redis) -> String {
    patient_with(&redis.url())
}

fn patient_with(url: &str) -> String {
    format!("{{ url: \"{url}\", deadline: 10s }}")
}

/// Waits until a window has begun that had not yet when this was called.
async fn next_window() {
    let window = || micros() / WINDOW.as_micros() as u64;
    let now = window();
    eventually("the next window", async || window() > now).await;
}

/// The first limit in `/state`.
async fn limit(gateway: &Gateway) -> HashMap<String, serde_json::Value> {
    serde_json::from_value(gateway.state().await["limits"][0].clone()).unwrap()
}

#[tokio::test]
async fn any_number_of_gateways_keep_a_limit_by_the_clock_of_the_store() {
    let redis = Redis::start(&[]);
    for count in [1, 2, 4] {
        let fleet = Fleet::start(count, &redis.url(), "rate: 40/s, algorithm: fixed-window").await;
        let key = format!("of-{count}");
        let load = fleet.load(&key);
        load.admits(100).await;
        load.refuses(50).await;
        drop(load);
        fleet.tally.assert_windows(40, WINDOW);
        let limit = limit(&fleet.gateways[0]).await;
        assert_eq!(limit["over_admission_possible"], 0, "{limit:?}");
    }
}

#[tokio::test]
async fn a_limit_below_the_number_of_gateways_is_kept() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(3, &redis.url(), "rate: 1/s, algorithm: fixed-window").await;
    let load = fleet.load("one");
    load.admits(3).await;
    fleet.tally.assert_windows(1, WINDOW);
}

#[tokio::test]
async fn no_span_of_a_sliding_window_holds_more_than_the_limit() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &redis.url(), "rate: 40/s, algorithm: sliding-window").await;
    let load = fleet.load("any-span");
    load.admits(100).await;
    fleet.tally.assert_sliding(40, WINDOW);
}

#[tokio::test]
async fn a_token_bucket_of_a_fleet_stays_in_its_envelope() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &redis.url(), "rate: 40/s, burst: 20").await;
    let load = fleet.load("envelope");
    load.admits(100).await;
    fleet.tally.assert_envelope(20, 40.0, Duration::from_secs(60));
}

#[tokio::test]
async fn keys_are_the_same_in_every_gateway_and_apart_from_each_other() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &patient(&redis), "rate: 5/1000h, algorithm: fixed-window").await;
    let loads = ["alice", "bob", "carol"].map(|key| fleet.load(key));
    for load in &loads {
        load.has_admitted(5).await;
        load.refuses(20).await;
        assert_eq!(load.admitted(), 5, "all of its own limit, and no more");
    }
    drop(loads);
    fleet.tally.assert_windows(5, LONG_WINDOW);
    assert_eq!(fleet.tally.calls(), 15);
}
