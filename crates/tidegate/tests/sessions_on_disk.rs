//! Sessions in a sealed file: a restart logs nobody out, and what a crash leaves is read as far as it is whole.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/idp.rs"]
mod idp;
#[path = "support/session_suite.rs"]
mod session_suite;
#[path = "support/trace.rs"]
mod trace;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use idp::{Fault, Idp};
use tempfile::TempDir;
use tidegate::{
    Call, clock,
    throttle::{KeyHasher, Seed},
    token::{
        JournalError, Login, MemorySessions, Over, Seal, SessionId, SessionStore as _, Settings,
        TokenCoordinator, TokenError,
    },
};

/// Stands for a real one: nobody reads through it by accident, and what is changed or of another key does not open.
struct Toy(u8);

impl Toy {
    fn tag(&self, plain: &[u8], context: &[u8]) -> [u8; 16] {
        let mut hasher = KeyHasher::seeded(Seed::of(&[self.0]));
        hasher.part(plain).part(context).finish().bits().to_be_bytes()
    }
}

impl Seal for Toy {
    fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let hidden = plain.iter().map(|byte| byte ^ self.0);
        self.tag(plain, context).into_iter().chain(hidden).collect()
    }

    fn open(&self, sealed: &[u8], context: &[u8]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let (tag, hidden) = sealed.split_first_chunk::<16>()?;
        let plain: Vec<u8> = hidden.iter().map(|byte| byte ^ self.0).collect();
        (*tag == self.tag(&plain, context)).then(|| zeroize::Zeroizing::new(plain))
    }
}

struct Place {
    _directory: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sessions");
    Place { _directory: directory, path }
}

/// Opens it as soon as the writer of before is gone.
async fn open(place: &Place) -> MemorySessions {
    loop {
        match MemorySessions::on_disk(&place.path, Arc::new(Toy(0xa5))) {
            Err(JournalError::Taken(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
            opened => return opened.expect("it opens"),
        }
    }
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).expect("an id")
}

fn call() -> Call {
    Call::at(clock::now()).within(Duration::from_secs(10))
}

#[tokio::test]
async fn a_file_is_a_store_of_sessions() {
    let place = place();
    session_suite::suite(&open(&place).await).await;
}

#[tokio::test]
async fn a_restart_logs_nobody_out_and_a_logout_stays_one() {
    let (place, idp) = (place(), Idp::new());
    let store = open(&place).await;
    let before = TokenCoordinator::new(idp.clone(), store, Settings::default()).unwrap();
    for family in 0..100 {
        before.begin(&id(&format!("user-{family}")), Login::of(idp.login(family))).await.unwrap();
    }
    before.end(&id("user-7")).await.unwrap().unwrap();
    drop(before);
    let store = open(&place).await;
    assert_eq!(store.len(), 99);
    let after = TokenCoordinator::new(idp.clone(), store, Settings::default()).unwrap();
    for family in 0..100 {
        let answer = after.fresh(&id(&format!("user-{family}")), &call()).await;
        if family == 7 {
            assert_eq!(answer.unwrap_err(), TokenError::LoginNeeded(Over::Gone));
        } else {
            assert!(answer.unwrap().expose().starts_with(&format!("at-{family}-")));
        }
    }
    assert_eq!(idp.grants(), 0);
}

#[tokio::test]
async fn a_grant_that_was_out_when_the_process_died_is_an_unknown_outcome_after_the_restart() {
    let (place, idp) = (place(), Idp::new());
    idp.with(|state| (state.life, state.latency) = (Duration::from_secs(1), Duration::from_millis(1)));
    let alice = id("alice");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (store, provider, session) = (open(&place).await, idp.clone(), alice.clone());
    let dying = runtime.spawn(async move {
        let coordinator = TokenCoordinator::new(provider.clone(), store, Settings::default()).unwrap();
        coordinator.begin(&session, Login::of(provider.login(1))).await.unwrap();
        provider.next(Fault::Late(Duration::from_secs(600)));
        while provider.with(|state| state.out) == 0 {
            let _ =
                coordinator.fresh(&session, &Call::at(clock::now()).within(Duration::from_millis(20))).await;
        }
    });
    dying.await.unwrap();
    // All that it began ends with it.
    runtime.shutdown_background();
    let store = open(&place).await;
    let after = TokenCoordinator::new(idp.clone(), store, Settings::default()).unwrap();
    assert_eq!(after.fresh(&alice, &call()).await.unwrap_err(), TokenError::LoginNeeded(Over::Unknown));
    assert_eq!((idp.grants(), idp.reuses()), (1, 0));
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_what_was_answered_before_is_there() {
    let place = place();
    let store = open(&place).await;
    let keep = Duration::from_secs(600);
    store.create(&id("one"), b"first".to_vec(), keep).await.unwrap();
    let whole = fs::metadata(&place.path).unwrap().len();
    store.create(&id("two"), b"second".to_vec(), keep).await.unwrap();
    drop(store);
    let bytes = fs::read(&place.path).unwrap();
    for length in whole..bytes.len() as u64 {
        let torn = self::place();
        fs::write(&torn.path, &bytes[..length as usize]).unwrap();
        let store = open(&torn).await;
        assert_eq!(store.len(), 1, "{length} of {} bytes", bytes.len());
        store.create(&id("three"), b"third".to_vec(), keep).await.unwrap();
        drop(store);
        let store = open(&torn).await;
        assert_eq!(store.read(&id("one"), None).await.unwrap().unwrap().record, b"first");
        assert_eq!(store.read(&id("three"), None).await.unwrap().unwrap().record, b"third");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_named_with_what_to_do() {
    let place = place();
    let error = |seal: Toy| MemorySessions::on_disk(&place.path, Arc::new(seal)).err().unwrap().to_string();
    let store = open(&place).await;
    store.create(&id("one"), b"first".to_vec(), Duration::from_secs(600)).await.unwrap();
    assert!(
        error(Toy(0xa5))
            .ends_with("belongs to another process that runs; give each its own, or share a store")
    );
    drop(store);
    drop(open(&place).await);
    let wrong_key = loop {
        let error = error(Toy(1));
        if !error.contains("another process") {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(wrong_key.contains("cannot be opened with any key that is known; keep the key"), "{wrong_key}");
    fs::write(&place.path, "something else altogether").unwrap();
    assert!(error(Toy(0xa5)).contains("is not a file of sessions; name another one"));
}

#[tokio::test]
async fn the_file_holds_nothing_of_a_token_and_is_for_nobody_else() {
    let (place, idp) = (place(), Idp::new());
    let coordinator = TokenCoordinator::new(idp.clone(), open(&place).await, Settings::default()).unwrap();
    coordinator.begin(&id("alice"), Login::of(idp.login(1))).await.unwrap();
    let text = String::from_utf8_lossy(&fs::read(&place.path).unwrap()).into_owned();
    for secret in ["at-1", "rt-1", "alice"] {
        assert!(!text.contains(secret));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_file_of_which_most_is_old_is_written_anew() {
    let place = place();
    let store = open(&place).await;
    let keep = Duration::from_secs(600);
    for round in 0..40 {
        for name in ["one", "two"] {
            let record = vec![round; 100_000];
            store.remove(&id(name)).await.unwrap();
            assert!(store.create(&id(name), record, keep).await.unwrap());
        }
    }
    drop(store);
    let store = open(&place).await;
    assert!(fs::metadata(&place.path).unwrap().len() < 3_000_000, "8 MB were written");
    for name in ["one", "two"] {
        assert_eq!(store.read(&id(name), None).await.unwrap().unwrap().record, vec![39; 100_000]);
    }
}
