//! Memory that runs short: who is in stays in, who wants to come in waits.

use std::path::{Path, PathBuf};

use super::*;

/// A kernel's files that say how much of 1000 bytes is used, and for how long tasks waited.
struct Kernel {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl Kernel {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let kernel = Self { _directory: directory, root };
        kernel.write("proc/self/cgroup", "0::/gate\n");
        kernel.write("sys/fs/cgroup/gate/memory.max", "1000\n");
        kernel.says(100, "0.00");
        kernel
    }

    fn says(&self, used: u32, stalled: &str) {
        self.write("sys/fs/cgroup/gate/memory.current", &format!("{used}\n"));
        let stalled = format!("some avg10={stalled} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n");
        self.write("sys/fs/cgroup/gate/memory.pressure", &stalled);
    }

    /// In one step, as the kernel's files change.
    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    async fn is_seen(&self, gateway: &Gateway, level: &str) {
        gateway.state_is(level, |state| state["pressure"]["level"] == level).await;
    }
}

fn watched(behind: &Behind, issuer: &str, root: &Path) -> String {
    let config = config(behind, issuer, "", "memory://");
    format!("pressure: {{ every: 20ms, root: {} }}\n{config}", root.display())
}

#[tokio::test]
async fn new_logins_wait_while_memory_is_short_and_sessions_go_on() {
    let (idp, behind, kernel) = (Idp::start().await, Behind::start().await, Kernel::new());
    let gateway = of(|| watched(&behind, idp.issuer(), &kernel.root)).await;
    let mut ann = Browser::default();
    assert_eq!(ann.logs_in(&gateway, "/").await.status, StatusCode::OK);
    let mut half = Browser::default();
    let back = at_provider(&half.goes(&gateway, "/half").await).await;

    kernel.says(900, "0.00");
    kernel.is_seen(&gateway, "high").await;
    let held_off = Browser::default().goes(&gateway, "/").await;
    assert_eq!(
        (held_off.status, &held_off.json()["reason"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"pressure".into())
    );
    assert_eq!(held_off.header("content-type"), "application/problem+json");
    assert_eq!(held_off.header("retry-after"), "1");
    assert!(!held_off.headers.contains_key("set-cookie"));
    assert_eq!(ann.fetches(&gateway, "/").await.status, StatusCode::OK, "who is in stays in");
    assert_eq!(Browser::default().fetches(&gateway, "/public").await.status, StatusCode::OK);
    assert_eq!(Browser::default().fetches(&gateway, "/").await.status, StatusCode::UNAUTHORIZED);

    kernel.says(990, "0.00");
    kernel.is_seen(&gateway, "critical").await;
    let later = half.goes(&gateway, &back).await;
    assert_eq!((later.status, half.session()), (StatusCode::SERVICE_UNAVAILABLE, None));
    assert_eq!(idp.counts().asked, 1, "the code is not used up");
    assert_eq!(ann.goes(&gateway, "/").await.status, StatusCode::OK);
    assert_eq!(gateway.metric("tidegate_pressure_level").await as u64, 2);

    // Somewhat below the mark, so that it does not go to and fro.
    kernel.says(880, "0.00");
    kernel.is_seen(&gateway, "high").await;
    assert_eq!(half.goes(&gateway, &back).await.header("location"), "/half", "the same login goes on");
    kernel.says(100, "0.00");
    kernel.is_seen(&gateway, "none").await;
    assert_eq!(Browser::default().logs_in(&gateway, "/").await.status, StatusCode::OK);
    let state = gateway.state().await;
    assert_eq!(
        (&state["pressure"]["shed"], &state["sessions"][0]["logins"]["held-off"]),
        (&2.into(), &2.into())
    );
    assert_eq!(gateway.metric("tidegate_pressure_shed_total").await as u64, 2);
}

#[tokio::test]
async fn tasks_that_wait_for_memory_hold_new_logins_off_too_and_the_gate_can_be_taken_away() {
    let (idp, behind, kernel) = (Idp::start().await, Behind::start().await, Kernel::new());
    kernel.says(100, "35.00");
    let gateway = of(|| watched(&behind, idp.issuer(), &kernel.root)).await;
    assert_eq!(Browser::default().goes(&gateway, "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let state = gateway.state().await;
    assert_eq!(
        (&state["pressure"]["stalled_percent"], &state["pressure"]["used_bytes"]),
        (&35.0.into(), &100.into())
    );
    gateway.write(&config(&behind, idp.issuer(), "", "memory://"));
    gateway.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    assert_eq!(Browser::default().logs_in(&gateway, "/").await.status, StatusCode::OK);
    assert!(gateway.state().await["pressure"].is_null());
}
