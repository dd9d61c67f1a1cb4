//! Limits that count by who is logged in.

use serde_json::json;

use super::*;

/// The usual configuration, with these limits on the route that needs a session.
fn limited(behind: &Behind, issuer: &str, limits: &str, names: &str) -> String {
    let text = config(behind, issuer, "", "memory://");
    format!(
        "limits: {limits}\n{}",
        text.replace("session: idp\n", &format!("session: idp\n    limits: {names}\n"))
    )
}

async fn started(behind: &Behind, idp: &Idp, limits: &str, names: &str) -> Gateway {
    of(|| limited(behind, idp.issuer(), limits, names)).await
}

#[tokio::test]
async fn each_user_has_a_counter_whatever_browsers_they_use() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let limits = "{ each: { rate: 3/1000h, algorithm: fixed-window, key: [\"claim:sub\"] } }";
    let gateway = started(&behind, &idp, limits, "[each]").await;
    let (mut desk, mut phone, mut bob) = (Browser::default(), Browser::default(), Browser::default());
    assert_eq!(desk.logs_in_as("ann", &gateway, "/").await.status, StatusCode::OK);
    assert_eq!(phone.logs_in_as("ann", &gateway, "/").await.status, StatusCode::OK);
    assert_eq!(bob.logs_in_as("bob", &gateway, "/").await.status, StatusCode::OK);
    for _ in 0..5 {
        let answer = Browser::default().fetches(&gateway, "/").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "who is nobody is counted nowhere");
    }
    let last = desk.fetches(&gateway, "/").await;
    assert_eq!((last.status, last.header("ratelimit").starts_with("\"each\";r=0")), (StatusCode::OK, true));
    let over = phone.fetches(&gateway, "/").await;
    assert_eq!((over.status, over.json()["reason"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("quota")));
    assert!(!over.header("retry-after").is_empty());
    assert_eq!(bob.fetches(&gateway, "/").await.status, StatusCode::OK);
    assert_eq!(behind.seen().len(), 5, "what is refused is not sent");
    // What a client says of itself counts for nothing.
    let spoofed = phone.sends(&gateway, "GET", "/", &[("x-user", "carol"), ("sec-fetch-mode", "cors")]).await;
    assert_eq!(spoofed.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn users_without_the_claim_share_a_counter_as_calls_without_a_header_do() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let limits =
        "{ plan: { rate: 2/1000h, algorithm: fixed-window, key: [\"claim:https://example.com/plan\"] } }";
    let gateway = started(&behind, &idp, limits, "[plan]").await;
    let (mut ann, mut bob, mut carol) = (Browser::default(), Browser::default(), Browser::default());
    assert_eq!(ann.logs_in_as("ann", &gateway, "/").await.status, StatusCode::OK);
    assert_eq!(bob.logs_in_as("bob", &gateway, "/").await.status, StatusCode::OK);
    assert_eq!(ann.fetches(&gateway, "/").await.status, StatusCode::TOO_MANY_REQUESTS);
    idp.claims(json!({ "https://example.com/plan": ["gold", "beta"] }));
    assert_eq!(carol.logs_in_as("carol", &gateway, "/").await.status, StatusCode::OK, "a plan has its own");
    assert_eq!(carol.fetches(&gateway, "/").await.status, StatusCode::OK);
    assert_eq!(carol.fetches(&gateway, "/").await.status, StatusCode::TOO_MANY_REQUESTS);
    // A key by what nobody said before is known of users from their next login on.
    gateway.write(&limited(
        &behind,
        idp.issuer(),
        "{ mail: { rate: 1/1000h, algorithm: fixed-window, key: [\"claim:email\", \"claim:team\"] } }",
        "[mail]",
    ));
    gateway.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    idp.claims(json!({ "team": "blue" }));
    let mut again = Browser::default();
    assert_eq!(again.logs_in_as("ann", &gateway, "/").await.status, StatusCode::OK);
    assert_eq!(again.fetches(&gateway, "/").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(bob.fetches(&gateway, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_is_shared_out_by_what_users_are() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let gateway = of(|| {
        let parted =
            "main:\n    in_flight: { limit: 5, partitions: { by: \"claim:plan\", shares: { gold: 3 } } }\n";
        config(&behind, idp.issuer(), "", "memory://").replace("main:\n", parted)
    })
    .await;
    idp.claims(json!({ "plan": "gold" }));
    assert_eq!(Browser::default().logs_in(&gateway, "/").await.status, StatusCode::OK);
    idp.claims(json!({ "plan": "tin" }));
    assert_eq!(Browser::default().logs_in(&gateway, "/").await.status, StatusCode::OK);
    assert_eq!(Browser::default().fetches(&gateway, "/public").await.status, StatusCode::OK);
    let state = gateway.state().await;
    let partitions = state["upstreams"][0]["partitions"].as_array().unwrap();
    let admitted =
        |name: &str| partitions.iter().find(|part| part["name"] == name).unwrap()["admitted"].as_u64();
    assert_eq!((admitted("gold"), admitted("(other)")), (Some(1), Some(2)), "{partitions:?}");
}
