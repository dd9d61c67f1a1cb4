//! What survives: snapshots on disk, and a registry that comes and goes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;

fn on_disk(directory: &Path) -> Settings {
    Settings { snapshot: Some(directory.to_owned()), ..settings() }
}

/// The snapshots in a directory.
fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).expect("the directory is there");
    let paths = files.map(|file| file.expect("an entry can be read").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect()
}

/// Runs a registry until its snapshot is written.
async fn leave_a_snapshot(directory: &Path) {
    let (registry, _fake) = over(3, on_disk(directory));
    lookup(&registry, &orders()).await.expect("the service is there");
    while snapshots(directory).is_empty() {
        sleep(seconds(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_while_the_registry_is_down_serves_the_last_snapshot_with_its_age() {
    let directory = tempfile::tempdir().unwrap();
    leave_a_snapshot(directory.path()).await;
    advance(seconds(600)).await;
    let fake = FakeRegistry::new();
    fake.behave(Behaviour::Down);
    let registry = Registry::new(fake.clone(), on_disk(directory.path())).unwrap();
    let Ok((3, Provenance::Snapshot { age })) = lookup(&registry, &orders()).await else { panic!() };
    assert!(age >= seconds(600) && age < seconds(605), "{age:?}");
    settle().await;
    assert!(matches!(lookup(&registry, &orders()).await, Ok((3, Provenance::Snapshot { .. }))));
    fake.put(instances(&orders(), 4));
    fake.behave(Behaviour::Up);
    look_for(&registry, &orders(), 30).await;
    assert_eq!(lookup(&registry, &orders()).await, Ok((4, Provenance::Live)));
    assert_eq!(registry.problems(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_came_up_empty_does_not_empty_the_snapshot_inside_the_grace() {
    let directory = tempfile::tempdir().unwrap();
    leave_a_snapshot(directory.path()).await;
    let registry = Registry::new(FakeRegistry::new(), on_disk(directory.path())).unwrap();
    for _ in 0..29 {
        assert_eq!(lookup(&registry, &orders()).await.map(|(count, _)| count), Ok(3));
        sleep(seconds(1)).await;
    }
    look_for(&registry, &orders(), 10).await;
    assert_eq!(lookup(&registry, &orders()).await, Err(LookupError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_named_and_ignored() {
    let directory = tempfile::tempdir().unwrap();
    leave_a_snapshot(directory.path()).await;
    let path = snapshots(directory.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let fake = FakeRegistry::new();
    fake.behave(Behaviour::Down);
    let registry = Registry::new(fake, on_disk(directory.path())).unwrap();
    assert!(matches!(lookup(&registry, &orders()).await, Err(LookupError::Unavailable { .. })));
    let problem = format!("snapshot {} is ignored: its checksum is wrong: it is damaged", path.display());
    assert_eq!(registry.problems(), [problem]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_older_than_max_stale_is_named_and_ignored() {
    let directory = tempfile::tempdir().unwrap();
    leave_a_snapshot(directory.path()).await;
    advance(seconds(25 * 60 * 60)).await;
    let fake = FakeRegistry::new();
    fake.behave(Behaviour::Down);
    let registry = Registry::new(fake, on_disk(directory.path())).unwrap();
    assert!(lookup(&registry, &orders()).await.is_err());
    assert!(registry.problems()[0].contains("older than max_stale"), "{:?}", registry.problems());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_directory_that_cannot_be_written_is_named_and_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let (registry, _fake) = over(3, on_disk(&file));
    assert!(registry.problems()[0].ends_with("make it a directory that this process may write"));
    lookup(&registry, &orders()).await.unwrap();
    while registry.problems().len() < 2 {
        sleep(seconds(1)).await;
    }
    assert!(registry.problems()[1].contains("is not written"), "{:?}", registry.problems());
    assert_eq!(lookup(&registry, &orders()).await, Ok((3, Provenance::Live)));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_leaves_no_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, fake) = over(3, on_disk(directory.path()));
    lookup(&registry, &orders()).await.unwrap();
    while snapshots(directory.path()).is_empty() {
        sleep(seconds(1)).await;
    }
    fake.remove_all(&orders());
    for _ in 0..60 {
        drop(lookup(&registry, &orders()).await);
        sleep(seconds(1)).await;
    }
    while !snapshots(directory.path()).is_empty() {
        sleep(seconds(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_lost_its_history_is_believed_after_the_grace() {
    let (registry, fake) = over(3, settings());
    (0..100).for_each(|id| fake.put([instance(&name("other"), id)]));
    lookup(&registry, &orders()).await.unwrap();
    settle().await;
    fake.wipe();
    fake.put([instance(&orders(), 50), instance(&orders(), 51)]);
    for _ in 0..200 {
        assert!(lookup(&registry, &orders()).await.unwrap().0 >= 2);
        let _ = registry.refresh(&orders());
        sleep(seconds(1)).await;
    }
    let found = registry.lookup(&call(), &orders()).await.unwrap();
    let ids: Vec<_> = found.endpoints.iter().map(|endpoint| &*endpoint.instance.id).collect();
    assert_eq!(ids, ["050", "051"]);
}
