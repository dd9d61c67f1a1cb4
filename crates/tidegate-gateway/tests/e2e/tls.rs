//! TLS on the listener and to upstreams.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use http::StatusCode;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    setup::to,
    support::{
        client::{self, Answer},
        eventually,
        gateway::Gateway,
        nginx::Nginx,
        within,
    },
};

/// Writes a certificate for `gateway.test` and its key, and gives back the certificate.
fn certificate(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["gateway.test".to_owned(), "localhost".to_owned()]).unwrap();
    // The key first: whoever looks between the two finds a pair that does not fit, and keeps the old one.
    fs::write(directory.join("tls.key"), signing_key.serialize_pem()).unwrap();
    fs::write(directory.join("tls.crt"), cert.pem()).unwrap();
    cert.der().clone()
}

async fn connect(
    addr: SocketAddr,
    root: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("gateway.test").unwrap();
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

async fn start(config: &str) -> (Gateway, CertificateDer<'static>) {
    let root = std::sync::Mutex::new(None);
    let gateway = Gateway::start_with(|directory| {
        *root.lock().unwrap() = Some(certificate(directory));
        config.to_owned()
    })
    .await;
    let root = root.into_inner().unwrap().unwrap();
    (gateway, root)
}

#[tokio::test]
async fn both_versions_of_http_are_offered_over_tls() {
    let nginx = Nginx::start("location / { return 200 \"$http_x_forwarded_proto\"; }").await;
    let (gateway, root) =
        start(&format!("  tls: {{ cert: tls.crt, key: tls.key }}\n{}", to(nginx.addr(), ""))).await;

    let stream = connect(gateway.http(), &root, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://gateway.test/").body(client::empty()).unwrap();
    let answer = Answer::read(sender.send_request(request).await.unwrap()).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "https"));

    for alpn in [["http/1.1"].as_slice(), &[]] {
        let stream = connect(gateway.http(), &root, alpn).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = client::request("GET", "/").body(client::empty()).unwrap();
        let answer = Answer::read(sender.send_request(request).await.unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "https"), "{alpn:?}");
    }
    drop(sender);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_new_certificate_is_served_once_its_files_change() {
    let nginx = Nginx::start("location / { return 200 hello; }").await;
    let (gateway, old) =
        start(&format!("  tls: {{ cert: tls.crt, key: tls.key }}\n{}", to(nginx.addr(), ""))).await;
    connect(gateway.http(), &old, &[]).await.unwrap();
    let new = certificate(gateway.directory());
    eventually("the new certificate", async || connect(gateway.http(), &new, &[]).await.is_ok()).await;
    assert!(connect(gateway.http(), &old, &[]).await.is_err());
}

#[tokio::test]
async fn an_upstream_is_spoken_to_over_tls_and_only_if_its_certificate_is_trusted() {
    let nginx = Nginx::start_tls("location / { return 200 secret; }", certificate).await;
    let config = |tls: &str| {
        format!(
            "upstreams:\n  main:\n    endpoints: [\"https://localhost:{}\"]\n{tls}routes: [{{ upstream: main }}]\n",
            nginx.addr().port()
        )
    };
    let roots = nginx.directory().join("tls.crt");
    let gateway = Gateway::start(&config(&format!("    tls: {{ roots: {} }}\n", roots.display()))).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "secret"));

    let gateway = Gateway::start(&config("")).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(
        (answer.status, &answer.json()["reason"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"unreachable".into())
    );
}
