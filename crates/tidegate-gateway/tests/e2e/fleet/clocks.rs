//! Gateways whose clocks are wrong and are stepped: windows are those of the store, and no other clock matters.

use std::iter::zip;

use super::{Fleet, WINDOW, config};
use crate::{
    servers::Redis,
    support::{clock::Clock, gateway::Gateway, tally::micros},
};

const HOUR: i64 = 3600;

#[tokio::test]
async fn gateways_whose_clocks_are_hours_off_and_are_stepped_keep_the_limit() {
    if !Clock::can_be() {
        return;
    }
    let redis = Redis::start(&[]);
    let limit = "rate: 40/s, algorithm: fixed-window";
    let mut fleet = Fleet::start(1, &redis.url(), limit).await;
    let clocks = [HOUR, -HOUR].map(Clock::ahead);
    for (clock, ahead) in zip(&clocks, [HOUR, -HOUR]) {
        let config = config(&fleet.upstream, &redis.url(), limit);
        let gateway = Gateway::start_under(&clock.environment(), &config).await;
        let started = gateway.state().await["config"]["loaded_at_seconds"].as_f64().unwrap();
        let off = started - micros() as f64 / 1e6;
        assert!((off - ahead as f64).abs() < 600.0, "it believes the clock, which is {off} s ahead");
        fleet.gateways.push(gateway);
    }
    let load = fleet.load("off");
    load.admits(100).await;
    for (clock, ahead) in zip(&clocks, [-HOUR, 24 * HOUR]) {
        clock.step(ahead);
    }
    load.admits(160).await;
    drop(load);
    fleet.tally.assert_windows(40, WINDOW);
    for gateway in &fleet.gateways {
        gateway.state_is("calls admitted", |state| state["limits"][0]["admitted"].as_u64() > Some(0)).await;
    }
}
