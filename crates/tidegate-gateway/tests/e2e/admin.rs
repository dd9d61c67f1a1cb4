//! The admin pages.

use std::process::Output;

use http::{Response, StatusCode};

use crate::{
    setup::guarded,
    support::{
        client,
        gateway::{Gateway, command},
        upstream::Upstream,
    },
};

#[tokio::test]
async fn the_admin_pages_tell_what_passed() {
    let upstream = Upstream::start(|_| async { Response::new(client::whole("hello")) }).await;
    let limits = "two: { rate: 2/1000h, algorithm: fixed-window }";
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
    assert!(config.text().contains("2/1000h"), "{}", config.text());
    assert_eq!(client::get_at(gateway.admin(), "/nowhere", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        client::get(gateway.http(), "/state").await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "not on the traffic port"
    );
}

/// Runs `tidegate limits` against a gateway.
fn limits(gateway: &Gateway, line: &str) -> (bool, String) {
    let admin = gateway.admin().to_string();
    let output: Output =
        command().arg("limits").args(line.split(' ')).args(["--admin", &admin]).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

#[tokio::test]
async fn an_operator_reads_adjusts_and_resets_a_counter() {
    let upstream = Upstream::start(|_| async { Response::new(client::whole("hello")) }).await;
    let rules = "two: { rate: 2/1000h, algorithm: fixed-window, key: [\"header:x-key\", client-ip] }";
    let mut gateway = Gateway::start(&guarded(upstream.addr(), "", rules, "limits: [two]")).await;
    let http = gateway.http();
    let call = async |key: &str| client::get_with(http, "/", &[("x-key", key)]).await.status.as_u16();
    assert_eq!([call("hunter2").await, call("hunter2").await, call("hunter2").await], [200, 200, 429]);

    let (_, all) = limits(&gateway, "get");
    assert!(
        all.contains("two") && all.contains("2/1000h") && all.contains("header:x-key client-ip"),
        "{all}"
    );
    let (_, state) = limits(&gateway, "get two hunter2 127.0.0.1 --json");
    let state: serde_json::Value =
        serde_json::from_str(&state).unwrap_or_else(|error| panic!("{error}: {state}"));
    assert_eq!((&state["remaining"], &state["most"]), (&0.into(), &2.into()), "{state}");
    let (_, other) = limits(&gateway, "get two - 127.0.0.1 --json");
    assert!(other.contains("\"remaining\": 2"), "{other}");

    let (done, said) = limits(&gateway, "add two hunter2 127.0.0.1 --units 1");
    assert!(done && said.contains("LEFT BEFORE"), "{said}");
    assert_eq!([call("hunter2").await, call("hunter2").await], [200, 429]);
    assert!(limits(&gateway, "reset two hunter2 127.0.0.1").0);
    assert_eq!([call("hunter2").await, call("hunter2").await, call("hunter2").await], [200, 200, 429]);

    for (line, why) in [
        ("get three", "there is no limit `three`; there are: two"),
        ("get two", "counts per header:x-key client-ip; name 2 values in this order, not 0"),
        ("reset two a localhost", "`localhost` is not a value of client-ip"),
    ] {
        let (done, said) = limits(&gateway, line);
        assert!(!done && said.contains(why), "{line}: {said}");
    }
    gateway.process().printed("an operator changed a counter").await;
    let log = gateway.process().output();
    assert!(log.contains("tidegate::audit") && log.contains("by=127.0.0.1"), "{log}");
    assert!(!log.contains("hunter2"), "a key that clients keep secret is not logged: {log}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_said_so() {
    let nobody = crate::support::ports::free().to_string();
    let output = command().args(["limits", "get", "--admin", &nobody]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("no gateway answers at {nobody}")) && said.contains("--admin"), "{said}");
}

#[tokio::test]
async fn a_call_that_gives_a_header_twice_that_a_limit_counts_by_is_refused() {
    let upstream = Upstream::start(|_| async { Response::new(client::whole("hello")) }).await;
    let rules = "two: { rate: 2/1000h, key: [\"header:x-key\"] }";
    let gateway = Gateway::start(&guarded(upstream.addr(), "", rules, "limits: [two]")).await;
    let answer = client::get_with(gateway.http(), "/", &[("x-key", "a"), ("x-key", "b")]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.json()["detail"].as_str().unwrap().contains("more than once"), "{answer:?}");
    assert_eq!(upstream.calls(), 0);
}
