//! Sessions that end: whatever is under way, the newest tokens are given back or revoked, and nothing comes back to life.

use std::{sync::Arc, time::Duration};

use tidegate::token::{Login, MemorySessions, Over, SessionId, SessionStore as _, Settings, TokenError};
use tokio::time::{sleep, timeout};

use super::{Distant, Idp, Process, alone, begin, until_over};
use crate::{idp::Fault, trace};

/// A process for few sessions: many are started.
fn small() -> Settings {
    Settings { sessions: 100, ..Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_logout_during_a_refresh_wins_and_what_was_granted_is_revoked() {
    let (idp, process, id) = alone(small()).await;
    until_over().await;
    let (answer, ended) = tokio::join!(process.fresh(&id), async {
        sleep(Duration::from_millis(70)).await;
        process.tokens.end(&id).await.unwrap()
    });
    assert_eq!(answer.unwrap_err(), TokenError::LoginNeeded(Over::Gone));
    assert_eq!(ended.unwrap().refresh.unwrap().expose(), "rt-1-0");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        idp.with(|state| state.revoked.clone()),
        ["rt-1-1"],
        "nobody can use what was granted meanwhile"
    );
    assert_eq!(process.tokens.stats().revoked, 1);
    for _ in 0..10 {
        assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Gone));
        sleep(Duration::from_secs(20)).await;
    }
    assert!(process.store.store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whenever_a_session_ends_the_newest_refresh_token_is_given_back_or_revoked_and_nothing_is_left() {
    // At each point of a refresh, of which the grant takes 100 ms, by the process that refreshes and by another one.
    for (at, by, verifies) in
        (0..130).step_by(3).flat_map(|at| [(at, 0, false), (at, 1, false), (at, 0, true), (at, 1, true)])
    {
        let (idp, store) = (Idp::new(), MemorySessions::default());
        trace::begin();
        idp.with(|state| state.verifies = verifies);
        let fleet = [0, 1].map(|_| Arc::new(Process::start(&idp, &store, small())));
        let id = begin(&idp, &fleet[0], 1).await;
        fleet[1].fresh(&id).await.unwrap();
        until_over().await;
        let (asking, asked) = (Arc::clone(&fleet[0]), id.clone());
        let asking = tokio::spawn(async move { asking.fresh(&asked).await.map(|_| ()) });
        sleep(Duration::from_millis(at)).await;
        let ended = fleet[by].tokens.end(&id).await.unwrap().expect("it was there");
        let _ = asking.await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let given_back = ended.refresh.unwrap().expose().to_owned();
        let newest = idp.newest(1);
        let revoked = idp.with(|state| state.revoked.clone());
        assert!(
            given_back == newest || revoked.contains(&newest),
            "at {at} ms by {by}: {given_back}, {revoked:?}"
        );
        for (number, process) in fleet.iter().enumerate() {
            let told = process.fresh(&id).await.map(|token| token.generation());
            let gone = Err(TokenError::LoginNeeded(Over::Gone));
            assert_eq!(told, gone, "at {at} ms by {by}, told by {number}:\n{}", trace::told(id.as_str()));
        }
        assert!(store.is_empty());
        assert!(idp.grants() <= 1 && idp.reuses() == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_out_of_an_answer_that_cannot_be_read_is_revoked_after_a_logout() {
    let (idp, process, id) = alone(small()).await;
    idp.next(Fault::Garble { readable: true });
    until_over().await;
    assert!(timeout(Duration::from_millis(30), process.fresh(&id)).await.is_err());
    process.tokens.end(&id).await.unwrap().unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(idp.with(|state| state.revoked.clone()), [idp.newest(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgot_the_last_rotation_does_not_make_a_logout_give_back_what_is_used_up() {
    let (idp, process, id) = alone(small()).await;
    let store = &process.store.store;
    let before = store.read(&id, None).await.unwrap().unwrap();
    until_over().await;
    process.fresh(&id).await.unwrap();
    // A replica of the store takes over that had not heard of it.
    store.remove(&id).await.unwrap();
    store.create(&id, before.record, Duration::from_secs(3600)).await.unwrap();
    let ended = process.tokens.end(&id).await.unwrap().unwrap();
    assert_eq!(ended.refresh.unwrap().expose(), idp.newest(1));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_sent_does_not_outlive_the_end_of_its_session() {
    let grace = Duration::from_secs(30);
    let (idp, store) = (Idp::new(), MemorySessions::default());
    idp.with(|state| state.grace = grace);
    let settings = Settings { reuse_grace: Some(grace), ..small() };
    let fleet = [0, 1].map(|_| Process::start(&idp, &store, settings.clone()));
    let id = begin(&idp, &fleet[0], 1).await;
    until_over().await;
    assert!(timeout(Duration::from_millis(80), fleet[0].fresh(&id)).await.is_err());
    fleet[0].life.kill();
    let ended = fleet[1].tokens.end(&id).await.unwrap().unwrap();
    assert_eq!(ended.refresh.unwrap().expose(), "rt-1-0", "the newest that anybody knows");
    sleep(grace * 4).await;
    assert_eq!(idp.grants(), 1, "nobody takes it over");
    assert_eq!(fleet[1].fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Gone));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_store_did_not_hear_of_is_told_and_may_be_said_again() {
    let (idp, process, id) = alone(small()).await;
    process.store.down(true);
    assert!(process.tokens.end(&id).await.is_err());
    assert_eq!(process.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Gone), "it ended here");
    process.store.down(false);
    let ended = process.tokens.end(&id).await.unwrap().unwrap();
    assert_eq!(ended.refresh.unwrap().expose(), idp.newest(1));
    assert!(process.tokens.end(&id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_begins_anew_under_its_old_name_has_nothing_of_the_old_one_in_any_process() {
    // At each point of a refresh of the old one, and long after its end was known to all.
    for (at, pause) in (0..120).step_by(5).map(|at| (at, 0)).chain([(50, 200), (300, 1000)]) {
        let (idp, store) = (Idp::new(), MemorySessions::default());
        let fleet = [0, 1, 2].map(|_| Arc::new(Process::start(&idp, &store, small())));
        let id = begin(&idp, &fleet[0], 1).await;
        for process in &fleet {
            process.fresh(&id).await.unwrap();
        }
        until_over().await;
        let askers = [0, 1].map(|by| {
            let (asking, asked) = (Arc::clone(&fleet[by]), id.clone());
            tokio::spawn(async move { asking.fresh(&asked).await.map(|_| ()) })
        });
        sleep(Duration::from_millis(at)).await;
        let ended = fleet[0].tokens.end(&id).await.unwrap().unwrap();
        sleep(Duration::from_millis(pause)).await;
        let tokens = idp.login(2);
        let new = tokens.access.expose().to_owned();
        assert!(fleet[0].tokens.begin(&id, Login::of(tokens)).await.unwrap(), "at {at} ms");
        sleep(Duration::from_millis(5)).await;
        for _ in 0..2 {
            for (number, process) in fleet.iter().enumerate() {
                let token =
                    process.fresh(&id).await.unwrap_or_else(|error| panic!("at {at} ms, {number}: {error}"));
                assert_eq!(token.expose(), new, "at {at} ms, {number}");
            }
            sleep(Duration::from_secs(1)).await;
        }
        for asker in askers {
            let _ = asker.await.unwrap();
        }
        let revoked = idp.with(|state| state.revoked.clone());
        let given_back = ended.refresh.unwrap().expose().to_owned();
        assert!(given_back == idp.newest(1) || revoked.contains(&idp.newest(1)), "at {at} ms: {revoked:?}");
        assert_eq!(idp.newest(2), "rt-2-0");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_hears_of_nothing_knows_of_an_end_when_it_looks_again() {
    let (idp, store) = (Idp::new(), MemorySessions::default());
    let process = Process::start(&idp, &store, small());
    let deaf = Process::with(&idp, Distant::deaf(&store), small());
    let id: SessionId = begin(&idp, &process, 1).await;
    deaf.fresh(&id).await.unwrap();
    process.tokens.end(&id).await.unwrap().unwrap();
    sleep(Settings::default().recheck).await;
    // Who has a good token need not wait for the look; the next one knows.
    let _ = deaf.fresh(&id).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(deaf.fresh(&id).await.unwrap_err(), TokenError::LoginNeeded(Over::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_hears_of_nothing_serves_nothing_of_an_earlier_session_for_longer_than_until_it_looks()
{
    let (idp, store) = (Idp::new(), MemorySessions::default());
    let process = Process::start(&idp, &store, small());
    let deaf = Process::with(&idp, Distant::deaf(&store), small());
    let id = begin(&idp, &process, 1).await;
    until_over().await;
    assert_eq!(deaf.fresh(&id).await.unwrap().generation(), 2);
    process.tokens.end(&id).await.unwrap().unwrap();
    let tokens = idp.login(2);
    let new = tokens.access.expose().to_owned();
    assert!(process.tokens.begin(&id, Login::of(tokens)).await.unwrap());
    sleep(small().recheck).await;
    let _ = deaf.fresh(&id).await;
    sleep(Duration::from_secs(1)).await;
    for process in [&process, &deaf] {
        assert_eq!(process.fresh(&id).await.unwrap().expose(), new);
    }
    assert_eq!(deaf.tokens.stats().forgotten, 0, "nothing of the old one is written over it");
}
