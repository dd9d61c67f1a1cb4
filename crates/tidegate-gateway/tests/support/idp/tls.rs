//! The provider over TLS, where it asks its clients for certificates (RFC 8705).

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Shared;

/// Who signs certificates of servers and of clients.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Shown {
    /// The certificate, PEM.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

/// Whom the provider lets in.
pub enum Clients<'a> {
    /// Nobody without a certificate that this authority signed: the handshake fails.
    SignedBy(&'a Authority),
    /// Everybody, and of certificates this one alone, which signs itself.
    Known(&'a Shown),
}

impl Authority {
    /// Makes one that nobody else trusts.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Two of one name would be told apart by their signatures alone.
        let name = format!("authority {:016x}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate that it signs.
    pub fn issue(&self, name: &str) -> Shown {
        let key = KeyPair::generate().unwrap();
        Shown::of(&params(name).signed_by(&key, &self.0).unwrap(), &key)
    }
}

impl Shown {
    /// A certificate that nobody signed but itself.
    pub fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::of(&params(name).self_signed(&key).unwrap(), &key)
    }

    fn of(cert: &rcgen::Certificate, key: &KeyPair) -> Self {
        let (der, key_der) = (cert.der().clone(), key.serialize_der());
        Self { cert: cert.pem(), key: key.serialize_pem(), der, key_der }
    }

    /// What a provider knows it by.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// What a server shows, whom it asks for what, and which protocols it speaks.
pub(super) fn acceptor(server: &Shown, clients: Option<&Clients<'_>>, alpn: &[&[u8]]) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let verifier = |root: &CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
    };
    let verifier: Option<Arc<dyn ClientCertVerifier>> = clients.map(|clients| match clients {
        Clients::SignedBy(authority) => verifier(authority.0.der()).build().unwrap(),
        Clients::Known(shown) => verifier(&shown.der).allow_unauthenticated().build().unwrap(),
    });
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server.key_der.clone()));
    let mut config = builder.with_single_cert(vec![server.der.clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config).into()
}

/// Shakes hands. A client whose certificate is refused is told so, and heard out: to close on bytes that nobody read would
/// reset the connection under the alert.
pub(super) async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    shared: &Shared,
) -> Option<TlsStream<TcpStream>> {
    match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => Some(stream),
        Err((_, mut stream)) => {
            shared.state.lock().unwrap().counts.refused_handshakes += 1;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            None
        }
    }
}
