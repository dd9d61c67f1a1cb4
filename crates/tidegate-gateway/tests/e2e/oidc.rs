//! The room that speaks OpenID Connect, against a provider that rotates, fails and lies as it is told.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::StatusCode;
use tidegate::{
    Secret,
    token::{Grant, GrantError, Identity, TokenEndpoint as _, Tokens, VerifyError},
};
use tidegate_gateway::{
    config::Dpop,
    oidc::{
        binding::Binding,
        client::{Auth, Client},
        endpoint::Endpoint,
        id_token::IdTokens,
        jose::Algorithm,
        keys::Keys,
        provider::{Provider, ProviderSettings},
    },
};

use crate::support::{
    idp::{CLIENT, Does, Idp, SECRET},
    oidc_provider::OidcProvider,
};

const WITHIN: Duration = Duration::from_secs(10);

fn provider(issuer: &str) -> Arc<Provider> {
    let settings = ProviderSettings {
        issuer: issuer.parse().unwrap(),
        token_endpoint: None,
        tls: None,
        allow_http: true,
    };
    Arc::new(Provider::new("idp", settings).unwrap())
}

/// Tokens bound to a key of this process.
fn bound() -> Binding {
    Binding::new(&Dpop::default(), None, None).unwrap()
}

/// A client that verifies ID tokens, and asks for a key that it misses once in `ask_again`.
fn endpoint(issuer: &str, ask_again: Duration) -> Endpoint {
    let provider = provider(issuer);
    let keys = Keys::new(Arc::clone(&provider)).ask_again(ask_again);
    let ids = IdTokens::with_keys(Arc::clone(&provider), vec![Algorithm::Es256], keys);
    let client = Client { id: CLIENT.into(), auth: Auth::Secret(Secret::new(SECRET)) };
    Endpoint::new(provider, client, None, Some(Arc::new(ids)))
}

async fn refreshed(endpoint: &Endpoint, token: &str) -> Result<Tokens, GrantError> {
    endpoint.grant(Grant::refresh(Secret::new(token)), WITHIN).await
}

#[tokio::test]
async fn a_refresh_rotates_and_the_old_token_ends_the_family() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let first = idp.refresh_token("ann");
    let tokens = refreshed(&endpoint, &first).await.unwrap();
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(3600)));
    let second = tokens.refresh.clone().unwrap();
    assert_ne!(second.expose(), first);
    let identity = endpoint.verify(&tokens, None).await.unwrap().unwrap();
    assert_eq!((&*identity.issuer, &*identity.subject), (idp.issuer(), "ann"));
    let again = refreshed(&endpoint, &first).await.unwrap_err();
    assert_eq!(again, GrantError::Terminal { code: "invalid_grant".into() });
    assert_eq!(idp.counts().reused, 1);
    let dead = refreshed(&endpoint, second.expose()).await.unwrap_err();
    assert_eq!(dead.as_str(), "invalid_grant");
}

#[tokio::test]
async fn tokens_of_somebody_else_are_known_as_such() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let tokens = refreshed(&endpoint, &idp.refresh_token("bob")).await.unwrap();
    let ann = Identity { issuer: idp.issuer().into(), subject: "ann".into() };
    assert_eq!(
        endpoint.verify(&tokens, Some(&ann)).await.unwrap_err(),
        VerifyError::Mismatch { claim: "sub".into() }
    );
    // A user of the same name at another issuer is somebody else, like one from before a change of the configuration.
    let elsewhere = Identity { issuer: "https://before.example".into(), subject: "bob".into() };
    assert_eq!(
        endpoint.verify(&tokens, Some(&elsewhere)).await.unwrap_err(),
        VerifyError::Mismatch { claim: "iss".into() }
    );
    // A refresh may answer without an ID token: it is still the same user.
    let without = Tokens { id: None, ..tokens };
    assert_eq!(endpoint.verify(&without, Some(&ann)).await.unwrap(), Some(ann));
}

#[tokio::test]
async fn a_new_signing_key_is_asked_for_once_however_many_tokens_name_it() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let before = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    endpoint.verify(&before, None).await.unwrap();
    assert_eq!(idp.counts().keys, 1);
    idp.rotate_keys();
    let refreshing = (0..100).map(|_| {
        let token = idp.refresh_token("ann");
        let endpoint = &endpoint;
        async move { refreshed(endpoint, &token).await.unwrap() }
    });
    let after = join_all(refreshing).await;
    let verified = join_all(after.iter().map(|tokens| endpoint.verify(tokens, None))).await;
    assert!(verified.iter().all(Result::is_ok), "{verified:?}");
    assert_eq!(idp.counts().keys, 2);
}

#[tokio::test]
async fn a_key_that_can_not_be_asked_for_yet_makes_no_token_invalid() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::from_secs(3600));
    let before = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    endpoint.verify(&before, None).await.unwrap();
    idp.rotate_keys();
    let next = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    endpoint.verify(&next, None).await.expect("a key that is missed for the first time is asked for at once");
    idp.rotate_keys();
    let after = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    for _ in 0..10 {
        let said = endpoint.verify(&after, None).await.unwrap_err();
        assert!(matches!(said, VerifyError::Unavailable { .. }), "{said}");
        endpoint.verify(&next, None).await.unwrap();
    }
    assert_eq!(idp.counts().keys, 2);
}

#[tokio::test]
async fn keys_that_are_away_make_no_token_invalid_and_the_old_ones_still_serve() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let before = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    endpoint.verify(&before, None).await.unwrap();
    idp.rotate_keys();
    idp.documents(StatusCode::SERVICE_UNAVAILABLE);
    let after = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    let said = endpoint.verify(&after, None).await.unwrap_err();
    assert!(matches!(said, VerifyError::Unavailable { .. }), "{said}");
    endpoint.verify(&before, None).await.unwrap();
}

#[tokio::test]
async fn a_token_that_another_key_signed_is_invalid_once_the_keys_were_read_again() {
    let (idp, forger) = (Idp::start().await, Idp::start().await);
    let (endpoint, forging) =
        (endpoint(idp.issuer(), Duration::ZERO), endpoint(forger.issuer(), Duration::ZERO));
    let forged = refreshed(&forging, &forger.refresh_token("ann")).await.unwrap();
    let said = endpoint.verify(&forged, None).await.unwrap_err();
    assert!(matches!(said, VerifyError::Invalid { .. }), "{said}");
}

#[tokio::test]
async fn a_provider_whose_clock_is_ahead_is_believed_by_its_own_clock() {
    let idp = Idp::start().await;
    idp.clock_ahead(3600);
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let tokens = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    endpoint.verify(&tokens, None).await.unwrap();
    let ahead = endpoint.provider().clock().ahead();
    assert!((3598..=3602).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn possession_is_proved_with_the_nonce_that_the_provider_wants() {
    let idp = Idp::start().await;
    idp.dpop_nonce("n-1");
    let client = Client { id: CLIENT.into(), auth: Auth::Post(Secret::new(SECRET)) };
    let endpoint = Endpoint::new(provider(idp.issuer()), client, Some(bound()), None);
    let tokens = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    assert_eq!(&*tokens.kind, "DPoP");
    assert_eq!((idp.counts().asked, idp.counts().granted, idp.counts().reused), (2, 1, 0));
    refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    assert_eq!(idp.counts().asked, 3, "the nonce is known now");
    idp.dpop_nonce("n-2");
    refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    let proofs: Vec<bool> = idp.asked().iter().map(|asked| asked.dpop).collect();
    assert_eq!(proofs, [false, true, true, false, true]);
}

#[tokio::test]
async fn whether_a_lost_answer_was_granted_nobody_knows_and_nobody_asks_again() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    for does in [Does::LosesTheAnswer, Does::Hangs] {
        idp.next(does.clone());
        let token = idp.refresh_token("ann");
        let before = idp.counts();
        let lost =
            endpoint.grant(Grant::refresh(Secret::new(token.as_str())), Duration::from_millis(300)).await;
        let error = lost.unwrap_err();
        assert!(matches!(error, GrantError::Unknown { .. }), "{does:?}: {error}");
        assert!(!error.to_string().contains(&token), "{error}");
        let after = idp.counts();
        assert_eq!((after.asked - before.asked, after.granted - before.granted), (1, 1), "{does:?}");
    }
    assert_eq!(idp.counts().reused, 0);
}

#[tokio::test]
async fn a_provider_that_is_not_there_was_surely_not_asked() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let token = idp.refresh_token("ann");
    refreshed(&endpoint, &token).await.unwrap();
    drop(idp);
    let error = refreshed(&endpoint, "another").await.unwrap_err();
    // The connection may still have been open when the question went out.
    assert!(matches!(error, GrantError::NotSent { .. } | GrantError::Unknown { .. }), "{error}");
    let error = refreshed(&endpoint, "another").await.unwrap_err();
    assert!(matches!(error, GrantError::NotSent { .. }), "{error}");
}

#[tokio::test]
async fn tokens_that_nobody_uses_are_given_back() {
    let idp = Idp::start().await;
    let endpoint = endpoint(idp.issuer(), Duration::ZERO);
    let tokens = refreshed(&endpoint, &idp.refresh_token("ann")).await.unwrap();
    endpoint.revoke(tokens).await;
    assert_eq!(idp.counts().revoked, 1);
}

#[tokio::test]
async fn a_certified_provider_takes_our_proofs_of_possession() {
    let client = serde_json::json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["client_credentials"],
        "redirect_uris": [], "response_types": [], "scope": "orders",
    });
    let features =
        serde_json::json!({ "clientCredentials": { "enabled": true }, "dPoP": { "enabled": true } });
    let provider =
        OidcProvider::start(serde_json::json!({ "clients": [client], "features": features })).await;
    let client = Client { id: CLIENT.into(), auth: Auth::Secret(Secret::new(SECRET)) };
    let endpoint = Endpoint::new(self::provider(provider.issuer()), client, Some(bound()), None);
    let grant = Grant::ClientCredentials { scope: Some("orders".into()), audience: None, resource: None };
    let tokens = endpoint
        .grant(grant, WITHIN)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", provider.process().output()));
    assert_eq!((&*tokens.kind, tokens.scope.as_deref()), ("DPoP", Some("orders")));
    assert_eq!(provider.count("refused").await, 1, "the first proof lacked the nonce");
}
