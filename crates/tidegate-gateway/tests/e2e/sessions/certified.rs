//! Sessions at a provider that nobody here wrote, with its own pages, rotation and detection of reuse.

use futures_util::future::join_all;
use serde_json::json;

use super::*;
use crate::{
    servers::Redis,
    support::{eventually, oidc_provider::OidcProvider},
};

/// Goes through the provider's pages as `user`, until they lead back to the gateway; where to, as a path.
pub(crate) async fn through_the_pages(provider: &OidcProvider, away: &Answer, user: &str) -> String {
    with_cookies(&mut BTreeMap::new(), provider, away, user).await
}

/// The same, with what a browser keeps of the provider's.
async fn with_cookies(
    cookies: &mut BTreeMap<String, String>,
    provider: &OidcProvider,
    away: &Answer,
    user: &str,
) -> String {
    let mut url: Url = away.header("location").parse().unwrap();
    let mut form: Option<String> = None;
    for _ in 0..20 {
        if url.host_str() == Some("gateway.test") {
            return url[url::Position::BeforePath..].to_owned();
        }
        let method = if form.is_some() { "POST" } else { "GET" };
        let cookie =
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let request = http::Request::builder()
            .method(method)
            .uri(&url[url::Position::BeforePath..])
            .header("host", provider.addr().to_string())
            .header("cookie", cookie)
            .header("content-type", "application/x-www-form-urlencoded");
        let body = client::whole(form.take().unwrap_or_default());
        let answer = client::send(provider.addr(), request.body(body).unwrap()).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            cookies.insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
        }
        if answer.status.is_redirection() {
            url = url.join(answer.header("location")).unwrap();
            continue;
        }
        let page = answer.text();
        assert_eq!(answer.status, StatusCode::OK, "{url}: {page}");
        form = Some(if let Some((_, xsrf)) = page.split_once("name=\"xsrf\" value=\"") {
            url = url.join("/session/end/confirm").unwrap();
            format!("logout=yes&xsrf={}", xsrf.split('"').next().unwrap())
        } else if page.contains("value=\"consent\"") {
            "prompt=consent".into()
        } else {
            format!("prompt=login&login={user}&password=any")
        });
    }
    panic!("the provider's pages lead nowhere: {url}");
}

#[tokio::test]
async fn a_session_is_refreshed_by_two_gateways_and_its_provider_sees_no_reuse() {
    let web = json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": ["http://gateway.test/oauth2/callback"], "response_types": ["code"],
    });
    let provider = OidcProvider::start(json!({ "clients": [web], "ttl": { "AccessToken": 4 } })).await;
    let (behind, redis) = (Behind::start().await, Redis::start(&[]));
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let settings = "scopes: [openid, offline_access]\nparameters: { prompt: consent }";
        gateways.push(gateway(&behind, provider.issuer(), settings, &patient(&redis)).await);
    }
    let mut browser = Browser::default();
    let away = browser.goes(&gateways[0], "/here").await;
    let back = through_the_pages(&provider, &away, "ann").await;
    let landed = browser.goes(&gateways[0], &back).await;
    assert_eq!(landed.header("location"), "/here", "{}\n{}", landed.text(), provider.process().output());
    assert_eq!(browser.goes(&gateways[1], "/here").await.status, StatusCode::OK);
    assert_eq!(behind.seen()[0]["x-user"], "ann");
    // The login, and three refreshes.
    eventually("three refreshes", async || {
        let calls = join_all((0..50).map(|n| {
            let (mut browser, gateway) = (browser.clone(), &gateways[n % 2]);
            async move { browser.fetches(gateway, "/").await }
        }));
        for answer in calls.await {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        }
        provider.count("granted").await >= 4
    })
    .await;
    assert_eq!((provider.count("refused").await, provider.count("reused").await), (0, 0));
}

#[tokio::test]
async fn a_logout_at_the_provider_ends_every_session_of_that_login() {
    // The provider is told where the gateway is before there is one: what comes there is passed on.
    let told = Arc::<Mutex<Vec<bytes::Bytes>>>::default();
    let noted = Arc::clone(&told);
    let mailbox = Upstream::start(move |request| {
        let noted = Arc::clone(&noted);
        async move {
            let form = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
            noted.lock().unwrap().push(form);
            Response::new(client::empty())
        }
    })
    .await;
    let web = json!({
        "client_id": CLIENT, "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": ["http://gateway.test/oauth2/callback"], "response_types": ["code"],
        "post_logout_redirect_uris": ["http://gateway.test/"], "backchannel_logout_session_required": true,
        "backchannel_logout_uri": format!("http://{}/oauth2/logout/backchannel", mailbox.addr()),
    });
    let features = json!({ "backchannelLogout": { "enabled": true } });
    let provider = OidcProvider::start(json!({ "clients": [web], "features": features })).await;
    let behind = Behind::start().await;
    let gateway = gateway(&behind, provider.issuer(), "scopes: [openid, profile]", "memory://").await;
    let mut at_provider = BTreeMap::new();
    let (mut first, mut second, mut bob) = (Browser::default(), Browser::default(), Browser::default());
    for browser in [&mut first, &mut second] {
        let away = browser.goes(&gateway, "/").await;
        let back = with_cookies(&mut at_provider, &provider, &away, "ann").await;
        assert_eq!(
            browser.goes(&gateway, &back).await.header("location"),
            "/",
            "{}",
            provider.process().output()
        );
    }
    let back = through_the_pages(&provider, &bob.goes(&gateway, "/").await, "bob").await;
    bob.goes(&gateway, &back).await;
    let out = first.goes(&gateway, "/oauth2/logout").await;
    assert_eq!(with_cookies(&mut at_provider, &provider, &out, "ann").await, "/");
    eventually("the provider's logout", async || told.lock().unwrap().len() == 1).await;
    assert_eq!(second.fetches(&gateway, "/").await.status, StatusCode::OK, "not passed on yet");
    let form = told.lock().unwrap()[0].clone();
    let request = client::request("POST", "/oauth2/logout/backchannel")
        .header("content-type", "application/x-www-form-urlencoded");
    let answer = client::send(gateway.http(), request.body(client::whole(form)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(second.fetches(&gateway, "/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bob.fetches(&gateway, "/").await.status, StatusCode::OK);
}
