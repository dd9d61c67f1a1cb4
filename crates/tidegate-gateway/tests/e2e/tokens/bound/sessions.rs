//! Users' tokens that are bound to a key: from the login on, over refreshes, gateways and restarts.

use super::*;
use crate::sessions::{Browser, at_provider, secrets};

/// Short enough to end within a test.
const LIFE: u64 = 3;

/// A gateway whose users' tokens are bound to `key`, kept in `store`, with these further settings of the session.
async fn gateway(resource: &Resource, idp: &Idp, key: &str, settings: &str, store: &str) -> Gateway {
    Gateway::start_with(|directory| {
        std::fs::write(directory.join("dpop.pem"), key).unwrap();
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        let sealing =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, (1..=32).collect::<Vec<u8>>());
        std::fs::write(directory.join("session.key"), sealing).unwrap();
        let config = crate::sessions::config_at(resource.upstream().addr(), idp.issuer(), settings, store);
        if settings.contains("auth: none") {
            config.replace("    client_secret: { file: secret }\n", "")
        } else {
            config
        }
    })
    .await
}

#[tokio::test]
async fn a_login_and_its_refreshes_are_bound_to_the_key_that_all_gateways_have() {
    for auth in ["", "\nauth: none"] {
        let (idp, redis) = (Arc::new(Idp::start().await), Redis::start(&[]));
        let resource = resource(&idp).await;
        resource.nonce("here-1");
        idp.dpop_nonce("there-1");
        idp.life(LIFE);
        let (key, store) = (key(), patient(&redis));
        let settings = format!("{WITH_A_KEY}{auth}");
        let mut gateways = Vec::new();
        for _ in 0..2 {
            gateways.push(gateway(&resource, &idp, &key, &settings, &store).await);
        }
        let mut browser = Browser::default();
        let away = browser.goes(&gateways[0], "/").await;
        let thumbprint = gateways[1].state().await["sessions"][0]["dpop"]["thumbprint"].clone();
        let thumbprint = thumbprint.as_str().unwrap();
        assert!(away.header("location").contains(&format!("dpop_jkt={thumbprint}")));
        let back = at_provider(&away).await;
        assert_eq!(browser.goes(&gateways[0], &back).await.status, StatusCode::SEE_OTHER);
        // What changes on the way is learnt by both gateways.
        for (granted, nonce) in [(2, "2"), (3, "3"), (4, "4")] {
            idp.dpop_nonce(&format!("there-{nonce}"));
            resource.nonce(&format!("here-{nonce}"));
            eventually("a refresh", async || {
                for gateway in &gateways {
                    let answer = browser.fetches(gateway, "/").await;
                    assert_eq!(
                        answer.status,
                        StatusCode::OK,
                        "{}: {:?}",
                        answer.text(),
                        resource.seen().refused
                    );
                }
                idp.counts().granted >= granted
            })
            .await;
        }
        // Two at once that both have to learn a nonce are two questions more, and no reuse.
        assert_eq!(idp.counts().reused, 0);
        idp.life(3600);
        drop(gateways);
        let mut again = gateway(&resource, &idp, &key, &settings, &store).await;
        assert_eq!(
            browser.fetches(&again, "/").await.status,
            StatusCode::OK,
            "{:?}",
            resource.seen().refused
        );
        let served = resource.seen().served.clone();
        assert!(served.iter().all(|(.., token)| idp.bound_to(token).as_deref() == Some(thumbprint)));
        assert!(resource.seen().refused.iter().all(|why| why == "use_dpop_nonce"));
        let secrets = [secrets(&idp, &[&browser]), secret_lines(&key)].concat();
        shows_no_secret(&mut again, &secrets).await;
        let dump = redis_dump(&redis).await;
        for secret in &secrets {
            assert!(
                !dump.windows(secret.len()).any(|part| part == secret.as_bytes()),
                "a secret is in the store"
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_is_made_serves_sessions_in_memory_over_a_reload() {
    let idp = Arc::new(Idp::start().await);
    let resource = resource(&idp).await;
    let gateway = gateway(&resource, &idp, "", "dpop: {}", "memory://").await;
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK, "{:?}", resource.seen().refused);
    let addr = resource.upstream().addr();
    gateway.write(&crate::sessions::config_at(addr, idp.issuer(), "dpop: {}\nmax_wait: 20s", "memory://"));
    gateway.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    assert_eq!(browser.fetches(&gateway, "/").await.status, StatusCode::OK, "{:?}", resource.seen().refused);
    assert_eq!(idp.counts().granted, 1);
}

#[tokio::test]
async fn a_key_that_is_replaced_costs_a_session_one_answer_and_no_login() {
    let idp = Arc::new(Idp::start().await);
    let resource = resource(&idp).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("sessions.sealed");
    let settings = format!("{WITH_A_KEY}\nfile: {}", file.display());
    let (old, new) = (key(), key());
    let mut first = gateway(&resource, &idp, &old, &settings, "memory://").await;
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&first, "/").await.status, StatusCode::OK, "{:?}", resource.seen().refused);
    assert!(first.drain().await.success());
    let same = gateway(&resource, &idp, &old, &settings, "memory://").await;
    assert_eq!(browser.fetches(&same, "/").await.status, StatusCode::OK, "{:?}", resource.seen().refused);
    assert_eq!(idp.counts().granted, 1, "a restart changes nothing");
    std::fs::write(same.directory().join("dpop.pem"), &new).unwrap();
    same.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    assert_eq!(
        browser.fetches(&same, "/").await.status,
        StatusCode::UNAUTHORIZED,
        "the upstream is asked once"
    );
    assert_eq!(browser.fetches(&same, "/").await.status, StatusCode::OK, "{:?}", resource.seen().refused);
    assert_eq!((idp.counts().granted, idp.counts().reused), (2, 0));
    // A token of the key that there is now is not given up, whatever the upstream says.
    idp.forget_access_tokens();
    for _ in 0..5 {
        assert_eq!(browser.fetches(&same, "/").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(idp.counts().granted, 2);
}
