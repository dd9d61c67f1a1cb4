//! An endpoint that is down for a minute, with many sessions: who has a good token sees nothing, and one grant finds out that
//! it is back.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Call, clock,
    token::{GrantError, GrantOutcome, MemorySessions, SessionId, Settings, TokenError},
};
use tidegate_core::recovery::Reach;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::idp::Fault;

use super::{Idp, Process, alone, begin, until_over};

const SESSIONS: u64 = 10_000;
/// As many are over when the endpoint goes away.
const OVER: u64 = 100;

async fn fleet_of(idp: &Idp) -> (Process, Vec<SessionId>, Vec<SessionId>) {
    let process = Process::start(idp, &MemorySessions::default(), Settings::default());
    let (mut over, mut good) = (Vec::new(), Vec::new());
    for family in 0..OVER {
        over.push(begin(idp, &process, family).await);
    }
    sleep(Duration::from_secs(200)).await;
    for family in OVER..SESSIONS {
        good.push(begin(idp, &process, family).await);
    }
    // These are over now, and those have lived for a third of their time.
    sleep(Duration::from_secs(101)).await;
    (process, over, good)
}

#[tokio::test(start_paused = true)]
async fn a_minute_without_the_endpoint_is_seen_by_nobody_who_has_a_good_token_and_one_probe_ends_it() {
    let idp = Idp::new();
    let (process, over, good) = fleet_of(&idp).await;
    idp.always(Some(GrantError::Transient { retry_after: None, why: "503".into() }));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        for id in over.iter().take(50) {
            let error = process.within(id, 1).await.unwrap_err();
            assert!(!matches!(error, TokenError::LoginNeeded(_)), "{error}");
        }
        let now = clock::now();
        for id in &good {
            let token =
                process.tokens.try_fresh(id, &Call::at(now)).expect("nobody waits").expect("nobody fails");
            assert_eq!(token.generation(), 1);
        }
        sleep(Duration::from_secs(5)).await;
    }
    let stats = process.tokens.stats();
    assert!(matches!(stats.reach, Reach::Down { .. }), "{:?}", stats.reach);
    // Those that were out when the third one failed, and a probe every 30 s: each counted once, however many waited.
    let failed = stats.grants(GrantOutcome::Transient);
    assert_eq!(failed, idp.grants());
    assert!(failed <= Settings::default().grants as u64 + 2, "{failed}");

    // It is back, and nobody may know before the time is over at which it is looked at.
    idp.always(None);
    let before = idp.grants();
    let mut latest = None;
    for second in 0..34 {
        let answers = process.within(&over[50], 1).await;
        if answers.is_ok() {
            latest = Some(second);
            break;
        }
        assert_eq!(idp.grants(), before, "nothing is sent before the probe");
        sleep(Duration::from_secs(1)).await;
    }
    assert!(latest.is_some(), "30 s, and a tenth");
    assert_eq!((idp.grants() - before, process.tokens.stats().reach), (1, Reach::Up), "one probe");
    // All are served as soon as their grants, of 100 ms and ten at once, are through: none waits for a pause of its own.
    let (process, came_back) = (Arc::new(process), Instant::now());
    let mut calls = JoinSet::new();
    for id in over {
        let process = Arc::clone(&process);
        calls.spawn(async move { process.fresh(&id).await.unwrap().generation() });
    }
    assert!(calls.join_all().await.into_iter().all(|generation| generation == 2));
    assert!(came_back.elapsed() < Duration::from_secs(2), "{:?}", came_back.elapsed());
    assert_eq!((idp.grants() - before, idp.reuses()), (OVER, 0));
    assert!(idp.with(|state| state.most_out) <= Settings::default().grants as u64);
}

#[tokio::test(start_paused = true)]
async fn a_session_alone_is_served_as_soon_as_its_endpoint_is_probed_however_many_grants_failed_before() {
    let (idp, process, id) = alone(Settings::default()).await;
    until_over().await;
    idp.always(Some(GrantError::Transient { retry_after: None, why: "503".into() }));
    // More than five failed grants, which are nobody's fault but the endpoint's.
    for _ in 0..300 {
        assert!(process.within(&id, 1).await.is_err());
        sleep(Duration::from_secs(1)).await;
    }
    assert!(idp.grants() > 5, "{}", idp.grants());
    idp.always(None);
    sleep(Duration::from_secs(34)).await;
    assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
}

/// A process with two sessions that are over, and an endpoint that was left alone and may be probed now.
async fn to_be_probed(settings: Settings) -> (Idp, Process, [SessionId; 2]) {
    let idp = Idp::new();
    let process = Process::start(&idp, &MemorySessions::default(), settings);
    let ids = [begin(&idp, &process, 1).await, begin(&idp, &process, 2).await];
    until_over().await;
    idp.always(Some(GrantError::Transient { retry_after: None, why: "503".into() }));
    while !matches!(process.tokens.stats().reach, Reach::Down { .. }) {
        for id in &ids {
            assert!(process.within(id, 1).await.is_err());
        }
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(34)).await;
    idp.always(None);
    (idp, process, ids)
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_answered_after_its_callers_left_shows_that_the_endpoint_is_there() {
    let (idp, process, [probed, other]) = to_be_probed(Settings::default()).await;
    let before = idp.grants();
    // Callers wait for 30 s, and a grant may take 2 min.
    idp.next(Fault::Slow(Duration::from_secs(40)));
    assert!(matches!(process.within(&probed, 60).await, Err(TokenError::Unavailable { .. })));
    assert!(matches!(process.tokens.stats().reach, Reach::Down { .. }), "nobody may know yet");
    assert!(process.within(&other, 1).await.is_err());
    sleep(Duration::from_secs(11)).await;
    assert_eq!((process.tokens.stats().reach, idp.grants() - before), (Reach::Up, 1), "one probe");
    assert_eq!(process.within(&probed, 1).await.unwrap().generation(), 2);
    assert_eq!(process.within(&other, 1).await.unwrap().generation(), 2, "at once");
    assert_eq!((idp.grants() - before, idp.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_after_its_callers_left_shows_nothing() {
    let (idp, process, [probed, other]) = to_be_probed(Settings::default()).await;
    let before = idp.grants();
    idp.next(Fault::Slow(Duration::from_secs(200)));
    assert!(process.within(&probed, 60).await.is_err());
    // A grant is given up after 2 min.
    sleep(Duration::from_secs(100)).await;
    assert_eq!(process.tokens.stats().grants(GrantOutcome::Unknown), 1);
    assert!(matches!(process.tokens.stats().reach, Reach::Down { .. }));
    assert_eq!(process.fresh(&other).await.unwrap().generation(), 2, "by another probe");
    assert_eq!((process.tokens.stats().reach, idp.grants() - before), (Reach::Up, 2));
}

#[tokio::test(start_paused = true)]
async fn who_waited_while_a_probe_was_out_is_served_as_soon_as_that_succeeds() {
    let (idp, process, [probed, other]) = to_be_probed(Settings::default()).await;
    let (process, before) = (Arc::new(process), idp.grants());
    idp.next(Fault::Slow(Duration::from_secs(20)));
    let probing = tokio::spawn({
        let process = Arc::clone(&process);
        async move { process.within(&probed, 30).await.unwrap().generation() }
    });
    // Looks that find the probe out, again and again: no grant is sent, and none makes the next pause longer.
    let began = Instant::now();
    sleep(Duration::from_secs(1)).await;
    while began.elapsed() < Duration::from_secs(20) {
        let error = process.within(&other, 1).await.unwrap_err();
        let after = error.retry_after().expect("it tells when");
        assert!(after <= Duration::from_secs(2), "{after:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(idp.grants() - before, 1);
    assert_eq!(probing.await.unwrap(), 2);
    assert_eq!(process.within(&other, 1).await.unwrap().generation(), 2, "at once");
    assert_eq!((idp.grants() - before, idp.reuses()), (2, 0));
}
