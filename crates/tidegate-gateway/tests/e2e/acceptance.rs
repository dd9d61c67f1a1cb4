//! What the guard of sessions promises, each promise as a case through the front door: the built gateway, one or several on a
//! real Redis, before a provider that rotates its refresh tokens and ends a family when one comes twice.
//!
//! | file | the cases |
//! |---|---|
//! | `expiry` | one refresh an expiry, for 1, 2 and 5 gateways; callers that leave; calls that come late; lives shorter than the lead |
//! | `certified` | one refresh an expiry, and a change of signing keys, at a provider that nobody here wrote |
//! | `failures` | what a failed refresh costs whom: breaker, probe, cooldown, dead users beside living ones, a pause that was asked for |
//! | `answers` | answers that come late, are forged, are of somebody else, or are signed by a key that is new |
//! | `fleet` | a holder of the lease that dies or stands still, a store that is slow or away, a restart |
//! | `outage` | a provider that is away, for a minute where that is asked for |
//! | `storm` | all sessions expire at once; a restart with all of them |
//! | `endings` | a logout or a shutdown while a refresh is out |
//! | `secrets` | no part of a token, a cookie or a secret anywhere |
//!
//! Logins, claims and refusals to start without a key are in `sessions`, access tokens of upstreams in `tokens`.

use std::time::Duration;

use futures_util::{StreamExt as _, future::join_all, stream};
use http::StatusCode;
use serde_json::Value as Json;

pub(crate) use crate::{
    servers::Redis,
    sessions::{Behind, Browser, at_provider, at_provider_as, gateway, patient},
    support::{
        client::{self, Answer},
        eventually,
        gateway::Gateway,
        idp::{Does, Idp},
    },
};

mod answers;
mod certified;
mod endings;
mod expiry;
mod failures;
mod fleet;
mod outage;
mod secrets;
mod storm;

/// A life of access tokens that ends within a test: due after two thirds of it, over after five sixths.
const LIFE: u64 = 3;
/// A life of access tokens that are over when they are asked for.
const SHORT: u64 = 1;
/// Settings of calls that wait for as long as a test holds an answer back.
const WAITS: &str = "max_wait: 120s\ntimeout: 120s";
/// Logins of a test that are under way at once.
const LOGINS_AT_ONCE: usize = 16;
/// Calls on one connection: fewer than the gateway takes.
const CALLS_ON_ONE: usize = 200;

/// Logs a user in; what the browser keeps, as a `Cookie` field.
async fn log_in(gateway: &Gateway) -> String {
    log_in_as("ann", gateway).await
}

/// The same, as this user.
async fn log_in_as(user: &str, gateway: &Gateway) -> String {
    let mut browser = Browser::default();
    let back = at_provider_as(user, &browser.goes(gateway, "/").await).await;
    let landed = browser.goes(gateway, &back).await;
    assert_eq!(landed.status, StatusCode::SEE_OTHER, "{}", landed.text());
    format!("tidegate={}", browser.session().unwrap())
}

/// Logs so many users in, each another: what one user may have of sessions is bounded.
async fn log_in_all(gateway: &Gateway, count: usize) -> Vec<String> {
    let login = |number| async move { log_in_as(&format!("user-{number}"), gateway).await };
    stream::iter(0..count).map(login).buffered(LOGINS_AT_ONCE).collect().await
}

/// What a page of a session fetches.
async fn fetch(gateway: &Gateway, cookie: &str) -> Answer {
    client::get_with(gateway.http(), "/", &[("cookie", cookie), ("sec-fetch-mode", "cors")]).await
}

/// As [`fetch`], until it is answered so.
async fn fetch_until(gateway: &Gateway, cookie: &str, status: StatusCode) -> Answer {
    let mut last = None;
    eventually(&format!("an answer {status}"), async || {
        let answer = fetch(gateway, cookie).await;
        let is = answer.status == status;
        last = Some(answer);
        is
    })
    .await;
    last.unwrap()
}

/// Fetches with all of these cookies at once, spread over the gateways.
async fn fetch_all(gateways: &[&Gateway], cookies: &[String]) -> Vec<Answer> {
    let lines = cookies.len() / gateways.len() / CALLS_ON_ONE + 1;
    let mut connections = Vec::new();
    for gateway in gateways {
        connections.push(join_all((0..lines).map(|_| client::http2(gateway.http()))).await);
    }
    let calls = cookies.iter().enumerate().map(|(n, cookie)| {
        let of = &connections[n % gateways.len()];
        let mut sender = of[n / gateways.len() % lines].clone();
        async move {
            let request =
                client::request2("GET", "/").header("cookie", cookie).header("sec-fetch-mode", "cors");
            let response = sender.send_request(request.body(client::empty()).unwrap()).await;
            Answer::read(response.expect("an answer")).await.expect("a whole answer")
        }
    });
    join_all(calls).await
}

/// As [`fetch_all`], while something else is done.
async fn fetch_all_while(
    gateways: &[&Gateway],
    cookies: &[String],
    done: impl Future<Output = ()>,
) -> Vec<Answer> {
    tokio::join!(fetch_all(gateways, cookies), done).0
}

/// How many answers have this status.
fn count_of(answers: &[Answer], status: StatusCode) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn all_served(answers: &[Answer]) {
    for answer in answers {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
}

/// Waits until access tokens are over that lived for [`SHORT`], and of which the gateway knows by now. Nobody may ask for
/// them meanwhile.
async fn are_over() {
    tokio::time::sleep(Duration::from_secs(SHORT)).await;
}

/// What a gateway tells of its sessions.
async fn sessions(gateway: &Gateway) -> Json {
    gateway.state().await["sessions"][0].clone()
}

/// Refreshes of a gateway that ended so.
async fn refreshes(gateway: &Gateway, outcome: &str) -> u64 {
    sessions(gateway).await["refreshes"][outcome].as_u64().unwrap_or_default()
}

/// Calls that wait for tokens, over all of these gateways.
async fn waiting(gateways: &[&Gateway]) -> u64 {
    let mut all = 0;
    for gateway in gateways {
        all += sessions(gateway).await["waiting"].as_u64().unwrap();
    }
    all
}

async fn are_waiting(gateways: &[&Gateway], count: u64) {
    eventually(&format!("{count} calls waiting"), async || waiting(gateways).await == count).await;
}

/// A gateway with one provider, and sessions in its memory.
async fn alone(settings: &str) -> (Idp, Behind, Gateway) {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), settings, "memory://").await;
    (idp, behind, gateway)
}

/// Gateways with one provider, that share their sessions in a Redis.
async fn together(count: usize, settings: &str) -> (Idp, Behind, Redis, Vec<Gateway>) {
    let (idp, behind, redis) = (Idp::start().await, Behind::start().await, Redis::start(&[]));
    let starting =
        (0..count).map(|_| async { gateway(&behind, idp.issuer(), settings, &patient(&redis)).await });
    let gateways = join_all(starting).await;
    (idp, behind, redis, gateways)
}

/// The access token that a call with this cookie carries.
async fn token_of(gateway: &Gateway, cookie: &str, behind: &Behind) -> String {
    let answer = fetch(gateway, cookie).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    behind.seen().last().unwrap()["authorization"].to_str().unwrap().to_owned()
}
