//! Gateways that share a store share their tokens: one grant for all, one pause, and nothing to read in the store.

use futures_util::future::join_all;

use super::*;
use crate::{servers::Redis, sessions::patient};

/// Gateways of one configuration on one store.
async fn fleet(size: usize, upstream: &Guarded, idp: &Idp, settings: &str, store: &str) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for _ in 0..size {
        let gateway = Gateway::start_with(|directory| {
            std::fs::write(directory.join("secret"), format!("{SECRET}\n")).unwrap();
            config(upstream, idp.issuer(), settings) + &format!("store: {store}\n")
        });
        gateways.push(gateway.await);
    }
    gateways
}

async fn all_get(gateways: &[Gateway], count: usize) -> Vec<Answer> {
    join_all((0..count).map(|n| client::get(gateways[n % gateways.len()].http(), "/"))).await
}

#[tokio::test]
async fn a_fleet_asks_once_for_all_its_gateways_and_once_for_those_that_come_later() {
    let (idp, redis) = (Arc::new(Idp::start().await), Redis::start(&[]));
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let store = patient(&redis);
    let mut gateways = fleet(3, &upstream, &idp, "scope: [orders]", &store).await;
    gateways.extend(fleet(1, &upstream, &idp, "scope: [orders]", &store).await);
    for answer in all_get(&gateways, 200).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!((idp.counts().asked, idp.counts().granted), (1, 1));
    let seen = upstream.seen();
    assert!(seen.iter().all(|text| *text == seen[0]));
    // Another scope is another token.
    let other = fleet(2, &upstream, &idp, "scope: [invoices]", &store).await;
    for answer in all_get(&other, 20).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(idp.counts().granted, 2);
    let mut connection = redis.connect().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut dump = keys.join("\n").into_bytes();
    for key in &keys {
        let bytes: Vec<u8> =
            redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap_or_default();
        dump.extend(bytes);
    }
    assert!(dump.len() > 500, "the tokens are there");
    for secret in idp.secrets().iter().map(String::as_str).chain([SECRET]) {
        assert!(
            !dump.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "a secret is in the store"
        );
    }
}

#[tokio::test]
async fn a_token_that_an_upstream_calls_invalid_is_given_up_once_by_all_gateways() {
    let (idp, redis) = (Arc::new(Idp::start().await), Redis::start(&[]));
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let gateways = fleet(3, &upstream, &idp, "rejected_interval: 1h", &patient(&redis)).await;
    assert!(all_get(&gateways, 6).await.iter().all(|answer| answer.status == StatusCode::OK));
    idp.forget_access_tokens();
    // Whoever is told first has another one granted, for all.
    eventually("calls carrying the next token everywhere", async || {
        all_get(&gateways, 6).await.iter().all(|answer| answer.status == StatusCode::OK)
    })
    .await;
    assert_eq!(idp.counts().granted, 2);
    idp.forget_access_tokens();
    for answer in all_get(&gateways, 30).await {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "an upstream that takes none makes nobody busy");
    }
    assert_eq!(idp.counts().granted, 2);
}

#[tokio::test]
async fn a_pause_that_the_provider_asks_for_is_kept_by_all_gateways() {
    let (idp, redis) = (Arc::new(Idp::start().await), Redis::start(&[]));
    let upstream = Guarded::start(|_| true).await;
    idp.always(Does::Fails(429, Some(120)));
    let gateways = fleet(3, &upstream, &idp, "", &patient(&redis)).await;
    // Until all have heard of it: a gateway that starts asks once, and a hint takes its time.
    eventually("all gateways keeping the pause", async || {
        all_get(&gateways, 3).await.iter().all(|answer| {
            answer.status == StatusCode::SERVICE_UNAVAILABLE
                && answer.header("retry-after").parse::<u64>().is_ok_and(|after| after > 60)
        })
    })
    .await;
    let asked = idp.counts().asked;
    assert!(asked <= 3, "{asked} questions of three gateways that were told to come back in two minutes");
    for answer in all_get(&gateways, 30).await {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(idp.counts().asked, asked);
}

#[tokio::test]
async fn while_the_store_is_away_every_gateway_has_a_token_of_its_own() {
    let (idp, redis) = (Arc::new(Idp::start().await), Redis::start(&[]));
    let known = Arc::clone(&idp);
    let upstream = Guarded::start(move |token| known.knows(token)).await;
    let store = patient(&redis);
    drop(redis);
    let gateways = fleet(2, &upstream, &idp, "max_wait: 30s", &store).await;
    for answer in all_get(&gateways, 20).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(idp.counts().granted, 2);
}
