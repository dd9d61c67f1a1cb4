//! The stores of sessions that come with the library do what a store of sessions does.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/session_suite.rs"]
mod session_suite;

use std::time::Duration;

use tidegate::token::{MemorySessions, SessionId, SessionStore as _};

#[tokio::test]
async fn memory_is_a_store_of_sessions() {
    session_suite::suite(&MemorySessions::default()).await;
}

#[tokio::test]
async fn memory_has_a_bound_and_makes_room_for_what_is_over() {
    let store = MemorySessions::with_room_for(2);
    let id = |n: u32| SessionId::new(&n.to_string()).unwrap();
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(30));
    assert!(store.create(&id(1), vec![], long).await.unwrap());
    assert!(store.create(&id(2), vec![], short).await.unwrap());
    let error = store.create(&id(3), vec![], long).await.unwrap_err();
    assert!(error.to_string().ends_with("it holds 2 sessions, and no more; raise its bound"), "{error}");
    tokio::time::sleep(short * 2).await;
    assert!(store.create(&id(3), vec![], long).await.unwrap());
    assert_eq!(store.len(), 2);
}
