//! Connections over TLS, with a certificate of the client's own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidegate::{Secret, registry::Source as _};
use tidegate_etcd::{Settings, Tls};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{
    server::{Etcd, Version, on_both, until},
    support::{TTL, instance, pass, registered, registry, soon},
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
            params.distinguished_name.push(DnType::CommonName, "gate");
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

    /// Starts an etcd that has a certificate and wants one, and does not wait for it.
    fn launch(&self, version: Version) -> Etcd {
        let path = |name| self.path(name).display().to_string();
        let (cert, key, authority) = (path("cert"), path("key"), path("ca"));
        let files = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &authority];
        Etcd::launch_with(version, &[&files[..], &["--client-cert-auth"]].concat())
    }

    /// That of a client.
    fn tls(&self) -> Tls {
        let (certificate, key) = &self.client;
        Tls::new().authority(&*self.authority).identity(&**certificate, Secret::new(key.as_str()))
    }

    /// A connection for the test itself.
    fn channel(&self, etcd: &Etcd) -> Channel {
        let identity = Identity::from_pem(&self.client.0, &self.client.1);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authority));
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", etcd.port)).unwrap();
        endpoint.tls_config(tls.identity(identity)).unwrap().connect_lazy()
    }
}

async fn a_client_certificate_is_shown_and_the_servers_is_verified(version: Version) {
    let certificates = Certificates::new();
    let etcd = certificates.launch(version);
    let (trusting, tls) = (Tls::new().authority(&*certificates.authority), certificates.tls());
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

/// Who is known by a certificate needs no token: leases need not outlive the logins of a fleet.
async fn a_user_by_certificate_never_logs_in_and_keeps_its_lease_over_a_restart(version: Version) {
    let certificates = Certificates::new();
    let mut etcd = certificates.launch(version);
    let registry = registry(Settings::new([etcd.server()]).tls(certificates.tls()));
    let orders = "orders".parse().unwrap();
    until("etcd serves over TLS", async || registry.get(&orders).await.is_ok()).await;
    etcd.enable_users_over(certificates.channel(&etcd)).await;
    let owner = registered(&registry, instance("orders", "1")).await;
    pass(TTL * 2).await;
    etcd.kill();
    etcd.launch();
    until("it reads again", async || {
        registry.get(&orders).await.is_ok_and(|found| found.instances.len() == 1)
    })
    .await;
    pass(TTL * 2).await;
    soon("it is registered", owner.registered()).await.unwrap();
    let stats = registry.stats();
    assert_eq!((stats.logins, stats.tokens_refused, stats.leases_granted), (0, 0, 1), "{stats:?}");
    assert_eq!(registry.get(&orders).await.unwrap().instances.len(), 1);
}

on_both! {
    a_client_certificate_is_shown_and_the_servers_is_verified,
    a_user_by_certificate_never_logs_in_and_keeps_its_lease_over_a_restart,
}
