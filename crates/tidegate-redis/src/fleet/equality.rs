//! The script is the reference: answer by answer, on a real server whose clock the test sets.

use proptest::prelude::*;
use tidegate_core::{Instant, lease::Leases};

use super::*;
use crate::{
    equality::{Bench, config},
    watch::NOTICED_WITHIN,
};

#[derive(Clone, Debug)]
enum Event {
    Lease { who: u64, back: u64, kept: u32, wanted: u32 },
    GiveBack { who: u64, back: u64 },
    Later(u64),
    Resized(u32),
    AnotherServer,
}

fn events() -> impl Strategy<Value = Event> {
    let back = || prop_oneof![4 => Just(0_u64), 1 => 1..3_u64];
    prop_oneof![
        12 => (0..6_u64, back(), 0..60_u32, 0..120_u32)
            .prop_map(|(who, back, kept, wanted)| Event::Lease { who, back, kept, wanted }),
        2 => (0..6_u64, back()).prop_map(|(who, back)| Event::GiveBack { who, back }),
        6 => (0..900_u64).prop_map(Event::Later),
        1 => (0..200_u32).prop_map(Event::Resized),
        1 => Just(Event::AnotherServer),
    ]
}

/// Milliseconds that a lease lives.
const LIFE: u64 = 1000;

async fn agree_once(watched: Arc<Watched>, limit: u32, events: &[Event]) -> Result<(), StoreError> {
    let mut fleet = RedisFleet { watched, name: "db".into(), limit };
    let life = Duration::from_millis(LIFE);
    let (mut server, mut seqs, mut now) = (0_u64, [10_u64; 6], 1_764_000_000_000_000_u64);
    let at = |micros: u64| Instant::from_nanos(micros * 1000);
    // The first question finds no ledger.
    let mut leases = Leases::learning(limit, at(now) + NOTICED_WITHIN + life);
    let mut begun = None;
    for event in events {
        let run_id = server.to_string();
        let seeing = Seeing { clock: Some(now), run_id: Some(&run_id) };
        if matches!(event, Event::Lease { .. } | Event::GiveBack { .. }) && begun != Some(server) {
            leases = Leases::learning(fleet.limit, at(now) + NOTICED_WITHIN + life);
            begun = Some(server);
        }
        let mut number = |who: u64, back: u64| {
            let seq = &mut seqs[who as usize];
            *seq += 1;
            *seq - back
        };
        match *event {
            Event::Lease { who, back, kept, wanted } => {
                let demand = Demand { seq: number(who, back), kept, wanted };
                let expected = leases.lease(Node(u64::MAX - who), demand, life, at(now));
                let actual = fleet.call("lease", Node(u64::MAX - who), demand, life, &seeing).await?;
                assert_eq!(actual, expected, "{event:?} at {now}");
            }
            Event::GiveBack { who, back } => {
                let demand = Demand { seq: number(who, back), kept: 0, wanted: 0 };
                leases.give_back(Node(u64::MAX - who), demand.seq);
                fleet.call("give_back", Node(u64::MAX - who), demand, life, &seeing).await?;
            }
            Event::Later(millis) => now += millis * 1000,
            Event::Resized(limit) => {
                fleet.limit = limit;
                leases.resize(limit);
            }
            Event::AnotherServer => server += 1,
        }
    }
    Ok(())
}

#[test]
fn the_script_is_the_reference() {
    let bench = Bench::new();
    proptest!(config(), |(limit in 0..300_u32, events in proptest::collection::vec(events(), 1..60))| {
        bench.compare(async |watched| agree_once(watched, limit, &events).await);
    });
}
