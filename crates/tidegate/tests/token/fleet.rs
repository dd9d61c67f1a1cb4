//! Several processes that share a store.

use std::{sync::Arc, time::Duration};

use tidegate::token::{
    Fence, GrantError, MemorySessions, Over, SessionId, SessionStore as _, Settings, TokenError, Trouble,
    Under, Write, Written,
};
use tokio::time::{sleep, timeout};

use super::{Idp, Process, begin, crowd, until_due, until_over};
use crate::idp::Fault;

async fn fleet(idp: &Idp, size: usize, settings: &Settings) -> (Vec<Arc<Process>>, SessionId) {
    let store = MemorySessions::default();
    let fleet: Vec<_> = (0..size).map(|_| Arc::new(Process::start(idp, &store, settings.clone()))).collect();
    let id = begin(idp, &fleet[0], 1).await;
    for process in &fleet {
        process.fresh(&id).await.expect("it begins");
    }
    (fleet, id)
}

#[tokio::test(start_paused = true)]
async fn one_expiry_is_one_grant_whatever_the_number_of_processes() {
    for size in [1, 2, 3, 5] {
        let idp = Idp::new();
        let (fleet, id) = fleet(&idp, size, &Settings::default()).await;
        for expiry in 1..=3 {
            until_over().await;
            let crowds = fleet.iter().map(|process| {
                let (process, id) = (Arc::clone(process), id.clone());
                tokio::spawn(async move { crowd(&process, &id, 1000 / size).await })
            });
            let mut tokens = Vec::new();
            for crowd in crowds.collect::<Vec<_>>() {
                tokens.extend(crowd.await.unwrap());
            }
            assert!(tokens.iter().all(|token| *token == tokens[0]));
            assert_eq!((idp.grants(), idp.reuses()), (expiry, 0), "{size} processes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_due_is_refreshed_by_one_process_and_known_to_all() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 3, &Settings::default()).await;
    until_due().await;
    for process in &fleet {
        process.fresh(&id).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    for process in &fleet {
        assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
    }
    assert_eq!(idp.grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_before_it_sent_is_followed_when_its_lease_is_over() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 2, &Settings::default()).await;
    until_over().await;
    // It reads for 2 ms and takes the lease in the next one: nothing is sent.
    assert!(timeout(Duration::from_micros(3500), fleet[0].fresh(&id)).await.is_err());
    fleet[0].life.kill();
    let began = tokio::time::Instant::now();
    assert_eq!(fleet[1].within(&id, 20).await.unwrap().generation(), 2);
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_with_a_grant_out_leaves_an_unknown_outcome_that_is_not_repeated() {
    // Before the provider has it, and after it rotated.
    for at in [30, 80] {
        let idp = Idp::new();
        let (fleet, id) = fleet(&idp, 2, &Settings::default()).await;
        until_due().await;
        let _ = fleet[0].fresh(&id).await;
        sleep(Duration::from_millis(at)).await;
        fleet[0].life.kill();
        assert_eq!(fleet[1].fresh(&id).await.unwrap().generation(), 1, "what is good is served");
        until_over().await;
        let error = fleet[1].fresh(&id).await.unwrap_err();
        assert_eq!(error, TokenError::LoginNeeded(Over::Unknown));
        assert_eq!((idp.grants(), idp.reuses(), fleet[1].tokens.stats().orphans), (1, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_grace_the_next_process_takes_over_what_a_dead_one_sent() {
    for at in [30, 80] {
        let idp = Idp::new();
        idp.with(|state| state.grace = Duration::from_secs(30));
        let settings = Settings { reuse_grace: Some(Duration::from_secs(30)), ..Settings::default() };
        let (fleet, id) = fleet(&idp, 2, &settings).await;
        until_over().await;
        assert!(timeout(Duration::from_millis(at), fleet[0].fresh(&id)).await.is_err());
        fleet[0].life.kill();
        assert_eq!(fleet[1].within(&id, 20).await.unwrap().generation(), 2);
        assert_eq!((idp.grants(), idp.reuses()), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_back_with_its_answer_saves_the_session() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 2, &Settings::default()).await;
    idp.next(Fault::Late(Duration::from_secs(60)));
    until_over().await;
    assert!(timeout(Duration::from_millis(30), fleet[0].fresh(&id)).await.is_err());
    fleet[0].store.down(true); // It cannot renew its lease, and its answer comes when that is long over.
    sleep(Duration::from_secs(11)).await;
    assert_eq!(fleet[1].fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Unknown));
    sleep(Duration::from_secs(50)).await;
    fleet[0].store.down(false);
    sleep(Duration::from_secs(40)).await;
    assert_eq!(fleet[1].fresh(&id).await.unwrap().generation(), 2);
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_logout_is_known_to_all_at_once() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 3, &Settings::default()).await;
    fleet[2].tokens.end(&id).await.unwrap().unwrap();
    sleep(Duration::from_millis(10)).await;
    for process in &fleet {
        assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Gone));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_a_pause_gets_it_from_all() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 3, &Settings::default()).await;
    let other = begin(&idp, &fleet[1], 2).await;
    let retry_after = Some(Duration::from_secs(90));
    idp.next(Fault::Refuse(GrantError::Transient { retry_after, why: "429".into() }));
    until_over().await;
    let error = fleet[0].fresh(&id).await.unwrap_err();
    assert!(matches!(error, TokenError::Unavailable { .. }));
    for _ in 0..8 {
        sleep(Duration::from_secs(10)).await;
        let error = fleet[1].fresh(&other).await.unwrap_err();
        assert!(matches!(&error, TokenError::Unavailable { why: Trouble::Resting { .. }, .. }), "{error}");
    }
    assert_eq!(idp.grants(), 1);
    sleep(Duration::from_secs(26)).await;
    assert_eq!(fleet[1].fresh(&other).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_of_a_session_are_counted_over_the_fleet() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 3, &Settings::default()).await;
    idp.always(Some(GrantError::Misconfigured { code: "invalid_request".into() }));
    until_over().await;
    for _ in 0..100 {
        for process in &fleet {
            assert!(matches!(process.fresh(&id).await.unwrap_err(), TokenError::Unavailable { .. }));
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(idp.grants(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_restart_reads_sessions_and_sends_nobody_to_the_login() {
    let idp = Idp::new();
    let store = MemorySessions::default();
    let before = Process::start(&idp, &store, Settings::default());
    let mut ids = Vec::new();
    for family in 0..10_000 {
        ids.push(begin(&idp, &before, family).await);
    }
    before.life.kill();
    let after = Process::start(&idp, &store, Settings::default());
    for id in &ids {
        assert!(after.fresh(id).await.is_ok());
    }
    assert_eq!(idp.grants(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgot_the_last_rotation_is_told_and_nothing_old_is_presented() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 2, &Settings::default()).await;
    let before = fleet[0].store.store.read(&id, None).await.unwrap().unwrap();
    until_over().await;
    assert_eq!(fleet[0].fresh(&id).await.unwrap().generation(), 2);
    assert_eq!(fleet[1].fresh(&id).await.unwrap().generation(), 2);
    // A replica takes over that had not heard of it.
    let store = &fleet[0].store.store;
    let over = store.read(&id, None).await.unwrap().unwrap().version;
    let (record, keep) = (before.record, Duration::from_secs(3600));
    let old = Write { record, over, keep, fence: Fence(0), under: Under::Anybody };
    assert_eq!(store.write(&id, old).await.unwrap(), Written::Done(over + 1));
    sleep(Duration::from_secs(1)).await;
    let third = Process::start(&idp, store, Settings::default());
    assert_eq!(third.fresh(&id).await.unwrap().generation(), 2, "it was told what it forgot");
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
    assert_eq!(fleet.iter().map(|process| process.tokens.stats().forgotten).sum::<u64>(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_sent_is_taken_over_in_time_though_the_store_is_away_and_nobody_asks_again() {
    // When the session is read, and when its lease is asked for.
    for millis in [0, 3] {
        let idp = Idp::new();
        idp.with(|state| state.grace = Duration::from_secs(60));
        let settings = Settings { reuse_grace: Some(Duration::from_secs(60)), ..Settings::default() };
        let (fleet, id) = fleet(&idp, 2, &settings).await;
        until_over().await;
        assert!(timeout(Duration::from_millis(80), fleet[0].fresh(&id)).await.is_err());
        // Nobody is left who heard that something was sent.
        fleet.iter().for_each(|process| process.life.kill());
        sleep(Duration::from_secs(40)).await;
        let late = Process::start(&idp, &fleet[0].store.store, settings);
        let (answer, ()) = tokio::join!(late.fresh(&id), async {
            sleep(Duration::from_millis(millis)).await;
            late.store.down(true);
        });
        assert!(matches!(answer.unwrap_err(), TokenError::Unavailable { .. }));
        sleep(Duration::from_secs(3)).await;
        late.store.down(false);
        sleep(Duration::from_secs(600)).await;
        assert!(late.fresh(&id).await.is_ok(), "after {millis} ms");
        assert_eq!(idp.reuses(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_sent_is_repeated_by_another_one_though_nobody_asks() {
    let grace = Duration::from_secs(30);
    let idp = Idp::new();
    idp.with(|state| state.grace = grace);
    let settings = Settings { reuse_grace: Some(grace), ..Settings::default() };
    let (fleet, id) = fleet(&idp, 3, &settings).await;
    until_over().await;
    for process in &fleet[..2] {
        // The one that takes over dies with it as well.
        let _ = timeout(Duration::from_millis(80), process.fresh(&id)).await;
        process.life.kill();
    }
    sleep(grace * 4).await;
    assert_eq!(fleet[2].fresh(&id).await.unwrap().generation(), 2);
    assert_eq!((idp.grants(), idp.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_takes_long_is_sent_once_though_all_watch_for_its_end() {
    let settings = Settings { reuse_grace: Some(Duration::from_secs(90)), ..Settings::default() };
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp, 3, &settings).await;
    idp.next(Fault::Late(Duration::from_secs(25)));
    until_over().await;
    assert!(timeout(Duration::from_millis(30), fleet[0].fresh(&id)).await.is_err());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(fleet[1].fresh(&id).await.unwrap().generation(), 2);
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}
