use http::{HeaderMap, Response};
use http_body_util::BodyExt;

use super::*;
use crate::body::ResponseBody;

fn quota(after: u64) -> Cause {
    Cause::Refused(Refused::after(By::Quota, Duration::from_millis(after)))
}

async fn text(response: Response<ResponseBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_used_up_quota_is_a_429_that_says_when_to_return() {
    let policy = Policy::new("per-client", 1000, Duration::from_secs(1));
    let standing =
        Standing { policy: &policy, remaining: 0, reset_in: Duration::from_millis(1), violated: true };
    let policies = policies([&policy]);
    let response = render(&quota(1200), Dialect::Http, "id-1", policies.as_ref(), [standing]);
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.headers()["ratelimit"], "\"per-client\";r=0;t=2", "the time of Retry-After");
    assert_eq!(response.headers()["ratelimit-policy"], "\"per-client\";q=1000;w=1");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["violated-policies"][0], "per-client");
    assert_eq!(body["retry_after_ms"], 1200);
    assert_eq!(body["request_id"], "id-1");
    assert_eq!(body["reason"], "quota");
}

#[test]
fn several_limits_are_one_list_in_each_field() {
    let (a, b) = (
        Policy::new("per-client", 100, Duration::from_secs(1)),
        Policy::new("backend", 5000, Duration::from_secs(60)),
    );
    let standing =
        |policy, remaining| Standing { policy, remaining, reset_in: Duration::from_secs(1), violated: false };
    let mut headers = HeaderMap::new();
    rate_limit_fields(&mut headers, None, []);
    assert!(headers.is_empty());
    let policies = policies([&a, &b]);
    rate_limit_fields(&mut headers, policies.as_ref(), [standing(&a, 99), standing(&b, 0)]);
    let lines = |name| headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(lines("ratelimit"), ["\"per-client\";r=99;t=1, \"backend\";r=0;t=1"]);
    assert_eq!(lines("ratelimit-policy"), ["\"per-client\";q=100;w=1, \"backend\";q=5000;w=60"]);
}

#[test]
fn every_503_says_when_to_come_back() {
    let none = |why| Cause::NoEndpoint(NoEndpoint { why, retry_after: None });
    for cause in [
        Cause::Unreachable("x"),
        Cause::Refused(Refused::new(By::QueueFull)),
        none(Why::NotFound),
        none(Why::Closed),
    ] {
        let http = render(&cause, Dialect::Http, "id-1", None, []);
        assert_eq!(http.headers()["retry-after"], "1", "{cause:?}");
        let grpc = render(&cause, Dialect::Grpc, "id-1", None, []);
        assert_eq!(grpc.headers()["grpc-retry-pushback-ms"], "1000", "{cause:?}");
    }
    for cause in [Cause::Timeout, Cause::BadGateway("x"), Cause::Refused(Refused::new(By::Quota))] {
        let answer = render(&cause, Dialect::Http, "id-1", None, []);
        assert!(!answer.headers().contains_key("retry-after"), "{cause:?}");
    }
}

#[test]
fn grpc_is_refused_in_trailers_only() {
    let response = render(&quota(250), Dialect::Grpc, "id-1", None, []);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "8");
    assert_eq!(response.headers()["grpc-retry-pushback-ms"], "250");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(http_body::Body::is_end_stream(response.body()));
}

#[test]
fn every_cause_has_its_status_in_both_dialects() {
    let refused = |by| Cause::Refused(Refused::new(by));
    for (cause, http, grpc) in [
        (Cause::BadRequest("x"), 400, 13),
        (Cause::NoRoute, 404, 12),
        (Cause::Method, 405, 12),
        (Cause::TooLarge, 413, 8),
        (Cause::SlowClient, 408, 4),
        (refused(By::Quota), 429, 8),
        (refused(By::QueueFull), 503, 14),
        (refused(By::Breaker), 503, 14),
        (refused(By::Deadline), 504, 4),
        (Cause::Unreachable("x"), 503, 14),
        (Cause::BadGateway("x"), 502, 14),
        (Cause::Timeout, 504, 4),
    ] {
        assert_eq!((cause.status().as_u16(), cause.grpc_status()), (http, grpc), "{cause:?}");
    }
}

#[test]
fn a_limit_name_can_not_break_out_of_its_field() {
    let policy = Policy::new("a\"b\\c\nd", 1, Duration::from_secs(60));
    assert_eq!(policies([&policy]).unwrap(), "\"abcd\";q=1;w=60");
}
