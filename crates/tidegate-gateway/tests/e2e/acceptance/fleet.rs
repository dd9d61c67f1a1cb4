//! Gateways and stores that die, stand still or are slow: a session is refreshed by one, and survives all of it.

use std::sync::Arc;

use rustix::process::Signal;

use super::*;
use crate::support::idp::Grace;

/// A provider that takes the last refresh token again for a while.
const GRACE: &str = "reuse_grace: 60s\nmax_wait: 60s\ntimeout: 60s";

/// Two gateways; the first holds the lease of a session that is over, with a refresh out.
async fn with_a_holder(settings: &str, acts_late: bool) -> (Idp, Behind, Redis, Gateway, Gateway, String) {
    let (idp, behind, redis, mut gateways) = together(2, settings).await;
    let (second, first) = (gateways.pop().unwrap(), gateways.pop().unwrap());
    idp.life(SHORT);
    let cookie = log_in(&first).await;
    are_over().await;
    idp.life(3600);
    // Held back before it acts, or with the answer.
    idp.acts_late(acts_late);
    if !acts_late {
        idp.next(Does::GrantsLate);
    }
    let (addr, held) = (first.http(), cookie.clone());
    tokio::spawn(async move {
        // It is never answered: its gateway is killed, or stands still.
        let mut sender = client::http1(addr).await;
        let request = client::request("GET", "/").header("cookie", held).body(client::empty()).unwrap();
        let _ = sender.send_request(request).await;
    });
    eventually("the refresh being out", async || idp.counts().at_once == 1).await;
    (idp, behind, redis, first, second, cookie)
}

/// Each waits for a lease to run out, which takes ten seconds: all of them at once.
#[tokio::test]
async fn a_holder_that_dies_or_stands_still_is_followed_by_another_one_and_nothing_is_used_twice() {
    tokio::join!(
        killed_after_the_provider_rotated(),
        killed_before_the_provider_acted(),
        killed_without_a_grace(),
        an_old_answer_after_a_newer_one(),
    );
}

async fn killed_after_the_provider_rotated() {
    let (idp, _behind, _redis, first, second, cookie) = with_a_holder(GRACE, false).await;
    idp.grace(Grace::Last);
    first.kill();
    // Its lease runs out, and the next one repeats what may have been lost.
    let answers = fetch_all(&[&second], &vec![cookie; 50]).await;
    all_served(&answers);
    let counts = idp.counts();
    assert_eq!((counts.granted, counts.repeated, counts.reused), (3, 1, 0));
}

async fn killed_before_the_provider_acted() {
    let (idp, _behind, _redis, first, second, cookie) = with_a_holder(GRACE, true).await;
    first.kill();
    eventually("the question being gone", async || idp.counts().at_once == 0).await;
    idp.acts_late(false);
    all_served(&fetch_all(&[&second], &vec![cookie; 50]).await);
    let counts = idp.counts();
    assert_eq!((counts.asked, counts.granted, counts.repeated, counts.reused), (2, 2, 0, 0));
}

/// What a dead holder sent is not repeated, and the user logs in soon.
async fn killed_without_a_grace() {
    let (idp, _behind, _redis, first, second, cookie) =
        with_a_holder("max_wait: 60s\ntimeout: 60s", false).await;
    first.kill();
    // Nobody knows whether the token is used up; to present it again would look like theft.
    fetch_until(&second, &cookie, StatusCode::UNAUTHORIZED).await;
    assert_eq!((idp.counts().arrived, idp.counts().reused), (2, 0));
    let again = log_in(&second).await;
    assert_eq!(fetch(&second, &again).await.status, StatusCode::OK);
}

async fn an_old_answer_after_a_newer_one() {
    let (idp, behind, redis, mut first, second, cookie) = with_a_holder(GRACE, false).await;
    idp.grace(Grace::Last);
    first.process().signal("STOP");
    // Answered while it stands still: it finds the answer when it wakes, after another one has refreshed.
    idp.release();
    let newer = token_of(&second, &cookie, &behind).await;
    first.process().signal("CONT");
    eventually("the first one serving the newer token", async || {
        token_of(&first, &cookie, &behind).await == newer
    })
    .await;
    assert_eq!(token_of(&second, &cookie, &behind).await, newer);
    let third = gateway(&behind, idp.issuer(), "", &patient(&redis)).await;
    assert_eq!(token_of(&third, &cookie, &behind).await, newer, "it stands in the store");
    assert_eq!((idp.counts().repeated, idp.counts().reused), (1, 0));
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_session_and_good_tokens_are_served() {
    let (idp, _behind, redis, gateways) = together(1, "max_wait: 500ms").await;
    let gateway = &gateways[0];
    let good = log_in(gateway).await;
    idp.life(SHORT);
    let over = log_in(gateway).await;
    are_over().await;
    idp.life(3600);
    redis.signal(Signal::STOP);
    for _ in 0..3 {
        assert_eq!(fetch(gateway, &good).await.status, StatusCode::OK);
        let answer = fetch(gateway, &over).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "nobody is logged out: {}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
    }
    let page = [("cookie", over.as_str()), ("sec-fetch-mode", "navigate")];
    let page = client::get_with(gateway.http(), "/", &page).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "a page is not sent off to log in");
    gateway.state_is("the state of the store", |all| all["sessions"][0]["store_failing"] == true).await;
    assert!(gateway.metric("tidegate_session_store_failures_total{session=\"idp\"}").await >= 1.0);
    assert_eq!(idp.counts().arrived, 2, "nothing is asked without a lease");
    redis.signal(Signal::CONT);
    fetch_until(gateway, &over, StatusCode::OK).await;
    assert_eq!(fetch(gateway, &good).await.status, StatusCode::OK);
    gateway.state_is("the store being back", |all| all["sessions"][0]["store_failing"] == false).await;
    assert_eq!((idp.counts().arrived, idp.counts().reused), (3, 0));
}

#[tokio::test]
async fn a_store_that_is_slow_costs_time_and_nothing_else() {
    let (idp, _behind, redis, gateways) = together(2, "max_wait: 60s").await;
    let gateways: Vec<&Gateway> = gateways.iter().collect();
    let good = log_in(gateways[0]).await;
    idp.life(SHORT);
    let over = log_in(gateways[0]).await;
    are_over().await;
    idp.life(3600);
    let redis = Arc::new(redis);
    let slow = Arc::clone(&redis);
    // Every operation of the store takes some 300 ms.
    let pausing = tokio::spawn(async move {
        let mut connection = slow.connect().await;
        loop {
            let mut pause = redis::cmd("CLIENT");
            pause.arg("PAUSE").arg(300).arg("ALL");
            pause.query_async::<()>(&mut connection).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (good, over) = (vec![good; 100], vec![over; 100]);
    let (good, over) = tokio::join!(fetch_all(&gateways, &good), fetch_all(&gateways, &over));
    all_served(&good);
    all_served(&over);
    assert!(!pausing.is_finished(), "the store was slow all the time");
    pausing.abort();
    assert_eq!((idp.counts().arrived, idp.counts().granted, idp.counts().reused), (3, 3, 0));
}
