//! gRPC through the gateway: four kinds of calls, their trailers, their deadlines, and refusals that gRPC understands.

use futures_util::{StreamExt as _, future::join_all, stream};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{
    sessions::{self, Behind, Browser},
    setup::{guarded, to},
    support::{
        client, eventually,
        gateway::Gateway,
        grpc::{Ask, GrpcClient, GrpcServer, SERVICE, Told, ask},
        idp::Idp,
        ports, within,
    },
};

fn held(text: &str) -> Ask {
    Ask { hold: true, ..ask(text) }
}

#[tokio::test]
async fn the_four_kinds_of_calls_pass_with_their_messages() {
    let server = GrpcServer::start().await;
    let gateway = Gateway::start(&to(server.addr(), "")).await;
    let mut client = GrpcClient::new(gateway.http());

    assert_eq!(client.unary(ask("one")).await.unwrap().into_inner().text, "one");
    let collected = client.collect(stream::iter(["a", "b", "c"].map(ask))).await.unwrap().into_inner();
    assert_eq!((collected.text.as_str(), collected.number), ("a,b,c", 3));
    let listed: Vec<_> = client
        .list(Ask { count: 5, ..ask("x") })
        .await
        .unwrap()
        .into_inner()
        .map(|m| m.unwrap().number)
        .collect()
        .await;
    assert_eq!(listed, [1, 2, 3, 4, 5]);

    // A chat, one message at a time: neither way waits for the other to end.
    let (say, asks) = mpsc::channel(1);
    let mut answers = client.chat(ReceiverStream::new(asks)).await.unwrap().into_inner();
    for text in ["hi", "there"] {
        say.send(ask(text)).await.unwrap();
        let told = within("an answer", answers.message()).await.unwrap().unwrap();
        assert_eq!(told.text, text);
    }
    drop(say);
    assert!(within("the end", answers.message()).await.unwrap().is_none());
    drop((answers, client));
    gateway.is_at_rest().await;
    assert_eq!(server.live(), 0);
}

#[tokio::test]
async fn a_status_arrives_with_its_trailers_from_every_kind_of_call() {
    let server = GrpcServer::start().await;
    let gateway = Gateway::start(&to(server.addr(), "")).await;
    let mut client = GrpcClient::new(gateway.http());
    let bad = Ask { code: Code::FailedPrecondition as i32, count: 2, ..ask("x") };

    let mut ends = vec![
        client.unary(bad.clone()).await.unwrap_err(),
        client.collect(stream::iter([bad.clone()])).await.unwrap_err(),
    ];
    let listed: Vec<_> = client.list(bad.clone()).await.unwrap().into_inner().collect().await;
    assert_eq!(listed.len(), 3, "two messages before the status");
    ends.push(listed.into_iter().last().unwrap().unwrap_err());
    let chat: Vec<_> = client.chat(stream::iter([bad])).await.unwrap().into_inner().collect().await;
    ends.push(chat.into_iter().last().unwrap().unwrap_err());
    for end in ends {
        assert_eq!((end.code(), end.message()), (Code::FailedPrecondition, "as asked"));
        assert_eq!(end.metadata().get("x-detail").unwrap(), "in the trailers");
    }
    gateway
        .state_is("the calls ending", |state| state["upstreams"][0]["endpoints"][0]["in_flight"] == 0)
        .await;
}

#[tokio::test]
async fn a_used_up_limit_is_resource_exhausted_with_a_pushback() {
    let server = GrpcServer::start().await;
    let limits = "one: { rate: 1/1000h, algorithm: fixed-window }";
    let gateway = Gateway::start(&guarded(server.addr(), "", limits, "limits: [one]")).await;
    let mut client = GrpcClient::new(gateway.http());
    client.unary(ask("a")).await.unwrap();
    let refused = client.unary(ask("b")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let pushback: u64 =
        refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((1..=3_600_000_000).contains(&pushback), "{pushback}");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_refusal_is_in_trailers_only() {
    let server = GrpcServer::start().await;
    let limits = "none: { rate: 0/s }";
    let gateway = Gateway::start(&guarded(server.addr(), "", limits, "limits: [none]")).await;
    let request = client::request2("POST", &format!("{SERVICE}/Unary"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(client::empty())
        .unwrap();
    let answer = client::send2(gateway.http(), request).await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "8"));
    assert!(answer.header("content-type").starts_with("application/grpc"));
    assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn no_permit_and_no_upstream_are_unavailable() {
    let server = GrpcServer::start().await;
    let gateway = Gateway::start(&to(server.addr(), "in_flight: { limit: 1, queue: 0 }")).await;
    let mut client = GrpcClient::new(gateway.http());
    let mut other = client.clone();
    let first = tokio::spawn(async move { other.unary(held("a")).await });
    eventually("the first call at the server", async || server.live() == 1).await;
    assert_eq!(client.unary(ask("b")).await.unwrap_err().code(), Code::Unavailable);
    server.release(1);
    assert_eq!(first.await.unwrap().unwrap().into_inner().text, "a");

    let gateway = Gateway::start(&to(ports::free(), "")).await;
    let gone = GrpcClient::new(gateway.http()).unary(ask("a")).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_call_at_both_ends() {
    let server = GrpcServer::start().await;
    let gateway = Gateway::start(&to(server.addr(), "")).await;
    // By hand, so that the client does not end the call by its own clock first.
    let call = async || {
        let request = client::request2("POST", &format!("{SERVICE}/Unary"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "150m")
            .body(client::whole(b"\0\0\0\0\x02\x20\x01".as_slice()))
            .unwrap();
        let answer = client::send2(gateway.http(), request).await;
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "4"), "{answer:?}");
    };
    // On a busy machine the time may be over before the call is there.
    eventually("a call at the server", async || {
        call().await;
        server.calls() > 0
    })
    .await;
    eventually("the call ending at the server", async || server.live() == 0).await;
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_client_that_cancels_gives_everything_back() {
    let server = GrpcServer::start().await;
    let gateway = Gateway::start(&to(server.addr(), "in_flight: { limit: 1, queue: 0 }")).await;
    let client = GrpcClient::new(gateway.http());
    for round in 1..=3 {
        let mut client = client.clone();
        let call = tokio::spawn(async move { client.unary(held("a")).await.map(drop) });
        eventually("the call at the server", async || server.calls() == round).await;
        call.abort();
        eventually("the call ending at the server", async || server.live() == 0).await;
        gateway.state_is("the permit back", |s| s["upstreams"][0]["in_flight"]["in_flight"] == 0).await;
    }
}

#[tokio::test]
async fn calls_in_flight_stay_at_the_limit_for_streams_too() {
    const LIMIT: usize = 4;
    let server = GrpcServer::start().await;
    let settings = format!("in_flight: {{ limit: {LIMIT}, queue: 100, max_wait: 15s }}");
    let gateway = Gateway::start(&to(server.addr(), &settings)).await;
    let client = GrpcClient::new(gateway.http());
    let calls: Vec<_> = (0..32)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move {
                match n % 4 {
                    0 => client.unary(held("x")).await.map(drop),
                    1 => client.collect(stream::iter([ask("x"), held("y")])).await.map(drop),
                    2 => drain(client.list(Ask { count: 3, ..held("x") }).await?.into_inner()).await,
                    _ => drain(client.chat(stream::iter([ask("x"), held("y")])).await?.into_inner()).await,
                }
            })
        })
        .collect();
    for done in 0..32 {
        eventually("the limit being used", async || server.live() == LIMIT.min(32 - done)).await;
        server.release(1);
        eventually("a call ending", async || server.calls() - server.live() > done).await;
    }
    for call in join_all(calls).await {
        call.unwrap().unwrap();
    }
    assert_eq!((server.calls(), server.peak()), (32, LIMIT));
    drop(client);
    gateway.is_at_rest().await;
}

async fn drain<T>(mut stream: tonic::Streaming<T>) -> Result<(), tonic::Status> {
    while stream.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn a_large_message_passes_both_ways() {
    let server = GrpcServer::start().await;
    let gateway = Gateway::start(&to(server.addr(), "")).await;
    let text = "x".repeat(3 << 20);
    let told = GrpcClient::new(gateway.http()).unary(ask(&text)).await.unwrap().into_inner();
    assert_eq!(told.text.len(), text.len());
}

#[tokio::test]
async fn a_stream_whose_session_ends_is_told_to_log_in_and_who_has_none_is_told_at_once() {
    let (idp, behind, server) = (Idp::start().await, Behind::start().await, GrpcServer::start().await);
    let route = format!(
        "  echo:\n    endpoints: [\"http://{}\"]\nroutes:\n  - {{ upstream: echo, kind: stream, session: idp, match: {{ path: {SERVICE} }} }}\n",
        server.addr()
    );
    let gateway = sessions::of(|| {
        sessions::config(&behind, idp.issuer(), "", "memory://").replacen("routes:\n", &route, 1)
    })
    .await;
    let mut ann = Browser::default();
    assert_eq!(ann.logs_in(&gateway, "/").await.status, StatusCode::OK);
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.http())).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect_lazy());
    let mut list = async |cookie: Option<String>| {
        let mut request = Request::new(Ask { count: 1, ..held("a") });
        if let Some(cookie) = cookie {
            request.metadata_mut().insert("cookie", cookie.parse().unwrap());
        }
        let path = http::uri::PathAndQuery::from_static("/tidegate.test.Echo/List");
        grpc.ready().await.unwrap();
        grpc.server_streaming(request, path, ProstCodec::<Ask, Told>::default()).await
    };
    let nobody = list(None).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    let cookie = format!("tidegate={}", ann.session().unwrap());
    let mut listed = list(Some(cookie)).await.unwrap().into_inner();
    assert_eq!(within("a message", listed.message()).await.unwrap().unwrap().number, 1);
    assert_eq!(ann.goes(&gateway, "/oauth2/logout").await.status, StatusCode::SEE_OTHER);
    let end = within("the end", listed.message()).await.unwrap_err();
    assert_eq!(
        (end.code(), end.message().contains("session is over; log in again")),
        (Code::Unauthenticated, true)
    );
    eventually("the call ending at the server", async || server.live() == 0).await;
}
