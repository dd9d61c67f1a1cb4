//! Long-lived streams beside calls: limits of their own, times of their own.

use futures_util::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    setup::to,
    support::{
        client,
        gateway::Gateway,
        grpc::{Ask, GrpcClient, GrpcServer, SERVICE, ask},
        raw::Raw,
        scripted::Scripted,
        within,
    },
};

fn held(text: &str) -> Ask {
    Ask { hold: true, count: 1, ..ask(text) }
}

#[tokio::test]
async fn streams_have_a_limit_of_their_own_and_starve_no_calls() {
    let server = GrpcServer::start().await;
    let settings = format!(
        "in_flight: {{ limit: 1, queue: 0, streams: {{ limit: 2, paths: [{SERVICE}/List, \"{SERVICE}/Cha*\"] }} }}"
    );
    let gateway = Gateway::start(&to(server.addr(), &settings)).await;
    let mut client = GrpcClient::new(gateway.http());
    let mut watch = client.list(held("watch")).await.unwrap().into_inner();
    assert_eq!(within("a message", watch.message()).await.unwrap().unwrap().text, "watch");
    let (say, asks) = mpsc::channel(1);
    say.send(ask("hi")).await.unwrap();
    let mut chat = client.chat(ReceiverStream::new(asks)).await.unwrap().into_inner();
    assert_eq!(within("an answer", chat.message()).await.unwrap().unwrap().text, "hi");
    let refused = client.list(held("one too many")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"), "{refused:?}");
    // Every stream is taken, and calls go on as if there were none.
    for _ in 0..5 {
        assert_eq!(client.unary(ask("call")).await.unwrap().into_inner().text, "call");
    }
    let state = gateway.state().await;
    let upstream = &state["upstreams"][0];
    assert_eq!((&upstream["streams"]["in_flight"], &upstream["streams"]["admitted"]), (&2.into(), &2.into()));
    assert_eq!(
        (&upstream["streams"]["refused"]["in-flight"], &upstream["in_flight"]["admitted"]),
        (&1.into(), &5.into())
    );
    assert_eq!(gateway.metric("tidegate_in_flight{upstream=\"main\",pool=\"streams\"}").await as u64, 2);
    drop((say, chat));
    gateway.state_is("the chat's place free", |s| s["upstreams"][0]["streams"]["in_flight"] == 1).await;
    server.release(1);
    while within("the end", watch.message()).await.unwrap().is_some() {}
    // And streams go on while the only call is taken.
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.unary(held("call")).await });
    gateway.state_is("the call in flight", |s| s["upstreams"][0]["in_flight"]["in_flight"] == 1).await;
    let collected =
        client.chat(stream::iter([ask("a")])).await.unwrap().into_inner().message().await.unwrap();
    assert_eq!(collected.unwrap().text, "a");
    server.release(1);
    call.await.unwrap().unwrap();
    drop((watch, client));
    gateway.is_at_rest().await;
    assert_eq!(server.live(), 0);
}

#[tokio::test]
async fn server_sent_events_outlive_the_time_of_calls_and_hold_a_streams_permit() {
    let scripted = Scripted::start().await;
    let settings = "timeout: 1s\nin_flight: { limit: 1, streams: { limit: off } }";
    let gateway = Gateway::start(&to(scripted.addr(), settings)).await;
    let mut events = Raw::connect(gateway.http()).await;
    events.send("GET /events HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n").await;
    let mut upstream = scripted.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    upstream.send("9\r\ndata: 1\n\n\r\n").await;
    events.until("data: 1\n\n").await;
    gateway
        .state_is("a stream and no call", |state| {
            let upstream = &state["upstreams"][0];
            upstream["streams"]["in_flight"] == 1
                && upstream["streams"]["limit"].is_null()
                && upstream["in_flight"]["in_flight"] == 0
        })
        .await;
    // A call that begins after the stream is out of time before it ends.
    let http = gateway.http();
    let call = tokio::spawn(client::get(http, "/call"));
    let mut silent = scripted.accept().await;
    silent.head().await;
    assert_eq!(call.await.unwrap().status.as_u16(), 504);
    upstream.send("9\r\ndata: 2\n\n\r\n").await;
    events.until("data: 2\n\n").await;
    upstream.send("0\r\n\r\n").await;
    events.until("0\r\n\r\n").await;
    drop((events, upstream, silent));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_route_of_streams_has_no_time_but_the_one_it_sets() {
    let server = GrpcServer::start().await;
    let config = |kind: &str| {
        format!(
            "upstreams:\n  main:\n    endpoints: [\"http://{}\"]\n    timeout: 150ms\n    in_flight: {{ limit: 9 }}\n\
             routes:\n  - {{ match: {{ path: {SERVICE}/Chat }}, upstream: main, kind: stream{kind} }}\n  - upstream: main\n",
            server.addr()
        )
    };
    let gateway = Gateway::start(&config("")).await;
    let mut client = GrpcClient::new(gateway.http());
    let (say, asks) = mpsc::channel(1);
    let mut chat = client.chat(ReceiverStream::new(asks)).await.unwrap().into_inner();
    // A call that began later is out of time.
    let late = within("the call's end", end_of(client.list(held("x")))).await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
    say.send(ask("still here")).await.unwrap();
    assert_eq!(within("an answer", chat.message()).await.unwrap().unwrap().text, "still here");
    drop((say, chat, client));
    gateway.is_at_rest().await;

    let gateway = Gateway::start(&config(", timeout: 100ms")).await;
    let mut client = GrpcClient::new(gateway.http());
    let (_say, asks) = mpsc::channel(1);
    let ended = within("the route's own time", end_of(client.chat(ReceiverStream::new(asks)))).await;
    assert_eq!(ended.code(), Code::DeadlineExceeded);
}

/// How a call ended that must not end well: at its head, where a busy machine was late with it, or at its end.
async fn end_of<T>(
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>>,
) -> tonic::Status {
    let mut stream = match call.await {
        Ok(head) => head.into_inner(),
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "it ended well"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn an_idle_stream_that_both_sides_abandoned_is_ended_and_gives_its_permit_back() {
    let server = GrpcServer::start().await;
    let settings = format!(
        "idle_timeout: off\nbreaker: {{ failures: 1 }}\nin_flight: {{ limit: 1, idle_stream: 1s, streams: {{ limit: 1, paths: [{SERVICE}/Chat] }} }}"
    );
    let gateway = Gateway::start(&to(server.addr(), &settings)).await;
    let mut client = GrpcClient::new(gateway.http());
    let (say, asks) = mpsc::channel(1);
    let mut chat = client.chat(ReceiverStream::new(asks)).await.unwrap().into_inner();
    // A call may be silent for as long as it likes.
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.unary(held("slow")).await });
    let ended = within("the abandoned stream's end", chat.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    gateway.state_is("its permit back", |s| s["upstreams"][0]["streams"]["in_flight"] == 0).await;
    server.release(1);
    assert_eq!(call.await.unwrap().unwrap().into_inner().text, "slow");
    let breaker = &gateway.state().await["upstreams"][0]["endpoints"][0]["breaker"];
    assert_eq!((&breaker["state"], &breaker["failures"]), (&"closed".into(), &0.into()), "nothing failed");
    drop((say, chat, client));
    gateway.is_at_rest().await;
    assert_eq!(server.live(), 0);
}

#[tokio::test]
async fn how_long_a_stream_lives_is_no_latency_to_an_adaptive_limit() {
    let server = GrpcServer::start().await;
    let config = format!(
        "upstreams:\n  main:\n    endpoints: [\"http://{}\"]\n    in_flight: {{ adaptive: aimd, latency: 1s, \
         min: 2, max: 20, queue: 0, watch_held_longer_than: 1500ms }}\nroutes:\n  \
         - {{ match: {{ path: {SERVICE}/List }}, upstream: main, kind: stream }}\n  - upstream: main\n",
        server.addr()
    );
    let gateway = Gateway::start(&config).await;
    let limit = async || gateway.state().await["upstreams"][0]["in_flight"]["limit"].as_u64().unwrap();
    let mut client = GrpcClient::new(gateway.http());
    within("the limit growing with quick calls", async {
        while limit().await < 6 {
            // Many at once, so that the limit is used; some are refused while it is low.
            let burst: Vec<_> = (0..20)
                .map(|_| {
                    let mut client = client.clone();
                    tokio::spawn(async move { client.unary(ask("a")).await })
                })
                .collect();
            futures_util::future::join_all(burst).await;
        }
    })
    .await;
    let grown = limit().await;
    for _ in 0..2 {
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(client.list(held("x")).await.unwrap().into_inner());
        }
        gateway.state_is("streams held for long", |s| s["upstreams"][0]["in_flight"]["held_long"] == 3).await;
        server.release(3);
        for mut stream in streams {
            while within("a stream's end", stream.message()).await.unwrap().is_some() {}
        }
        gateway.state_is("streams over", |s| s["upstreams"][0]["in_flight"]["in_flight"] == 0).await;
    }
    assert_eq!(limit().await, grown);
}
