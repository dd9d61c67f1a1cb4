//! The end of a session, or of the process, while a refresh is out.

use super::*;

/// A session whose token is due, with a refresh out that nobody waits for.
async fn with_a_refresh_out(idp: &Idp, gateway: &Gateway) -> String {
    idp.life(12);
    let cookie = log_in(gateway).await;
    idp.life(3600);
    idp.always(Does::GrantsLate);
    eventually("a refresh ahead of the end", async || {
        assert_eq!(fetch(gateway, &cookie).await.status, StatusCode::OK);
        idp.counts().at_once == 1
    })
    .await;
    assert_eq!(waiting(&[gateway]).await, 0);
    cookie
}

#[tokio::test]
async fn a_logout_wins_over_a_refresh_that_is_out_and_its_tokens_are_given_back() {
    let (idp, _behind, _redis, gateways) = together(2, "").await;
    let cookie = with_a_refresh_out(&idp, &gateways[0]).await;
    let fields =
        [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")];
    // At the gateway that does not refresh.
    let out = client::get_with(gateways[1].http(), "/oauth2/logout", &fields).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER, "{}", out.text());
    eventually("what the session had being given back", async || idp.counts().revoked == 1).await;
    for gateway in &gateways {
        fetch_until(gateway, &cookie, StatusCode::UNAUTHORIZED).await;
    }
    idp.release();
    eventually("what the refresh brought being given back", async || idp.counts().revoked == 2).await;
    for gateway in &gateways {
        for _ in 0..5 {
            assert_eq!(fetch(gateway, &cookie).await.status, StatusCode::UNAUTHORIZED, "it stays dead");
        }
    }
    assert_eq!((idp.counts().arrived, idp.counts().reused), (2, 0));
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_stores_what_a_refresh_brings_though_nobody_waits_for_it() {
    let (idp, behind, redis, mut gateways) = together(1, "").await;
    let cookie = with_a_refresh_out(&idp, &gateways[0]).await;
    let mut first = gateways.remove(0);
    first.process().signal("TERM");
    first.process().printed("refreshes of sessions are finished first").await;
    idp.release();
    assert!(first.process().end().await.success());
    let second = gateway(&behind, idp.issuer(), "", &patient(&redis)).await;
    all_served(&fetch_all(&[&second], &vec![cookie; 20]).await);
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
}

#[tokio::test]
async fn a_second_signal_does_not_lose_what_a_refresh_brings_either() {
    let (idp, behind, redis, mut gateways) = together(1, "").await;
    let cookie = with_a_refresh_out(&idp, &gateways[0]).await;
    let mut first = gateways.remove(0);
    first.process().signal("TERM");
    first.process().printed("refreshes of sessions are finished first").await;
    first.process().signal("TERM");
    first.process().signal("TERM");
    idp.release();
    first.process().end().await;
    let second = gateway(&behind, idp.issuer(), "", &patient(&redis)).await;
    all_served(&fetch_all(&[&second], &vec![cookie; 20]).await);
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
}
