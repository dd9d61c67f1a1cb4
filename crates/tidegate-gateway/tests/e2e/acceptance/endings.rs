//! The end of a session, or of the process, while a refresh is out.

use std::time::Instant;

use super::*;
use crate::sessions::{config, of};

/// Refreshes begin long before the token is over.
const EARLY: &str = "refresh_before: 90%";

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
    let (idp, _behind, _redis, gateways) = together(2, EARLY).await;
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
    assert_eq!(idp.good_refresh_tokens(), 0, "nobody can use what the refresh brought");
    for gateway in &gateways {
        for _ in 0..5 {
            assert_eq!(fetch(gateway, &cookie).await.status, StatusCode::UNAUTHORIZED, "it stays dead");
        }
    }
    assert_eq!((idp.counts().arrived, idp.counts().reused), (2, 0));
}

/// Long enough for a busy machine, and shorter than the time after which a gateway asks the store by itself.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_logout_is_known_to_every_gateway_without_its_asking() {
    let (idp, _behind, _redis, gateways) = together(3, "").await;
    let cookie = log_in(&gateways[0]).await;
    for gateway in &gateways {
        assert_eq!(fetch(gateway, &cookie).await.status, StatusCode::OK, "all know it, with a good token");
    }
    let fields = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let out = client::get_with(gateways[0].http(), "/oauth2/logout", &fields).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER, "{}", out.text());
    let known =
        join_all(gateways.iter().map(|gateway| fetch_until(gateway, &cookie, StatusCode::UNAUTHORIZED)));
    tokio::time::timeout(SOON, known).await.expect("they are told");
    assert_eq!((idp.counts().arrived, idp.good_refresh_tokens()), (1, 0));
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_stores_what_a_refresh_brings_though_nobody_waits_for_it() {
    let (idp, behind, redis, mut gateways) = together(1, EARLY).await;
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
async fn neither_a_drain_that_is_over_nor_more_signals_lose_what_a_refresh_brings() {
    for signals in [1, 3] {
        let (idp, behind, redis) = (Idp::start().await, Behind::start().await, Redis::start(&[]));
        let brief = || config(&behind, idp.issuer(), EARLY, &patient(&redis)) + "drain: 1ms\n";
        let mut first = of(brief).await;
        let cookie = with_a_refresh_out(&idp, &first).await;
        first.process().signal("TERM");
        first.process().printed("refreshes of sessions are finished first").await;
        for _ in 1..signals {
            first.process().signal("TERM");
        }
        // It waits on: a process that did not would be gone by now, and the refresh with it.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert_eq!((idp.counts().at_once, first.process().ended()), (1, None), "after {signals} signals");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        idp.release();
        first.process().end().await;
        let second = gateway(&behind, idp.issuer(), "", &patient(&redis)).await;
        all_served(&fetch_all(&[&second], &vec![cookie; 20]).await);
        assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (2, 2, 0));
    }
}
