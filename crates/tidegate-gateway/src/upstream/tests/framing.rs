//! HTTP/1.1: framing, what an endpoint may get wrong in it, and what is then said.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{SendErrorKind, Sent},
    server::*,
};
use crate::body::RequestBody;

#[tokio::test]
async fn a_response_cut_short_is_an_error_not_an_end() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    tokio::spawn(async move {
        for cut in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(cut.as_bytes()).await.unwrap();
        }
    });
    for _ in 0..2 {
        let response = endpoint.send(get("/"), &call()).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert!(is_at_rest(&endpoint), "{:?}", endpoint.connections());
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").await.unwrap();
    });
    assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "to the end");
    assert!(is_at_rest(&endpoint), "{:?}", endpoint.connections());
}

#[tokio::test]
async fn what_is_no_http_is_said_to_be_sent_and_not_given_back() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    tokio::spawn(async move {
        for reply in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", ""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    for how in [Sent::Protocol, Sent::Closed] {
        let error = fetch(&endpoint, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Sent(how), "{error}");
        assert!(error.request.is_none());
        until("all is given back", || is_at_rest(&endpoint)).await;
    }
}

/// What a server that reads `count` requests by hand has seen of each, answering with `answer` when it is complete.
async fn heard(
    endings: &'static [&'static str],
    answer: &'static str,
) -> (std::net::SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for ending in endings {
            let mut request = Vec::new();
            while !request.ends_with(ending.as_bytes()) {
                assert!(
                    stream.read_buf(&mut request).await.unwrap() > 0,
                    "{}",
                    String::from_utf8_lossy(&request)
                );
            }
            requests.push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (address, server)
}

#[tokio::test]
async fn framing_is_written_from_the_body_and_never_from_the_fields() {
    let (address, server) = heard(
        &["\r\n\r\n", "\r\n\r\n", "\r\n\r\nbody", "0\r\nx-sum: 9\r\n\r\n"],
        "HTTP/1.1 204 No Content\r\n\r\n",
    )
    .await;
    let endpoint = endpoint(address, "");
    let smuggled = |mut request: Request<RequestBody>| {
        request.headers_mut().insert(header::CONTENT_LENGTH, "999".parse().unwrap());
        request.headers_mut().append(header::CONTENT_LENGTH, "3".parse().unwrap());
        request.headers_mut().insert(header::TRANSFER_ENCODING, "chunked".parse().unwrap());
        request
    };
    fetch(&endpoint, smuggled(get("http://api.example?query"))).await.unwrap();
    fetch(&endpoint, smuggled(post("/empty", ""))).await.unwrap();
    fetch(&endpoint, smuggled(post("/sized", "body"))).await.unwrap();
    // A body of unknown size comes from a client over HTTP/2, with trailers.
    let (front, front_address) = listen().await;
    let relay = Arc::clone(&endpoint);
    tokio::spawn(async move {
        let (stream, _) = front.accept().await.unwrap();
        serve_http2(stream, 10, move |request| relayed(Arc::clone(&relay), request)).await;
    });
    let stream = tokio::net::TcpStream::connect(front_address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://h2.example/streamed").header("cookie", "a=1").header("cookie", "b=2");
    let request = request.body(()).unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data("x".repeat(5000).into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "9".parse().unwrap());
    trailers.insert("host", "evil.example".parse().unwrap());
    trailers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
    upload.send_trailers(trailers).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::NO_CONTENT);
    let requests = server.await.unwrap();
    assert_eq!(requests[0], "GET /?query HTTP/1.1\r\nhost: api.example\r\n\r\n");
    assert_eq!(requests[1], "POST /empty HTTP/1.1\r\nhost: api.example\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(requests[2], "POST /sized HTTP/1.1\r\nhost: api.example\r\ncontent-length: 4\r\n\r\nbody");
    let (head, body) = requests[3].split_once("\r\n\r\n").unwrap();
    assert_eq!(
        head,
        "POST /streamed HTTP/1.1\r\nhost: h2.example\r\ncookie: a=1; b=2\r\ntransfer-encoding: chunked"
    );
    assert!(body.matches('x').count() == 5001 && body.ends_with("\r\n0\r\nx-sum: 9\r\n\r\n"), "{body}");
}

#[tokio::test]
async fn bytes_after_a_response_are_never_read_as_the_next_one() {
    const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for (says, reads) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 51\r\n\r\n", ""),
    ] {
        for together in [true, false] {
            let (listener, address) = listen().await;
            let endpoint = endpoint(address, "");
            let (poisoned, poison) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let mut poisoned = Some(poisoned);
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = [0; 4096];
                    assert!(stream.read(&mut head).await.unwrap() > 0);
                    let Some(poisoned) = poisoned.take() else {
                        let fresh = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfresh";
                        stream.write_all(fresh).await.unwrap();
                        continue;
                    };
                    if together {
                        stream.write_all(format!("{says}{POISON}").as_bytes()).await.unwrap();
                    } else {
                        stream.write_all(says.as_bytes()).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        stream.write_all(POISON.as_bytes()).await.unwrap();
                    }
                    poisoned.send(()).unwrap();
                    // Open, as a server does that noticed nothing.
                    tokio::spawn(
                        async move { while stream.read(&mut head).await.is_ok_and(|read| read > 0) {} },
                    );
                }
            });
            assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), reads, "{says}");
            poison.await.unwrap();
            // The runtime's driver has to have seen it.
            tokio::time::sleep(Duration::from_millis(5)).await;
            // Also in a task that has no budget left to look at sockets.
            let next = tokio::spawn(async move {
                while tokio::task::coop::has_budget_remaining() {
                    tokio::task::coop::consume_budget().await;
                }
                fetch(&endpoint, get("/")).await
            });
            assert_eq!(next.await.unwrap().unwrap(), "fresh", "{says}");
        }
    }
}

#[tokio::test]
async fn an_endless_stream_of_informational_heads_has_an_end() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n").await.is_ok() {}
    });
    let error = fetch(&endpoint, get("/")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Sent(Sent::Protocol), "{error}");
    until("all is given back", || is_at_rest(&endpoint)).await;
}

#[tokio::test]
async fn a_response_cut_at_any_byte_is_an_error_and_leaves_nothing_behind() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    let whole =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n";
    tokio::spawn(async move {
        for cut in 0..=whole.len() {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(&whole.as_bytes()[..cut]).await.unwrap();
        }
    });
    for cut in 0..=whole.len() {
        let read = match endpoint.send(post("/", "x"), &call()).await {
            Ok(response) => response.into_body().collect().await.map(drop).is_ok(),
            Err(error) => {
                assert!(error.request.is_none(), "{error}");
                false
            }
        };
        assert_eq!(read, cut == whole.len(), "{cut}");
        until("all is given back", || is_at_rest(&endpoint)).await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_is_refused_further_is_read() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        // Reads no more, and stays until the other side closes.
        stream.shutdown().await.unwrap();
        tokio::time::sleep(SOON).await;
    });
    let response = endpoint.send(post("/", vec![0; 20 << 20]), &call()).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(read(response).await, "big");
    until("the connection is closed, not kept", || is_at_rest(&endpoint)).await;
}
