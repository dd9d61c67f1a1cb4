//! Callers that come late with an old token: they get what became of it, for as long as that is known, and cause nothing.
//! Outcomes belong to the session, in every process that shares it; those that failed for a while only are not kept.

use std::time::Duration;

use tidegate::{
    clock,
    token::{GrantError, MemorySessions, Over, Rejected, SessionId, Settings, TokenError},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Distant, Idp, Process, begin, until_over};
use crate::idp::Fault;

/// Moments within the window for late callers, in milliseconds.
const LATE: [u64; 6] = [0, 50, 1000, 5000, 20_000, 29_000];

/// Three processes, of which one hears of nothing that happens, and a session that all know.
async fn fleet(idp: &Idp) -> (Vec<Process>, SessionId) {
    let (store, settings) = (MemorySessions::default(), || Settings { sessions: 100, ..Settings::default() });
    let fleet = vec![
        Process::start(idp, &store, settings()),
        Process::start(idp, &store, settings()),
        Process::with(idp, Distant::deaf(&store), settings()),
    ];
    let id = begin(idp, &fleet[0], 1).await;
    for process in &fleet {
        process.fresh(&id).await.expect("it begins");
    }
    (fleet, id)
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_token_was_refused_gets_the_one_that_followed_it_and_causes_no_second_grant() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp).await;
    let mut dropped = 0;
    let began = Instant::now();
    for after in LATE {
        sleep_until(began + Duration::from_millis(after)).await;
        for process in &fleet {
            // Two calls that were out with the old token come back with 401, one after the other.
            for _ in 0..2 {
                let became = process.tokens.rejected(&id, 1, clock::now());
                dropped += usize::from(became == Rejected::Dropped);
                assert_eq!(process.fresh(&id).await.unwrap().generation(), 2);
            }
        }
    }
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
    assert!((1..=3).contains(&dropped), "by each process at most once: {dropped}");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_refuses_everything_gets_a_new_token_once_in_an_interval_over_all_processes() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp).await;
    for _ in 0..120 {
        for process in &fleet {
            let token = process.fresh(&id).await.unwrap();
            process.tokens.rejected(&id, token.generation(), clock::now());
        }
        sleep(Duration::from_secs(1)).await;
    }
    // One at once, and then one in 30 s of two minutes.
    assert!((3..=5).contains(&idp.grants()), "{}", idp.grants());
    assert_eq!(idp.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_to_whoever_comes_late_in_every_process_and_the_dead_token_is_presented_once() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp).await;
    idp.revoke_family(1);
    until_over().await;
    let began = Instant::now();
    for after in LATE.into_iter().chain([31_000, 120_000]) {
        sleep_until(began + Duration::from_millis(after)).await;
        for process in &fleet {
            process.tokens.rejected(&id, 1, clock::now());
            let error = process.fresh(&id).await.unwrap_err();
            assert_eq!(error, TokenError::LoginNeeded(Over::Refused), "after {after} ms");
        }
    }
    assert_eq!(idp.grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_after_its_session_ended_is_not_served_out() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp).await;
    idp.revoke_family(1);
    // What is left of it would be good for minutes.
    for process in &fleet {
        process.tokens.rejected(&id, 1, clock::now());
        let error = process.fresh(&id).await.unwrap_err();
        assert_eq!(error, TokenError::LoginNeeded(Over::Refused));
    }
    assert_eq!(idp.grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_failed_for_a_while_is_not_kept_for_those_who_come_after_it() {
    let idp = Idp::new();
    let (fleet, id) = fleet(&idp).await;
    until_over().await;
    idp.next(Fault::Refuse(GrantError::Transient { retry_after: None, why: "503".into() }));
    let TokenError::Unavailable { retry_after, .. } = fleet[0].fresh(&id).await.unwrap_err() else {
        panic!()
    };
    sleep(retry_after).await;
    for process in &fleet {
        assert_eq!(
            process.fresh(&id).await.unwrap().generation(),
            2,
            "at once: nothing of the failure is left"
        );
    }
    assert_eq!((idp.grants(), idp.reuses()), (2, 0));
}
