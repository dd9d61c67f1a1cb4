//! One refresh an expiry: however many ask, on however many gateways, whoever of them leaves.

use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

/// Everybody who asks for one session.
const CALLERS: usize = 1000;

/// Calls, one after the other, until one of them waits because the token is over; that one goes on waiting.
async fn until_over(gateway: &Gateway, cookie: &str) -> JoinSet<StatusCode> {
    let mut call = JoinSet::new();
    eventually("the token being over", async || {
        if call.is_empty() {
            let (addr, cookie) = (gateway.http(), cookie.to_owned());
            call.spawn(async move { client::get_with(addr, "/", &[("cookie", &cookie)]).await.status });
        }
        if let Some(ended) = call.try_join_next() {
            assert_eq!(ended.unwrap(), StatusCode::OK);
        }
        !call.is_empty() && waiting(&[gateway]).await == 1
    })
    .await;
    call
}

async fn one_refresh_an_expiry_of(replicas: usize) {
    let (idp, _behind, _redis, gateways) = together(replicas, WAITS).await;
    one_refresh_an_expiry(&idp, &gateways.iter().collect::<Vec<_>>()).await;
}

async fn one_refresh_an_expiry(idp: &Idp, gateways: &[&Gateway]) {
    idp.life(LIFE);
    let cookie = log_in(gateways[0]).await;
    // All of them know the session, with the token that ends.
    for gateway in gateways {
        assert_eq!(fetch(gateway, &cookie).await.status, StatusCode::OK);
    }
    let before = idp.counts();
    idp.life(3600);
    idp.always(Does::GrantsLate);
    let mut first = until_over(gateways[0], &cookie).await;
    let cookies = vec![cookie; CALLERS];
    let released = async {
        are_waiting(gateways, CALLERS as u64 + 1).await;
        idp.release();
    };
    let answers = fetch_all_while(gateways, &cookies, released).await;
    all_served(&answers);
    assert_eq!((answers.len(), first.join_next().await.unwrap().unwrap()), (CALLERS, StatusCode::OK));
    let after = idp.counts();
    assert_eq!((after.arrived - before.arrived, after.granted - before.granted, after.reused), (1, 1, 0));
    let mut refreshed = 0;
    for gateway in gateways {
        refreshed += refreshes(gateway, "success").await;
    }
    assert_eq!(refreshed, 1, "one of them refreshed, the others read");
}

#[tokio::test]
async fn a_thousand_calls_at_the_expiry_are_one_refresh_of_one_gateway() {
    let (idp, _behind, gateway) = alone(WAITS).await;
    one_refresh_an_expiry(&idp, &[&gateway]).await;
}

#[tokio::test]
async fn a_thousand_calls_at_the_expiry_are_one_refresh_of_two_gateways() {
    one_refresh_an_expiry_of(2).await;
}

#[tokio::test]
async fn a_thousand_calls_at_the_expiry_are_one_refresh_of_three_gateways() {
    one_refresh_an_expiry_of(3).await;
}

#[tokio::test]
async fn a_thousand_calls_at_the_expiry_are_one_refresh_of_five_gateways() {
    one_refresh_an_expiry_of(5).await;
}

#[tokio::test]
async fn the_call_that_began_a_refresh_leaves_and_the_others_are_served() {
    let (idp, behind, _redis, gateways) = together(2, WAITS).await;
    let gateways: Vec<&Gateway> = gateways.iter().collect();
    idp.life(LIFE);
    let cookie = log_in(gateways[0]).await;
    idp.life(3600);
    idp.always(Does::GrantsLate);
    let mut first = until_over(gateways[0], &cookie).await;
    eventually("the refresh being out", async || idp.counts().at_once == 1).await;
    let old = behind.seen().last().unwrap()["authorization"].clone();
    let cookies = vec![cookie.clone(); 50];
    let released = async {
        are_waiting(&gateways, 51).await;
        first.shutdown().await;
        are_waiting(&gateways, 50).await;
        idp.release();
    };
    let before = behind.seen().len();
    all_served(&fetch_all_while(&gateways, &cookies, released).await);
    // The session has the new token, on both, and needs no other.
    for gateway in &gateways {
        assert_eq!(fetch(gateway, &cookie).await.status, StatusCode::OK);
    }
    let seen = behind.seen().split_off(before);
    let new = &seen[0]["authorization"];
    assert!(*new != old && seen.iter().all(|seen| seen["authorization"] == *new));
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
}

#[tokio::test]
async fn all_who_wait_leave_and_the_next_is_served_what_they_began() {
    let (idp, behind, gateway) = alone(WAITS).await;
    idp.life(LIFE);
    let cookie = log_in(&gateway).await;
    let old = token_of(&gateway, &cookie, &behind).await;
    idp.life(3600);
    idp.always(Does::GrantsLate);
    let mut first = until_over(&gateway, &cookie).await;
    eventually("the refresh being out", async || idp.counts().at_once == 1).await;
    first.shutdown().await;
    are_waiting(&[&gateway], 0).await;
    assert_eq!((idp.counts().arrived, idp.counts().at_once), (2, 1), "it goes on without them");
    idp.release();
    gateway.state_is("the refresh ending", |all| all["sessions"][0]["refreshes"]["success"] == 1).await;
    assert_ne!(token_of(&gateway, &cookie, &behind).await, old);
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
}

#[tokio::test]
async fn gateways_that_know_an_old_token_serve_the_new_one_and_ask_nobody() {
    let (idp, behind, _redis, gateways) = together(3, "reuse_window: 1s").await;
    idp.life(LIFE);
    let cookie = log_in(&gateways[0]).await;
    let mut old = String::new();
    for gateway in &gateways {
        old = token_of(gateway, &cookie, &behind).await;
    }
    idp.life(3600);
    eventually("a refresh", async || token_of(&gateways[0], &cookie, &behind).await != old).await;
    let new = token_of(&gateways[0], &cookie, &behind).await;
    // Each knows the session with a refresh token that is used up, and the calls come late.
    for gateway in &gateways[1..] {
        eventually("the new token", async || token_of(gateway, &cookie, &behind).await == new).await;
        all_served(&fetch_all(&[gateway], &vec![cookie.clone(); 200]).await);
    }
    // Through the window in which what became of the old one is remembered, and beyond it.
    let (all, began) = (gateways.iter().collect::<Vec<_>>(), Instant::now());
    while began.elapsed() < Duration::from_millis(1500) {
        all_served(&fetch_all(&all, &vec![cookie.clone(); 30]).await);
    }
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
}

#[tokio::test]
async fn a_token_that_lives_shorter_than_the_lead_is_not_refreshed_all_the_time() {
    let (idp, _behind, gateway) = alone("").await;
    idp.life(LIFE);
    let began = Instant::now();
    let cookie = log_in(&gateway).await;
    // The least lead is ten seconds: it would be due as soon as it is granted, and every call would begin a refresh.
    eventually("two refreshes", async || {
        assert_eq!(fetch(&gateway, &cookie).await.status, StatusCode::OK);
        idp.counts().granted >= 3
    })
    .await;
    let least = Duration::from_secs(2 * LIFE * 2 / 3);
    assert!(began.elapsed() >= least, "two refreshes within {:?}", began.elapsed());
    assert_eq!((idp.counts().granted, idp.counts().reused), (3, 0));
}
