//! Callers that come together, late, or leave.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Call, clock,
    token::{Origin, Settings, TokenError},
};
use tidegate_core::Freshness;
use tokio::time::{sleep, timeout};

use super::{alone, crowd, until_due, until_over};
use crate::idp::Fault;

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_at_the_expiry_share_one_grant() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    let process = Arc::new(process);
    let tokens = crowd(&process, &id, 1000).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!((idp.grants(), idp.reuses(), tokens.len()), (1, 0, 1000));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_in_the_middle_of_a_grant_breaks_nothing() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    assert!(timeout(Duration::from_millis(30), process.fresh(&id)).await.is_err());
    let follower = process.fresh(&id).await.unwrap();
    assert_eq!((follower.generation(), idp.grants()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_everybody_left_is_stored_and_used_by_the_next() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    assert!(timeout(Duration::from_millis(30), process.fresh(&id)).await.is_err());
    sleep(Duration::from_secs(1)).await;
    let next = process.tokens.try_fresh(&id, &Call::at(clock::now())).unwrap().unwrap();
    assert_eq!((next.generation(), idp.grants()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_after_the_grant_are_answered_without_another() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    process.fresh(&id).await.unwrap();
    for after in [50, 200, 1000, 5000, 20_000] {
        sleep(Duration::from_millis(after)).await;
        assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
    }
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_due_is_served_while_the_next_one_is_asked_for() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_due().await;
    let before = process.fresh(&id).await.unwrap();
    assert_eq!(before.generation(), 1, "nobody waits");
    assert_eq!(before.provenance(clock::now()).freshness, Freshness::Due);
    sleep(Duration::from_secs(1)).await;
    let after = process.fresh(&id).await.unwrap();
    let provenance = after.provenance(clock::now());
    assert_eq!((after.generation(), provenance.origin, idp.grants()), (2, Origin::Granted, 1));
    assert_eq!(provenance.freshness, Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_its_own_deadline_only() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::Late(Duration::from_secs(10)));
    until_over().await;
    assert_eq!(process.within(&id, 1).await.unwrap_err(), TokenError::Deadline);
    assert_eq!(process.within(&id, 20).await.unwrap().generation(), 2);
    assert_eq!(idp.grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_life_shorter_than_the_lead_does_not_refresh_all_the_time() {
    use tidegate::token::{Lead, Schedule};
    let schedule = Schedule { lead: Lead::Time(Duration::from_secs(60)), ..Schedule::default() };
    let idp = super::Idp::new();
    idp.with(|state| state.life = Duration::from_secs(30));
    let (process, id) = super::with(&idp, Settings { schedule, ..Settings::default() }).await;
    for _ in 0..600 {
        process.fresh(&id).await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }
    assert!((10..=15).contains(&idp.grants()), "{} grants in 300 s", idp.grants());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_stores_what_is_out_and_twice_is_harmless() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    assert!(timeout(Duration::from_millis(30), process.fresh(&id)).await.is_err());
    assert_eq!(process.tokens.shutdown(Duration::from_secs(5)).await, 0);
    assert_eq!(process.tokens.shutdown(Duration::from_secs(5)).await, 0);
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2, "what is good is still answered");
    until_over().await;
    let error = process.fresh(&id).await.unwrap_err();
    assert!(matches!(error, TokenError::Unavailable { .. }), "nobody is logged out by a shutdown: {error}");
    assert_eq!(idp.grants(), 1);
}
