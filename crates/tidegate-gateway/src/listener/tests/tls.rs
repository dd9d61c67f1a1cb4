use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::support::*;
use crate::{
    config::ServerTls,
    listener::{Limits, LiveTls},
};

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(folder: &Path, pair: &CertifiedKey<KeyPair>) -> ServerTls {
    let files = ServerTls { cert: folder.join("tls.crt"), key: folder.join("tls.key") };
    std::fs::write(&files.cert, pair.cert.pem()).unwrap();
    std::fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    files
}

async fn connect(
    server: &Server,
    trusted: &CertifiedKey<KeyPair>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, server.connect().await.0).await
}

fn serve(files: &ServerTls) -> (Server, Arc<LiveTls>) {
    let tls = Arc::new(LiveTls::load(files).unwrap());
    (Server::start_with(hasty(), Answers::default(), Some(Arc::clone(&tls)), EVENTUALLY), tls)
}

async fn http1(
    io: TlsStream<TcpStream>,
) -> hyper::client::conn::http1::SendRequest<crate::body::ResponseBody> {
    let (send, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    send
}

fn with_host() -> http::Request<crate::body::ResponseBody> {
    let mut request = request("/");
    *request.uri_mut() = "/".parse().unwrap();
    request.headers_mut().insert("host", "localhost".parse().unwrap());
    request
}

#[tokio::test]
async fn alpn_picks_the_protocol_and_the_peer_knows_what_was_agreed() {
    let (folder, pair) = (TempDir::new().unwrap(), pair());
    let (server, _) = serve(&write(folder.path(), &pair));

    let (mut send, _connection) = http2(connect(&server, &pair, &[b"h2", b"http/1.1"]).await.unwrap()).await;
    assert_eq!(text(send.send_request(request("/")).await.unwrap()).await, "hello");
    let mut send = http1(connect(&server, &pair, &[b"http/1.1"]).await.unwrap()).await;
    assert_eq!(text(send.send_request(with_host()).await.unwrap()).await, "hello");
    let mut send = http1(connect(&server, &pair, &[]).await.unwrap()).await;
    assert_eq!(text(send.send_request(with_host()).await.unwrap()).await, "hello");

    let peers = server.answers.peers.lock().clone();
    let agreed: Vec<_> = peers.iter().map(|peer| peer.tls.clone().unwrap()).collect();
    let alpn: Vec<_> = agreed.iter().map(|tls| tls.alpn.as_deref()).collect();
    assert_eq!(alpn, [Some(&b"h2"[..]), Some(b"http/1.1"), None]);
    for tls in &agreed {
        assert_eq!((tls.sni.as_deref(), tls.version), (Some("localhost"), Some(ProtocolVersion::TLSv1_3)));
    }
    assert_eq!(peers[0].local, server.addr);
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_and_the_open_ones_live_on() {
    let (folder, first, second) = (TempDir::new().unwrap(), pair(), pair());
    let files = write(folder.path(), &first);
    let (server, tls) = serve(&files);
    let mut open = http1(connect(&server, &first, &[]).await.unwrap()).await;
    assert_eq!(text(open.send_request(with_host()).await.unwrap()).await, "hello");

    write(folder.path(), &second);
    tls.reload(&files).unwrap();
    let renewed = connect(&server, &second, &[]).await.unwrap();
    let served = renewed.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(served, CertificateDer::from(second.cert.der().to_vec()));
    assert!(connect(&server, &first, &[]).await.is_err());
    assert_eq!(text(open.send_request(with_host()).await.unwrap()).await, "hello");

    // A bad pair changes nothing.
    std::fs::write(&files.cert, first.cert.pem()).unwrap();
    assert!(tls.reload(&files).unwrap_err().to_string().contains("does not belong"));
    connect(&server, &second, &[]).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_fails_or_never_comes_is_counted_and_closed() {
    let (folder, pair) = (TempDir::new().unwrap(), pair());
    let (server, _) = serve(&write(folder.path(), &pair));
    server.say(get("/")).await;
    server.until("counted", |stats| stats.tls_failures.load(Relaxed) == 1).await;
    assert_eq!(server.connect().await.rest().await, "");
    server.until("counted", |stats| stats.tls_failures.load(Relaxed) == 2).await;
    server.until_none_open().await;
}

#[tokio::test]
async fn a_quiet_tls_connection_gives_its_buffers_back_and_still_answers() {
    let (folder, pair) = (TempDir::new().unwrap(), pair());
    let tls = Arc::new(LiveTls::load(&write(folder.path(), &pair)).unwrap());
    let limits = Limits { keep_alive: EVENTUALLY, ..hasty() };
    let server = Server::start_with(limits, Answers::default(), Some(tls), EVENTUALLY);
    let mut send = http1(connect(&server, &pair, &[]).await.unwrap()).await;
    for _ in 0..3 {
        assert_eq!(text(send.send_request(with_host()).await.unwrap()).await, "hello");
        server.until("resting", |stats| stats.resting.load(Relaxed) == 1).await;
    }
    assert_eq!(server.stats.accepted.load(Relaxed), 1);
}
