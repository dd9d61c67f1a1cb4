//! An endpoint that is down for a minute, with many sessions: who has a good token sees nothing, and one grant finds out that
//! it is back.

use std::time::Duration;

use tidegate::{
    Call, clock,
    token::{GrantError, GrantOutcome, MemorySessions, SessionId, Settings, TokenError},
};
use tidegate_core::recovery::Reach;
use tokio::time::{Instant, sleep};

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
        for id in over.iter().take(20) {
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
    // Each pause between two looks at a session is over by then.
    sleep(Duration::from_secs(16)).await;
    for id in &over {
        assert_eq!(process.fresh(id).await.unwrap().generation(), 2);
    }
    assert_eq!((idp.grants() - before, idp.reuses()), (OVER, 0));
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
