//! How a session begins and ends, and who may do that.

use super::*;
use crate::{
    support::idp::{Authority, Does},
    tokens::shows_no_secret,
};

#[tokio::test]
async fn a_user_logs_in_and_lands_where_it_wanted_to_go() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let mut gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let mut browser = Browser::default();
    let away = browser.goes(&gateway, "/orders?id=1").await;
    let url: Url = away.header("location").parse().unwrap();
    let asked: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
    assert_eq!(asked["scope"], "openid profile offline_access");
    assert_eq!(asked["redirect_uri"], "http://gateway.test/oauth2/callback");
    assert_eq!(behind.seen().len(), 0);
    let back = at_provider(&away).await;
    let landed = browser.goes(&gateway, &back).await;
    assert_eq!((landed.status, landed.header("location")), (StatusCode::SEE_OTHER, "/orders?id=1"));
    assert_eq!(browser.cookies.len(), 1, "the cookie of the login is gone");
    assert_eq!(browser.session().unwrap().len(), 43);
    let spoofed = [("x-user", "root"), ("x-email", "root@example.com"), ("cookie", "a=1")];
    let served = browser.sends(&gateway, "GET", "/orders?id=1", &spoofed).await;
    assert_eq!((served.status, served.text().as_str()), (StatusCode::OK, "served"));
    let seen = &behind.seen()[0];
    assert_eq!(
        (&seen["x-user"], &seen["x-email"]),
        (&"ann".parse().unwrap(), &"ann@example.com".parse().unwrap())
    );
    assert_eq!(seen.get_all("x-user").iter().count(), 1);
    assert!(seen["authorization"].to_str().unwrap().starts_with("Bearer at-"));
    assert_eq!(seen["cookie"], "a=1", "our cookie stays here");
    let everybody = browser.sends(&gateway, "GET", "/public", &spoofed).await;
    assert_eq!(everybody.status, StatusCode::OK);
    let seen = &behind.seen()[1];
    assert!(!seen.contains_key("x-user") && !seen.contains_key("x-email"), "nobody says who it is: {seen:?}");
    assert_eq!(seen["cookie"], "a=1", "nor is the session shown where it is not needed");
    gateway.process().printed("GET /oauth2/callback").await;
    shows_no_secret(&mut gateway, &secrets(&idp, &[&browser])).await;
}

#[tokio::test]
async fn what_is_no_page_is_told_to_log_in_and_not_sent_off() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    for fields in [
        &[("sec-fetch-mode", "cors")][..],
        &[("accept", "application/json")],
        &[("accept", "text/event-stream")],
        &[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")],
    ] {
        let answer = Browser::default().sends(&gateway, "GET", "/", fields).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{fields:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(
            !answer.headers.contains_key("set-cookie") && answer.headers.contains_key("www-authenticate")
        );
    }
    let post = Browser::default().sends(&gateway, "POST", "/", &[("sec-fetch-mode", "navigate")]).await;
    assert_eq!(post.status, StatusCode::UNAUTHORIZED, "a body would be lost on the way");
    assert_eq!(behind.seen().len(), 0);
}

#[tokio::test]
async fn several_tabs_log_in_at_once() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let mut browser = Browser::default();
    let (first, second) = (browser.goes(&gateway, "/a").await, browser.goes(&gateway, "/b").await);
    let (first, second) = (at_provider(&first).await, at_provider(&second).await);
    let landed = [browser.goes(&gateway, &first).await, browser.goes(&gateway, &second).await];
    assert_eq!([landed[0].header("location"), landed[1].header("location")], ["/a", "/b"]);
    assert_eq!(browser.goes(&gateway, "/").await.status, StatusCode::OK);
    for n in 0..20 {
        let mut other = Browser { cookies: browser.cookies.clone() };
        other.cookies.remove("tidegate");
        other.goes(&gateway, &format!("/{n}")).await;
        browser.cookies.extend(other.cookies.clone());
        let flows = other.cookies.keys().filter(|name| name.starts_with("tidegate-login-")).count();
        browser
            .cookies
            .retain(|name, _| !name.starts_with("tidegate-login-") || other.cookies.contains_key(name));
        assert!(flows <= 8, "{flows} logins under way");
    }
}

#[tokio::test]
async fn a_callback_that_nobody_began_makes_no_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let (mut attacker, mut victim) = (Browser::default(), Browser::default());
    let stolen = at_provider(&attacker.goes(&gateway, "/").await).await;
    // Somebody else's login, in a browser that began none, or another one.
    for _ in 0..2 {
        let answer = victim.goes(&gateway, &stolen).await;
        assert_eq!((answer.status, victim.session()), (StatusCode::BAD_REQUEST, None), "{}", answer.text());
        victim.goes(&gateway, "/").await;
    }
    // A code comes back once.
    let mut browser = Browser::default();
    let back = at_provider(&browser.goes(&gateway, "/").await).await;
    let before = browser.clone();
    assert_eq!(browser.goes(&gateway, &back).await.status, StatusCode::SEE_OTHER);
    let again = before.clone().goes(&gateway, &back).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "{}", again.text());
    // Changed on the way.
    let mut browser = Browser::default();
    let back = at_provider(&browser.goes(&gateway, "/").await).await;
    let other = back.replace("iss=http", "iss=https");
    let answer = browser.clone().goes(&gateway, &other).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (StatusCode::BAD_REQUEST, &"wrong-issuer".into()));
    let twice = format!("{back}&state=x");
    assert_eq!(browser.goes(&gateway, &twice).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(idp.counts().granted, 1);
}

#[tokio::test]
async fn an_id_token_of_another_login_or_beside_another_access_token_makes_no_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    for wrong in
        [serde_json::json!({ "nonce": "of another login" }), serde_json::json!({ "at_hash": "wrong" })]
    {
        idp.claims(wrong.clone());
        let mut browser = Browser::default();
        let back = at_provider(&browser.goes(&gateway, "/").await).await;
        let answer = browser.goes(&gateway, &back).await;
        assert_eq!((answer.status, browser.session()), (StatusCode::BAD_GATEWAY, None), "{wrong}");
        assert_eq!(answer.json()["reason"], "id-token", "{wrong}");
    }
    idp.claims(serde_json::json!({}));
    assert_eq!(Browser::default().logs_in(&gateway, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_that_a_login_is_checked_by_can_be_known_from_another_one() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let mut seen = std::collections::BTreeSet::new();
    for count in 1..=20 {
        let mut browser = Browser::default();
        let away = browser.goes(&gateway, "/").await;
        let url: Url = away.header("location").parse().unwrap();
        for (name, value) in url.query_pairs() {
            if ["state", "nonce", "code_challenge"].contains(&&*name) {
                assert!(value.len() >= 22, "{name}: {value}");
                seen.insert(value.into_owned());
            }
        }
        let back = at_provider(&away).await;
        browser.goes(&gateway, &back).await;
        seen.insert(browser.session().unwrap().clone());
        seen.insert(idp.asked().last().unwrap().form["code_verifier"].clone());
        assert_eq!(seen.len(), count * 5);
    }
}

#[tokio::test]
async fn where_all_goes_over_tls_cookies_are_for_this_host_alone_and_never_in_the_clear() {
    let (authority, behind) = (Authority::new(), Behind::start().await);
    let (idp, pages) = Idp::start_tls(&authority).await;
    let gateway = Gateway::start_with(|directory| {
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        std::fs::write(directory.join("session.key"), STANDARD.encode((1..=32).collect::<Vec<u8>>()))
            .unwrap();
        config(&behind, idp.issuer(), "tls: { roots: ca.pem }", "memory://")
            .replace("    allow_http: true\n", "")
    })
    .await;
    let mut browser = Browser::default();
    let away = browser.goes(&gateway, "/").await;
    let url: Url = away.header("location").parse().unwrap();
    assert!(url.as_str().starts_with(idp.issuer()), "{url}");
    let agreed = client::get_at(pages, &url[url::Position::BeforePath..], &[]).await;
    let back: Url = agreed.header("location").parse().unwrap();
    assert_eq!((back.scheme(), back.host_str()), ("https", Some("gateway.test")));
    let landed = browser.goes(&gateway, &back[url::Position::BeforePath..]).await;
    assert_eq!(landed.status, StatusCode::SEE_OTHER, "{}", landed.text());
    assert!(browser.cookies.contains_key("__Host-tidegate"), "{:?}", browser.cookies.keys());
    for answer in [away, landed] {
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let text = cookie.to_str().unwrap();
            assert!(
                text.starts_with("__Host-") && text.contains("; Secure") && !text.contains("Domain"),
                "{text}"
            );
        }
    }
    assert_eq!(browser.fetches(&gateway, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_login_gives_a_session_a_name_that_nobody_knew_before() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let planted = "A".repeat(43);
    let mut browser = Browser { cookies: [("tidegate".to_owned(), planted.clone())].into() };
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    let first = browser.session().unwrap().clone();
    assert_ne!(first, planted);
    // Who logs in again leaves no session behind.
    let mut again = Browser::default();
    let back = at_provider(&again.goes(&gateway, "/").await).await;
    again.cookies.insert("tidegate".into(), first.clone());
    assert_eq!(again.goes(&gateway, &back).await.status, StatusCode::SEE_OTHER);
    assert_ne!(again.session(), Some(&first));
    let mut old = Browser { cookies: [("tidegate".to_owned(), first)].into() };
    assert_eq!(old.fetches(&gateway, "/").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_login_leads_back_to_this_site_and_nowhere_else() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    for path in [
        "//evil.example/x",
        "///evil.example",
        "/x/..//evil.example",
        "/%5Cevil.example",
        "/?to=//evil.example",
    ] {
        let mut browser = Browser::default();
        let away = browser.goes(&gateway, path).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{path}");
        let back = at_provider(&away).await;
        let landed = browser.goes(&gateway, &back).await;
        let here: Url = "http://gateway.test/".parse().unwrap();
        let there = here.join(landed.header("location")).unwrap();
        assert_eq!(there.host_str(), Some("gateway.test"), "{path} leads to {there}");
    }
}

#[tokio::test]
async fn users_who_are_on_no_list_stay_outside() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway =
        gateway(&behind, idp.issuer(), "allow: { email: [\"*@other.example\"] }", "memory://").await;
    let mut browser = Browser::default();
    let back = at_provider(&browser.goes(&gateway, "/").await).await;
    let answer = browser.goes(&gateway, &back).await;
    assert_eq!((answer.status, browser.session()), (StatusCode::FORBIDDEN, None));
    assert_eq!(idp.counts().revoked, 1, "what was granted is given back");
    gateway.write(&config(&behind, idp.issuer(), "allow: { email: [\"*@example.com\"] }", "memory://"));
    gateway.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    // Taking a user off the list shuts its session out.
    gateway.write(&config(&behind, idp.issuer(), "allow: { sub: [bob] }", "memory://"));
    gateway.state_is("the reload", |state| state["config"]["reloads"] == 2).await;
    assert_eq!(browser.fetches(&gateway, "/").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_logout_ends_the_session_here_and_at_the_provider() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let mut gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    let before = browser.clone();
    for fields in [
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("referer", "http://gateway.test.evil.example/")],
        &[],
    ] {
        let answer = browser.sends(&gateway, "GET", "/oauth2/logout", fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{fields:?}");
    }
    assert_eq!(browser.fetches(&gateway, "/").await.status, StatusCode::OK, "another site logs nobody out");
    let out = browser.goes(&gateway, "/oauth2/logout").await;
    let url: Url = out.header("location").parse().unwrap();
    assert_eq!((out.status, url.path()), (StatusCode::SEE_OTHER, "/end"));
    let hint = url.query_pairs().find(|(name, _)| name == "id_token_hint").unwrap().1.into_owned();
    assert!(idp.secrets().contains(&hint));
    assert_eq!(browser.session(), None);
    assert_eq!(
        before.clone().fetches(&gateway, "/").await.status,
        StatusCode::UNAUTHORIZED,
        "a kept cookie is worth nothing"
    );
    crate::support::eventually("the tokens being given back", async || idp.counts().revoked == 1).await;
    shows_no_secret(&mut gateway, &secrets(&idp, &[&before])).await;
}

#[tokio::test]
async fn a_provider_that_fails_makes_no_session_and_says_so() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    for (does, status) in [
        (Does::Fails(503, None), StatusCode::SERVICE_UNAVAILABLE),
        (Does::Refuses("invalid_grant"), StatusCode::BAD_REQUEST),
        (Does::Refuses("invalid_client"), StatusCode::BAD_GATEWAY),
        (Does::LosesTheAnswer, StatusCode::SERVICE_UNAVAILABLE),
        (Does::Says("{\"access_token\":\"abc\",\"token_type\":\"Bearer\"}"), StatusCode::BAD_GATEWAY),
    ] {
        let mut browser = Browser::default();
        let back = at_provider(&browser.goes(&gateway, "/").await).await;
        idp.next(does.clone());
        let answer = browser.goes(&gateway, &back).await;
        assert_eq!((answer.status, browser.session()), (status, None), "{does:?}: {}", answer.text());
        assert!(browser.cookies.is_empty(), "{does:?}");
    }
}

#[tokio::test]
async fn without_a_key_of_its_own_it_refuses_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    let zeros = STANDARD.encode([0; 32]);
    std::fs::write(directory.path().join("zeros"), zeros).unwrap();
    std::fs::write(directory.path().join("short"), "c2hvcnQ=").unwrap();
    std::fs::write(directory.path().join("empty"), "").unwrap();
    for (keys, said) in [
        ("", "`keys` is missing"),
        (", keys: []", "there are no keys, and none is made up"),
        (", keys: [{ file: zeros }]", "not 32 random bytes"),
        (", keys: [{ file: short }]", "not 32 random bytes"),
        (", keys: [{ file: empty }]", "is empty"),
        (", keys: [{ file: nowhere }]", "can not be read"),
        (", keys: [hunter2]", "a secret does not stand in the configuration"),
    ] {
        let text = format!(
            "upstreams: {{ a: {{ endpoints: [http://h:1] }} }}\nroutes: [{{ upstream: a, session: s }}]\nsessions:\n  s: {{ issuer: https://i, client_id: c, auth: none{keys} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        for verb in [&["check"][..], &["serve", "--config"]] {
            let output = crate::support::gateway::command().args(verb).arg(&file).output().unwrap();
            let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(2), "{keys}: {all}");
            assert!(all.contains(said) && !all.contains("hunter2"), "{keys}: no {said:?} in\n{all}");
        }
    }
}
