//! Many sessions at once.

use std::{sync::Arc, time::Duration};

use tidegate::token::{MemorySessions, Settings, TokenError};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Idp, Process, begin, until_over};

#[tokio::test(start_paused = true)]
async fn grants_beyond_the_bound_wait_in_line_and_none_is_rejected() {
    let idp = Idp::new();
    let settings = Settings { grants: 50, ..Settings::default() };
    let process = Arc::new(Process::start(&idp, &MemorySessions::default(), settings));
    let mut ids = Vec::new();
    for family in 0..10_000 {
        ids.push(begin(&idp, &process, family).await);
    }
    until_over().await;
    let began = Instant::now();
    let mut storm = JoinSet::new();
    for id in ids {
        let process = Arc::clone(&process);
        storm.spawn(async move { process.within(&id, 60).await.map(|token| token.generation()) });
    }
    sleep(Duration::from_secs(1)).await;
    let stats = process.tokens.stats();
    assert_eq!(stats.in_flight, 50, "the state is visible while it lasts");
    assert!(stats.queued > 8000, "{}", stats.queued);
    let served = storm.join_all().await;
    assert!(served.iter().all(|generation| *generation == Ok(2)));
    assert_eq!((idp.grants(), idp.reuses(), idp.with(|state| state.most_out)), (10_000, 0, 50));
    assert!(began.elapsed() < Duration::from_secs(23), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn sessions_that_began_together_are_not_refreshed_together() {
    let idp = Idp::new();
    let process = Process::start(&idp, &MemorySessions::default(), Settings::default());
    let mut ids = Vec::new();
    for family in 0..1000 {
        ids.push(begin(&idp, &process, family).await);
    }
    let mut most_in_a_second = 0;
    for _ in 0..280 {
        let before = idp.grants();
        for id in &ids {
            assert!(
                process.tokens.try_fresh(id, &tidegate::Call::at(tidegate::clock::now())).unwrap().is_ok()
            );
        }
        sleep(Duration::from_secs(1)).await;
        most_in_a_second = most_in_a_second.max(idp.grants() - before);
    }
    assert_eq!(idp.grants(), 1000);
    assert!(most_in_a_second < 100, "{most_in_a_second}");
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_bound_are_told_so() {
    let (_idp, process, id) = super::alone(Settings { waiters: 10, ..Settings::default() }).await;
    let process = Arc::new(process);
    until_over().await;
    let mut crowd = JoinSet::new();
    for _ in 0..15 {
        let (process, id) = (Arc::clone(&process), id.clone());
        crowd.spawn(async move { process.fresh(&id).await.map(|_| ()) });
    }
    let answers = crowd.join_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == Err(TokenError::Full)).count(), 5);
}
