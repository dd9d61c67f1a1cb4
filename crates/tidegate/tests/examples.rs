//! The examples do what they say.
#![cfg(not(any(loom, shuttle)))]

#[path = "../examples/limit_tonic.rs"]
#[expect(dead_code, reason = "its main prints what run returns")]
mod limit_tonic;

#[tokio::test]
async fn limit_tonic_sends_at_most_eight_calls_at_once() {
    let (peak, sent, refused) = limit_tonic::run().await.unwrap();
    assert_eq!((peak, sent, refused), (8, 58, 42));
}
