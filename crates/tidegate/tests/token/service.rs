//! Tokens of the client itself.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Call, Secret, clock,
    token::{
        Exchange, GrantError, Over, Rejected, ServiceKey, ServiceToken, ServiceTokens, SessionId, Settings,
        TokenError,
    },
};
use tidegate_core::recovery::Reach;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Idp, until_over};

fn tokens() -> (Idp, Arc<ServiceTokens<Idp>>) {
    let idp = Idp::new();
    let tokens = ServiceTokens::new(idp.clone(), Settings::default()).expect("good settings");
    (idp, Arc::new(tokens))
}

async fn fresh(tokens: &ServiceTokens<Idp>, key: &ServiceKey) -> Result<ServiceToken, TokenError> {
    tokens.fresh(key, &Call::at(clock::now()).within(Duration::from_secs(5))).await
}

#[tokio::test(start_paused = true)]
async fn one_grant_a_life_for_each_scope_and_audience() {
    let (idp, tokens) = tokens();
    let keys = [
        ServiceKey::default().scope("orders"),
        ServiceKey::default().scope("orders").audience("billing"),
        ServiceKey::default().resource("https://billing"),
    ];
    for life in 1..=5 {
        let mut crowd = JoinSet::new();
        for caller in 0..300 {
            let (tokens, key) = (Arc::clone(&tokens), keys[caller % 3].clone());
            crowd.spawn(async move { fresh(&tokens, &key).await.map(drop) });
        }
        assert!(crowd.join_all().await.iter().all(Result::is_ok));
        assert_eq!(idp.grants(), 3 * life);
        until_over().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_at_four_fifths_of_its_life_and_nobody_waits() {
    let (idp, tokens) = tokens();
    let key = ServiceKey::default();
    fresh(&tokens, &key).await.unwrap();
    let mut renewed_at = None;
    for second in 0..265 {
        let now = tokens.fresh(&key, &Call::at(clock::now()).within(Duration::from_millis(1))).await;
        assert!(now.is_ok(), "second {second}");
        if idp.grants() == 2 && renewed_at.is_none() {
            renewed_at = Some(second);
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(renewed_at.is_some_and(|second| (239..=257).contains(&second)), "{renewed_at:?}");
}

#[tokio::test(start_paused = true)]
async fn the_old_token_is_served_to_its_end_while_renewal_fails() {
    let (idp, tokens) = tokens();
    let key = ServiceKey::default();
    let first = fresh(&tokens, &key).await.unwrap();
    idp.always(Some(GrantError::Misconfigured { code: "invalid_client".into() }));
    while clock::now() < first.expires_at() {
        assert!(fresh(&tokens, &key).await.is_ok());
        sleep(Duration::from_secs(1)).await;
    }
    assert!(idp.grants() > 1, "it was tried");
    let error = fresh(&tokens, &key).await.unwrap_err();
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error}");
    // What an operator mended is tried again within a minute.
    idp.always(None);
    sleep(Duration::from_secs(61)).await;
    assert!(fresh(&tokens, &key).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_asks_five_times_and_then_rests_for_a_minute() {
    let (idp, tokens) = tokens();
    let key = ServiceKey::default();
    idp.always(Some(GrantError::Misconfigured { code: "invalid_client".into() }));
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        let error = fresh(&tokens, &key).await.unwrap_err();
        longest = longest.max(error.retry_after().unwrap());
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(idp.grants(), 5);
    assert!(longest > Duration::from_secs(50) && longest <= Duration::from_secs(60), "{longest:?}");
    let other = ServiceKey::default().scope("other");
    assert!(fresh(&tokens, &other).await.is_err());
    assert_eq!(idp.grants(), 6, "another token has tries of its own");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_away_for_long_is_asked_by_probes_only_and_serves_as_soon_as_one_finds_it() {
    let (idp, tokens) = tokens();
    let key = ServiceKey::default();
    idp.always(Some(GrantError::Transient { retry_after: None, why: "503".into() }));
    for _ in 0..600 {
        assert!(fresh(&tokens, &key).await.is_err());
        sleep(Duration::from_secs(1)).await;
    }
    assert!((18..=24).contains(&idp.grants()), "{}", idp.grants());
    idp.always(None);
    sleep(Duration::from_secs(34)).await;
    assert!(fresh(&tokens, &key).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn tokens_that_callers_make_up_cost_the_endpoint_no_more_than_the_budget() {
    let (idp, tokens) = tokens();
    idp.always(Some(GrantError::Terminal { code: "invalid_grant".into() }));
    let (mut held_back, began) = (0, Instant::now());
    for number in 0..2000_u64 {
        let id = SessionId::new(&format!("made-up-{number}")).unwrap();
        let call = Call::at(clock::now()).within(Duration::from_secs(5));
        let exchange = || Exchange::of_access_token(Secret::new(format!("junk-{number}")));
        match tokens.exchanged(&id, &call, exchange).await.unwrap_err() {
            TokenError::LoginNeeded(over) => assert_eq!(over, Over::Refused),
            error => {
                held_back += 1;
                let after = error.retry_after().expect("when to come back");
                assert!(after <= Duration::from_secs(11), "{error}");
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    // 50 in 10 s.
    let most = (began.elapsed().as_secs() / 10 + 1) * 50;
    assert!(held_back > 1000 && idp.grants() <= most, "{} grants, {held_back} held back", idp.grants());
    assert_eq!(tokens.stats().reach, Reach::Up);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_an_upstream_refuses_is_dropped_once_an_interval() {
    let (idp, tokens) = tokens();
    let key = ServiceKey::default();
    let first = fresh(&tokens, &key).await.unwrap();
    assert_eq!(tokens.rejected(key.id(), first.mark(), clock::now()), Rejected::Dropped);
    let second = fresh(&tokens, &key).await.unwrap();
    assert_eq!(
        tokens.rejected(key.id(), first.mark(), clock::now()),
        Rejected::Replaced,
        "calls that were out with it"
    );
    assert_eq!(tokens.rejected(key.id(), second.mark(), clock::now()), Rejected::Kept);
    assert_eq!(idp.grants(), 2);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(tokens.rejected(key.id(), second.mark(), clock::now()), Rejected::Dropped);
}

#[tokio::test(start_paused = true)]
async fn what_is_closed_asks_no_more_and_serves_what_is_good() {
    let (idp, tokens) = tokens();
    let key = ServiceKey::default();
    fresh(&tokens, &key).await.unwrap();
    tokens.close();
    tokens.close();
    assert!(fresh(&tokens, &key).await.is_ok());
    until_over().await;
    assert!(fresh(&tokens, &key).await.is_err());
    assert_eq!((idp.grants(), tokens.stats().in_flight), (1, 0));
}
