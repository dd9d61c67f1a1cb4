//! Endpoints that are not there, do not answer, or cannot be understood.

use super::{
    super::{SendErrorKind, Unsent, Upstream},
    server::*,
};

#[tokio::test]
async fn a_closed_port_gives_the_request_back_under_either_protocol() {
    let address = crate::ports::free();
    for protocol in ["http1", "http2"] {
        let endpoint = endpoint(address, &format!(r#""protocol": "{protocol}""#));
        let error = endpoint.send(post("/a", "body"), &call()).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::Connect), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(error.request.unwrap().uri().path(), "/a");
        until("all is given back", || is_at_rest(&endpoint)).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_never_answers_ends_in_a_connect_timeout() {
    // A listener whose backlog is full leaves further SYNs unanswered.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    for _ in 0..8 {
        let connect = tokio::net::TcpStream::connect(address);
        filling.push(tokio::spawn(connect));
    }
    let full = async {
        for filler in &mut filling[..2] {
            filler.await.unwrap().unwrap();
        }
    };
    tokio::time::timeout(SOON, full).await.unwrap();
    for protocol in ["http1", "http2"] {
        let more = format!(r#""protocol": "{protocol}", "connections": {{"connect_timeout": "60ms"}}"#);
        let endpoint = endpoint(address, &more);
        let error = endpoint.send(get("/"), &call()).await.unwrap_err();
        let SendErrorKind::Unsent(why) = error.kind else { panic!("{error}") };
        // Over HTTP/2 the caller's own wait may end in the same moment as the attempt.
        assert!([Unsent::ConnectTimeout, Unsent::PoolTimeout].contains(&why), "{error}");
        assert!(error.request.is_some());
        until("all is given back", || is_at_rest(&endpoint)).await;
    }
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_ends_in_a_connect_timeout() {
    let (address, _held) = mute().await;
    let config = config(
        &format!("https://{address}"),
        r#""protocol": "http1", "connections": {"connect_timeout": "60ms"}"#,
    );
    let upstream = Upstream::new("orders", &config).unwrap();
    let error = upstream.endpoints()[0].send(get("/"), &call()).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::ConnectTimeout), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    let upstream = Upstream::new("orders", &config("http://no-such-host.invalid:80", "")).unwrap();
    let error = upstream.endpoints()[0].send(get("/"), &call()).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::Unsent(Unsent::Dns | Unsent::ConnectTimeout)), "{error}");
}

#[tokio::test]
async fn a_name_with_addresses_of_both_families_reaches_the_one_that_listens() {
    let (address, seen) = http1(async |_| answer("hello")).await;
    let upstream =
        Upstream::new("orders", &config(&format!("http://localhost:{}", address.port()), "")).unwrap();
    assert_eq!(fetch(&upstream.endpoints()[0], get("/")).await.unwrap(), "hello");
    assert_eq!(seen.accepted(), 1);
}

#[test]
fn endpoints_that_cannot_be_called_are_refused_with_the_remedy() {
    for (text, why) in [
        ("127.0.0.1:9001", "has no scheme"),
        ("ftp://127.0.0.1:9001", "has the scheme \"ftp\""),
        ("http://127.0.0.1:9001/api", "has a path"),
        ("http://user:pass@127.0.0.1:9001", "carries credentials"),
        ("http://127.0.0.1:0", "lacks a host or a port"),
        ("http://", "is no URL"),
    ] {
        let error = Upstream::new("orders", &config(text, "")).unwrap_err().to_string();
        assert!(
            error.contains(why) && error.contains(text) && error.contains("write http://host:port"),
            "{error}"
        );
    }
    let mut none = config("http://127.0.0.1:1", "");
    none.endpoints.clear();
    assert!(Upstream::new("orders", &none).unwrap_err().to_string().contains("no endpoints"));
    let config = config("http://[::1]:9001", "");
    let upstream = Upstream::new("orders", &config).unwrap();
    assert_eq!(upstream.endpoints()[0].authority(), "[::1]:9001");
    assert_eq!(upstream.endpoints()[0].scheme(), &http::uri::Scheme::HTTP);
}
