//! A watch tells everything, once, in whole batches, and without a gap.

use std::time::Duration;

use tidegate::registry::{Change, Source as _, SourceErrorKind, Update, Watch as _};
use tidegate_etcd::{EtcdRegistry, EtcdWatch, Layout};

use crate::{
    server::{Etcd, Version, on_both, until},
    support::{Root, get, instance, registered, registry, soon, with_layout},
};

async fn watching(registry: &EtcdRegistry, service: &str) -> EtcdWatch {
    let mut watch = registry.watch(&service.parse().unwrap()).await.unwrap();
    assert!(matches!(next(&mut watch).await, Update::All(_)));
    // And it is open.
    assert!(matches!(next(&mut watch).await, Update::Caught(_)));
    watch
}

async fn next(watch: &mut EtcdWatch) -> Update {
    soon("the watch tells something", watch.next()).await.unwrap()
}

/// The next changes, whatever else is told before.
async fn changes(watch: &mut EtcdWatch) -> Vec<Change> {
    loop {
        match next(watch).await {
            Update::Changes { changes, .. } => return changes,
            Update::Caught(_) => {}
            Update::All(all) => panic!("read again: {all:?}"),
        }
    }
}

fn removed(changes: &[Change]) -> Vec<&str> {
    let ids = changes.iter().map(|change| match change {
        Change::Removed(id) => id.as_str(),
        other => panic!("{other:?}"),
    });
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids
}

/// Defect E4: of a batch, the first event alone was told; the end of a lease is one batch.
async fn every_event_of_a_batch_is_told_at_once(version: Version) {
    let etcd = Etcd::start(version).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let lease = root.grant(60).await;
    let value = |id: &str| serde_json::to_vec(&instance("orders", id)).unwrap();
    let ids: Vec<_> = (0..300).map(|id| format!("{id:03}")).collect();
    for id in &ids {
        root.put(&format!("/tidegate/services/orders/{id}"), &value(id), lease).await;
    }
    let mut watch = watching(&registry, "orders").await;
    root.revoke(lease).await;
    assert_eq!(removed(&changes(&mut watch).await), ids);
}

/// Defect E4, its other halves: events between the reading and the watch, and deletions without a former value.
async fn nothing_is_lost_between_the_reading_and_the_watch(version: Version) {
    let etcd = Etcd::start(version).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let _owner = registered(&registry, instance("orders", "1")).await;
    let mut watch = registry.watch(&"orders".parse().unwrap()).await.unwrap();
    let Update::All(all) = next(&mut watch).await else { panic!("all comes first") };
    assert_eq!(all.instances.len(), 1);
    // The stream is not open yet.
    root.delete(b"/tidegate/services/orders/1").await;
    assert_eq!(removed(&changes(&mut watch).await), ["1"]);
}

/// Defect E4: a history that is compacted under a watch.
async fn a_history_that_is_compacted_under_a_watch_is_read_again(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings());
    let _owner = registered(&registry, instance("orders", "1")).await;
    let mut watch = watching(&registry, "orders").await;
    // Nobody polls the watch meanwhile, so that it is cut off and does not know.
    etcd.restart().await;
    let root = Root::of(&etcd).await;
    root.delete(b"/tidegate/services/orders/1").await;
    let revision = root.put("/elsewhere", b"", 0).await;
    root.compact(revision).await;
    let all = loop {
        match next(&mut watch).await {
            Update::All(all) => break all,
            Update::Caught(_) => {}
            Update::Changes { changes, .. } => panic!("{changes:?} are not to be had"),
        }
    };
    // The registration may have been repaired by now: then it is there, and else it is told next.
    if all.instances.is_empty() {
        assert!(matches!(changes(&mut watch).await[..], [Change::Put(_)]));
    }
    assert_eq!(registry.stats().resyncs, 1);
}

async fn a_watch_goes_on_where_it_was_after_a_restart(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(etcd.settings());
    let mut watch = watching(&registry, "orders").await;
    etcd.restart().await;
    let root = Root::of(&etcd).await;
    for id in ["1", "2", "3"] {
        let value = serde_json::to_vec(&instance("orders", id)).unwrap();
        root.put(&format!("/tidegate/services/orders/{id}"), &value, 0).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        for change in changes(&mut watch).await {
            let Change::Put(instance) = change else { panic!("{change:?}") };
            seen.push(instance.id.clone());
        }
    }
    assert_eq!((seen, registry.stats().resyncs), (vec!["1".into(), "2".into(), "3".into()], 0));
}

async fn a_batch_that_is_larger_than_an_answer_comes_in_fragments_and_is_told(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings().largest_answer(2 << 20));
    let mut watch = watching(&registry, "orders").await;
    // Nobody polls the watch meanwhile: etcd will tell it a thousand changes at once.
    etcd.restart().await;
    let root = Root::of(&etcd).await;
    let long = "x".repeat(3000);
    for id in 0..1500 {
        let value = serde_json::to_vec(&instance("orders", &id.to_string()).with("long", &*long)).unwrap();
        root.put(&format!("/tidegate/services/orders/{id}"), &value, 0).await;
    }
    let mut told = Vec::new();
    while told.len() < 1500 {
        for change in changes(&mut watch).await {
            let Change::Put(instance) = change else { panic!("{change:?}") };
            told.push(instance.id.clone());
        }
    }
    let all: Vec<_> = (0..1500).map(|id| id.to_string()).collect();
    assert_eq!((told, registry.stats().resyncs), (all, 0));
}

/// Silence must be noticed: a watch that hangs would be believed for ever.
async fn a_watch_of_an_etcd_that_hangs_ends_with_an_error(version: Version) {
    let etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings());
    let mut watch = watching(&registry, "orders").await;
    etcd.stop().await;
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(40), watch.next()).await.expect("silence is noticed") {
            Ok(Update::Caught(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, SourceErrorKind::Unavailable, "{error}");
    etcd.signal("-CONT");
}

/// Defect E10: an etcd that is set back, where the revisions that a watch waits for come much later or never.
async fn an_etcd_that_was_set_back_is_read_again_and_registered_with_anew(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings());
    let owner = registered(&registry, instance("orders", "1")).await;
    let root = Root::of(&etcd).await;
    for _ in 0..20 {
        root.put("/elsewhere", b"", 0).await;
    }
    let mut watch = watching(&registry, "orders").await;
    let before = get(&registry, "orders").await.revision;
    etcd.kill();
    std::fs::remove_dir_all(etcd.directory().join("data")).unwrap();
    etcd.launch();
    etcd.ready().await;
    soon("all is read again", async {
        loop {
            match watch.next().await {
                Ok(Update::All(all)) => {
                    assert!(all.revision > before, "{all:?} is later than {before:?}");
                    break;
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    soon("it is registered", owner.registered()).await.unwrap();
    until("it can be found", async || get(&registry, "orders").await.instances.len() == 1).await;
    assert_eq!(registry.stats().leases_lost, 1);
}

async fn values_that_are_no_instances_are_counted_and_harmless(version: Version) {
    let etcd = Etcd::start(version).await;
    let root = Root::of(&etcd).await;
    for (layout, prefix) in [(Layout::Tidegate, "/tidegate/services"), (Layout::GoMicro, "/micro/registry")] {
        let registry = with_layout(etcd.settings(), layout);
        let _owner = registered(&registry, instance("orders", "1")).await;
        let nowhere = match layout {
            Layout::Tidegate => r#"{"service":"orders","id":"z","address":"nowhere"}"#,
            Layout::GoMicro => r#"{"name":"orders","nodes":[{"id":"z","address":"nowhere"}]}"#,
        };
        for (key, value) in [("x", "no json"), ("y", "{}"), ("y/deeper", "[]"), ("", ""), ("z", nowhere)] {
            root.put(&format!("{prefix}/orders/{key}"), value.as_bytes(), 0).await;
        }
        root.put(&format!("{prefix}/%%/x"), b"\xff", 0).await;
        let listing = get(&registry, "orders").await;
        assert_eq!((listing.instances.len(), listing.malformed), (1, 5), "{layout}");
        let names: Vec<_> = registry.list().await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["orders"], "{layout}");
        // An instance whose value is broken by hand stays as it was, until it is repaired.
        let mut watch = watching(&registry, "orders").await;
        root.put(&format!("{prefix}/orders/1"), b"broken", 0).await;
        assert_eq!(changes(&mut watch).await, [Change::Malformed("1".into())]);
        assert_eq!(changes(&mut watch).await, [Change::Put(instance("orders", "1").into())]);
    }
}

async fn a_large_prefix_is_read_in_pages_that_fit(version: Version) {
    let etcd = Etcd::start(version).await;
    let root = Root::of(&etcd).await;
    let registry = registry(etcd.settings().largest_answer(100_000));
    let long = "x".repeat(2000);
    for id in 0..300 {
        let value = serde_json::to_vec(&instance("orders", &id.to_string()).with("long", &*long)).unwrap();
        root.put(&format!("/tidegate/services/orders/{id}"), &value, 0).await;
    }
    assert_eq!(get(&registry, "orders").await.instances.len(), 300);
    // One value that fits into no answer is told as such, and not as an empty service.
    root.put("/tidegate/services/orders/z", "x".repeat(200_000).as_bytes(), 0).await;
    let error = registry.get(&"orders".parse().unwrap()).await.unwrap_err();
    assert!(error.message.contains("too large"), "{error}");
}

/// A fleet that speaks go-micro's layout and Tidegate find each other.
async fn what_go_micro_registered_is_found_and_watched(version: Version) {
    let etcd = Etcd::start(version).await;
    let (root, registry) = (Root::of(&etcd).await, with_layout(etcd.settings(), Layout::GoMicro));
    let mut watch = watching(&registry, "go.micro.srv/greeter").await;
    let value = br#"{"name":"go.micro.srv/greeter","version":"latest","metadata":null,"endpoints":[],
        "nodes":[{"id":"greeter/6f0","address":"192.168.1.4:45541","metadata":{"protocol":"grpc"}}]}"#;
    root.put("/micro/registry/go.micro.srv-greeter/greeter-6f0", value, 0).await;
    let told = changes(&mut watch).await;
    assert!(matches!(&told[..], [Change::Put(put)] if put.id == "greeter/6f0"), "{told:?}");
    root.delete(b"/micro/registry/go.micro.srv-greeter/greeter-6f0").await;
    assert_eq!(changes(&mut watch).await, [Change::Removed("greeter/6f0".into())]);
    let names = registry.list().await.unwrap();
    assert_eq!(names, []);
}

on_both! {
    every_event_of_a_batch_is_told_at_once,
    nothing_is_lost_between_the_reading_and_the_watch,
    a_history_that_is_compacted_under_a_watch_is_read_again,
    a_watch_goes_on_where_it_was_after_a_restart,
    a_batch_that_is_larger_than_an_answer_comes_in_fragments_and_is_told,
    an_etcd_that_was_set_back_is_read_again_and_registered_with_anew,
    values_that_are_no_instances_are_counted_and_harmless,
    a_large_prefix_is_read_in_pages_that_fit,
    what_go_micro_registered_is_found_and_watched,
}

#[tokio::test]
#[ignore = "it takes as long as two pings without an answer, and patience"]
async fn a_hanging_watch_is_noticed_on_both_versions() {
    crate::server::both(a_watch_of_an_etcd_that_hangs_ends_with_an_error).await;
}
