//! Tokens of the client itself that processes share.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Call, Secret, clock,
    token::{
        Exchange, GrantError, MemorySessions, Over, Rejected, ServiceKey, ServiceToken, ServiceTokens,
        SessionId, Settings, TokenError,
    },
};
use tokio::{task::JoinSet, time::sleep};

use super::{Distant, Idp, Mortal, until_over};
use crate::idp::Fault;

/// A process that shares its tokens.
struct Gateway {
    tokens: ServiceTokens<Mortal<Idp>, Distant>,
    store: Distant,
}

impl Gateway {
    async fn fresh(&self, key: &ServiceKey) -> Result<ServiceToken, TokenError> {
        self.tokens.fresh(key, &Call::at(clock::now()).within(Duration::from_secs(20))).await
    }
}

fn fleet(idp: &Idp, size: usize) -> Vec<Arc<Gateway>> {
    let store = MemorySessions::default();
    let start = |_| {
        let store = Distant::new(&store);
        let idp = Mortal { inner: idp.clone(), life: store.life.clone() };
        let tokens = ServiceTokens::shared(idp, Settings::default(), store.clone()).expect("good settings");
        Arc::new(Gateway { tokens, store })
    };
    (0..size).map(start).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fleet_asks_once_a_life_for_each_scope_and_audience() {
    for size in [1, 2, 5] {
        let idp = Idp::new();
        let fleet = fleet(&idp, size);
        let keys = [ServiceKey::default().scope("orders"), ServiceKey::default().audience("billing")];
        for life in 1..=3 {
            let mut calls = JoinSet::new();
            for (gateway, key) in (0..500).map(|n| (&fleet[n % size], &keys[n / size % 2])) {
                let (gateway, key) = (Arc::clone(gateway), key.clone());
                calls.spawn(async move { gateway.fresh(&key).await.expect("a token").generation() });
            }
            let generations = calls.join_all().await;
            assert!(generations.iter().all(|of| *of == generations[0]), "{generations:?}");
            assert_eq!(idp.grants(), life * 2, "{size} processes");
            until_over().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_due_is_renewed_by_one_process_for_all_and_nobody_waits() {
    let idp = Idp::new();
    let (fleet, key) = (fleet(&idp, 5), ServiceKey::default());
    for _ in 0..1200 {
        for gateway in &fleet {
            let now = Call::at(clock::now());
            match gateway.tokens.try_fresh(&key, &now) {
                Some(token) => assert!(token.is_ok()),
                None => {
                    assert!(gateway.fresh(&key).await.is_ok());
                    assert_eq!(idp.grants(), 1, "nobody waits but for the first");
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
    // 20 minutes of tokens that are renewed after four to four and a quarter of five.
    assert!((5..=6).contains(&idp.grants()), "{}", idp.grants());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_each_process_asks_for_itself_and_no_call_fails() {
    let idp = Idp::new();
    let (fleet, key) = (fleet(&idp, 3), ServiceKey::default());
    fleet.iter().for_each(|gateway| gateway.store.down(true));
    for gateway in &fleet {
        assert!(gateway.fresh(&key).await.is_ok());
    }
    assert_eq!(idp.grants(), 3);
    fleet.iter().for_each(|gateway| gateway.store.down(false));
    sleep(Duration::from_secs(60)).await;
    for gateway in &fleet {
        assert!(gateway.fresh(&key).await.is_ok());
    }
    assert_eq!(idp.grants(), 4, "one that all share, as soon as they can");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_with_a_grant_out_is_followed_by_another_one() {
    for at in [1, 30, 80] {
        let idp = Idp::new();
        let (fleet, key) = (fleet(&idp, 2), ServiceKey::default());
        fleet[1].fresh(&key).await.unwrap();
        until_over().await;
        let asking = tokio::time::timeout(Duration::from_millis(at), fleet[0].fresh(&key));
        assert!(asking.await.is_err());
        fleet[0].store.life.kill();
        assert!(fleet[1].fresh(&key).await.is_ok(), "after {at} ms: within the lease of a dead holder");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_endpoint_asks_for_is_kept_by_all_processes_and_for_all_tokens() {
    let idp = Idp::new();
    let fleet = fleet(&idp, 3);
    let retry_after = Some(Duration::from_secs(90));
    idp.next(Fault::Refuse(GrantError::Transient { retry_after, why: "HTTP 429".into() }));
    let error = fleet[0].fresh(&ServiceKey::default()).await.unwrap_err();
    assert_eq!(error.retry_after(), retry_after, "{error}");
    for (gateway, scope) in [(0, "a"), (1, "a"), (2, "b")] {
        let error = fleet[gateway].fresh(&ServiceKey::default().scope(scope)).await.unwrap_err();
        let after = error.retry_after().unwrap();
        assert!(after > Duration::from_secs(85) && after <= Duration::from_secs(90), "{error}");
    }
    assert_eq!(idp.grants(), 1);
    sleep(Duration::from_secs(91)).await;
    assert!(fleet[2].fresh(&ServiceKey::default().scope("b")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_upstreams_refuse_is_dropped_once_an_interval_over_all_processes() {
    let idp = Idp::new();
    let (fleet, key) = (fleet(&idp, 3), ServiceKey::default());
    let mut first = Vec::new();
    for gateway in &fleet {
        first.push(gateway.fresh(&key).await.unwrap());
    }
    let became = |gateway: usize, token: &ServiceToken| {
        fleet[gateway].tokens.rejected(key.id(), token.mark(), clock::now())
    };
    assert_eq!(became(0, &first[0]), Rejected::Dropped);
    assert_eq!(became(0, &first[0]), Rejected::Replaced, "of calls that were out with it");
    assert_eq!(fleet[0].fresh(&key).await.unwrap().generation(), 3);
    // Another process hears of the new one, or finds it when it drops its own.
    became(1, &first[1]);
    sleep(Duration::from_millis(50)).await;
    for (number, gateway) in fleet.iter().enumerate() {
        let second = gateway.fresh(&key).await.unwrap();
        assert_eq!(second.generation(), 3);
        assert_eq!(became(number, &second), Rejected::Kept);
    }
    assert_eq!(idp.grants(), 2);
    sleep(Duration::from_secs(31)).await;
    let second = fleet[2].fresh(&key).await.unwrap();
    assert_eq!(became(2, &second), Rejected::Dropped);
    assert_eq!(fleet[2].fresh(&key).await.unwrap().generation(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_callers_token_is_exchanged_once_for_all_and_one_that_is_not_taken_is_told_as_such() {
    let idp = Idp::new();
    let fleet = fleet(&idp, 2);
    let call = || Call::at(clock::now()).within(Duration::from_secs(5));
    let of = |subject: &'static str| move || Exchange::of_access_token(Secret::new(subject));
    let (ann, bob) = (SessionId::of_hash(&[1; 32]), SessionId::of_hash(&[2; 32]));
    for gateway in &fleet {
        assert!(gateway.tokens.exchanged(&ann, &call(), of("ann's")).await.is_ok());
        assert!(gateway.tokens.try_exchanged(&ann, &call()).is_some());
    }
    assert_eq!(idp.grants(), 1);
    idp.always(Some(GrantError::Terminal { code: "invalid_grant".into() }));
    for gateway in fleet.iter().chain(&fleet) {
        let told = gateway.tokens.exchanged(&bob, &call(), of("bob's")).await.unwrap_err();
        assert_eq!(told, TokenError::LoginNeeded(Over::Refused));
        assert!(gateway.tokens.exchanged(&ann, &call(), of("ann's")).await.is_ok());
    }
    assert_eq!(idp.grants(), 2);
}
