//! The admin pages.

use http::{Response, StatusCode};

use crate::{
    setup::guarded,
    support::{client, gateway::Gateway, upstream::Upstream},
};

#[tokio::test]
async fn the_admin_pages_tell_what_passed() {
    let upstream = Upstream::start(|_| async { Response::new(client::whole("hello")) }).await;
    let limits = "two: { rate: 2/h, algorithm: fixed-window }";
    let gateway = Gateway::start(&guarded(upstream.addr(), "", limits, "limits: [two]")).await;
    for _ in 0..3 {
        client::get(gateway.http(), "/").await;
    }
    for page in ["/live", "/ready"] {
        assert_eq!(client::get_at(gateway.admin(), page, &[]).await.status, StatusCode::OK, "{page}");
    }
    gateway.state_is("three calls", |state| state["routes"][0]["calls"] == 3).await;
    let state = gateway.state().await;
    let route = &state["routes"][0];
    assert_eq!((&route["responses"]["200"], &route["responses"]["429"]), (&2.into(), &1.into()), "{route:#}");
    assert_eq!(state["refusals"][0]["by"], "quota");
    assert_eq!(state["refusals"][0]["limit"], "two");

    let metrics = client::get_at(gateway.admin(), "/metrics", &[]).await;
    assert!(metrics.header("content-type").starts_with("text/plain"), "{}", metrics.header("content-type"));
    assert!(metrics.text().contains("tidegate_"), "{}", metrics.text());
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let metrics = client::get_at(gateway.admin(), "/metrics", &accept).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text().ends_with("# EOF\n"));

    let config = client::get_at(gateway.admin(), "/config", &[]).await;
    assert_eq!(config.status, StatusCode::OK);
    assert!(config.text().contains("2/h"), "{}", config.text());
    assert_eq!(client::get_at(gateway.admin(), "/nowhere", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        client::get(gateway.http(), "/state").await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "not on the traffic port"
    );
}
