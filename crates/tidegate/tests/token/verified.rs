//! What was granted is stored before it is verified, and served after.

use std::time::Duration;

use tidegate::token::{
    GrantOutcome, Identity, Login, Over, SessionId, Settings, TokenError, Trouble, VerifyError,
};
use tokio::time::sleep;

use super::{Idp, Process, until_due, until_over};

async fn verified() -> (Idp, Process, SessionId) {
    let idp = Idp::new();
    idp.with(|state| state.verifies = true);
    let process = Process::start(&idp, &tidegate::token::MemorySessions::default(), Settings::default());
    let id = SessionId::new("alice").expect("an id");
    let identity = Some(Identity { issuer: "https://idp".into(), subject: "alice".into() });
    let login = Login { identity, attributes: "{}".into(), ..Login::of(idp.login(1)) };
    process.tokens.begin(&id, login).await.expect("a store");
    (idp, process, id)
}

#[tokio::test(start_paused = true)]
async fn tokens_are_verified_once_and_the_identity_stays() {
    let (idp, process, id) = verified().await;
    until_over().await;
    let token = process.fresh(&id).await.unwrap();
    assert_eq!((token.generation(), token.attributes()), (2, "{}"));
    assert_eq!(&*token.identity().unwrap().subject, "alice");
    assert_eq!(idp.with(|state| (state.verified, state.grants)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn while_keys_cannot_be_fetched_the_rotated_token_is_kept_and_no_other_grant_is_sent() {
    let (idp, process, id) = verified().await;
    idp.with(|state| state.verify = Some(VerifyError::Unavailable { why: "no keys".into() }));
    until_due().await;
    process.fresh(&id).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 1, "the old one is good and serves on");
    until_over().await;
    let error = process.fresh(&id).await.unwrap_err();
    assert!(matches!(&error, TokenError::Unavailable { why: Trouble::Unverified(_), .. }), "{error}");
    // Another process finds it as it is.
    let other = Process::start(&idp, &process.store.store, Settings::default());
    assert!(matches!(other.fresh(&id).await.unwrap_err(), TokenError::Unavailable { .. }));
    idp.with(|state| (state.verify = None, state.life = Duration::from_secs(3600)).0);
    sleep(Duration::from_secs(16)).await;
    let (here, there) = (process.fresh(&id).await, other.fresh(&id).await);
    // What was granted is over by now as well; what counts is that its successor was there to refresh it.
    assert!(here.is_ok() && there.is_ok(), "{here:?} {there:?}");
    assert_eq!((idp.grants(), idp.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn keys_that_come_back_in_time_need_no_new_grant() {
    let (idp, process, id) = verified().await;
    idp.with(|state| state.verify = Some(VerifyError::Unavailable { why: "no keys".into() }));
    until_over().await;
    assert!(process.fresh(&id).await.is_err());
    idp.with(|state| state.verify = None);
    sleep(Duration::from_secs(16)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_id_token_costs_a_try_and_not_the_session() {
    let (idp, process, id) = verified().await;
    idp.with(|state| state.verify = Some(VerifyError::Invalid { why: "bad signature".into() }));
    until_over().await;
    assert!(matches!(process.fresh(&id).await.unwrap_err(), TokenError::Unavailable { .. }));
    assert_eq!(process.tokens.stats().grants(GrantOutcome::Protocol), 1);
    idp.with(|state| state.verify = None);
    sleep(Duration::from_secs(16)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 3);
    assert_eq!((idp.grants(), idp.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_tokens_end_the_session_and_are_revoked() {
    let (idp, process, id) = verified().await;
    idp.with(|state| state.verify = Some(VerifyError::Mismatch { claim: "sub".into() }));
    until_due().await;
    process.fresh(&id).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Mismatch));
    assert_eq!(process.tokens.stats().mismatches, 1);
    assert_eq!(idp.with(|state| state.revoked.len()), 1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Mismatch), "for good");
}
