//! No part of a token, a cookie, a code, a verifier or a secret is anywhere that people look: logs down to the finest,
//! pages of the operator, the store, errors as text and as debugging shows them.

use std::{collections::HashSet, fs, sync::Arc, time::Duration};

use tidegate::{
    Secret,
    token::{Grant, Login, TokenEndpoint as _, Tokens},
};
use tidegate_gateway::oidc::{
    client::{Auth, Client},
    endpoint::Endpoint,
    id_token::IdTokens,
    jose::Algorithm,
    provider::{Provider, ProviderSettings},
};
use url::form_urlencoded::byte_serialize;

use super::*;
use crate::{
    sessions::config,
    support::idp::{CLIENT, SECRET},
};

/// Bytes of a secret that must not stand together anywhere.
const PART: usize = 12;

/// Asserts that no part of a secret is in any of these places, as it is or as it goes into a form.
fn assert_none_of(secrets: &[String], places: &[(&str, Vec<u8>)]) {
    assert!(secrets.len() > 20, "{} secrets are few", secrets.len());
    for (place, bytes) in places {
        let parts: HashSet<&[u8]> = bytes.windows(PART).collect();
        for secret in secrets {
            let encoded: String = byte_serialize(secret.as_bytes()).collect();
            for text in [secret.as_bytes(), encoded.as_bytes()] {
                let found = text.windows(PART).find(|part| parts.contains(part));
                assert!(
                    found.is_none(),
                    "a part of a secret is in {place}: {:?}",
                    found.map(String::from_utf8_lossy)
                );
            }
        }
    }
}

/// Everything that the provider can do to a refresh.
fn all_that_can_happen() -> Vec<Does> {
    vec![
        Does::Says("{\"access_token\":\"at-of-nobody-else\",\"token_type\":\"mac\"}"),
        Does::Says("at-of-nobody-else: this is no JSON"),
        Does::Fails(503, Some(1)),
        Does::Fails(429, None),
        Does::Redirects,
        Does::Forges,
        Does::Mangles,
        Does::Refuses("invalid_client"),
        Does::LosesTheAnswer,
        Does::Refuses("invalid_grant"),
        Does::GrantsTo("mallory"),
    ]
}

#[tokio::test]
async fn no_part_of_a_secret_is_seen_whatever_happens() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let redis = Redis::start(&["--rdbcompression", "no", "--dbfilename", "dump.rdb"]);
    let mut gateway = Gateway::start_with(|directory| {
        fs::write(directory.join("secret"), SECRET).unwrap();
        let key =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, (1..=32).collect::<Vec<u8>>());
        fs::write(directory.join("session.key"), key).unwrap();
        config(&behind, idp.issuer(), "max_wait: 500ms\nopen_for: 1s", &patient(&redis)).replace(
            "level: debug",
            "level: \"debug,tidegate=trace,tidegate_core=trace,tidegate_gateway=trace,tidegate_redis=trace\"",
        )
    })
    .await;
    let mut secrets = Vec::new();
    let mut places: Vec<(&str, Vec<u8>)> = Vec::new();
    idp.life(1);
    let mut cookies = Vec::new();
    for does in all_that_can_happen() {
        let mut browser = Browser::default();
        let back = at_provider(&browser.goes(&gateway, "/wanted?token=mine").await).await;
        secrets.extend(browser.cookies.values().cloned());
        let landed = browser.goes(&gateway, &back).await;
        assert_eq!(landed.status, StatusCode::SEE_OTHER, "{}", landed.text());
        // The same code again.
        browser.goes(&gateway, &back).await;
        secrets.extend(browser.cookies.values().cloned());
        are_over(&idp).await;
        let cookie = format!("tidegate={}", browser.session().unwrap());
        idp.always(does);
        for _ in 0..3 {
            fetch(&gateway, &cookie).await;
        }
        idp.always(Does::Grants);
        cookies.push((cookie, browser));
    }
    redis.say::<()>("SAVE").await;
    places.push(("the store", fs::read(redis.directory.path().join("dump.rdb")).unwrap()));
    for (cookie, browser) in &mut cookies {
        fetch(&gateway, cookie).await;
        browser.goes(&gateway, "/oauth2/logout").await;
        fetch(&gateway, cookie).await;
    }
    redis.say::<()>("SAVE").await;
    places.push(("the store after the logouts", fs::read(redis.directory.path().join("dump.rdb")).unwrap()));
    for page in ["/", "/metrics", "/state", "/config"] {
        for accept in ["application/json", "text/html"] {
            let shown = client::get_at(gateway.admin(), page, &[("accept", accept)]).await;
            places.push((page, shown.body.to_vec()));
        }
    }
    assert!(gateway.drain().await.success());
    let log = gateway.process().output();
    assert!(log.contains("/wanted"), "calls are in the log");
    places.push(("the log", log.into_bytes()));
    secrets.extend(idp.secrets());
    assert_none_of(&secrets, &places);
}

#[tokio::test]
async fn no_part_of_a_secret_is_in_an_error_or_in_what_debugging_shows() {
    let idp = Idp::start().await;
    let settings = ProviderSettings {
        issuer: idp.issuer().parse().unwrap(),
        token_endpoint: None,
        tls: None,
        allow_http: true,
    };
    let provider = Arc::new(Provider::new("idp", settings).unwrap());
    let ids = Arc::new(IdTokens::new(Arc::clone(&provider), vec![Algorithm::Es256]));
    let client = Client { id: CLIENT.into(), auth: Auth::Secret(Secret::new(SECRET)) };
    let endpoint = Endpoint::new(provider, client, None, Some(ids));
    let mut shown = String::new();
    let mut show = |what: &dyn std::fmt::Debug| shown.push_str(&format!("{what:?}\n{what:#?}\n"));
    show(&endpoint);
    for does in all_that_can_happen().into_iter().chain([Does::Grants, Does::Hangs]) {
        idp.next(does);
        let grant = Grant::refresh(Secret::new(idp.refresh_token("ann")));
        show(&grant);
        let tokens = match endpoint.grant(grant, Duration::from_secs(2)).await {
            Ok(tokens) => tokens,
            Err(error) => {
                show(&error);
                show(&error.to_string());
                continue;
            }
        };
        show(&tokens);
        let ann = tidegate::token::Identity { issuer: idp.issuer().into(), subject: "ann".into() };
        match endpoint.verify(&tokens, Some(&ann)).await {
            Ok(identity) => show(&identity),
            Err(error) => {
                show(&error);
                show(&error.to_string());
            }
        }
        let Tokens { access, .. } = &tokens;
        show(access);
        show(&Login::of(tokens));
    }
    assert_none_of(&idp.secrets(), &[("what is shown", shown.into_bytes())]);
}
