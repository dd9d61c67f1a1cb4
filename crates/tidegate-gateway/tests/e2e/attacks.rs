//! What a client may try to get past a session: each of these once worked somewhere.

use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    sessions::{Behind, Browser, at_provider, config, gateway},
    support::{
        client::{self, Answer},
        gateway::Gateway,
        idp::{Does, Idp, SECRET},
        upstream::Upstream,
        within,
    },
};

/// Calls with fields as they are, whatever bytes are in them.
async fn call(gateway: &Gateway, path: &str, fields: &[(&str, &[u8])]) -> Answer {
    let request = fields.iter().fold(client::request("GET", path), |request, (name, value)| {
        request.header(*name, HeaderValue::from_bytes(value).unwrap())
    });
    client::send(gateway.http(), request.body(client::empty()).unwrap()).await
}

#[tokio::test]
async fn a_cookie_that_is_no_text_beside_the_sessions_neither_hides_it_nor_shows_it() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let mut browser = Browser::default();
    browser.logs_in(&gateway, "/").await;
    let session = browser.session().unwrap().clone();
    // A page, or a site beside this one, may set a cookie of any bytes.
    for other in ["name=Bj\u{f6}rk", "\u{e9}=1", "=\u{ff}"] {
        let cookies = format!("a=1; {other}; tidegate={session}; tidegate-login-abcdefgh=x; b=2");
        let served = call(&gateway, "/", &[("cookie", cookies.as_bytes())]).await;
        assert_eq!(served.status, StatusCode::OK, "{other}");
        let public = call(&gateway, "/public", &[("cookie", cookies.as_bytes())]).await;
        assert_eq!(public.status, StatusCode::OK, "{other}");
        for seen in &behind.seen()[behind.seen().len() - 2..] {
            assert_eq!(seen["cookie"].as_bytes(), format!("a=1; {other}; b=2").as_bytes());
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_field_tells_an_upstream_who_it_is() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    let mut browser = Browser::default();
    browser.logs_in(&gateway, "/").await;
    // To what stands behind CGI, WSGI or PHP these are the same fields.
    let spoofed: &[(&str, &[u8])] = &[
        ("x_user", b"root"),
        ("X_Email", b"root@example.com"),
        ("X_Forwarded_For", b"10.0.0.1"),
        ("x-forwarded_proto", b"https"),
        ("x_real_ip", b"10.0.0.1"),
        ("x_mine", b"1"),
    ];
    let cookie = format!("tidegate={}", browser.session().unwrap());
    let with_session = [spoofed, &[("cookie", cookie.as_bytes())]].concat();
    assert_eq!(call(&gateway, "/", &with_session).await.status, StatusCode::OK);
    assert_eq!(call(&gateway, "/public", spoofed).await.status, StatusCode::OK);
    for seen in &behind.seen()[1..] {
        let told: Vec<&str> =
            seen.keys().map(|name| name.as_str()).filter(|name| name.contains('_')).collect();
        assert_eq!(told, ["x_mine"]);
    }
}

/// A gateway where the session guards a path, and all else is open.
async fn guarded_path(behind: &Behind, issuer: &str, change: impl Fn(String) -> String) -> Gateway {
    Gateway::start_with(|directory| {
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        let key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
        std::fs::write(directory.join("session.key"), key).unwrap();
        let config = config(behind, issuer, "", "memory://")
            .replace("    session: idp\n", "    session: idp\n    match: { path: /admin }\n")
            .replace("match: { path: /public }", "match: { path: / }");
        change(config)
    })
    .await
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_around_a_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = guarded_path(&behind, idp.issuer(), |config| config).await;
    for path in [
        "/admin",
        "/admin/users",
        "/public/../admin",
        "/public/%2e%2E/admin",
        "/%61dmin",
        "/%61%64%6D%69%6E/users",
        "/admin%2fusers",
        "/admin%2Fusers",
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/public/..%5cadmin",
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "//admin",
        "///admin//users",
        "/.//admin",
        "/admin;x=1",
        "/admin;/users",
        "/;x/admin",
        "/%2fadmin",
        "/admin%5cusers",
        "/admin%3bx",
        "/admin%23",
        "/admin%3f",
        "/admin%00",
    ] {
        let answer = call(&gateway, path, &[]).await;
        let stopped = [StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND];
        assert!(stopped.contains(&answer.status), "{path}: {}", answer.status);
        assert_eq!(behind.seen().len(), 0, "{path}");
    }
    for path in [
        "/",
        "/public",
        "/a%2fb",
        "/a//b",
        "/a;b=1/c",
        "/proxy/https://x.example/",
        "/a%20b",
        "/100%25",
        "/administrator",
        "/a?to=//admin",
        "/x/admin",
    ] {
        assert_eq!(call(&gateway, path, &[]).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn an_upstream_gives_out_no_sessions() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let planting = Upstream::start(|_| async {
        let mut answer = Response::new(client::whole("served"));
        for cookie in ["tidegate=planted; Path=/", "=tidegate=planted", "tidegate-login-x=1", "theme=dark"] {
            answer.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        answer
    })
    .await;
    let gateway = guarded_path(&behind, idp.issuer(), |config| {
        let line = config.lines().find(|line| line.contains("endpoints:")).unwrap();
        config.replace(line, &format!("    endpoints: [\"http://{}\"]", planting.addr()))
    })
    .await;
    let answer = call(&gateway, "/", &[]).await;
    let set: Vec<_> = answer.headers.get_all(header::SET_COOKIE).iter().collect();
    assert_eq!(set, ["theme=dark"]);
}

#[tokio::test]
async fn of_too_many_logins_in_one_browser_the_oldest_are_given_up() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    // As browsers send them: older ones first.
    let cookies = (1..=9).map(|n| format!("tidegate-login-{n}=x")).collect::<Vec<_>>().join("; ");
    let away =
        call(&gateway, "/", &[("cookie", cookies.as_bytes()), ("sec-fetch-mode", &b"navigate"[..])]).await;
    assert_eq!(away.status, StatusCode::SEE_OTHER);
    let set = away.headers.get_all(header::SET_COOKIE).iter().map(|line| line.to_str().unwrap());
    let given_up: Vec<_> = set.filter(|line| line.contains("Max-Age=0")).map(|line| &line[..16]).collect();
    assert_eq!(given_up, ["tidegate-login-1", "tidegate-login-2"]);
}

#[tokio::test]
async fn a_flood_of_callbacks_is_told_to_come_again_and_holds_nothing() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = gateway(&behind, idp.issuer(), "timeout: 2m", "memory://").await;
    let mut browser = Browser::default();
    let back = at_provider(&browser.goes(&gateway, "/").await).await;
    idp.always(Does::Hangs);
    let (name, value) = browser.cookies.first_key_value().unwrap();
    let cookie = format!("{name}={value}");
    // One login, and any codes: each of them would be asked for.
    let (asked, mut answers) = (1040, tokio::sync::mpsc::channel(2000));
    for _ in 0..13 {
        let sender = client::http2(gateway.http()).await;
        for _ in 0..80 {
            let (mut sender, answered) = (sender.clone(), answers.0.clone());
            let request = client::request2("GET", &back).header("cookie", &cookie);
            let request = request.body(client::empty()).unwrap();
            tokio::spawn(async move {
                let Ok(answer) = sender.send_request(request).await else { return };
                let _ = answered.send(answer.status()).await;
            });
        }
    }
    for _ in 0..asked - 1000 {
        let status = within("an answer", answers.1.recv()).await;
        assert_eq!(status, Some(StatusCode::SERVICE_UNAVAILABLE));
    }
    assert!(answers.1.try_recv().is_err(), "the others wait in line");
    let logins = &gateway.state().await["sessions"][0]["logins"];
    assert_eq!(logins["held-off"], 40, "{logins}");
}

#[tokio::test]
async fn who_looks_at_a_page_is_told_in_words_and_shows_nobody_the_code() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway =
        gateway(&behind, idp.issuer(), "allow: { email: [\"bob@example.com\"] }", "memory://").await;
    let html: &[(&str, &[u8])] = &[("accept", b"text/html,*/*")];
    let page = call(&gateway, "/oauth2/callback?code=c&state=%3Cb%3E", html).await;
    assert_eq!((page.status, page.header("referrer-policy")), (StatusCode::BAD_REQUEST, "no-referrer"));
    assert_eq!(
        (page.header("content-type"), page.header("cache-control")),
        ("text/html; charset=utf-8", "no-store")
    );
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert!(
        page.text().contains("<a href=\"/\">Begin again</a>") && !page.text().contains("<b>"),
        "{}",
        page.text()
    );
    let program = call(&gateway, "/oauth2/callback?code=c&state=x", &[("accept", b"application/json")]).await;
    assert_eq!((program.status, &program.json()["reason"]), (StatusCode::BAD_REQUEST, &"no-login".into()));
    // Who may not come in is shown the way out.
    let mut browser = Browser::default();
    let back = at_provider(&browser.goes(&gateway, "/").await).await;
    let (name, value) = browser.cookies.first_key_value().unwrap();
    let cookie = format!("{name}={value}");
    let refused =
        call(&gateway, &back, &[("accept", &b"text/html"[..]), ("cookie", cookie.as_bytes())]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text().contains("<a href=\"/oauth2/logout\">Log out</a>"), "{}", refused.text());
}

#[tokio::test]
async fn a_login_that_cannot_begin_is_logged_once_with_the_reason() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let mut gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    idp.claims_to_be("https://other.example");
    for _ in 0..3 {
        let answer = Browser::default().goes(&gateway, "/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let route = &gateway.state().await["routes"][0];
    assert_eq!(route["refused"], serde_json::json!({ "session": 3 }), "{route}");
    gateway.process().printed("no login can begin").await;
    let output = gateway.process().output();
    assert!(output.contains("is of the issuer \"https://other.example\""), "{output}");
    assert_eq!(output.matches("no login can begin").count(), 1, "{output}");
}

#[tokio::test]
async fn the_time_that_a_call_waits_for_its_session_is_in_its_duration() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    idp.life(1);
    let mut gateway = gateway(&behind, idp.issuer(), "max_wait: 1s", "memory://").await;
    let mut browser = Browser::default();
    browser.logs_in(&gateway, "/").await;
    idp.always(Does::Hangs);
    let ended = within("the token's end", async {
        loop {
            let answer = browser.fetches(&gateway, "/late").await;
            if answer.status != StatusCode::OK {
                return answer.status;
            }
        }
    });
    assert_eq!(ended.await, StatusCode::SERVICE_UNAVAILABLE);
    gateway.process().printed("GET /late HTTP/1.1\" 503").await;
    let output = gateway.process().output();
    let line = output.lines().find(|line| line.contains("GET /late HTTP/1.1\" 503")).unwrap();
    let duration = line.rsplit_once("duration=").unwrap().1.split(' ').next().unwrap();
    assert!(duration.parse::<f64>().unwrap() >= 1.0, "{line}");
}

#[tokio::test]
async fn a_page_of_another_origin_opens_no_websocket_with_a_users_session() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let settings = "origins: [\"https://app.example\", \"http://localhost:3000\"]";
    let gateway = gateway(&behind, idp.issuer(), settings, "memory://").await;
    let mut browser = Browser::default();
    browser.logs_in(&gateway, "/").await;
    let cookie = format!("tidegate={}", browser.session().unwrap());
    let opens = async |path: &str, origins: &[&[u8]]| {
        let mut fields: Vec<(&str, &[u8])> =
            vec![("connection", b"Upgrade"), ("upgrade", b"websocket"), ("cookie", cookie.as_bytes())];
        fields.extend(origins.iter().map(|origin| ("origin", *origin)));
        call(&gateway, path, &fields).await
    };
    let seen = behind.seen().len();
    for origins in [
        &[&b"http://sibling.gateway.test"[..]][..],
        &[b"https://gateway.test"],
        &[b"http://gateway.test:8080"],
        &[b"http://gateway.test.evil.example"],
        &[b"http://app.example"],
        &[b"https://app.example:8443"],
        &[b"null"],
        &[b""],
        &[b"http://gateway.test", b"https://evil.example"],
        &[b"http://gateway.test\xff"],
    ] {
        let answer = opens("/chat", origins).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origins:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["reason"], "cross-site", "{origins:?}");
    }
    assert_eq!(behind.seen().len(), seen, "nothing of it reached the upstream");
    for origins in [
        &[][..],
        &[&b"http://gateway.test"[..]],
        &[b"http://GATEWAY.test:80"],
        &[b"https://app.example"],
        &[b"http://localhost:3000"],
    ] {
        assert_eq!(opens("/chat", origins).await.status, StatusCode::OK, "{origins:?}");
    }
    // Where no session is needed, and where nothing is upgraded, it is for the application to say.
    assert_eq!(opens("/public", &[b"https://evil.example"]).await.status, StatusCode::OK);
    let fetched: &[(&str, &[u8])] = &[("origin", b"https://evil.example"), ("cookie", cookie.as_bytes())];
    assert_eq!(call(&gateway, "/", fetched).await.status, StatusCode::OK);
}
