//! What calls cost: told by the request at once, or by the response at the end.

use http::{Response, StatusCode};

use crate::{
    setup::guarded,
    support::{client, eventually, gateway::Gateway, upstream::Upstream},
};

/// An upstream whose answers cost so many tokens, as a header field says, and are `bytes` long.
async fn upstream(tokens: &'static str, bytes: usize) -> Upstream {
    Upstream::start(move |_| async move {
        Response::builder().header("x-tokens", tokens).body(client::whole("x".repeat(bytes))).unwrap()
    })
    .await
}

async fn gateway(upstream: &Upstream, limits: &str, route: &str) -> Gateway {
    Gateway::start(&guarded(upstream.addr(), "", limits, route)).await
}

/// Where the first and only counter of a limit stands: what is left, and what is owed.
async fn standing(gateway: &Gateway, limit: &str) -> (u64, u64) {
    let answer = client::get_at(gateway.admin(), &format!("/limits/{limit}/counter"), &[]).await;
    let state = answer.json();
    (state["remaining"].as_u64().unwrap(), state["owed"].as_u64().unwrap())
}

#[tokio::test]
async fn a_request_tells_what_it_costs() {
    let upstream = upstream("0", 5).await;
    let limits = "ten: { rate: 10/1000h, algorithm: fixed-window, cost: \"header:x-cost\" }\n\
                  calls: { rate: 100/1000h, algorithm: fixed-window }";
    let gateway = gateway(&upstream, limits, "limits: [calls, ten]").await;
    let mut statuses = Vec::new();
    // No number costs the estimate, and nobody calls for nothing.
    for cost in ["7", "4", "2", "many", "0"] {
        statuses.push(client::get_with(gateway.http(), "/", &[("x-cost", cost)]).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 429, 200, 200, 429]);
    assert_eq!(
        standing(&gateway, "calls").await.0,
        97,
        "a call that one limit refuses costs the other nothing"
    );
}

#[tokio::test]
async fn a_request_body_costs_its_bytes() {
    let upstream = upstream("0", 5).await;
    let limits = "bytes: { rate: 100/1000h, algorithm: fixed-window, cost: request-bytes }";
    let gateway = gateway(&upstream, limits, "limits: [bytes]").await;
    let mut statuses = Vec::new();
    for length in [60, 60, 40] {
        let request = client::request("POST", "/").body(client::whole("x".repeat(length))).unwrap();
        statuses.push(client::send(gateway.http(), request).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 429, 200]);
}

#[tokio::test]
async fn what_the_response_tells_is_settled_at_its_end_and_paid_first() {
    for (cost, tokens, bytes) in [("\"response-header:x-tokens\"", "130", 5), ("response-bytes", "1", 130)] {
        let upstream = upstream(tokens, bytes).await;
        let limits = format!("tokens: {{ quota: 100/month, cost: {{ of: {cost}, estimate: 10 }} }}");
        let gateway = gateway(&upstream, &limits, "limits: [tokens]").await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("ratelimit-policy").starts_with("\"tokens\";q=100"), "{answer:?}");
        // 130 of 100: all is gone, and the rest is owed as soon as the ledger is told.
        let http = gateway.http();
        eventually("the month being used up", async || {
            client::get(http, "/").await.status == StatusCode::TOO_MANY_REQUESTS
        })
        .await;
        eventually("the debt being told", async || {
            let (left, owed) = standing(&gateway, "tokens").await;
            left == 0 && owed >= 30
        })
        .await;
        // What it gave more forgives the debt first.
        let reset = client::send(
            gateway.admin(),
            http::Request::post("/limits/tokens/reset")
                .header("host", gateway.admin().to_string())
                .header("content-type", "application/json")
                .body(client::whole("{}"))
                .unwrap(),
        )
        .await;
        assert_eq!(reset.status, StatusCode::OK, "{}", reset.text());
        eventually("calls going again", async || client::get(http, "/").await.status == StatusCode::OK).await;
    }
}

#[tokio::test]
async fn a_call_that_was_not_sent_costs_nothing() {
    let limits = "tokens: { quota: 100/day, cost: { of: response-bytes, estimate: 10 } }\n\
                  calls: { rate: 100/1000h, algorithm: fixed-window }";
    let config = guarded(crate::support::ports::free(), "", limits, "limits: [tokens, calls]");
    let gateway = Gateway::start(&config).await;
    for _ in 0..20 {
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "never refused by a limit: {answer:?}");
    }
    assert_eq!(standing(&gateway, "calls").await.0, 100);
}

#[tokio::test]
async fn a_limit_that_was_not_asked_is_not_told_of() {
    let upstream = upstream("0", 5).await;
    let limits =
        "here: { rate: 1/1000h }\nledger: { rate: 9/h, algorithm: fixed-window, window: first-call }";
    let gateway = gateway(&upstream, limits, "limits: [here, ledger]").await;
    let served = client::get(gateway.http(), "/").await;
    assert!(served.header("ratelimit").contains("\"ledger\";r=8;t="), "{served:?}");
    let refused = client::get(gateway.http(), "/").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let told = refused.header("ratelimit");
    assert!(told.starts_with("\"here\";r=0;t=") && !told.contains("ledger"), "{refused:?}");
    assert!(refused.header("ratelimit-policy").contains("\"ledger\";q=9;"), "{refused:?}");
}

#[tokio::test]
async fn who_exceeds_a_limit_with_a_prohibition_stays_out_for_it() {
    let upstream = upstream("0", 5).await;
    let limits = "two: { rate: 2/10s, algorithm: fixed-window, window: first-call, prohibit: 1h }";
    let gateway = gateway(&upstream, limits, "limits: [two]").await;
    let http = gateway.http();
    for expected in [200, 200, 429] {
        assert_eq!(client::get(http, "/").await.status.as_u16(), expected);
    }
    let after: u64 = client::get(http, "/").await.header("retry-after").parse().unwrap();
    assert!(after > 3000, "longer than the window: {after}");
}
