//! Connections over TLS, with a certificate of the client's own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidegate::{Secret, registry::Source as _};
use tidegate_etcd::{Settings, Tls};

use crate::{
    server::{Etcd, Version, on_both, until},
    support::registry,
};

struct Certificates {
    directory: TempDir,
    authority: String,
    client: (String, String),
}

impl Certificates {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let issue = |usage| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["localhost".into(), "127.0.0.1".into()]).unwrap();
            params.extended_key_usages = usage;
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (server, client) = (issue(both), issue(vec![ExtendedKeyUsagePurpose::ClientAuth]));
        let directory = tempfile::tempdir().unwrap();
        for (name, pem) in [("ca", &authority), ("cert", &server.0), ("key", &server.1)] {
            std::fs::write(directory.path().join(name), pem).unwrap();
        }
        Self { directory, authority, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

async fn a_client_certificate_is_shown_and_the_servers_is_verified(version: Version) {
    let certificates = Certificates::new();
    let path = |name| certificates.path(name).display().to_string();
    let etcd = Etcd::launch_with(
        version,
        &[
            "--cert-file",
            &path("cert"),
            "--key-file",
            &path("key"),
            "--trusted-ca-file",
            &path("ca"),
            "--client-cert-auth",
        ],
    );
    let (certificate, key) = &certificates.client;
    let trusting = Tls::new().authority(&*certificates.authority);
    let tls = trusting.clone().identity(&**certificate, Secret::new(key.as_str()));
    let orders = "orders".parse().unwrap();
    let good = registry(Settings::new([etcd.server()]).tls(tls));
    until("etcd serves over TLS", async || good.get(&orders).await.is_ok()).await;
    for (tls, what) in [(trusting, "no certificate"), (Tls::new(), "no trust")] {
        let registry = registry(Settings::new([etcd.server()]).tls(tls));
        assert!(registry.get(&orders).await.is_err(), "{what}");
    }
    let broken = Tls::new().identity("no pem", Secret::new("none"));
    let error = Settings::new([etcd.server()]).tls(broken).build().unwrap_err().to_string();
    assert!(error.contains("127.0.0.1"), "{error}");
}

on_both! { a_client_certificate_is_shown_and_the_servers_is_verified, }
