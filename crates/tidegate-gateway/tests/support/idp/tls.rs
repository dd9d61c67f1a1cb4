//! The provider over TLS, where it asks its clients for certificates (RFC 8705).

use std::{net::SocketAddr, sync::Arc};

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

use super::{Idp, Shared, listen, server};

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

impl Idp {
    /// Starts one over TLS that asks its clients for certificates, and knows the client by `known`. With `apart`, it speaks HTTP/2 and asks
    /// for them on a port of its own, which its document names (RFC 8705 §5).
    pub async fn start_mtls(
        authority: &Authority,
        clients: &Clients<'_>,
        known: &Shown,
        apart: bool,
    ) -> Self {
        let server = authority.issue("localhost");
        let (listener, port) = listen().await;
        let (other, other_port) = listen().await;
        // Browsers of tests speak no TLS.
        let (pages, pages_port) = listen().await;
        let pages_at = format!("http://127.0.0.1:{pages_port}");
        let at = |port: u16| format!("https://localhost:{port}");
        let shared = Self::shared(at(port), apart.then(|| at(other_port)), pages_at);
        let serve = |listener, clients| {
            let alpn: &[&[u8]] = if apart { &[b"h2", b"http/1.1"] } else { &[] };
            let acceptor = acceptor(&server, clients, alpn);
            tokio::spawn(server::serve(listener, Arc::clone(&shared), Some(acceptor)))
        };
        let mut accept = vec![tokio::spawn(server::serve(pages, Arc::clone(&shared), None))];
        if apart {
            accept.extend([serve(listener, None), serve(other, Some(clients))]);
        } else {
            accept.push(serve(listener, Some(clients)));
        }
        let idp = Self { shared, accept };
        idp.state().client_certificate = Some(known.der().to_vec());
        idp
    }

    /// Starts one that speaks TLS alone, by its own word; and where browsers of tests, which do not, find its pages.
    pub async fn start_tls(authority: &Authority) -> (Self, SocketAddr) {
        let server = authority.issue("localhost");
        let (listener, port) = listen().await;
        let (pages, pages_port) = listen().await;
        let issuer = format!("https://localhost:{port}");
        let shared = Self::shared(issuer.clone(), None, issuer);
        let acceptor = acceptor(&server, None, &[]);
        let accept = vec![
            tokio::spawn(server::serve(listener, Arc::clone(&shared), Some(acceptor))),
            tokio::spawn(server::serve(pages, Arc::clone(&shared), None)),
        ];
        (Self { shared, accept }, ([127, 0, 0, 1], pages_port).into())
    }
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
