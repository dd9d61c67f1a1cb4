//! How a provider ends sessions: from server to server, or by a browser.

use serde_json::{Value as Json, json};
use tidegate_gateway::oidc::{date::wall, jose::SigningKey};

use super::*;
use crate::{
    support::{eventually, idp::Does, within},
    tokens::shows_no_secret,
};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const BACKCHANNEL: &str = "/oauth2/logout/backchannel";

/// The claims of a logout token, with these changes; what is null is left out.
fn claims(idp: &Idp, change: &Json) -> Json {
    let now = wall().as_secs();
    let mut claims = json!({
        "iss": idp.issuer(), "aud": CLIENT, "iat": now, "exp": now + 120, "jti": format!("{:x}", fastrand::u128(..)),
        "events": { EVENT: {} },
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Sends a logout token as a provider does.
async fn told(gateway: &Gateway, token: &str) -> Answer {
    let form = format!("logout_token={token}");
    let request = client::request("POST", BACKCHANNEL)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(client::whole(form));
    client::send(gateway.http(), request.unwrap()).await
}

async fn told_to_end(gateway: &Gateway, idp: &Idp, whose: &Json) -> Answer {
    told(gateway, &idp.sign("logout+jwt", &claims(idp, whose))).await
}

async fn logged_in(gateway: &Gateway, idp: &Idp, user: &str, login: &str) -> Browser {
    idp.claims(json!({ "sid": login }));
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in_as(user, gateway, "/").await.status, StatusCode::OK);
    browser
}

async fn is_in(browser: &Browser, gateway: &Gateway) -> bool {
    match browser.clone().fetches(gateway, "/").await.status {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_provider_ends_the_sessions_of_a_login_on_every_gateway_and_no_others() {
    let (idp, behind, redis) = (Idp::start().await, Behind::start().await, Redis::start(&[]));
    let store = patient(&redis);
    let mut gateways = Vec::new();
    for _ in 0..2 {
        gateways.push(gateway(&behind, idp.issuer(), "", &store).await);
    }
    let ended = [
        logged_in(&gateways[0], &idp, "ann", "login-1").await,
        logged_in(&gateways[1], &idp, "ann", "login-1").await,
    ];
    let others = [
        logged_in(&gateways[0], &idp, "ann", "login-2").await,
        logged_in(&gateways[1], &idp, "bob", "login-3").await,
    ];
    for browser in ended.iter().chain(&others) {
        assert!(is_in(browser, &gateways[0]).await && is_in(browser, &gateways[1]).await);
    }
    let answer = told_to_end(&gateways[1], &idp, &json!({ "sub": "ann", "sid": "login-1" })).await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (StatusCode::OK, "no-store"),
        "{}",
        answer.text()
    );
    for gateway in &gateways {
        for browser in &ended {
            eventually("the logout being known", async || !is_in(browser, gateway).await).await;
        }
        for browser in &others {
            assert!(is_in(browser, gateway).await);
        }
    }
    eventually("the tokens being given back", async || idp.counts().revoked == 2).await;
    let mut browsers: Vec<&Browser> = ended.iter().collect();
    browsers.extend(&others);
    for gateway in &mut gateways {
        shows_no_secret(gateway, &secrets(&idp, &browsers)).await;
    }
}

#[tokio::test]
async fn a_provider_ends_all_sessions_of_a_user() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let anns = [
        logged_in(&gateway, &idp, "ann", "login-1").await,
        logged_in(&gateway, &idp, "ann", "login-2").await,
    ];
    idp.claims(json!({}));
    let mut nameless = Browser::default();
    assert_eq!(nameless.logs_in_as("ann", &gateway, "/").await.status, StatusCode::OK);
    let bob = logged_in(&gateway, &idp, "bob", "login-3").await;
    // A session of which the provider never said by which login it came may be of any of that user's.
    assert_eq!(
        told_to_end(&gateway, &idp, &json!({ "sub": "ann", "sid": "login-1" })).await.status,
        StatusCode::OK
    );
    assert!(!is_in(&anns[0], &gateway).await && !is_in(&nameless, &gateway).await);
    assert!(is_in(&anns[1], &gateway).await);
    assert_eq!(told_to_end(&gateway, &idp, &json!({ "sub": "ann" })).await.status, StatusCode::OK);
    assert!(!is_in(&anns[1], &gateway).await);
    assert!(is_in(&bob, &gateway).await);
    // Of nobody who is here.
    assert_eq!(told_to_end(&gateway, &idp, &json!({ "sub": "carol" })).await.status, StatusCode::OK);
    let state = gateway.state().await;
    assert_eq!(state["sessions"][0]["logins"]["backchannel-logout"], 3, "{state}");
}

#[tokio::test]
async fn what_is_no_logout_token_ends_nothing() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let ann = logged_in(&gateway, &idp, "ann", "login-1").await;
    let id_token = idp.secrets().into_iter().find(|secret| secret.matches('.').count() == 2).unwrap();
    let now = wall().as_secs();
    let mut tokens = vec![
        (id_token, "an ID token"),
        ("not.a.token".to_owned(), "no token"),
        (String::new(), "nothing"),
        (
            SigningKey::generate().sign("logout+jwt", &[], &claims(&idp, &json!({ "sub": "ann" }))),
            "signed by somebody else",
        ),
        (idp.sign("at+jwt", &claims(&idp, &json!({ "sub": "ann" }))), "another kind of token"),
    ];
    for change in [
        json!({ "iss": "http://127.0.0.1:1" }),
        json!({ "aud": "another" }),
        json!({ "exp": now - 100 }),
        json!({ "iat": now + 1000 }),
        json!({ "events": null }),
        json!({ "events": { "http://example.com/other": {} } }),
        json!({ "jti": null }),
        json!({ "nonce": "n" }),
        json!({ "sub": null }),
    ] {
        let mut all = json!({ "sub": "ann" });
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        tokens.push((idp.sign("logout+jwt", &claims(&idp, &all)), "wrong claims"));
    }
    for (token, what) in &tokens {
        let answer = told(&gateway, token).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.json()["error"].is_string() && !answer.text().contains("ann"), "{}", answer.text());
    }
    let good = format!("logout_token={}", idp.sign("logout+jwt", &claims(&idp, &json!({ "sub": "ann" }))));
    for (kind, form) in [
        ("application/json", good.clone()),
        ("application/x-www-form-urlencoded", format!("{good}&{good}")),
        ("application/x-www-form-urlencoded", format!("{good}&x={}", "x".repeat(100_000))),
    ] {
        let request = client::request("POST", BACKCHANNEL).header("content-type", kind);
        let answer = client::send(gateway.http(), request.body(client::whole(form)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{kind}: {}", answer.text());
    }
    let answer = client::get(gateway.http(), &format!("{BACKCHANNEL}?{good}")).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(is_in(&ann, &gateway).await);
    assert_eq!(idp.counts().revoked, 0);
}

#[tokio::test]
async fn a_logout_token_counts_once() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let token = idp.sign("logout+jwt", &claims(&idp, &json!({ "sub": "ann" })));
    assert_eq!(told(&gateway, &token).await.status, StatusCode::OK);
    // Whoever caught it on its way ends no later session with it.
    // A provider counts in seconds: what it makes now is younger.
    idp.clock_ahead(10);
    let ann = logged_in(&gateway, &idp, "ann", "login-1").await;
    let again = told(&gateway, &token).await;
    assert_eq!((again.status, &again.json()["error"]), (StatusCode::BAD_REQUEST, &"invalid_request".into()));
    assert!(is_in(&ann, &gateway).await);
}

#[tokio::test]
async fn a_refresh_under_way_does_not_bring_back_what_the_provider_ended() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    idp.life(3);
    let ann = logged_in(&gateway, &idp, "ann", "login-1").await;
    idp.always(Does::GrantsLate);
    let waiting = {
        let (mut ann, gateway) = (ann.clone(), &gateway);
        async move {
            // Served until the token is over, then waiting for the refresh.
            loop {
                let answer = ann.fetches(gateway, "/").await;
                if answer.status != StatusCode::OK {
                    return answer;
                }
            }
        }
    };
    let logout = async {
        eventually("the refresh being out", async || idp.counts().asked == 2).await;
        let answer = told_to_end(&gateway, &idp, &json!({ "sid": "login-1" })).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!is_in(&ann, &gateway).await);
        idp.release();
    };
    let (waited, ()) = within("the refresh", async { tokio::join!(waiting, logout) }).await;
    assert_eq!(waited.status, StatusCode::UNAUTHORIZED);
    // What the session had, and what the refresh brought.
    eventually("both being given back", async || idp.counts().revoked == 2).await;
    assert_eq!((idp.counts().granted, idp.counts().asked), (2, 2));
    assert!(!is_in(&ann, &gateway).await);
}

#[tokio::test]
async fn a_login_that_the_provider_ends_before_it_is_through_makes_no_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    idp.claims(json!({ "sid": "login-1" }));
    let mut browser = Browser::default();
    let back = at_provider(&browser.goes(&gateway, "/").await).await;
    idp.next(Does::GrantsLate);
    let logout = async {
        eventually("the code being redeemed", async || idp.counts().asked == 1).await;
        assert_eq!(told_to_end(&gateway, &idp, &json!({ "sid": "login-1" })).await.status, StatusCode::OK);
        idp.release();
    };
    let (landed, ()) = tokio::join!(browser.goes(&gateway, &back), logout);
    assert_eq!(
        (landed.status, landed.json()["reason"].as_str()),
        (StatusCode::BAD_REQUEST, Some("no-login"))
    );
    assert_eq!(browser.session(), None);
    eventually("the tokens being given back", async || idp.counts().revoked == 1).await;
    // The next login is another one.
    assert!(is_in(&logged_in(&gateway, &idp, "ann", "login-2").await, &gateway).await);
}

#[tokio::test]
async fn a_browser_ends_its_login_from_a_frame_of_the_providers() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let mut gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let ann = logged_in(&gateway, &idp, "ann", "login-1").await;
    let other = logged_in(&gateway, &idp, "ann", "login-2").await;
    let issuer: String = url::form_urlencoded::byte_serialize(idp.issuer().as_bytes()).collect();
    for (query, status) in [
        (String::new(), StatusCode::BAD_REQUEST),
        ("?sid=login-1".into(), StatusCode::BAD_REQUEST),
        (format!("?iss={issuer}"), StatusCode::BAD_REQUEST),
        ("?iss=https%3A%2F%2Fevil.example&sid=login-1".into(), StatusCode::BAD_REQUEST),
        (format!("?iss={issuer}&sid=login-1&sid=login-2"), StatusCode::BAD_REQUEST),
        (format!("?iss={issuer}&sid=login-9"), StatusCode::OK),
    ] {
        let answer = client::get(gateway.http(), &format!("/oauth2/logout/frontchannel{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        assert!(is_in(&ann, &gateway).await && is_in(&other, &gateway).await, "{query}");
    }
    // A frame on another site: the browser sends no cookie along.
    let fields =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
    let page = format!("/oauth2/logout/frontchannel?iss={issuer}&sid=login-1");
    let answer = Browser::default().sends(&gateway, "GET", &page, &fields).await;
    assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"));
    assert!(
        answer.header("content-type").starts_with("text/html")
            && !answer.headers.contains_key("x-frame-options")
    );
    assert!(!is_in(&ann, &gateway).await, "over");
    assert!(is_in(&other, &gateway).await, "another login of the same user");
    eventually("the tokens being given back", async || idp.counts().revoked == 1).await;
    shows_no_secret(&mut gateway, &secrets(&idp, &[&ann, &other])).await;
}
