//! Bound tokens of a provider that nobody here wrote, which wants a nonce of its own in every proof.

use serde_json::json;
use tidegate_gateway::oidc::jose::SigningKey;

use super::*;
use crate::{
    sessions::{Browser, certified::through_the_pages},
    support::{dpop::thumbprint, oidc_provider::OidcProvider},
};

/// A service that takes tokens which are bound to this key.
async fn taking(key: &str) -> (Resource, String) {
    let public = SigningKey::from_pem(key.as_bytes(), None, None).unwrap().public_jwk().unwrap();
    let name = thumbprint(&public);
    let wanted = name.clone();
    (Resource::start(move |_| Some(wanted.clone())).await, name)
}

async fn bound_to(provider: &OidcProvider, token: &str) -> serde_json::Value {
    client::get_at(provider.addr(), &format!("/bound?token={token}"), &[]).await.json()
}

#[tokio::test]
async fn it_binds_the_clients_tokens() {
    let features = json!({ "clientCredentials": { "enabled": true }, "dPoP": { "enabled": true } });
    let client = json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["client_credentials"],
        "redirect_uris": [], "response_types": [], "scope": "orders",
    });
    let ttl = json!({ "ClientCredentials": 8 });
    let settings = json!({ "clients": [client], "features": features, "ttl": ttl });
    let provider = OidcProvider::start(settings).await;
    let key = key();
    let (resource, name) = taking(&key).await;
    let gateway = Gateway::start_with(|directory| {
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        std::fs::write(directory.join("dpop.pem"), &key).unwrap();
        let settings = format!("{WITH_A_KEY}\nrefresh_before: 50%");
        config_at(resource.upstream().addr(), provider.issuer(), &settings)
    })
    .await;
    eventually("the second token", async || {
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{:?}\n{}",
            resource.seen().refused,
            provider.process().output()
        );
        provider.count("granted").await >= 2
    })
    .await;
    let token = resource.seen().served[0].3.clone();
    assert_eq!(bound_to(&provider, &token).await, name);
    assert_eq!(provider.count("refused").await, 1, "the first proof lacked the nonce, and no other did");
}

#[tokio::test]
async fn it_binds_a_users_tokens_from_the_login_over_a_refresh() {
    let web = json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": ["http://gateway.test/oauth2/callback"], "response_types": ["code"],
        "dpop_bound_access_tokens": true,
    });
    let features = json!({ "dPoP": { "enabled": true } });
    let settings = json!({ "clients": [web], "features": features, "ttl": { "AccessToken": 4 } });
    let provider = OidcProvider::start(settings).await;
    let key = key();
    let (resource, name) = taking(&key).await;
    let gateway = Gateway::start_with(|directory| {
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        std::fs::write(directory.join("dpop.pem"), &key).unwrap();
        let sealing =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, (1..=32).collect::<Vec<u8>>());
        std::fs::write(directory.join("session.key"), sealing).unwrap();
        let settings =
            format!("{WITH_A_KEY}\nscopes: [openid, offline_access]\nparameters: {{ prompt: consent }}");
        crate::sessions::config_at(resource.upstream().addr(), provider.issuer(), &settings, "memory://")
    })
    .await;
    let mut browser = Browser::default();
    let away = browser.goes(&gateway, "/here").await;
    let back = through_the_pages(&provider, &away, "ann").await;
    let landed = browser.goes(&gateway, &back).await;
    assert_eq!(landed.header("location"), "/here", "{}\n{}", landed.text(), provider.process().output());
    eventually("a refresh", async || {
        let answer = browser.fetches(&gateway, "/").await;
        assert_eq!(answer.status, StatusCode::OK, "{}: {:?}", answer.text(), resource.seen().refused);
        provider.count("granted").await >= 3
    })
    .await;
    assert_eq!(provider.count("reused").await, 0);
    let token = resource.seen().served.last().unwrap().3.clone();
    assert_eq!(bound_to(&provider, &token).await, name);
}
