//! Endpoints and stores that fail: what is shared, what is counted, who notices.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tidegate::{
    clock,
    token::{
        GrantError, GrantOutcome, Limits, Login, MemorySessions, Over, SessionId, Settings, TokenError,
        Tokens, Trouble,
    },
};
use tidegate_core::recovery::Reach;
use tokio::time::sleep;

use super::{Idp, Process, alone, begin, until_due, until_over, with};
use crate::idp::Fault;

fn transient(retry_after: Option<u64>) -> GrantError {
    GrantError::Transient { retry_after: retry_after.map(Duration::from_secs), why: "503".into() }
}

fn login_needed(error: &TokenError) -> bool {
    matches!(error, TokenError::LoginNeeded(_))
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_told_to_those_who_wait_and_tried_again_after_a_pause() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::Refuse(transient(None)));
    until_over().await;
    let error = process.fresh(&id).await.unwrap_err();
    let TokenError::Unavailable { retry_after, .. } = error else { panic!("{error}") };
    let again = process.fresh(&id).await.unwrap_err();
    assert_eq!((again.retry_after().is_some(), idp.grants()), (true, 1), "not before the pause is over");
    sleep(retry_after).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_failed_grant_with_a_thousand_joiners_counts_once() {
    let (idp, process, id) = alone(Settings::default()).await;
    let process = Arc::new(process);
    idp.next(Fault::Refuse(transient(None)));
    until_over().await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (process, id) = (Arc::clone(&process), id.clone());
        crowd.spawn(async move { process.fresh(&id).await.unwrap_err() });
    }
    assert_eq!(crowd.join_all().await.len(), 1000);
    let stats = process.tokens.stats();
    assert_eq!((stats.grants(GrantOutcome::Transient), stats.reach), (1, Reach::Up));
    let other = begin(&idp, &process, 2).await;
    until_over().await;
    assert_eq!(process.fresh(&other).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn users_with_dead_refresh_tokens_are_noticed_by_nobody_else() {
    let (idp, process, id) = alone(Settings::default()).await;
    for family in 2..=1001 {
        begin(&idp, &process, family).await;
        idp.revoke_family(family);
    }
    until_over().await;
    for family in 2..=1001 {
        let dead = SessionId::new(&format!("session-{family}")).unwrap();
        let error = process.fresh(&dead).await.unwrap_err();
        assert_eq!(error, TokenError::LoginNeeded(Over::Refused));
    }
    assert_eq!(process.tokens.stats().reach, Reach::Up);
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_is_presented_once() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.revoke_family(1);
    until_over().await;
    for _ in 0..100 {
        assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Refused));
        sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(idp.grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_never_traded_for_a_failed_refresh() {
    for error in [
        transient(None),
        GrantError::Misconfigured { code: "invalid_client".into() },
        GrantError::NotSent { why: "connection refused".into() },
        GrantError::Terminal { code: "invalid_grant".into() },
        GrantError::Unknown { why: "reset".into() },
        GrantError::Protocol { why: "not JSON".into(), refresh: None },
    ] {
        let (idp, process, id) = alone(Settings::default()).await;
        until_due().await;
        idp.always(Some(error.clone()));
        for _ in 0..13 {
            assert_eq!(process.fresh(&id).await.unwrap().generation(), 1, "{error}");
            sleep(Duration::from_secs(1)).await;
        }
        assert!(idp.grants() > 0, "{error}: it was tried");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_set_up_wrongly_ends_no_session() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.always(Some(GrantError::Misconfigured { code: "invalid_client".into() }));
    until_over().await;
    let error = process.fresh(&id).await.unwrap_err();
    assert!(error.to_string().contains("invalid_client; look at the client's id"), "{error}");
    idp.always(None);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_the_limit_is_stored_and_nothing_is_sent_meanwhile() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::Late(Duration::from_secs(60)));
    until_over().await;
    let error = process.within(&id, 40).await.unwrap_err();
    let overdue = Trouble::Overdue(Duration::from_secs(30));
    assert!(matches!(&error, TokenError::Unavailable { why, .. } if *why == overdue), "{error}");
    for _ in 0..25 {
        assert!(!login_needed(&process.within(&id, 1).await.unwrap_err()));
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
    assert_eq!(process.tokens.stats().grants(GrantOutcome::Late), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_only_where_the_provider_takes_that() {
    let idp = Idp::new();
    idp.with(|state| state.grace = Duration::from_secs(30));
    let settings = Settings { reuse_grace: Some(Duration::from_secs(30)), ..Settings::default() };
    let (process, id) = with(&idp, settings).await;
    idp.next(Fault::LoseAnswer);
    until_due().await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2, "nobody had to ask again");
    assert_eq!((idp.grants(), idp.reuses()), (2, 0));

    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::LoseAnswer);
    until_due().await;
    process.fresh(&id).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let last = process.fresh(&id).await.unwrap().provenance(clock::now()).last;
    assert_eq!(last, Some(Over::Unknown), "what is good is served to its end");
    until_over().await;
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Unknown));
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_which_only_the_refresh_token_can_be_read_keeps_the_session() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::Garble { readable: true });
    until_over().await;
    assert!(!login_needed(&process.fresh(&id).await.unwrap_err()));
    sleep(Duration::from_secs(1)).await;
    assert!(process.fresh(&id).await.is_ok());
    assert_eq!((idp.grants(), idp.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_panics_is_an_unknown_outcome_and_no_more() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::Panic);
    until_over().await;
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Unknown));
    let other = begin(&idp, &process, 2).await;
    assert!(process.fresh(&other).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_grants_fail_cools_down_and_says_until_when() {
    let tries = Limits { failures: NonZeroU32::new(3).unwrap(), ..Limits::default() };
    let (idp, process, id) = alone(Settings { tries, ..Settings::default() }).await;
    idp.always(Some(GrantError::Misconfigured { code: "invalid_request".into() }));
    until_over().await;
    let mut last = None;
    for _ in 0..120 {
        let error = process.fresh(&id).await.unwrap_err();
        assert!(!login_needed(&error));
        last = error.retry_after();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(idp.grants(), 3, "three may fail");
    assert!(last.is_some_and(|last| last > Duration::from_secs(400)), "{last:?}");
    idp.always(None);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn successes_do_not_use_up_the_tries_of_a_session() {
    let idp = Idp::new();
    idp.with(|state| state.life = Duration::from_secs(12));
    let (process, id) = with(&idp, Settings::default()).await;
    for _ in 0..300 {
        assert!(process.fresh(&id).await.is_ok());
        sleep(Duration::from_secs(1)).await;
    }
    assert!(idp.grants() > 20, "{}", idp.grants());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_gets_one_probe_and_serves_again_at_once() {
    let idp = Idp::new();
    let process = Process::start(&idp, &MemorySessions::default(), Settings::default());
    let mut ids = Vec::new();
    for family in 0..200 {
        ids.push(begin(&idp, &process, family).await);
    }
    idp.always(Some(GrantError::NotSent { why: "connection refused".into() }));
    until_due().await;
    for _ in 0..15 {
        for id in &ids {
            assert_eq!(process.fresh(id).await.unwrap().generation(), 1, "who has a good token sees nothing");
        }
        sleep(Duration::from_millis(50)).await;
    }
    // Those that were out when the first three failed, and no more.
    assert!(idp.grants() <= 10, "{}", idp.grants());
    assert!(matches!(process.tokens.stats().reach, Reach::Down { .. }));
    sleep(Duration::from_secs(34)).await;
    let before = idp.grants();
    for id in &ids {
        assert!(!login_needed(&process.fresh(id).await.unwrap_err()));
    }
    assert_eq!(idp.grants(), before + 1, "one probe");
    idp.always(None);
    sleep(Duration::from_secs(34)).await;
    let before = idp.grants();
    let probe = process.fresh(&ids[0]).await;
    assert!(probe.is_ok(), "{probe:?}");
    assert_eq!((idp.grants(), process.tokens.stats().reach), (before + 1, Reach::Up));
    sleep(Duration::from_secs(16)).await;
    for id in &ids {
        assert_eq!(process.fresh(id).await.unwrap().generation(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_logs_nobody_out_and_good_tokens_go_on_serving() {
    let (idp, process, id) = alone(Settings::default()).await;
    process.store.down(true);
    for _ in 0..8 {
        sleep(Duration::from_secs(31)).await;
        assert_eq!(process.fresh(&id).await.unwrap().generation(), 1);
    }
    sleep(Duration::from_millis(100)).await;
    assert!(process.tokens.stats().store_failing);
    until_over().await;
    let error = process.fresh(&id).await.unwrap_err();
    assert!(matches!(&error, TokenError::Unavailable { why: Trouble::Store(_), .. }), "{error}");
    assert_eq!(idp.grants(), 0, "without the store nobody knows who refreshes");
    process.store.down(false);
    sleep(Duration::from_secs(16)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
    assert!(!process.tokens.stats().store_failing);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_stored_yet_are_served_and_stored_later() {
    let (idp, process, id) = alone(Settings::default()).await;
    idp.next(Fault::Late(Duration::from_secs(1)));
    until_over().await;
    let (answer, ()) = tokio::join!(process.fresh(&id), async {
        sleep(Duration::from_millis(500)).await;
        process.store.down(true);
    });
    assert_eq!(answer.unwrap().generation(), 2);
    sleep(Duration::from_secs(10)).await;
    process.store.down(false);
    sleep(Duration::from_secs(2)).await;
    process.tokens.forget(&id);
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2, "they stand in the store");
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_changes_nothing_but_time() {
    let (idp, process, id) = alone(Settings::default()).await;
    process.store.away(150);
    until_over().await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_it_is_idle_or_too_old_whatever_is_refreshed() {
    let settings = Settings { idle: Duration::from_secs(3600), ..Settings::default() };
    let (idp, process, id) = alone(settings).await;
    let old = SessionId::new("old").unwrap();
    let login = Login { longest: Duration::from_secs(7200), ..Login::of(idp.login(9)) };
    assert!(process.tokens.begin(&old, login).await.unwrap());
    for _ in 0..11 {
        sleep(Duration::from_secs(600)).await;
        assert!(process.fresh(&old).await.is_ok());
    }
    sleep(Duration::from_secs(601)).await;
    assert!(login_needed(&process.fresh(&old).await.unwrap_err()), "too old");
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Gone), "too long idle");
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_refresh_token_lasts_as_long_as_its_access_token() {
    let (_idp, process, _) = alone(Settings::default()).await;
    let id = SessionId::new("short").unwrap();
    let tokens = Tokens::bearer("only").expires_in(Duration::from_secs(300));
    process.tokens.begin(&id, Login::of(tokens)).await.unwrap();
    until_due().await;
    process.fresh(&id).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(process.fresh(&id).await.unwrap().provenance(clock::now()).last, Some(Over::NoRefreshToken));
    until_over().await;
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::NoRefreshToken));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_token_is_printed() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    let token = process.fresh(&id).await.unwrap();
    idp.next(Fault::LoseAnswer);
    until_over().await;
    let error = process.fresh(&id).await.unwrap_err();
    let ended = process.tokens.end(&id).await.unwrap();
    let printed = format!(
        "{token:?} {error:?} {error} {ended:?} {:?} {:?} {id:?}",
        process.tokens.stats(),
        Settings::default()
    );
    for secret in ["at-1", "rt-1"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
