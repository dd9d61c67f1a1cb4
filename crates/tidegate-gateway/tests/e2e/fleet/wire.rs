//! Between gateways and store messages meet whatever a network does to them, and the limit holds.

use std::time::Duration;

use super::{
    Fleet, WINDOW,
    meddler::{Fault, Meddler},
};
use crate::{servers::Redis, support::load::Load};

/// Turns of a test: in each another gateway is called below the limit, and the others beyond it.
const TURNS: usize = 9;
const MOST_TURNS: usize = 60;
/// So often each fault is met before a test ends.
const TIMES: usize = 5;
/// The time from one call to the next of a caller that stays below the limit.
const CALM: Duration = Duration::from_millis(20);

/// Three gateways behind a meddler: they hold credit ahead, hand it back, and ask for single calls, of two keys at once.
async fn meddle(faults: &'static [Fault]) {
    let redis = Redis::start(&[]);
    let meddler = Meddler::before(&redis, faults).await;
    let fleet = Fleet::start(3, &meddler.url(), "rate: 100/s, algorithm: fixed-window").await;
    let addresses = fleet.addresses();
    let mut turn = 0;
    // Credit is seldom handed back while answers are late.
    let is_sure = |fault: Fault| faults == [fault] || fault != Fault::BackTwice;
    while turn < TURNS || faults.iter().any(|fault| is_sure(*fault) && meddler.deeds.of(*fault) < TIMES) {
        assert!(turn < MOST_TURNS, "not each of {faults:?} was met");
        let order = [0, 1, 2].map(|at| addresses[(turn + at) % 3]);
        let calm = Load::paced(&order[..1], "alice", 1, CALM);
        let other = Load::paced(&order, "bob", 1, CALM);
        calm.admits(5).await;
        let rush = Load::start(&order[1..], "alice", 2);
        rush.refuses(60).await;
        assert_eq!(calm.other() + other.other() + rush.other(), 0, "it is no error of a gateway");
        turn += 1;
    }
    fleet.tally.assert_windows(100, WINDOW);
}

#[tokio::test]
async fn questions_that_arrive_twice_admit_nothing_more() {
    meddle(&[Fault::Twice]).await;
}

#[tokio::test]
async fn credit_that_is_handed_back_twice_is_given_out_once() {
    meddle(&[Fault::BackTwice]).await;
}

#[tokio::test]
async fn answers_that_change_places_admit_nothing_more() {
    meddle(&[Fault::Swap]).await;
}

#[tokio::test]
async fn hints_that_are_lost_late_or_repeated_admit_nothing_more() {
    meddle(&[Fault::Hints]).await;
}

#[tokio::test]
async fn answers_that_are_late_or_lost_admit_nothing_more() {
    meddle(&[Fault::Late, Fault::Cut]).await;
}

#[tokio::test]
async fn all_faults_of_a_network_together_admit_nothing_more() {
    meddle(&Fault::ALL).await;
}
