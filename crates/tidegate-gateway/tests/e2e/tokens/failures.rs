//! What calls see when there is no token, and what the provider is spared.

use super::*;

#[tokio::test]
async fn a_call_without_a_token_is_not_sent_and_is_told_when_to_come_back() {
    for (does, outcome) in [
        (Does::Fails(503, Some(7)), "transient"),
        (Does::Fails(429, Some(7)), "transient"),
        (Does::Fails(500, None), "transient"),
        (Does::Refuses("invalid_client"), "client_error"),
        (Does::Redirects, "client_error"),
        (Does::LosesTheAnswer, "unknown"),
        (Does::Says("not json"), "protocol"),
    ] {
        let idp = Idp::start().await;
        idp.always(does.clone());
        let upstream = Guarded::start(|_| true).await;
        let mut gateway = gateway(&upstream, &idp, "").await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{does:?}");
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&after), "{does:?}: {after}");
        if let Does::Fails(_, Some(7)) = does {
            assert!((6..=8).contains(&after), "{does:?}: {after}");
        }
        let body = answer.json();
        assert_eq!(body["reason"], "token", "{body}");
        assert_eq!(upstream.seen().len(), 0, "{does:?}");
        let sample = format!("tidegate_token_grants_total{{token=\"billing\",outcome=\"{outcome}\"}}");
        assert!(gateway.metric(&sample).await >= 1.0, "{does:?}");
        token_is(&gateway, "failing").await;
        shows_no_secret(&mut gateway, &idp.secrets()).await;
    }
}

#[tokio::test]
async fn a_token_that_calls_could_not_prove_is_not_sent_to_an_upstream() {
    for (does, said) in [
        (Does::Says(r#"{"access_token":"abc","token_type":"DPoP","expires_in":60}"#), "Bearer tokens"),
        (Does::Refuses("use_dpop_nonce"), "use_dpop_nonce"),
    ] {
        let idp = Idp::start().await;
        idp.always(does);
        let upstream = Guarded::start(|_| true).await;
        let gateway = gateway(&upstream, &idp, "").await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert_eq!(upstream.seen().len(), 0);
        let state = gateway.state().await;
        let error = state["tokens"][0]["last_error"].as_str().unwrap();
        assert!(error.contains(said) && error.contains("by DPoP"), "{error}");
    }
}

#[tokio::test]
async fn a_provider_that_is_down_is_asked_less_and_less_and_recovers_by_itself() {
    let idp = Arc::new(Idp::start().await);
    idp.always(Does::Fails(503, None));
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "open_for: 1s").await;
    for _ in 0..300 {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let asked = idp.counts().asked;
    assert!(asked <= 20, "{asked} questions for 300 calls");
    idp.always(Does::Grants);
    eventually("calls being served again", async || {
        client::get(gateway.http(), "/").await.status == StatusCode::OK
    })
    .await;
    token_is(&gateway, "fresh").await;
}

#[tokio::test]
async fn a_failed_renewal_does_not_cost_the_token_that_is_good() {
    let idp = Arc::new(Idp::start().await);
    // Due within 5 s at the latest, good for 15 s more.
    idp.life(24);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "refresh_before: 90%").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    idp.always(Does::Fails(503, None));
    let failed = async || {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
        idp.counts().asked >= 3
    };
    eventually("two renewals failing", failed).await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    token_is(&gateway, "ending").await;
}

#[tokio::test]
async fn a_call_waits_for_a_token_no_longer_than_it_may() {
    let idp = Idp::start().await;
    idp.always(Does::Hangs);
    let upstream = Guarded::start(|_| true).await;
    let gateway = gateway(&upstream, &idp, "max_wait: 100ms\ntimeout: 20s").await;
    let answers = at_once(&gateway, 20).await;
    for answer in answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), "1");
        assert!(answer.text().contains("in time"), "{}", answer.text());
    }
    assert_eq!(idp.counts().asked, 1, "one question, whoever waits for it");
}

#[tokio::test]
async fn clients_that_go_away_do_not_end_the_grant() {
    let idp = Arc::new(Idp::start().await);
    idp.always(Does::GrantsLate);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "max_wait: 60s\ntimeout: 60s").await;
    let addr = gateway.http();
    let calls: Vec<_> =
        (0..10).map(|_| tokio::spawn(async move { client::get(addr, "/").await.status })).collect();
    // The gateway itself may wait beside them, as it asks for a token when it starts.
    let waiting = |state: &serde_json::Value| state["tokens"][0]["waiting"].as_u64().unwrap();
    gateway.state_is("10 calls waiting", |state| waiting(state) >= 10).await;
    calls.iter().for_each(|call| call.abort());
    gateway.state_is("no call waiting", |state| waiting(state) <= 1).await;
    assert_eq!(idp.counts().at_once, 1, "it goes on without them");
    idp.release();
    token_is(&gateway, "fresh").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    assert_eq!((idp.counts().asked, upstream.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_discovery_document_that_is_wrong_is_told_and_one_that_is_away_is_asked_for_again() {
    let idp = Arc::new(Idp::start().await);
    idp.claims_to_be("https://evil.example");
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = gateway(&upstream, &idp, "").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let state = gateway.state().await;
    let error = state["tokens"][0]["last_error"].as_str().unwrap();
    assert!(error.contains("https://evil.example") && error.contains("look who answers"), "{error}");
    assert_eq!(idp.counts().asked, 0, "no secret goes to who calls itself something else");
    idp.documents(StatusCode::SERVICE_UNAVAILABLE);
    idp.claims_to_be(idp.issuer());
    idp.documents(StatusCode::OK);
    eventually("calls being served", async || {
        client::get(gateway.http(), "/").await.status == StatusCode::OK
    })
    .await;
}
