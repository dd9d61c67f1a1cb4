//! The harness itself: what the other tests lean on holds without a gateway.

use futures_util::{StreamExt as _, stream};
use tonic::Code;

use crate::support::{
    client,
    grpc::{Ask, GrpcClient, GrpcServer, ask},
    nginx::Nginx,
    raw::Raw,
    upstream::Upstream,
};

#[tokio::test]
async fn nginx_answers() {
    let nginx = Nginx::start("location /hello { return 200 hello; }").await;
    assert_eq!(client::get(nginx.addr(), "/hello").await.text(), "hello");
}

#[tokio::test]
async fn an_upstream_answers_over_both_versions_and_counts() {
    let upstream =
        Upstream::start(|request| async move { http::Response::new(client::body(request.into_body())) })
            .await;
    let answer =
        client::send(upstream.addr(), client::request("POST", "/").body(client::whole("one")).unwrap()).await;
    assert_eq!(answer.text(), "one");
    let answer =
        client::send2(upstream.addr(), client::request2("POST", "/").body(client::whole("two")).unwrap())
            .await;
    assert_eq!(answer.text(), "two");
    assert_eq!((upstream.calls(), upstream.connections(), upstream.live()), (2, 2, 0));
    assert!(upstream.peak() >= 1);
}

#[tokio::test]
async fn a_raw_client_reads_what_a_server_says() {
    let nginx = Nginx::start("location / { return 200 hello; }").await;
    let said = Raw::exchange(nginx.addr(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("hello"), "{said}");
}

#[tokio::test]
async fn the_four_kinds_of_grpc_calls_work_without_a_gateway() {
    let server = GrpcServer::start().await;
    let mut client = GrpcClient::new(server.addr());
    assert_eq!(client.unary(ask("a")).await.unwrap().into_inner().text, "a");
    let collected = client.collect(stream::iter([ask("a"), ask("b")])).await.unwrap().into_inner();
    assert_eq!((collected.text.as_str(), collected.number), ("a,b", 2));
    let listed = client.list(Ask { count: 3, code: 5, ..ask("x") }).await.unwrap().into_inner();
    let listed: Vec<_> = listed.collect().await;
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[3].as_ref().unwrap_err().code(), Code::NotFound);
    let chat = client.chat(stream::iter([ask("a"), ask("b")])).await.unwrap().into_inner();
    assert_eq!(chat.collect::<Vec<_>>().await.len(), 2);
    assert_eq!(server.calls(), 4);
}
