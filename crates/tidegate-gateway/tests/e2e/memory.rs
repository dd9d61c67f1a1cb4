//! Memory stays within what is promised.

use std::{fs, process::Command};

use futures_util::{StreamExt as _, stream};
use http::Response;

use crate::{
    setup::guarded,
    support::{client, eventually, gateway::Gateway, raw::Raw, upstream::Upstream},
};

const CONNECTIONS: usize = 10_000;
/// What an idle connection may cost, its task and all; its buffers are given back.
const BYTES_EACH: usize = 6 << 10;

/// Resident bytes of a process; what it shares is counted by its share.
pub(crate) fn resident(id: u32) -> usize {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Raises this process's bound on open files as far as it goes; the gateway raises its own.
fn raise_open_files() {
    let id = std::process::id();
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).unwrap();
    assert!(hard.parse::<usize>().is_ok_and(|hard| hard > CONNECTIONS + 100), "ulimit -Hn {hard} is too low");
    let raised =
        Command::new("prlimit").args([format!("--pid={id}"), format!("--nofile={hard}:{hard}")]).status();
    assert!(raised.is_ok_and(|status| status.success()), "prlimit raises the bound on open files");
}

#[tokio::test]
async fn ten_thousand_idle_connections_stay_within_their_bound() {
    raise_open_files();
    let upstream = Upstream::start(|_| async { Response::new(client::whole("hello")) }).await;
    let config =
        guarded(upstream.addr(), "", "each: { rate: 1000000/s, key: [client-ip] }", "limits: [each]");
    let mut gateway = Gateway::start(&format!("log: {{ access: false }}\n{config}")).await;
    client::get(gateway.http(), "/").await;
    let id = gateway.process().id();
    let before = resident(id);
    // Each has made a call, as connections in a client's pool have.
    let idle: Vec<Raw> = stream::iter(0..CONNECTIONS)
        .map(async |_| {
            let mut raw = Raw::connect(gateway.http()).await;
            raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(raw.head().await.starts_with("HTTP/1.1 200"));
            raw.until("hello").await;
            raw
        })
        .buffer_unordered(50)
        .collect()
        .await;
    gateway
        .state_is("every connection there", |state| state["listeners"][0]["connections"] == CONNECTIONS)
        .await;
    // What the calls took is given back a moment after the last of them.
    let mut each = usize::MAX;
    eventually("idle connections within their bound", async || {
        each = resident(id).saturating_sub(before) / CONNECTIONS;
        each <= BYTES_EACH
    })
    .await;
    println!("an idle connection takes {each} bytes");
    drop(idle);
    gateway.is_at_rest().await;
}
