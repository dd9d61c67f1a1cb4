//! Start, reload, drain and end.

use std::{fs, net::SocketAddr, process::Command, sync::Arc};

use http::{Response, StatusCode};
use tokio::sync::Semaphore;

use crate::{
    setup::{guarded, to},
    support::{
        client, eventually,
        gateway::{self, Gateway},
        ports,
        process::Process,
        upstream::Upstream,
        within,
    },
};

async fn hello() -> Upstream {
    Upstream::start(|_| async { Response::new(client::whole("hello")) }).await
}

async fn held(go: &Arc<Semaphore>) -> Upstream {
    let go = go.clone();
    Upstream::start(move |_| {
        let go = go.clone();
        async move {
            go.acquire().await.unwrap().forget();
            Response::new(client::whole("hello"))
        }
    })
    .await
}

#[tokio::test]
async fn a_reload_keeps_what_was_counted() {
    let upstream = hello().await;
    let config = |rate, route| {
        guarded(upstream.addr(), "", &format!("few: {{ rate: {rate}/h, algorithm: fixed-window }}"), route)
    };
    let mut gateway = Gateway::start(&config(2, "limits: [few]")).await;
    let mut sender = client::http1(gateway.http()).await;
    let mut call = async || {
        sender.ready().await.unwrap();
        let request = client::request("GET", "/").body(client::empty()).unwrap();
        client::Answer::read(sender.send_request(request).await.unwrap()).await.unwrap().status.as_u16()
    };
    assert_eq!([call().await, call().await, call().await], [200, 200, 429]);
    gateway.write(&config(2, "limits: [few]\ntimeout: 5s"));
    gateway.process().signal("HUP");
    gateway.state_is("the reload", |state| state["config"]["reloads"].as_u64() >= Some(1)).await;
    // The same connection, the same window, the same count.
    assert_eq!(call().await, 429);
}

#[tokio::test]
async fn a_changed_file_is_taken_up_without_a_signal() {
    let (one, two) = (hello().await, hello().await);
    let gateway = Gateway::start(&to(one.addr(), "")).await;
    client::get(gateway.http(), "/").await;
    gateway.write(&to(two.addr(), ""));
    eventually("a call at the second upstream", async || {
        client::get(gateway.http(), "/").await;
        two.calls() > 0
    })
    .await;
}

#[tokio::test]
async fn a_reload_says_what_needs_a_restart_until_it_does_not() {
    let upstream = hello().await;
    let config = to(upstream.addr(), "");
    let mut gateway = Gateway::start(&config).await;
    gateway.write(&format!("tracing: {{ otlp: \"http://127.0.0.1:1\" }}\nlog: {{ format: json }}\n{config}"));
    gateway.process().signal("HUP");
    let needs = |list: &[&str]| {
        let list = serde_json::json!(list);
        move |state: &serde_json::Value| state["config"]["needs_restart"] == list
    };
    gateway.state_is("what needs a restart", needs(&["tracing", "log.format"])).await;
    gateway.process().printed("tracing, log.format").await;
    gateway.write(&config);
    gateway.state_is("nothing that needs one", needs(&[])).await;
}

#[tokio::test]
async fn an_address_with_port_0_is_shown_as_the_one_it_became() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args([
        "serve",
        "--upstream",
        "http://127.0.0.1:9",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    let tidegate = Process::start("tidegate", &mut command);
    tidegate.printed("/metrics for Prometheus").await;
    let output = tidegate.output();
    let (_, rest) = output.split_once("curl -i http://").unwrap();
    let address: SocketAddr = rest.split('/').next().unwrap().parse().unwrap();
    assert_eq!(client::get(address, "/").await.status, StatusCode::SERVICE_UNAVAILABLE, "{output}");
    assert!(!output.contains("127.0.0.1:0"), "{output}");
}

#[tokio::test]
async fn a_bad_file_is_refused_and_the_running_one_stays() {
    let upstream = hello().await;
    let mut gateway = Gateway::start(&to(upstream.addr(), "")).await;
    gateway.write("upstreams: { main: { endpoints: [\"nonsense\"], in_fligt: 3 } }\nroutes: []\n");
    gateway.process().signal("HUP");
    gateway.state_is("the refusal", |state| state["config"]["failed_reloads"].as_u64() >= Some(1)).await;
    gateway.process().printed("in_fligt").await;
    let state = gateway.state().await;
    assert_eq!(state["config"]["reloads"], 0, "{:#}", state["config"]);
    assert!(state["config"]["last_reload_error"].is_string(), "{:#}", state["config"]);
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_drain_lets_calls_finish_and_takes_no_new_ones() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let mut gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let http = gateway.http();
    let call = tokio::spawn(client::get(http, "/"));
    eventually("the call at the upstream", async || upstream.live() == 1).await;
    gateway.process().signal("TERM");
    eventually("the port closing", async || tokio::net::TcpStream::connect(http).await.is_err()).await;
    assert!(gateway.process().ended().is_none(), "it waits for the call");
    go.add_permits(1);
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "hello"));
    assert_eq!(gateway.process().end().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_reload_whose_store_hangs() {
    let upstream = hello().await;
    let mut gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let store = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("store: \"redis://{}\"\n", store.local_addr().unwrap());
    gateway.write(&(to(upstream.addr(), "") + &hangs));
    gateway.process().signal("HUP");
    let _asked = within("a question to the new store", store.accept()).await.unwrap();
    gateway.process().signal("TERM");
    assert_eq!(gateway.process().end().await.code(), Some(0));
    let output = gateway.process().output();
    assert!(output.contains("the reload is given up") && !output.contains("reloaded"), "{output}");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_idle_connections() {
    let upstream = hello().await;
    let mut gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let mut one = client::http1(gateway.http()).await;
    let mut two = client::http2(gateway.http()).await;
    one.send_request(client::request("GET", "/").body(client::empty()).unwrap()).await.unwrap();
    two.send_request(client::request2("GET", "/").body(client::empty()).unwrap()).await.unwrap();
    assert_eq!(gateway.drain().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_ends_at_its_bound_and_says_what_it_cut() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let mut gateway = Gateway::start(&format!("drain: 200ms\n{}", to(upstream.addr(), ""))).await;
    let http = gateway.http();
    let call = tokio::spawn(async move { client::try_get_at(http, "/").await });
    eventually("the call at the upstream", async || upstream.live() == 1).await;
    let ended = gateway.drain().await;
    assert_eq!(ended.code(), Some(0), "{}", gateway.process().output());
    gateway.process().printed("cut off").await;
    assert!(call.await.unwrap().is_none());
}

#[tokio::test]
async fn a_second_signal_aborts() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let mut gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let http = gateway.http();
    let call = tokio::spawn(async move { client::try_get_at(http, "/").await });
    eventually("the call at the upstream", async || upstream.live() == 1).await;
    gateway.process().signal("TERM");
    eventually("the port closing", async || tokio::net::TcpStream::connect(http).await.is_err()).await;
    assert_eq!(gateway.drain().await.code(), Some(1));
    assert!(call.await.unwrap().is_none());
}

#[tokio::test]
async fn one_service_is_guarded_by_flags_alone() {
    let upstream = hello().await;
    let (http, admin) = (ports::free(), ports::free());
    let mut command = gateway::command();
    command.args([
        "serve",
        "--upstream",
        &format!("http://{}", upstream.addr()),
        "--rate",
        "2/1000h",
        "--in-flight",
        "5",
    ]);
    command.args(["--listen", &http.to_string(), "--admin", &admin.to_string()]);
    let process = Process::start("tidegate", &mut command);
    eventually("the gateway getting ready", async || {
        client::try_get_at(admin, "/ready").await.is_some_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client::get(http, "/").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
    process.printed(&http.to_string()).await;
}

#[tokio::test]
async fn without_arguments_a_built_in_example_is_guarded() {
    let (http, admin) = (ports::free(), ports::free());
    let mut command = gateway::command();
    command.args(["serve", "--listen", &http.to_string(), "--admin", &admin.to_string()]);
    let mut process = Process::start("tidegate", &mut command);
    eventually("the gateway getting ready", async || {
        client::try_get_at(admin, "/ready").await.is_some_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    let answer = client::get(http, "/").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("x-request-id"), "{}", answer.text());
    assert!(!answer.header("ratelimit").is_empty(), "{answer:?}");
    process.printed("curl").await;
    process.signal("TERM");
    assert_eq!(process.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_2_and_every_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    fs::write(&file, "upstreams:\n  a:\n    endpoints: [\"http://127.0.0.1:1\"]\n    in_fligt: { limit: 1 }\nroutes:\n  - upstream: b\n")
        .unwrap();
    for arguments in [vec!["check"], vec!["serve", "--config"]] {
        let mut process = Process::start("tidegate", gateway::command().args(&arguments).arg(&file));
        process.printed("in_fligt").await;
        assert_eq!(process.end().await.code(), Some(2), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_wrong_command_line_or_environment_ends_with_2_and_the_remedy() {
    let (address, log) = (ports::free().to_string(), "TIDEGATE_LOG");
    for (arguments, (variable, value), said) in [
        (vec!["--no-such-flag"], (log, ""), "--no-such-flag".to_owned()),
        (
            vec!["--listen", &address, "--admin", &address],
            (log, "info"),
            format!(
                "both listen on port {}; give one of them another",
                address.split(':').next_back().unwrap()
            ),
        ),
        (vec!["--listen", "127.0.0.1:9900"], (log, ""), "both listen on port 9900".to_owned()),
        (vec![], (log, "inof"), "TIDEGATE_LOG `inof` is no log filter: `inof` is no level; write".to_owned()),
        (vec![], ("TIDEGATE_CONFIG", "no/such.yaml"), "no/such.yaml".to_owned()),
    ] {
        let mut command = gateway::command();
        let mut process =
            Process::start("tidegate", command.arg("serve").args(&arguments).env(variable, value));
        assert_eq!(process.end().await.code(), Some(2), "{arguments:?}: {}", process.output());
        process.printed(&said).await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_ends_with_1() {
    let upstream = hello().await;
    let mut command = gateway::command();
    command.args(["serve", "--upstream", &format!("http://{}", upstream.addr())]);
    command.args(["--listen", &upstream.addr().to_string(), "--admin", &ports::free().to_string()]);
    let mut process = Process::start("tidegate", &mut command);
    process.printed(&upstream.addr().to_string()).await;
    assert_eq!(process.end().await.code(), Some(1), "{}", process.output());
}
