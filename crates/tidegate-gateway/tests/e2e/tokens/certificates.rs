//! The certificate of the connection as what proves the client (RFC 8705): taken, refused, missing, and not to be read.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tidegate_gateway::oidc::jose::{SigningKey, base64url};

use super::*;
use crate::{
    sessions::{self, Behind, Browser},
    support::{
        idp::{Authority, Clients, Shown},
        oidc_provider::OidcProvider,
    },
};

/// A gateway that proves itself by this certificate, if by any, to a provider that `authority` vouches for.
async fn proving(
    upstream: &Guarded,
    idp: &Idp,
    authority: &Authority,
    shown: Option<&Shown>,
    auth: &str,
) -> Gateway {
    Gateway::start_with(|directory| {
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        if let Some(shown) = shown {
            write(directory, shown);
        }
        let pair = if shown.is_some() { ", cert: client.crt, key: client.key" } else { "" };
        secretless(upstream, idp.issuer(), &format!("tls: {{ roots: ca.pem{pair} }}\nauth: {auth}"))
    })
    .await
}

fn write(directory: &Path, shown: &Shown) {
    std::fs::write(directory.join("client.crt"), &shown.cert).unwrap();
    std::fs::write(directory.join("client.key"), &shown.key).unwrap();
}

fn secretless(upstream: &Guarded, issuer: &str, settings: &str) -> String {
    config(upstream, issuer, settings).replace("    client_secret: { file: secret }\n", "")
}

/// Calls it often while it has no token, and gives back what `/state` says of why.
async fn refused(gateway: &mut Gateway, idp: &Idp, upstream: &Guarded) -> String {
    for _ in 0..100 {
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
    }
    let counts = idp.counts();
    let tries = counts.arrived + counts.refused_handshakes;
    assert!((1..=20).contains(&tries), "{tries} tries for 100 calls");
    assert_eq!((counts.granted, upstream.seen().len()), (0, 0));
    let state = gateway.state().await;
    let error = state["tokens"][0]["last_error"].as_str().unwrap().to_owned();
    assert!(gateway.process().output().contains("no token: "), "{}", gateway.process().output());
    error
}

#[tokio::test]
async fn a_certificate_is_taken_where_the_provider_asks_for_it_and_where_its_document_says() {
    for apart in [false, true] {
        let authority = Authority::new();
        let shown = authority.issue("gateway");
        let idp = Idp::start_mtls(&authority, &Clients::SignedBy(&authority), &shown, apart).await;
        let idp = Arc::new(idp);
        let known = Arc::clone(&idp);
        let upstream = Guarded::start(move |token| known.knows(token)).await;
        let mut gateway = proving(&upstream, &idp, &authority, Some(&shown), "tls_client_auth").await;
        let answers = at_once(&gateway, 20).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "apart: {apart}");
        let asked = idp.asked();
        assert_eq!((asked.len(), asked[0].auth), (1, "certificate"), "apart: {apart}");
        assert_eq!(asked[0].form["client_id"], CLIENT);
        shows_no_secret(&mut gateway, &[idp.secrets(), vec![shown.key.clone()]].concat()).await;
    }
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_taken_by_the_provider_that_knows_it() {
    let (authority, shown) = (Authority::new(), Shown::self_signed("gateway"));
    let idp = Arc::new(Idp::start_mtls(&authority, &Clients::Known(&shown), &shown, false).await);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = proving(&upstream, &idp, &authority, Some(&shown), "self_signed_tls_client_auth").await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(idp.asked()[0].auth, "certificate");
}

#[tokio::test]
async fn a_certificate_that_the_provider_does_not_trust_is_named_and_not_shown_again_and_again() {
    let authority = Authority::new();
    let shown = Authority::new().issue("gateway");
    for apart in [false, true] {
        let idp = Idp::start_mtls(&authority, &Clients::SignedBy(&authority), &shown, apart).await;
        let upstream = Guarded::start(|_| true).await;
        let mut gateway = proving(&upstream, &idp, &authority, Some(&shown), "tls_client_auth").await;
        let error = refused(&mut gateway, &idp, &upstream).await;
        assert!(error.contains("does not take the gateway's certificate"), "{error}");
        assert!(error.contains("client.crt") && error.contains("UnknownCA"), "{error}");
        // Nobody read the question, so nothing was used up by it.
        let grants = gateway.state().await["tokens"][0]["grants"].clone();
        assert!(grants["not_sent"].as_u64().unwrap() >= 1 && grants["unknown"].is_null(), "{grants}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_shown_without_a_restart() {
    let authority = Authority::new();
    let (good, bad) = (authority.issue("gateway"), Authority::new().issue("gateway"));
    let idp = Idp::start_mtls(&authority, &Clients::SignedBy(&authority), &good, true).await;
    let idp = Arc::new(idp);
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateway = proving(&upstream, &idp, &authority, Some(&bad), "tls_client_auth").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    write(gateway.directory(), &good);
    eventually("calls being served", async || {
        client::get(gateway.http(), "/").await.status == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn nobody_is_logged_out_while_the_certificate_is_refused() {
    let authority = Authority::new();
    let (good, bad) = (authority.issue("gateway"), Authority::new().issue("gateway"));
    let idp = Idp::start_mtls(&authority, &Clients::SignedBy(&authority), &good, true).await;
    let behind = Behind::start().await;
    let gateway = Gateway::start_with(|directory| {
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(directory.join("session.key"), STANDARD.encode((1..=32).collect::<Vec<u8>>()))
            .unwrap();
        write(directory, &good);
        let settings = "open_for: 1s\ntls: { roots: ca.pem, cert: client.crt, key: client.key }";
        sessions::config(&behind, idp.issuer(), settings, "memory://")
            .replace("    client_secret: { file: secret }\n", "")
    })
    .await;
    // Counted as over after about two seconds.
    idp.life(3);
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    write(gateway.directory(), &bad);
    let mut look = async |wanted: StatusCode| {
        let answer = browser.fetches(&gateway, "/").await;
        let known = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status);
        assert!(known, "{}: {}", answer.status, answer.text());
        answer.status == wanted
    };
    eventually("a refresh that is refused", async || look(StatusCode::SERVICE_UNAVAILABLE).await).await;
    assert!(idp.counts().refused_handshakes >= 1);
    idp.life(3600);
    write(gateway.directory(), &good);
    eventually("the session going on", async || look(StatusCode::OK).await).await;
    let counts = idp.counts();
    assert_eq!((counts.reused, counts.repeated), (0, 0));
    assert!(idp.asked().iter().all(|asked| asked.auth == "certificate"));
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused_as_a_wrong_client() {
    let authority = Authority::new();
    let (known, shown) = (authority.issue("gateway"), authority.issue("somebody"));
    let idp = Idp::start_mtls(&authority, &Clients::SignedBy(&authority), &known, true).await;
    let upstream = Guarded::start(|_| true).await;
    let mut gateway = proving(&upstream, &idp, &authority, Some(&shown), "tls_client_auth").await;
    let error = refused(&mut gateway, &idp, &upstream).await;
    assert!(error.contains("invalid_client"), "{error}");
}

#[tokio::test]
async fn a_gateway_without_a_certificate_is_told_that_one_is_wanted() {
    let authority = Authority::new();
    let known = authority.issue("gateway");
    let upstream = Guarded::start(|_| true).await;
    let idp = Idp::start_mtls(&authority, &Clients::SignedBy(&authority), &known, false).await;
    let mut gateway = proving(&upstream, &idp, &authority, None, "none").await;
    let error = refused(&mut gateway, &idp, &upstream).await;
    assert!(error.contains("wants a certificate") && error.contains("cert: PATH, key: PATH"), "{error}");

    let shown = Shown::self_signed("gateway");
    let idp = Idp::start_mtls(&authority, &Clients::Known(&shown), &shown, false).await;
    let mut gateway = proving(&upstream, &idp, &authority, None, "none").await;
    let error = refused(&mut gateway, &idp, &upstream).await;
    assert!(error.contains("invalid_client"), "{error}");
}

#[tokio::test]
async fn a_gateway_whose_certificate_can_not_be_used_does_not_start_and_says_which_file() {
    let authority = Authority::new();
    let (shown, other) = (authority.issue("gateway"), authority.issue("other"));
    let upstream = Guarded::start(|_| true).await;
    for (key, said) in [
        (None, "client.key"),
        (Some("hunter2"), "client.key"),
        (Some(other.key.as_str()), "the key does not belong to the certificate"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &shown);
        match key {
            Some(text) => std::fs::write(directory.path().join("client.key"), text).unwrap(),
            None => std::fs::remove_file(directory.path().join("client.key")).unwrap(),
        }
        let settings = "tls: { cert: client.crt, key: client.key }\nauth: tls_client_auth";
        let file = directory.path().join("tidegate.yaml");
        std::fs::write(&file, secretless(&upstream, "https://idp.example", settings)).unwrap();
        let mut command = crate::support::gateway::command();
        let output = command.args(["serve", "--config"]).arg(&file).output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        assert!(!output.status.success(), "{all}");
        assert!(all.contains(said) && all.contains("tokens.billing.tls"), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[tokio::test]
async fn a_certified_provider_takes_certificates_and_binds_tokens_to_them() {
    let authority = Authority::new();
    let own = Shown::self_signed("gateway");
    for (auth, shown) in
        [("tls_client_auth", &authority.issue("gateway")), ("self_signed_tls_client_auth", &own)]
    {
        let mut client = json!({
            "client_id": CLIENT, "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [],
            "scope": "orders", "token_endpoint_auth_method": auth, "tls_client_certificate_bound_access_tokens": true,
        });
        if auth == "tls_client_auth" {
            client["tls_client_auth_san_dns"] = "gateway".into();
        } else {
            let key = SigningKey::from_pem(shown.key.as_bytes(), None, None).unwrap();
            let mut public = key.public_jwk().unwrap();
            public["x5c"] = json!([STANDARD.encode(shown.der())]);
            client["jwks"] = json!({ "keys": [public] });
        }
        let all = json!({
            "tlsClientAuth": true, "selfSignedTlsClientAuth": true, "certificateBoundAccessTokens": true,
        });
        let features = json!({ "clientCredentials": { "enabled": true }, "mTLS": all });
        let server = authority.issue("localhost");
        let tls = json!({ "cert": server.cert, "key": server.key, "ca": authority.pem() });
        let settings = json!({ "clients": [client], "features": features, "tls": tls });
        let provider = OidcProvider::start(settings).await;
        let upstream = Guarded::start(|_| true).await;
        let start = |shown: &Shown| {
            let (pair, upstream) = ((shown.cert.clone(), shown.key.clone()), &upstream);
            let (authority, issuer) = (authority.pem(), provider.issuer());
            async move {
                Gateway::start_with(|directory| {
                    std::fs::write(directory.join("ca.pem"), &authority).unwrap();
                    std::fs::write(directory.join("client.crt"), &pair.0).unwrap();
                    std::fs::write(directory.join("client.key"), &pair.1).unwrap();
                    let tls = "tls: { roots: ca.pem, cert: client.crt, key: client.key }";
                    secretless(upstream, issuer, &format!("{tls}\nauth: {auth}"))
                })
                .await
            }
        };
        let gateway = start(shown).await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{auth}: {}\n{}",
            answer.text(),
            provider.process().output()
        );
        let seen = upstream.seen();
        let token = seen[0].strip_prefix("Bearer ").unwrap();
        let bound = client::get_at(provider.addr(), &format!("/bound?token={token}"), &[]).await.json();
        assert_eq!(bound, base64url(digest(&SHA256, shown.der())), "{auth}");
        let stranger = start(&Authority::new().issue("gateway")).await;
        let refused = client::get(stranger.http(), "/").await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{auth}");
        let state = stranger.state().await;
        let error = state["tokens"][0]["last_error"].as_str().unwrap();
        assert!(error.contains("invalid_client"), "{auth}: {error}");
        assert_eq!(upstream.seen().len(), 1);
    }
}
