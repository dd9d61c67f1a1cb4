//! Fleets and limits that change their size while they are used.

use std::env;

use super::{CALLERS, Fleet, LONG_WINDOW, WINDOW, patient};
use crate::{servers::Redis, support::load::Load};

#[tokio::test]
async fn eight_gateways_in_a_burst_admit_the_limit_and_no_call_more() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(8, &patient(&redis), "rate: 100/1000h, algorithm: fixed-window").await;
    let loads = ["alice", "bob"].map(|key| fleet.load(key));
    for load in &loads {
        load.has_admitted(100).await;
        load.refuses(400).await;
        assert_eq!(load.admitted(), 100);
    }
    drop(loads);
    fleet.tally.assert_windows(100, LONG_WINDOW);
    assert_eq!(fleet.tally.calls(), 200);
}

/// The most gateways of a fleet that grows and shrinks; `TIDEGATE_FLEET_GATEWAYS=32` asks for more of the machine.
const MOST: usize = 8;
/// How many it begins with, and ends with.
const FEW: usize = 4;

#[tokio::test]
async fn gateways_that_come_and_go_under_load_keep_the_limit() {
    let most = env::var("TIDEGATE_FLEET_GATEWAYS").map_or(MOST, |most| most.parse().unwrap());
    assert!(most >= 2 * FEW, "those that stay are others than those that begin");
    let redis = Redis::start(&[]);
    let limit = "rate: 200/s, algorithm: fixed-window";
    let mut fleet = Fleet::start(FEW, &redis.url(), limit).await;
    let first = fleet.load("all");
    first.admits(300).await;
    fleet.join(most - FEW, limit).await;
    let (some, last) = (fleet.addresses()[FEW..].to_vec(), most - 2 * FEW);
    let passing = Load::start(&some[..last], "all", CALLERS);
    let staying = Load::start(&some[last..], "all", CALLERS);
    staying.admits(200).await;
    let goes = most - FEW;
    for killed in fleet.gateways.drain(..goes / 2) {
        killed.kill();
    }
    staying.admits(200).await;
    for mut ended in fleet.gateways.drain(..goes - goes / 2) {
        assert!(ended.drain().await.success());
    }
    staying.admits(400).await;
    drop((first, passing, staying));
    fleet.tally.assert_windows(200, WINDOW);
}

#[tokio::test]
async fn a_limit_changed_inside_a_window_counts_what_was_spent_in_it() {
    let redis = Redis::start(&[]);
    let limit = |rate: &str| format!("rate: {rate}, algorithm: fixed-window");
    let fleet = Fleet::start(2, &patient(&redis), &limit("60/1000h")).await;
    let load = fleet.load("changed");
    for (rate, admitted) in [("60/1000h", 60), ("20/1000h", 60), ("100/1000h", 100)] {
        fleet.reload(&limit(rate));
        for gateway in &fleet.gateways {
            gateway.state_is("the reload", |state| state["limits"][0]["rate"] == rate).await;
        }
        load.has_admitted(admitted).await;
        load.refuses(100).await;
        assert_eq!(load.admitted(), admitted, "under {rate}");
    }
}
