//! What every store of sessions does, in real time: run on the one in memory and on real servers.

use std::{sync::Arc, time::Duration};

use tidegate::token::{Change, Fence, Leased, Phase, SessionId, SessionStore, Stored, Under, Write, Written};
use tokio::time::{sleep, timeout};

const KEEP: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(30);
/// Lives that are meant to be over.
const SHORT: Duration = Duration::from_millis(40);

fn id(name: &str) -> SessionId {
    SessionId::new(name).expect("an id")
}

fn write(record: &str, over: u64, fence: Fence, under: Under) -> Write {
    Write { record: record.as_bytes().to_vec(), over, keep: KEEP, fence, under }
}

async fn read(store: &impl SessionStore, id: &SessionId) -> Option<(u64, String)> {
    let stored = store.read(id, None).await.expect("it can be asked")?;
    Some((stored.version, String::from_utf8(stored.record).expect("a text")))
}

async fn taken(
    store: &impl SessionStore,
    id: &SessionId,
    holder: u64,
    life: Duration,
) -> (Fence, Stored, Option<Duration>) {
    match store.lease(id, holder, life).await.expect("it can be asked") {
        Leased::Taken { fence, stored, orphan } => (fence, stored, orphan),
        other => panic!("not taken: {other:?}"),
    }
}

/// Runs all of it.
pub(crate) async fn suite(store: &impl SessionStore) {
    records(store).await;
    leases(store).await;
    orphans(store).await;
    fences(store).await;
    ends(store).await;
    changes(store).await;
    names(store).await;
}

async fn records(store: &impl SessionStore) {
    let (id, nobody) = (id("records"), Fence(0));
    assert_eq!(read(store, &id).await, None);
    assert_eq!(store.write(&id, write("x", 1, nobody, Under::Anybody)).await, Ok(Written::Gone));
    assert_eq!(store.create(&id, b"one".to_vec(), KEEP).await, Ok(true));
    assert_eq!(store.create(&id, b"other".to_vec(), KEEP).await, Ok(false));
    assert_eq!(read(store, &id).await, Some((1, "one".into())));
    assert_eq!(store.write(&id, write("two", 1, nobody, Under::Anybody)).await, Ok(Written::Done(2)));
    // A slow one that was made from the first cannot overwrite the second.
    assert_eq!(store.write(&id, write("late", 1, nobody, Under::Anybody)).await, Ok(Written::Conflict));
    assert_eq!(read(store, &id).await, Some((2, "two".into())));
    let age = store.read(&id, None).await.expect("it can be asked").expect("it is there").age;
    assert!(age < KEEP, "{age:?}");
    let binary: Vec<u8> = (0..=255).collect();
    let all_bytes = Write { record: binary.clone(), ..write("", 2, nobody, Under::Anybody) };
    assert_eq!(store.write(&id, all_bytes).await, Ok(Written::Done(3)));
    let stored = store.read(&id, Some(KEEP * 2)).await.expect("it can be asked").expect("it is there");
    assert_eq!(stored.record, binary);
    let removed = store.remove(&id).await.expect("it can be asked").expect("it was there");
    assert_eq!((removed.version, removed.record), (3, binary));
    assert_eq!(store.remove(&id).await, Ok(None));
    assert_eq!(read(store, &id).await, None);
}

async fn leases(store: &impl SessionStore) {
    let id = id("leases");
    assert_eq!(store.lease(&id, 1, LIFE).await, Ok(Leased::Gone));
    store.create(&id, b"one".to_vec(), KEEP).await.expect("it can be asked");
    let (first, stored, orphan) = taken(store, &id, u64::MAX, LIFE).await;
    assert_eq!((stored.version, &stored.record[..], orphan), (1, &b"one"[..], None));
    let (again, ..) = taken(store, &id, u64::MAX, LIFE).await;
    assert_eq!(again, first, "asked again, it is the same");
    let Leased::Held(rest) = store.lease(&id, 2, LIFE).await.expect("it can be asked") else {
        panic!("held")
    };
    assert!(rest <= LIFE && rest > LIFE / 2, "{rest:?}");
    assert_eq!(store.renew(&id, first, LIFE, Phase::Sent).await, Ok(true));
    assert_eq!(store.release(&id, Fence(first.0 + 7)).await, Ok(()), "it is not held");
    assert!(matches!(store.lease(&id, 2, LIFE).await, Ok(Leased::Held(_))));
    assert_eq!(store.release(&id, first).await, Ok(()));
    let (second, _, orphan) = taken(store, &id, 2, LIFE).await;
    assert!(second > first);
    assert_eq!(orphan, None, "it was given back");
    assert_eq!(store.renew(&id, first, LIFE, Phase::Held).await, Ok(false));
    store.remove(&id).await.expect("it can be asked");
    assert_eq!(store.renew(&id, second, LIFE, Phase::Held).await, Ok(false));
    assert_eq!(store.release(&id, second).await, Ok(()));
}

async fn orphans(store: &impl SessionStore) {
    let id = id("orphans");
    store.create(&id, b"one".to_vec(), KEEP).await.expect("it can be asked");
    // One that sent nothing leaves nothing to know.
    taken(store, &id, 1, SHORT).await;
    sleep(SHORT * 2).await;
    let (fence, _, orphan) = taken(store, &id, 2, LIFE).await;
    assert_eq!(orphan, None);
    assert_eq!(store.renew(&id, fence, SHORT, Phase::Sent).await, Ok(true));
    // What the phase was it stays.
    assert_eq!(store.renew(&id, fence, SHORT, Phase::Held).await, Ok(true));
    sleep(SHORT * 2).await;
    let (third, _, orphan) = taken(store, &id, 3, SHORT).await;
    assert!(orphan.is_some_and(|ago| ago >= SHORT && ago < LIFE), "{orphan:?}");
    let (same, _, orphan) = taken(store, &id, 3, SHORT).await;
    assert!(same == third && orphan.is_some(), "asked again, it is told again");
    // The next one dies as well, before it could write what it was told.
    sleep(SHORT * 2).await;
    let (fourth, _, orphan) = taken(store, &id, 4, LIFE).await;
    assert!(orphan.is_some_and(|ago| ago >= SHORT * 3), "{orphan:?}");
    let told = write("unknown", 1, fourth, Under::HolderReleasing);
    assert_eq!(store.write(&id, told).await, Ok(Written::Done(2)));
    assert_eq!(taken(store, &id, 5, LIFE).await.2, None, "it is known now");
}

async fn fences(store: &impl SessionStore) {
    let id = id("fences");
    store.create(&id, b"one".to_vec(), KEEP).await.expect("it can be asked");
    let (late, ..) = taken(store, &id, 1, SHORT).await;
    sleep(SHORT * 2).await;
    let (now, ..) = taken(store, &id, 2, LIFE).await;
    let end = write("end", 1, late, Under::HolderReleasing);
    assert_eq!(store.write(&id, end).await, Ok(Written::Fenced), "who lost the lease ends nothing");
    // What it knows for good is taken, and the lease stays whose it is.
    let tokens = write("tokens", 1, late, Under::AnybodyReleasing);
    assert_eq!(store.write(&id, tokens).await, Ok(Written::Done(2)));
    assert_eq!(store.renew(&id, now, LIFE, Phase::Held).await, Ok(true));
    let done = write("done", 2, now, Under::AnybodyReleasing);
    assert_eq!(store.write(&id, done).await, Ok(Written::Done(3)));
    assert_eq!(store.renew(&id, now, LIFE, Phase::Held).await, Ok(false), "it was given back");
    let (more, ..) = taken(store, &id, 3, LIFE).await;
    assert_eq!(store.write(&id, write("more", 3, more, Under::Anybody)).await, Ok(Written::Done(4)));
    assert_eq!(store.renew(&id, more, LIFE, Phase::Held).await, Ok(true), "it is held on");
}

async fn ends(store: &impl SessionStore) {
    let (idle, used) = (id("idle"), id("used"));
    store.create(&idle, b"one".to_vec(), SHORT).await.expect("it can be asked");
    store.create(&used, b"one".to_vec(), SHORT).await.expect("it can be asked");
    store.read(&used, Some(KEEP)).await.expect("it can be asked");
    sleep(SHORT * 2).await;
    assert_eq!(read(store, &idle).await, None);
    assert_eq!(store.lease(&idle, 1, LIFE).await, Ok(Leased::Gone));
    assert_eq!(read(store, &used).await, Some((1, "one".into())));
    assert_eq!(store.create(&idle, b"new".to_vec(), KEEP).await, Ok(true));
}

async fn changes(store: &impl SessionStore) {
    let id = id("changes");
    let mut heard = store.changes();
    let issuer: Arc<str> = "https://idp".into();
    let pause = Change::Pause { endpoint: issuer.clone(), pause: Duration::from_secs(3) };
    // Until the listener is there; what it hears is what was done.
    timeout(Duration::from_secs(20), async {
        loop {
            store.pause(&issuer, Duration::from_secs(3)).await;
            if let Ok(Ok(change)) = timeout(SHORT, heard.recv()).await
                && change == pause
            {
                return;
            }
        }
    })
    .await
    .expect("it is heard");
    store.create(&id, b"one".to_vec(), KEEP).await.expect("it can be asked");
    store.write(&id, write("two", 1, Fence(0), Under::Anybody)).await.expect("it can be asked");
    // A grant that is sent is told of, and its end too, though nothing is written.
    let (fence, ..) = taken(store, &id, 1, LIFE).await;
    store.renew(&id, fence, LIFE, Phase::Sent).await.expect("it can be asked");
    store.release(&id, fence).await.expect("it can be asked");
    store.remove(&id).await.expect("it can be asked");
    let mut all = Vec::new();
    while all.len() < 5 {
        let change =
            timeout(Duration::from_secs(20), heard.recv()).await.expect("it is told").expect("in time");
        if change != pause {
            all.push(change);
        }
    }
    let [begun, written] = [1, 2].map(|version| Change::Written { id: id.clone(), version });
    assert_eq!(all, [begun, written.clone(), Change::Sent(id.clone()), written, Change::Removed(id)]);
}

/// A later record of a name has nothing of the one before.
async fn names(store: &impl SessionStore) {
    let id = id("names");
    store.create(&id, b"one".to_vec(), KEEP).await.expect("it can be asked");
    let (before, ..) = taken(store, &id, 1, LIFE).await;
    store.remove(&id).await.expect("it can be asked");
    assert_eq!(store.create(&id, b"two".to_vec(), KEEP).await, Ok(true));
    assert_eq!(store.renew(&id, before, LIFE, Phase::Sent).await, Ok(false));
    for under in [Under::Anybody, Under::AnybodyReleasing] {
        assert_eq!(store.write(&id, write("late", 1, before, under)).await, Ok(Written::Gone));
    }
    let (after, stored, orphan) = taken(store, &id, 2, LIFE).await;
    assert_eq!((stored.version, &stored.record[..], orphan), (1, &b"two"[..], None));
    assert!(after > before);
    assert_eq!(store.release(&id, before).await, Ok(()));
    assert_eq!(store.renew(&id, after, LIFE, Phase::Held).await, Ok(true), "it is held on");
    assert_eq!(
        store.write(&id, write("three", 1, after, Under::AnybodyReleasing)).await,
        Ok(Written::Done(2))
    );
}
