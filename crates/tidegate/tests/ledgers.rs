//! What every ledger must do, on the one in memory.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/ledgers.rs"]
mod ledgers;

use std::num::NonZeroU32;

use tidegate::{
    fleet::{Ledger, LedgerErrorKind, LocalLedger, Subject},
    throttle::Key,
};

#[tokio::test(start_paused = true)]
async fn a_ledger_in_memory_does_what_every_ledger_must() {
    ledgers::all(&LocalLedger::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_in_memory_that_is_full_refuses_new_keys_and_forgets_idle_ones() {
    let ledger = LocalLedger::with_room_for(NonZeroU32::new(100).unwrap());
    let rule = ledgers::rule(10);
    let mut refused = 0;
    for key in 0..2000 {
        let subject = Subject { limit: "suite", key: Key::of(&[key as u8, (key / 256) as u8]) };
        match ledger.ask(subject, &rule, &ledgers::ask(1, 1, 1)).await {
            Ok(reply) => assert_eq!(reply.granted, 1),
            Err(error) => {
                assert_eq!(error.kind(), LedgerErrorKind::Busy);
                refused += 1;
            }
        }
    }
    assert!(refused > 1000 && ledger.accounts() <= 8 * 64, "{refused} refused, {} kept", ledger.accounts());
    tokio::time::sleep(std::time::Duration::from_secs(2 * 86_400)).await;
    for key in 0..20 {
        let subject = Subject { limit: "suite", key: Key::of(&[key]) };
        assert!(ledger.ask(subject, &rule, &ledgers::ask(1, 2, 1)).await.is_ok());
    }
}
