//! Tokens of a provider that nobody here wrote.

use rcgen::KeyPair;
use serde_json::{Value as Json, json};
use tidegate_gateway::oidc::jose::SigningKey;

use super::*;
use crate::support::oidc_provider::{OidcProvider, knows};

fn client(more: Json) -> Json {
    let mut client = json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["client_credentials"],
        "redirect_uris": [], "response_types": [], "scope": "orders",
    });
    client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client
}

/// An upstream that asks the provider about every token.
async fn asking(provider: &OidcProvider) -> Guarded {
    let (addr, seen) = (provider.addr(), Arc::<Mutex<Vec<String>>>::default());
    let noted = Arc::clone(&seen);
    let upstream = Upstream::start(move |request| {
        let text = request.headers()["authorization"].to_str().unwrap().to_owned();
        noted.lock().unwrap().push(text.clone());
        async move {
            let known = knows(addr, text.strip_prefix("Bearer ").unwrap()).await;
            let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Response::builder().status(status).body(client::whole("served")).unwrap()
        }
    })
    .await;
    Guarded { upstream, seen }
}

#[tokio::test]
async fn it_grants_once_for_all_calls() {
    let features = json!({ "clientCredentials": { "enabled": true } });
    let provider = OidcProvider::start(json!({ "clients": [client(json!({}))], "features": features })).await;
    let upstream = asking(&provider).await;
    let mut gateway = start(&upstream, provider.issuer(), "scope: [orders]", SECRET).await;
    let answers = at_once(&gateway, 50).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{}", provider.process().output());
    assert_eq!(provider.count("granted").await, 1);
    let token = upstream.seen()[0].strip_prefix("Bearer ").unwrap().to_owned();
    shows_no_secret(&mut gateway, &[token, SECRET.to_owned()]).await;
}

#[tokio::test]
async fn it_renews_before_the_end_and_no_call_fails() {
    let features = json!({ "clientCredentials": { "enabled": true } });
    // The provider counts in whole seconds, so that a life may be one shorter than it says.
    let ttl = json!({ "ClientCredentials": 8 });
    let settings = json!({ "clients": [client(json!({}))], "features": features, "ttl": ttl });
    let provider = OidcProvider::start(settings).await;
    let upstream = asking(&provider).await;
    let gateway = start(&upstream, provider.issuer(), "refresh_before: 50%", SECRET).await;
    eventually("the third token", async || {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
        provider.count("granted").await >= 3
    })
    .await;
    assert_eq!(provider.count("refused").await, 0);
}

#[tokio::test]
async fn it_takes_the_assertions_of_a_key() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let mut public = SigningKey::from_pem(key.as_bytes(), None, None).unwrap().public_jwk().unwrap();
    public["kid"] = "gateway-1".into();
    let by_key = json!({
        "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [public] },
        "token_endpoint_auth_signing_alg": "ES256",
    });
    let features = json!({ "clientCredentials": { "enabled": true } });
    let provider = OidcProvider::start(json!({ "clients": [client(by_key)], "features": features })).await;
    let upstream = asking(&provider).await;
    let gateway = Gateway::start_with(|directory| {
        std::fs::write(directory.join("client.pem"), &key).unwrap();
        config(&upstream, provider.issuer(), "key: { file: client.pem }\nkey_id: gateway-1")
            .replace("    client_secret: { file: secret }\n", "")
    })
    .await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, StatusCode::OK, "{}\n{}", answer.text(), provider.process().output());
}

/// An RSA key: PEM for the gateway, a JWK for the provider.
fn rsa_key() -> (String, Json) {
    let script = "const c = require('node:crypto'); const { privateKey, publicKey } = \
        c.generateKeyPairSync('rsa', { modulusLength: 2048 }); \
        const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }); \
        console.log(JSON.stringify([pem, publicKey.export({ format: 'jwk' })]));";
    let made = std::process::Command::new("node").arg("-e").arg(script).output().unwrap();
    serde_json::from_slice(&made.stdout).unwrap()
}

#[tokio::test]
async fn it_takes_the_assertions_of_an_rsa_key_in_both_ways_to_sign() {
    let (key, public) = rsa_key();
    for algorithm in ["RS256", "PS256"] {
        let by_key = json!({
            "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [public] },
            "token_endpoint_auth_signing_alg": algorithm,
        });
        let features = json!({ "clientCredentials": { "enabled": true } });
        let provider =
            OidcProvider::start(json!({ "clients": [client(by_key)], "features": features })).await;
        let upstream = asking(&provider).await;
        let gateway = Gateway::start_with(|directory| {
            std::fs::write(directory.join("client.pem"), &key).unwrap();
            let settings = format!("key: {{ file: client.pem }}\nalgorithm: {algorithm}");
            config(&upstream, provider.issuer(), &settings)
                .replace("    client_secret: { file: secret }\n", "")
        })
        .await;
        let answer = client::get(gateway.http(), "/").await;
        let said = provider.process().output();
        assert_eq!(answer.status, StatusCode::OK, "{algorithm}: {}\n{said}", answer.text());
    }
}

#[tokio::test]
async fn a_wrong_secret_is_told_as_such() {
    let features = json!({ "clientCredentials": { "enabled": true } });
    let provider = OidcProvider::start(json!({ "clients": [client(json!({}))], "features": features })).await;
    let upstream = asking(&provider).await;
    let gateway = start(&upstream, provider.issuer(), "", "wrong").await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("an operator has to mend"), "{}", answer.text());
    let state = gateway.state().await;
    assert!(state["tokens"][0]["last_error"].as_str().unwrap().contains("invalid_client"), "{state}");
}
