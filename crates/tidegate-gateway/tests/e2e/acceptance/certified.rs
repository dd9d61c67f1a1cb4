//! The same promises at a provider that nobody here wrote: it rotates, detects reuse and counts by itself.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::{
    sessions::certified::through_the_pages,
    support::{
        idp::{CLIENT, SECRET},
        oidc_provider::OidcProvider,
    },
};

/// How long its access tokens live, in seconds.
const TTL: u64 = 6;

async fn provider() -> OidcProvider {
    let web = json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": ["http://gateway.test/oauth2/callback"], "response_types": ["code"],
    });
    OidcProvider::start(json!({ "clients": [web], "ttl": { "AccessToken": TTL } })).await
}

async fn before(provider: &OidcProvider, behind: &Behind, store: &str) -> Gateway {
    let settings =
        "scopes: [openid, offline_access]\nparameters: { prompt: consent }\nmax_wait: 60s\ntimeout: 60s";
    gateway(behind, provider.issuer(), settings, store).await
}

async fn log_in_at(provider: &OidcProvider, gateway: &Gateway, user: &str) -> String {
    let mut browser = Browser::default();
    let away = browser.goes(gateway, "/").await;
    let back = through_the_pages(provider, &away, user).await;
    let landed = browser.goes(gateway, &back).await;
    assert_eq!(landed.status, StatusCode::SEE_OTHER, "{}\n{}", landed.text(), provider.process().output());
    format!("tidegate={}", browser.session().unwrap())
}

#[tokio::test]
async fn a_thousand_calls_at_every_expiry_are_one_refresh_of_three_gateways() {
    let (provider, behind, redis) = (provider().await, Behind::start().await, Redis::start(&[]));
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(before(&provider, &behind, &patient(&redis)).await);
    }
    let gateways: Vec<&Gateway> = gateways.iter().collect();
    let cookies = vec![log_in_at(&provider, gateways[0], "ann").await; 1000];
    eventually("two refreshes", async || {
        all_served(&fetch_all(&gateways, &cookies).await);
        provider.count("granted").await >= 3
    })
    .await;
    assert_eq!((provider.count("refused").await, provider.count("reused").await), (0, 0));
    // All that was granted was served: nothing was asked for twice.
    eventually("the last token being served", async || {
        all_served(&fetch_all(&gateways, &cookies[..30]).await);
        let served: BTreeSet<_> =
            behind.seen().iter().map(|seen| seen["authorization"].as_bytes().to_vec()).collect();
        let granted = provider.count("granted").await;
        assert!(served.len() as u64 <= granted);
        served.len() as u64 == granted
    })
    .await;
}

#[tokio::test]
async fn a_new_signing_key_is_read_once_and_logs_nobody_out() {
    let (provider, behind) = (provider().await, Behind::start().await);
    let gateway = before(&provider, &behind, "memory://").await;
    let mut cookies = Vec::new();
    for user in 0..10 {
        cookies.push(log_in_at(&provider, &gateway, &format!("user{user}")).await);
    }
    let (keys, granted) = (provider.count("keys").await, provider.count("granted").await);
    provider.rotate_keys().await;
    eventually("refreshes of all", async || {
        all_served(&fetch_all(&[&gateway], &cookies).await);
        provider.count("granted").await >= granted + cookies.len() as u64
    })
    .await;
    assert_eq!(provider.count("keys").await, keys + 1);
    assert_eq!((provider.count("refused").await, provider.count("reused").await), (0, 0));
}
