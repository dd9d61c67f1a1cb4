//! Answers of a provider that are late, wrong, or of somebody else: what was rotated is never lost, and never asked for twice.

use super::*;

#[tokio::test]
async fn an_answer_that_comes_after_the_limit_is_taken_and_nothing_is_sent_meanwhile() {
    let (idp, _behind, gateway) = alone("max_wait: 5s\ntimeout: 100ms").await;
    idp.life(SHORT);
    let cookie = log_in(&gateway).await;
    are_over().await;
    idp.life(3600);
    idp.always(Does::GrantsLate);
    for _ in 0..3 {
        eventually("a call being told that it takes too long", async || {
            let answer = fetch(&gateway, &cookie).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(!answer.header("retry-after").is_empty());
            answer.text().contains("goes on as soon as it can")
        })
        .await;
    }
    assert_eq!((idp.counts().arrived, idp.counts().at_once), (2, 1), "it was sent once, and goes on");
    idp.release();
    fetch_until(&gateway, &cookie, StatusCode::OK).await;
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
    assert_eq!(refreshes(&gateway, "late").await, 1);
}

#[tokio::test]
async fn while_the_keys_are_away_the_rotated_token_is_kept_and_no_other_is_asked_for() {
    let (idp, behind, redis, mut gateways) = together(1, "max_wait: 1s").await;
    let first = gateways.remove(0);
    idp.life(SHORT);
    let cookie = log_in(&first).await;
    are_over().await;
    idp.life(3600);
    idp.rotate_keys();
    idp.documents(StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..3 {
        let answer = fetch(&first, &cookie).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "nobody is logged out: {}", answer.text());
    }
    assert_eq!(idp.counts().arrived, 2);
    // It stands in the store before it is verified: who granted it may die, and another one goes on with it.
    first.kill();
    let second = gateway(&behind, idp.issuer(), "max_wait: 1s", &patient(&redis)).await;
    assert_eq!(fetch(&second, &cookie).await.status, StatusCode::SERVICE_UNAVAILABLE);
    idp.documents(StatusCode::OK);
    fetch_until(&second, &cookie, StatusCode::OK).await;
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
}

#[tokio::test]
async fn a_forged_id_token_costs_a_try_and_not_the_rotated_token() {
    let (idp, behind, gateway) = alone("").await;
    idp.life(SHORT);
    let cookie = log_in(&gateway).await;
    are_over().await;
    idp.life(3600);
    idp.next(Does::Forges);
    let refused = fetch(&gateway, &cookie).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    assert!(behind.seen().is_empty(), "what can not be believed is not served");
    fetch_until(&gateway, &cookie, StatusCode::OK).await;
    let counts = idp.counts();
    assert_eq!((counts.arrived, counts.granted, counts.reused), (3, 3, 0), "the rotated token was presented");
}

#[tokio::test]
async fn a_refresh_without_an_id_token_keeps_the_user() {
    let (idp, behind, gateway) = alone("").await;
    idp.life(SHORT);
    let cookie = log_in(&gateway).await;
    are_over().await;
    idp.always(Does::NamesNobody);
    idp.life(3600);
    assert_eq!(fetch(&gateway, &cookie).await.status, StatusCode::OK);
    assert_eq!(behind.seen()[0]["x-user"], "ann");
    assert_eq!((idp.counts().granted, idp.counts().reused), (2, 0));
}

#[tokio::test]
async fn a_refresh_that_brings_another_user_ends_the_session_and_raises_an_alarm() {
    let (idp, behind, _redis, gateways) = together(2, "").await;
    idp.life(SHORT);
    let cookie = log_in(&gateways[0]).await;
    are_over().await;
    idp.life(3600);
    idp.next(Does::GrantsTo("mallory"));
    for gateway in &gateways {
        fetch_until(gateway, &cookie, StatusCode::UNAUTHORIZED).await;
    }
    assert!(behind.seen().is_empty(), "nothing of mallory's was served");
    eventually("the tokens being given back", async || idp.counts().revoked == 1).await;
    assert_eq!(idp.good_refresh_tokens(), 0, "nobody can use what was granted");
    assert_eq!((idp.counts().arrived, idp.counts().reused), (2, 0));
    let mut alarms = 0.0;
    for gateway in &gateways {
        alarms += gateway.metric("tidegate_session_mismatches_total{session=\"idp\"}").await;
        alarms += sessions(gateway).await["mismatches"].as_f64().unwrap();
    }
    assert_eq!(alarms, 2.0, "one, in the metrics and in the state");
}

#[tokio::test]
async fn a_new_signing_key_in_the_middle_of_a_wave_is_read_once_and_logs_nobody_out() {
    let (idp, _behind, gateway) = alone("max_wait: 60s").await;
    idp.life(SHORT);
    let cookies = log_in_all(&gateway, 200).await;
    assert_eq!(idp.counts().keys, 1);
    are_over().await;
    idp.life(3600);
    idp.keys_late(true);
    let rotated = async {
        eventually("the wave", async || idp.counts().granted >= 240).await;
        idp.rotate_keys();
        // Everybody who was granted something since then waits for one question.
        eventually("all being granted", async || idp.counts().granted == 400).await;
        eventually("the keys being asked for", async || idp.counts().keys == 2).await;
        idp.release();
    };
    let answers = fetch_all_while(&[&gateway], &cookies, rotated).await;
    all_served(&answers);
    assert_eq!((idp.counts().keys, idp.counts().granted, idp.counts().reused), (2, 400, 0));
}
