//! TLS to endpoints: whom they trust, what they show, what ALPN decides, and what is said about bad files.

use std::{path::Path, sync::Arc};

use http::Version;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{
        Endpoint, SendErrorKind, Unsent, Upstream,
        open::{Reached, Wire},
    },
    server::*,
};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (cert, key)
    }
}

async fn server(
    authority: &Authority,
    name: &str,
    alpn: &[&[u8]],
    clients: Option<&Authority>,
) -> std::net::SocketAddr {
    let (cert, key) = authority.issue(name);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.0.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let version = async |request: http::Request<_>| answer(format!("{:?}", request.version()));
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    serve_http2(stream, 100, version).await;
                } else {
                    serve_http1(stream, version).await;
                }
            });
        }
    });
    address
}

fn secure(address: std::net::SocketAddr, more: &str) -> Arc<Endpoint> {
    let config = config(&format!("https://localhost:{}", address.port()), more);
    Arc::clone(&Upstream::new("orders", &config).unwrap().endpoints()[0])
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn alpn_decides_once_for_a_burst_and_is_remembered() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let roots = write(dir.path(), "ca.pem", &authority.0.pem());
    for (alpn, expected) in [
        (&[&b"h2"[..], b"http/1.1"][..], Version::HTTP_2),
        (&[b"http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let address = server(&authority, "localhost", alpn, None).await;
        let endpoint = secure(address, &format!(r#""tls": {{"roots": "{roots}"}}"#));
        let calls = futures_util::future::join_all((0..8).map(|_| fetch(&endpoint, get("/")))).await;
        for body in calls {
            assert_eq!(body.unwrap(), format!("{expected:?}"));
        }
        let response = endpoint.send(get("/"), &call()).await.unwrap();
        assert_eq!(response.version(), expected);
        if expected == Version::HTTP_2 {
            assert_eq!(endpoint.connections().open, 1);
        }
    }
}

#[tokio::test]
async fn who_comes_late_to_what_alpn_decided_does_not_wait_in_the_wrong_line() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let roots = write(dir.path(), "ca.pem", &authority.0.pem());
    let address = server(&authority, "localhost", &[b"http/1.1"], None).await;
    let connections = r#""connections": {"max": 1, "connect_timeout": "60s"}"#;
    let endpoint = secure(address, &format!(r#""tls": {{"roots": "{roots}"}}, {connections}"#));
    assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "HTTP/1.1");
    let _the_only_one_is_busy = endpoint.link.http1(Wire::Http1, &call()).await.unwrap();
    // It looked before the protocol was known, and stands in line after all who stood there were told.
    let call = call();
    let late = tokio::time::timeout(SOON, endpoint.link.http2(&call)).await.expect("told at once");
    assert!(matches!(late, Ok(Reached::Again)), "{late:?}");
    assert_eq!(endpoint.connections().waiting, 0);
}

#[tokio::test]
async fn the_protocol_can_be_pinned_under_tls() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let roots = write(dir.path(), "ca.pem", &authority.0.pem());
    let address = server(&authority, "localhost", &[b"h2", b"http/1.1"], None).await;
    for (protocol, expected) in [("http1", "HTTP/1.1"), ("http2", "HTTP/2.0")] {
        let endpoint =
            secure(address, &format!(r#""protocol": "{protocol}", "tls": {{"roots": "{roots}"}}"#));
        assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn an_unknown_authority_or_a_wrong_name_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let roots = write(dir.path(), "ca.pem", &ours.0.pem());
    let more = format!(r#""tls": {{"roots": "{roots}"}}"#);
    let foreign = server(&theirs, "localhost", &[], None).await;
    let misnamed = server(&ours, "orders.internal", &[], None).await;
    for address in [foreign, misnamed] {
        let endpoint = secure(address, &more);
        let error = fetch(&endpoint, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::Tls), "{error}");
        assert!(error.request.is_some());
        until("all is given back", || is_at_rest(&endpoint)).await;
    }
    let named =
        secure(misnamed, &format!(r#""tls": {{"roots": "{roots}", "server_name": "orders.internal"}}"#));
    assert_eq!(fetch(&named, get("/")).await.unwrap(), "HTTP/1.1");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let roots = write(dir.path(), "ca.pem", &authority.0.pem());
    let (cert, key) = clients.issue("gateway");
    let (cert, key) =
        (write(dir.path(), "gw.crt", &cert.pem()), write(dir.path(), "gw.key", &key.serialize_pem()));
    let address = server(&authority, "localhost", &[b"h2", b"http/1.1"], Some(&clients)).await;
    let shown = format!(r#""tls": {{"roots": "{roots}", "cert": "{cert}", "key": "{key}"}}"#);
    assert_eq!(fetch(&secure(address, &shown), get("/")).await.unwrap(), "HTTP/2.0");
    let none = secure(address, &format!(r#""tls": {{"roots": "{roots}"}}"#));
    assert!(fetch(&none, get("/")).await.is_err());
}

#[tokio::test]
async fn bad_files_are_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, _) = authority.issue("gateway");
    let (_, other_key) = authority.issue("gateway");
    let cert = write(dir.path(), "gw.crt", &cert.pem());
    let other = write(dir.path(), "other.key", &other_key.serialize_pem());
    let junk = write(dir.path(), "junk.pem", "not pem");
    let missing = dir.path().join("missing.pem").to_str().unwrap().to_owned();
    for (tls, expected) in [
        (format!(r#"{{"roots": "{missing}"}}"#), "tls.roots"),
        (format!(r#"{{"roots": "{junk}"}}"#), "holds no certificate"),
        (format!(r#"{{"cert": "{cert}"}}"#), "tls.cert needs tls.key"),
        (format!(r#"{{"key": "{other}"}}"#), "tls.key needs tls.cert"),
        (format!(r#"{{"cert": "{cert}", "key": "{junk}"}}"#), "holds no usable PEM private key"),
        (format!(r#"{{"cert": "{cert}", "key": "{other}"}}"#), "does not go with tls.key"),
        (r#"{"server_name": "not a name"}"#.into(), "tls.server_name \"not a name\""),
    ] {
        let config = config("https://localhost:1", &format!(r#""tls": {tls}"#));
        let error = Upstream::new("orders", &config).unwrap_err().to_string();
        assert!(error.starts_with("upstream orders: ") && error.contains(expected), "{error}");
    }
}
