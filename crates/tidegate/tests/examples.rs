//! The examples do what they say.
#![cfg(not(any(loom, shuttle)))]
#![expect(clippy::duplicate_mod, reason = "each example has the server that it calls")]

#[path = "../examples/limit_tonic.rs"]
#[expect(dead_code, reason = "its main prints what run returns")]
mod limit_tonic;

#[path = "../examples/registry_tonic.rs"]
#[expect(dead_code, reason = "its main prints what run returns")]
mod registry_tonic;

#[path = "../examples/token_reqwest.rs"]
#[expect(dead_code, reason = "its main prints what run returns")]
mod token_reqwest;

#[path = "../examples/token_tonic.rs"]
#[expect(dead_code, reason = "its main prints what run returns")]
mod token_tonic;

#[tokio::test]
async fn token_reqwest_answers_all_calls_with_one_grant_and_gives_back_what_is_left() {
    assert_eq!(token_reqwest::run().await.unwrap(), (100, (1, true)));
}

#[tokio::test]
async fn token_tonic_answers_all_calls_with_one_grant_and_gives_back_what_is_left() {
    assert_eq!(token_tonic::run().await.unwrap(), (100, 1, true));
}

#[tokio::test]
async fn registry_tonic_balances_over_a_server_that_registers_later() {
    let (first, second) = registry_tonic::run().await.unwrap();
    assert_eq!(first + second, 100);
    assert!(first >= 50 && second > 0, "{first} and {second}");
}

#[tokio::test]
async fn limit_tonic_sends_at_most_eight_calls_at_once() {
    let (peak, sent, refused) = limit_tonic::run().await.unwrap();
    assert_eq!((peak, sent, refused), (8, 58, 42));
}
