//! A registry that is a file, or a name.

use std::{fs, path::Path};

use http::Response;

use crate::{
    registry::{Callers, config, has, service},
    support::{client, eventually, gateway::Gateway, upstream::Upstream},
};

/// Replaces a file in one step.
fn write(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

async fn server() -> Upstream {
    Upstream::start(|_| async { Response::new(client::empty()) }).await
}

#[tokio::test]
async fn a_file_is_followed_and_a_wrong_one_changes_nothing() {
    let (first, second) = (server().await, server().await);
    let listed = |servers: &[&Upstream]| {
        let servers: Vec<String> = servers.iter().map(|one| format!("  - {}\n", one.addr())).collect();
        format!("orders:\n{}", servers.concat())
    };
    let gateway = Gateway::start_with(|directory| {
        fs::write(directory.join("services.yaml"), listed(&[&first])).unwrap();
        config("file:services.yaml", "")
    })
    .await;
    let file = gateway.directory().join("services.yaml");
    has(&gateway, 1).await;
    let callers = Callers::start(&gateway);
    callers.served(10).await;
    write(&file, &listed(&[&first, &second]));
    has(&gateway, 2).await;
    eventually("the second being called", async || second.calls() > 10).await;
    write(&file, "orders:\n  - nowhere\n");
    gateway
        .state_is("the mistake being told", |state| {
            service(state)["error"].as_str().is_some_and(|error| error.contains("line 2, column 5"))
        })
        .await;
    callers.served(50).await;
    write(
        &file,
        &format!("orders:\n  - {{ address: {}, weight: 0 }}\n  - {}\n", first.addr(), second.addr()),
    );
    gateway
        .state_is("the weight", |state| {
            let endpoints = service(state)["endpoints"].as_array().cloned().unwrap_or_default();
            endpoints.iter().any(|endpoint| endpoint["weight"] == 0)
        })
        .await;
    let before = first.calls();
    let other = second.calls();
    eventually("the second taking all", async || second.calls() > other + 20).await;
    assert!(first.calls() <= before + 2, "those that were under way");
    callers.assert_all_served();
}

#[tokio::test]
async fn a_name_is_resolved_to_its_addresses() {
    let server = server().await;
    let gateway = Gateway::start(&config(&format!("dns:localhost:{}", server.addr().port()), "")).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(service(&gateway.state().await)["provenance"], "fresh");

    let by_name = config(&format!("dns:{{service}}:{}", server.addr().port()), "");
    let gateway = Gateway::start(&by_name.replace("service: orders", "service: localhost")).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
