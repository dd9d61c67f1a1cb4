//! How many grants there are.

use super::*;

#[tokio::test]
async fn calls_carry_the_upstreams_token_in_place_of_their_own_and_all_share_one_grant() {
    let idp = Arc::new(Idp::start().await);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let mut gateway =
        gateway(&upstream, &idp, "scope: [orders, invoices]\naudience: https://api.example").await;
    let answers = at_once(&gateway, 300).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK && answer.text() == "served"));
    assert_eq!((idp.counts().asked, idp.counts().granted, idp.counts().discovery), (1, 1, 1));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 300);
    assert!(seen.iter().all(|text| text.starts_with("Bearer at-") && *text == seen[0]), "{:?}", seen[0]);
    let asked = &idp.asked()[0];
    assert_eq!((asked.grant.as_str(), asked.auth), ("client_credentials", "basic"));
    assert_eq!(asked.form["scope"], "orders invoices");
    assert_eq!(asked.form["audience"], "https://api.example");
    assert!(
        (1.0..=3600.0)
            .contains(&gateway.metric("tidegate_token_expires_in_seconds{token=\"billing\"}").await)
    );
    assert_eq!(
        gateway.metric("tidegate_token_grants_total{token=\"billing\",outcome=\"success\"}").await,
        1.0
    );
    token_is(&gateway, "fresh").await;
    shows_no_secret(&mut gateway, &idp.secrets()).await;
}

#[tokio::test]
async fn calls_that_come_while_a_token_is_granted_wait_for_that_one() {
    let idp = Arc::new(Idp::start().await);
    idp.always(Does::GrantsLate);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "max_wait: 60s").await;
    let calls = at_once(&gateway, 100);
    let released = async {
        // The gateway itself may wait beside them, as it asks for a token when it starts.
        let waiting = |state: &serde_json::Value| state["tokens"][0]["waiting"].as_u64() >= Some(100);
        gateway.state_is("100 calls waiting", waiting).await;
        idp.release();
    };
    let (answers, ()) = tokio::join!(calls, released);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!((idp.counts().asked, upstream.seen().len()), (1, 100));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_no_call_waits_for_that() {
    let idp = Arc::new(Idp::start().await);
    // Due between 60 % and 80 % of 10 s.
    idp.life(10);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    // From here on a call that had to wait for a grant would be refused.
    idp.always(Does::GrantsLate);
    let second_asked = async || {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
        idp.counts().asked == 2
    };
    eventually("the renewal beginning", second_asked).await;
    let first = upstream.seen()[0].clone();
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    assert_eq!(upstream.seen().last(), Some(&first), "the old one is good until the new one is there");
    idp.release();
    let changed = async || {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
        *upstream.seen().last().unwrap() != first
    };
    eventually("calls carrying the new token", changed).await;
    assert_eq!(idp.counts().asked, 2);
}

#[tokio::test]
async fn a_token_that_the_upstream_calls_invalid_is_given_up_once_in_an_interval() {
    let idp = Arc::new(Idp::start().await);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "rejected_interval: 1h").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    idp.forget_access_tokens();
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK, "with the next token");
    assert_eq!(idp.counts().granted, 2);
    // An upstream that takes no token does not make the provider busy.
    idp.forget_access_tokens();
    for _ in 0..20 {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(idp.counts().granted, 2);
    assert_eq!(gateway.metric("tidegate_token_rejected_total{token=\"billing\"}").await, 1.0);
}

#[tokio::test]
async fn a_reload_keeps_the_token_and_a_changed_secret_gets_another() {
    let idp = Arc::new(Idp::start().await);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    let reloads = |count: u64| move |state: &serde_json::Value| state["config"]["reloads"] == count;
    gateway.write(&(config(&upstream, idp.issuer(), "") + "drain: 7s\n"));
    gateway.state_is("the reload", reloads(1)).await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    assert_eq!(idp.counts().granted, 1);
    std::fs::write(gateway.directory().join("secret"), "another").unwrap();
    gateway.state_is("the second reload", reloads(2)).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "this one is wrong: {}", answer.text());
    assert_eq!(idp.asked().last().unwrap().auth, "wrong");
}

#[tokio::test]
async fn a_callers_token_is_exchanged_once_for_all_its_calls() {
    let idp = Arc::new(Idp::start().await);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let mut gateway = gateway(&upstream, &idp, "grant: token_exchange\naudience: orders").await;
    let get = async |token: &str| {
        client::get_with(gateway.http(), "/", &[("authorization", &format!("Bearer {token}"))]).await
    };
    let both = futures_util::future::join_all((0..50).map(|n| get(["good-ann", "good-bob"][n % 2]))).await;
    assert!(both.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(idp.counts().granted, 2);
    let asked = &idp.asked()[0];
    assert_eq!(asked.form["subject_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(asked.form["audience"], "orders");
    let without = client::get(gateway.http(), "/").await;
    assert_eq!((without.status, without.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
    assert!(without.text().contains("Authorization: Bearer TOKEN"), "{}", without.text());
    let seen = upstream.seen();
    assert!(seen.iter().all(|text| text.starts_with("Bearer at-")), "the caller's own never gets there");
    shows_no_secret(&mut gateway, &idp.secrets()).await;
}
