//! How sessions are kept fresh: one refresh for all who ask, over every gateway, and nobody logged out by it.

use futures_util::future::join_all;

use super::*;
use crate::{
    servers::Redis,
    support::{eventually, idp::Does},
    tokens::shows_no_secret,
};

/// Short enough to end within a test: counted as over after about two seconds.
const LIFE: u64 = 3;

#[tokio::test]
async fn gateways_that_share_a_store_share_every_refresh_and_every_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let redis = Redis::start(&[]);
    let store = patient(&redis);
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway(&behind, idp.issuer(), "", &store).await);
    }
    idp.life(LIFE);
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&gateways[0], "/").await.status, StatusCode::OK);
    let mut granted = 1;
    for _ in 0..3 {
        granted += 1;
        // All at once, on all gateways, over the end of the token.
        eventually("a refresh", async || {
            let calls = join_all((0..60).map(|n| {
                let (mut browser, gateway) = (browser.clone(), &gateways[n % 3]);
                async move { browser.fetches(gateway, "/").await }
            }));
            for answer in calls.await {
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            }
            idp.counts().granted >= granted
        })
        .await;
        granted = idp.counts().granted;
    }
    assert_eq!((idp.counts().granted, idp.counts().reused), (idp.counts().asked, 0));
    // A logout at one is a logout at all.
    browser.clone().goes(&gateways[1], "/oauth2/logout").await;
    for gateway in &gateways {
        eventually("the logout being known", async || {
            browser.clone().fetches(gateway, "/").await.status == StatusCode::UNAUTHORIZED
        })
        .await;
    }
    for gateway in &mut gateways {
        shows_no_secret(gateway, &secrets(&idp, &[&browser])).await;
    }
}

#[tokio::test]
async fn a_restart_and_a_killed_gateway_log_nobody_out() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let redis = Redis::start(&[]);
    let store = patient(&redis);
    let first = gateway(&behind, idp.issuer(), "", &store).await;
    let mut browsers = Vec::new();
    for _ in 0..20 {
        let mut browser = Browser::default();
        assert_eq!(browser.logs_in(&first, "/").await.status, StatusCode::OK);
        browsers.push(browser);
    }
    first.kill();
    let mut second = gateway(&behind, idp.issuer(), "", &store).await;
    for browser in &mut browsers {
        assert_eq!(browser.fetches(&second, "/").await.status, StatusCode::OK);
    }
    assert!(second.drain().await.success());
    let third = gateway(&behind, idp.issuer(), "", &store).await;
    for browser in &mut browsers {
        assert_eq!(browser.fetches(&third, "/").await.status, StatusCode::OK);
    }
    assert_eq!((idp.counts().granted, idp.counts().reused), (20, 0));
    // Nothing of a session can be read in the store.
    let mut connection = redis.connect().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut dump = keys.join("\n").into_bytes();
    for key in keys.iter().filter(|key| key.contains("session")) {
        let bytes: Vec<u8> = redis::cmd("DUMP").arg(key).query_async(&mut connection).await.unwrap();
        dump.extend(bytes);
    }
    let browsers: Vec<&Browser> = browsers.iter().collect();
    for secret in secrets(&idp, &browsers) {
        assert!(
            !dump.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "a secret is in the store"
        );
    }
    assert!(keys.iter().filter(|key| key.contains("session")).count() >= 20, "{keys:?}");
}

#[tokio::test]
async fn a_provider_that_is_down_costs_nobody_a_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "max_wait: 200ms", "memory://").await;
    idp.life(LIFE);
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    idp.always(Does::Fails(503, None));
    eventually("the token being over", async || {
        let answer = browser.fetches(&gateway, "/").await;
        assert!(
            [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status),
            "{}",
            answer.text()
        );
        answer.status == StatusCode::SERVICE_UNAVAILABLE && !answer.header("retry-after").is_empty()
    })
    .await;
    let page = browser.goes(&gateway, "/").await;
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "a page is not sent off to a provider that is down"
    );
    idp.always(Does::Grants);
    eventually("the session going on", async || {
        browser.fetches(&gateway, "/").await.status == StatusCode::OK
    })
    .await;
    assert_eq!((idp.counts().granted, idp.counts().reused), (2, 0));
}

#[tokio::test]
async fn a_session_that_the_provider_ended_leads_to_a_login() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    idp.life(LIFE);
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    idp.always(Does::Refuses("invalid_grant"));
    eventually("the session being over", async || {
        browser.fetches(&gateway, "/").await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    idp.always(Does::Grants);
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
}
