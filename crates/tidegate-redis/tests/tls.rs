//! TLS: the CA that is given is the one that counts, and plain and TLS are not taken for each other.

mod support;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{Redis, eventually, ports};
use tempfile::TempDir;
use tidegate_redis::{Client, Fault, Settings, StoreError, StoreUrl};

struct Tls {
    authority: Vec<u8>,
    directory: TempDir,
}

impl Tls {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("it is good");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("it is good"))
            .expect("it is good");
        let key = KeyPair::generate().expect("it is good");
        let leaf = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).expect("it is good");
        let leaf = leaf.signed_by(&key, &authority).expect("it is good");
        let directory = TempDir::new().expect("it is good");
        std::fs::write(directory.path().join("tls.crt"), leaf.pem()).expect("it is good");
        std::fs::write(directory.path().join("tls.key"), key.serialize_pem()).expect("it is good");
        std::fs::write(directory.path().join("ca.crt"), authority.pem()).expect("it is good");
        Self { authority: authority.pem().into_bytes(), directory }
    }

    fn start(&self) -> (Redis, u16) {
        let file = |name: &str| self.directory.path().join(name).to_str().expect("it is good").to_owned();
        let port = ports::free().port();
        let redis = Redis::start(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("tls.crt"),
            "--tls-key-file",
            &file("tls.key"),
            "--tls-ca-cert-file",
            &file("ca.crt"),
            "--tls-auth-clients",
            "no",
        ]);
        (redis, port)
    }
}

/// Whether it can be used, or what is wrong with it. A busy machine may take longer than a connection may: that is
/// neither.
async fn ready(url: &str, authorities: Option<Vec<u8>>) -> Result<(), StoreError> {
    let url: StoreUrl = url.parse().expect("it is good");
    let client = Client::start(&url, Settings { authorities, ..Settings::default() }).expect("it is good");
    eventually("it is known", async || match client.ready().await {
        Err(error) if error.fault().is_none() => None,
        known => Some(known),
    })
    .await
}

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_is_given() {
    let tls = Tls::new();
    let (_redis, port) = tls.start();
    ready(&format!("rediss://localhost:{port}"), Some(tls.authority.clone())).await.unwrap();
    ready(&format!("rediss://127.0.0.1:{port}/1"), Some(tls.authority.clone())).await.unwrap();
    for other in [None, Some(Tls::new().authority)] {
        let error = ready(&format!("rediss://localhost:{port}"), other).await.unwrap_err();
        assert!(matches!(error.fault(), Some(Fault::Certificate { .. })), "{error}");
    }
}

#[tokio::test]
async fn plain_and_tls_are_not_taken_for_each_other() {
    let tls = Tls::new();
    let (redis, port) = tls.start();
    let error =
        ready(&format!("rediss://localhost:{}", redis.port), Some(tls.authority.clone())).await.unwrap_err();
    assert_eq!(error.fault(), Some(&Fault::NoTls), "{error}");
    let error = ready(&format!("redis://localhost:{port}"), None).await.unwrap_err();
    assert_eq!(error.fault(), Some(&Fault::OnlyTls), "{error}");
}
