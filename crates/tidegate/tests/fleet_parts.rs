//! A ledger of several parts, of which one is away: whoever has to do with the others does not notice.
#![cfg(not(any(loom, shuttle)))]

#[expect(dead_code, reason = "what these tests do not need of it")]
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use tidegate::{
    By, Call,
    clock::now,
    fleet::{
        Account, Adjusted, Adjustment, FleetThrottle, Hint, Ledger, LedgerError, LocalLedger, Rule, Subject,
    },
    throttle::{Algorithm, Key, Quota},
};
use tidegate_core::ledger::{Ask, Reply};
use tokio::{sync::broadcast, time::sleep};
use tokio_test::{assert_ready, task};
use wire::Wire;

const MS: Duration = Duration::from_millis(1);

/// A ledger in two halves, each on a wire of its own.
#[derive(Clone)]
struct Halves([Wire; 2]);

impl Halves {
    fn of(&self, subject: Subject<'_>) -> &Wire {
        &self.0[usize::from(is_odd(subject.key))]
    }
}

impl Ledger for Halves {
    async fn ask(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Result<Reply, LedgerError> {
        Ledger::ask(self.of(subject), subject, rule, ask).await
    }

    async fn inspect(&self, subject: Subject<'_>, rule: &Rule) -> Result<Account, LedgerError> {
        self.of(subject).inspect(subject, rule).await
    }

    async fn adjust(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
    ) -> Result<Adjusted, LedgerError> {
        self.of(subject).adjust(subject, rule, adjustment).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.0[0].hints()
    }

    fn parts(&self) -> u32 {
        2
    }
}

fn is_odd(key: Key) -> bool {
    key.bits() % 2 == 1
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_away_refuses_no_call_of_another() {
    let ledger = LocalLedger::new();
    let halves = Halves([Wire::new(ledger.clone()), Wire::new(ledger)]);
    let quota = Quota::of("100/min".parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
    let rule = Rule::of(quota).build().unwrap();
    let throttle = FleetThrottle::builder("limit", rule, halves.clone()).build().unwrap();
    halves.0[1].cut(true);
    let mut refused = 0;
    for number in 0..1000_u128 {
        // Of either half one after the other, and each key is new: all of them have to ask.
        let (call, key) = (Call::at(now()), Key::from_bits(((number + 1) << 8) | (number % 2)));
        let entered = throttle.enter(&call, &key).await;
        if is_odd(key) {
            assert_eq!(entered.unwrap_err().by, By::Store);
            refused += 1;
        } else {
            assert!(entered.is_ok(), "call {number}, of the half that is there");
        }
        sleep(MS).await;
    }
    let stats = throttle.stats();
    assert_eq!((refused, stats.unanswered, stats.local + stats.waited), (500, 500, 500));
    assert_eq!((stats.is_away, stats.parts_away), (true, 1));
    assert!(stats.away_for.is_some_and(|long| long > MS * 500), "{:?}", stats.away_for);
    // What is known to be away is not waited for, and found to be back by itself.
    let (call, key) = (Call::at(now()), Key::from_bits(1));
    let mut entered = task::spawn(throttle.enter(&call, &key));
    assert_eq!(assert_ready!(entered.poll()).unwrap_err().by, By::Store);
    drop(entered);
    halves.0[1].cut(false);
    sleep(MS * 200).await;
    assert!(throttle.enter(&Call::at(now()), &key).await.is_ok());
    let stats = throttle.stats();
    assert_eq!((stats.is_away, stats.parts_away, stats.away_for), (false, 0, None));
}
