use std::{fs, sync::atomic::Ordering::Relaxed};

use super::support::*;
use crate::{listener::Limits, open_files::raise_open_files};

/// Most bytes of this process that an idle connection may take: what the listener keeps of it, its task and its timer,
/// and here the client's end too. The buffers of sockets are the kernel's and are not counted.
const BOUND: usize = 5 << 10;

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// As many as there are files for, since both ends are in this process; 10000 where that is allowed.
fn how_many() -> usize {
    let files = raise_open_files().unwrap().unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(200) / 2).unwrap().min(10_000)
}

/// Set in the process that measures.
const ALONE: &str = "TIDEGATE_TEST_ALONE";

/// In a process of its own: the memory of a process says nothing of one test while others run in it.
#[test]
fn ten_thousand_idle_connections_stay_within_their_bound() {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.unwrap().block_on(measure());
    }
    let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture", "--test-threads=2"])
        .env(ALONE, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("bytes each"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn measure() {
    let count = how_many();
    let server = Server::start(Limits {
        connections: count,
        header_timeout: EVENTUALLY * 4,
        keep_alive: EVENTUALLY * 4,
        quiet: std::time::Duration::from_millis(10),
        ..Limits::default()
    });
    // What the runtimes and the allocator keep in any case.
    server.say(get("/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    server.until_none_open().await;
    let before = resident_bytes();
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = server.connect().await;
        client.say(get("/")).await;
        clients.push(client);
    }
    for client in &mut clients {
        client.hear("hello").await;
    }
    server.until("all at rest", |stats| stats.resting.load(Relaxed) == count).await;
    let each = (resident_bytes() - before) / count;
    println!("{count} idle connections take {each} bytes each, the clients' ends included");
    assert!(each <= BOUND, "{each} bytes each");
    assert_eq!(server.stats.open.load(Relaxed), count);
    drop(clients);
    server.until_none_open().await;
}
