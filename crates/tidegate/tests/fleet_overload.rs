//! A ledger with too much to do is late, and not away, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

#[expect(dead_code, reason = "what these tests do not need of it")]
#[path = "support/wire.rs"]
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tidegate::{
    By, Call, Instant,
    clock::now,
    fleet::{
        Account, Adjusted, Adjustment, FleetThrottle, Hint, Ledger, LedgerError, LocalLedger, Rule, Subject,
    },
    throttle::{Algorithm, Key, Quota},
};
use tidegate_core::ledger::{Ask, Reply};
use tokio::{sync::broadcast, time::sleep};
use wire::Wire;

/// A ledger that answers others, or nobody, while it keeps these waiting.
#[derive(Clone)]
struct Busy {
    wire: Wire,
    answers_others: Arc<AtomicBool>,
}

impl Ledger for Busy {
    async fn ask(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Result<Reply, LedgerError> {
        Ledger::ask(&self.wire, subject, rule, ask).await
    }

    async fn inspect(&self, subject: Subject<'_>, rule: &Rule) -> Result<Account, LedgerError> {
        self.wire.inspect(subject, rule).await
    }

    async fn adjust(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
    ) -> Result<Adjusted, LedgerError> {
        self.wire.adjust(subject, rule, adjustment).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.wire.hints()
    }

    fn heard_at(&self, _: Key) -> Option<Instant> {
        self.answers_others.load(Ordering::SeqCst).then(now)
    }
}

fn throttle() -> (FleetThrottle, Busy) {
    let busy = Busy { wire: Wire::new(LocalLedger::new()), answers_others: Arc::default() };
    let quota = Quota::of("10/min".parse().expect("a rate")).algorithm(Algorithm::FixedWindow);
    let rule = Rule::of(quota.build().expect("a quota")).build().expect("a rule");
    (FleetThrottle::builder("limit", rule, busy.clone()).build().expect("a runtime"), busy)
}

/// So many calls at once, each with a key of its own, of which none is answered.
async fn unanswered(throttle: &FleetThrottle, round: u16) {
    let call = async |number: u16| {
        let key = Key::of(&[round.to_le_bytes(), number.to_le_bytes()].concat());
        throttle.enter(&Call::at(now()), &key).await.map(drop).map_err(|refused| refused.by)
    };
    for answer in join_all((0..100).map(call)).await {
        assert_eq!(answer, Err(By::Store));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_answers_others_is_not_away_however_many_it_keeps_waiting() {
    let (throttle, busy) = throttle();
    busy.wire.slow(60_000);
    busy.answers_others.store(true, Ordering::SeqCst);
    for round in 0..50 {
        unanswered(&throttle, round).await;
    }
    assert_eq!((throttle.stats().is_away, throttle.stats().outages), (false, 0));
    busy.answers_others.store(false, Ordering::SeqCst);
    unanswered(&throttle, 50).await;
    unanswered(&throttle, 51).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!((throttle.stats().is_away, throttle.stats().outages), (true, 1), "it answers nobody");
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_under_way_together_are_one_loss() {
    let (throttle, busy) = throttle();
    for round in 0..20 {
        busy.wire.cut(true);
        unanswered(&throttle, round).await;
        assert_eq!(throttle.stats().outages, 0, "in round {round}");
        busy.wire.cut(false);
        assert!(throttle.enter(&Call::at(now()), &Key::of(&round.to_le_bytes())).await.is_ok());
    }
    busy.wire.cut(true);
    unanswered(&throttle, 20).await;
    let began = now();
    unanswered(&throttle, 21).await;
    assert!(now().since(began) < Duration::from_millis(60), "nobody waits for longer than one deadline");
    sleep(Duration::from_millis(1)).await;
    assert!(throttle.stats().is_away, "nobody waits for a third one");
}
