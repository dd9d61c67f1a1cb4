//! Between gateways and store messages meet whatever a network does to them, and the limit holds.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use super::{CALLERS, Fleet, meddler::Meddler};
use crate::{
    servers::Redis,
    support::{eventually, load::Load},
};

/// Calls of a turn in which two of three gateways are called.
const TURN: usize = 150;
/// So often each fault is met before a test may end.
const TIMES: usize = 10;

#[tokio::test]
async fn messages_that_are_lost_late_repeated_or_out_of_order_admit_nothing_more() {
    for (limit, period) in [(40, 1), (600, 3)] {
        let redis = Redis::start(&[]);
        let meddler = Meddler::before(&redis).await;
        let settings = format!("rate: {limit}/{period}s, algorithm: fixed-window, lease: 1s");
        let fleet = Fleet::start(3, &meddler.url(), &settings).await;
        let deeds = &meddler.deeds;
        let all = [&deeds.repeated, &deeds.late, &deeds.swapped, &deeds.lost, &deeds.hints];
        let met = |deed: &&AtomicUsize| deed.load(Relaxed) >= TIMES;
        let mut turn = 0;
        while turn < 12 || !all.iter().all(met) {
            // Who is not called any more hands its credit back.
            let two = [turn % 3, (turn + 1) % 3].map(|at| fleet.gateways[at].http());
            let loads = ["alice", "bob"].map(|key| Load::start(&two, key, CALLERS));
            for load in &loads {
                let answered = async || load.admitted() + load.refused() >= TURN;
                eventually("calls answered", answered).await;
                assert_eq!(load.other(), 0, "whatever its store does is no error of a gateway");
            }
            turn += 1;
        }
        assert!(fleet.tally.calls() > limit, "{} calls", fleet.tally.calls());
        fleet.tally.assert_windows(limit, Duration::from_secs(period));
    }
}
