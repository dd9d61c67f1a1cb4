//! What a failed refresh costs, and whom: those who wait for it, once; never a session that is good.

use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

/// A provider that answers badly is left alone for a moment only, and asked once at a time.
const QUICK: &str = "max_wait: 200ms\nopen_for: 1s\ngrants: 1";

fn retry_after(answer: &Answer) -> u64 {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    answer.header("retry-after").parse().unwrap()
}

#[tokio::test]
async fn a_failed_refresh_counts_once_however_many_waited_and_the_next_call_tries_again() {
    let (idp, _behind, gateway) = alone("max_wait: 120s\ntimeout: 120s\nopen_for: 10m").await;
    idp.life(SHORT);
    let cookies = log_in_all(&gateway, 3).await;
    are_over().await;
    let asked = idp.counts().arrived;
    idp.always(Does::FailsLate(503));
    idp.life(3600);
    // Three in a row would shut the provider off for all; these are two, of many callers each.
    for (n, cookie) in cookies[..2].iter().enumerate() {
        idp.hold();
        let crowd = vec![cookie.clone(); 1000];
        let released = async {
            are_waiting(&[&gateway], 1000).await;
            idp.release();
        };
        let answers = fetch_all_while(&[&gateway], &crowd, released).await;
        assert_eq!(count_of(&answers, StatusCode::SERVICE_UNAVAILABLE), 1000);
        assert!(answers.iter().all(|answer| retry_after(answer) <= 15));
        assert_eq!(
            (idp.counts().arrived - asked, refreshes(&gateway, "transient").await),
            (n + 1, n as u64 + 1)
        );
    }
    idp.always(Does::Grants);
    assert_eq!(fetch(&gateway, &cookies[2]).await.status, StatusCode::OK, "the provider is not shut off");
    // Those who failed are not stuck with the failure either.
    for cookie in &cookies[..2] {
        fetch_until(&gateway, cookie, StatusCode::OK).await;
    }
    assert_eq!((idp.counts().arrived - asked, idp.counts().reused), (5, 0));
}

#[tokio::test]
async fn users_whose_refresh_tokens_are_dead_are_noticed_by_nobody_else() {
    let (idp, _behind, gateway) = alone("open_for: 10m").await;
    idp.life(SHORT);
    let cookies = log_in_all(&gateway, 12).await;
    are_over().await;
    idp.life(3600);
    idp.always(Does::Refuses("invalid_grant"));
    let (dead, living) = cookies.split_at(6);
    let answers = fetch_all(&[&gateway], dead).await;
    assert_eq!(count_of(&answers, StatusCode::UNAUTHORIZED), dead.len());
    idp.always(Does::Grants);
    all_served(&fetch_all(&[&gateway], living).await);
    let asked = idp.counts().arrived;
    assert_eq!(refreshes(&gateway, "invalid_grant").await, dead.len() as u64);
    let answers = fetch_all(&[&gateway], dead).await;
    assert_eq!((count_of(&answers, StatusCode::UNAUTHORIZED), idp.counts().arrived), (dead.len(), asked));
    let again = log_in(&gateway).await;
    assert_eq!(fetch(&gateway, &again).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_provider_that_is_down_gets_one_probe_and_good_tokens_are_served_all_the_time() {
    let (idp, _behind, gateway) = alone(QUICK).await;
    let good = log_in(&gateway).await;
    idp.life(SHORT);
    let cookies = log_in_all(&gateway, 40).await;
    are_over().await;
    idp.life(3600);
    idp.always(Does::Fails(503, None));
    let before = idp.counts();
    let asked = || idp.counts().arrived - before.arrived;
    let refused =
        |answers: &[Answer]| assert_eq!(count_of(answers, StatusCode::SERVICE_UNAVAILABLE), answers.len());
    refused(&fetch_all(&[&gateway], &cookies).await);
    // Everybody comes again and again for some probes; each finds out for all.
    let began = Instant::now();
    eventually("three probes that fail", async || {
        refused(&fetch_all(&[&gateway], &cookies).await);
        assert_eq!(fetch(&gateway, &good).await.status, StatusCode::OK);
        asked() >= 6
    })
    .await;
    let (probes, seconds) = (asked() - 3, began.elapsed().as_secs_f64());
    assert!(probes as f64 <= seconds + 1.0, "{probes} probes in {seconds} s, one a second at most");
    // The provider is back, and slow: there is one probe however many come, and whose call it was leaves.
    idp.always(Does::GrantsLate);
    let asked_before = asked();
    let mut callers = JoinSet::new();
    eventually("the probe", async || {
        if callers.is_empty() {
            for cookie in &cookies[..5] {
                let (addr, cookie) = (gateway.http(), cookie.clone());
                callers
                    .spawn(async move { client::get_with(addr, "/", &[("cookie", &cookie)]).await.status });
            }
        }
        while let Some(told) = callers.try_join_next() {
            assert_eq!(told.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        }
        idp.counts().at_once == 1
    })
    .await;
    callers.shutdown().await;
    for _ in 0..3 {
        refused(&fetch_all(&[&gateway], &cookies).await);
        assert_eq!(fetch(&gateway, &good).await.status, StatusCode::OK);
    }
    assert!(asked() <= asked_before + 2, "{} questions for one probe", asked() - asked_before);
    assert_eq!(idp.counts().at_once, 1, "one probe");
    idp.release();
    for cookie in &cookies {
        fetch_until(&gateway, cookie, StatusCode::OK).await;
    }
    let after = idp.counts();
    assert_eq!((after.granted - before.granted, after.reused), (cookies.len(), 0));
}

#[tokio::test]
async fn a_refresh_that_fails_before_the_end_costs_nobody_the_token_that_is_good() {
    let (idp, behind, gateway) = alone("refresh_before: 90%").await;
    // Due after two seconds, over after ten.
    idp.life(12);
    let cookie = log_in(&gateway).await;
    let token = token_of(&gateway, &cookie, &behind).await;
    idp.always(Does::Fails(503, None));
    eventually("a refresh that fails", async || {
        assert_eq!(token_of(&gateway, &cookie, &behind).await, token);
        refreshes(&gateway, "transient").await >= 1
    })
    .await;
    assert_eq!(token_of(&gateway, &cookie, &behind).await, token, "it is still good");
    idp.always(Does::Grants);
    eventually("the refresh being tried again", async || {
        let answer = fetch(&gateway, &cookie).await;
        answer.status == StatusCode::OK && idp.counts().granted == 2
    })
    .await;
    assert_eq!(idp.counts().reused, 0);
}

#[tokio::test]
async fn a_session_whose_refreshes_fail_cools_down_and_a_success_forgives() {
    tokio::join!(cools_down(), is_forgiven());
}

/// A gateway with a session that is over, at a provider whose answers bring another refresh token and nothing else of use.
async fn with_a_mangler() -> (Idp, Behind, Gateway, String) {
    let (idp, behind, gateway) = alone("").await;
    idp.life(SHORT);
    let cookie = log_in(&gateway).await;
    are_over().await;
    idp.always(Does::Mangles);
    (idp, behind, gateway, cookie)
}

async fn cools_down() {
    let (idp, _behind, gateway, bad) = with_a_mangler().await;
    let asked = idp.counts().arrived;
    eventually("the cooldown", async || retry_after(&fetch(&gateway, &bad).await) > 500).await;
    assert_eq!(idp.counts().arrived - asked, 5, "rotation gives no new tries");
    for _ in 0..10 {
        assert!(retry_after(&fetch(&gateway, &bad).await) > 500);
    }
    // What it does is of no use to somebody else either, who is free to try.
    idp.life(3600);
    idp.always(Does::Grants);
    let other = log_in(&gateway).await;
    assert_eq!(fetch(&gateway, &other).await.status, StatusCode::OK);
    assert!(retry_after(&fetch(&gateway, &bad).await) > 500, "another one's success forgives nothing");
    assert_eq!((idp.counts().arrived - asked, idp.counts().reused), (6, 0));
}

/// Twice four failures, and a success between them.
async fn is_forgiven() {
    let (idp, _behind, gateway, mended) = with_a_mangler().await;
    for _ in 0..2 {
        let asked = idp.counts().arrived;
        eventually("four failures", async || {
            assert!(retry_after(&fetch(&gateway, &mended).await) <= 15);
            idp.counts().arrived - asked == 4
        })
        .await;
        idp.always(Does::Grants);
        fetch_until(&gateway, &mended, StatusCode::OK).await;
        are_over().await;
        idp.always(Does::Mangles);
    }
    assert_eq!(idp.counts().reused, 0);
}

#[tokio::test]
async fn a_pause_that_the_provider_asks_for_is_kept_by_all_gateways() {
    let (idp, _behind, _redis, gateways) = together(2, "max_wait: 2s\ngrants: 1").await;
    let gateways: Vec<&Gateway> = gateways.iter().collect();
    idp.life(SHORT);
    let cookies = log_in_all(gateways[0], 20).await;
    are_over().await;
    idp.life(3600);
    idp.always(Does::Fails(429, Some(4)));
    let asked = idp.counts().arrived;
    let refused = fetch(gateways[0], &cookies[0]).await;
    assert!((2..=5).contains(&retry_after(&refused)), "{}", refused.header("retry-after"));
    // The other one hears of it without asking.
    gateways[1].state_is("the pause", |all| all["sessions"][0]["provider"] == "paused").await;
    let answers = fetch_all(&gateways, &cookies).await;
    assert!(answers.iter().all(|answer| (1..=5).contains(&retry_after(answer))));
    assert_eq!(idp.counts().arrived - asked, 1, "one question of both gateways together");
    idp.always(Does::Grants);
    for (n, cookie) in cookies.iter().enumerate() {
        fetch_until(gateways[n % 2], cookie, StatusCode::OK).await;
    }
    assert_eq!((idp.counts().granted, idp.counts().reused), (2 * cookies.len(), 0));
}
