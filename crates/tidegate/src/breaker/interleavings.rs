//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate --lib interleavings`.

use shuttle::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tidegate_core::{
    Call, Instant, Outcome,
    breaker::{Phase, Settings},
};

use super::slot::Slot;

const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);
const LATER: Instant = Instant::from_nanos(1_700_000_005_000_000_000);
const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

#[test]
fn in_every_interleaving_one_probe_goes_and_only_its_end_counts() {
    shuttle::check_random(
        || {
            let slot = Arc::new(Slot::new(Settings::default(), None, START).unwrap());
            let late = slot.admit(&Call::at(START)).unwrap();
            let admitted = Arc::new(AtomicUsize::new(0));
            let failing: Vec<_> = (0..5)
                .map(|_| {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || {
                        let ticket = slot.admit(&Call::at(START)).unwrap();
                        slot.settle(ticket, OVERLOAD, START);
                    })
                })
                .collect();
            failing.into_iter().for_each(|thread| thread.join().unwrap());
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    let (slot, admitted) = (Arc::clone(&slot), Arc::clone(&admitted));
                    thread::spawn(move || {
                        let probe = slot.admit(&Call::at(LATER));
                        admitted.fetch_add(usize::from(probe.is_ok()), Ordering::SeqCst);
                        probe
                    })
                })
                .collect();
            slot.settle(late, Outcome::Success, LATER);
            let probes: Vec<_> =
                callers.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect();
            assert_eq!((probes.len(), admitted.load(Ordering::SeqCst)), (1, 1));
            assert_eq!(slot.snapshot(LATER).phase, Phase::HalfOpen);
            slot.settle(probes[0], Outcome::Success, LATER);
            assert_eq!(slot.snapshot(LATER).phase, Phase::Closed);
        },
        2000,
    );
}
