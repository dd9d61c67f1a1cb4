//! TLS towards endpoints: whom to trust, what to show, and which protocols to offer.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::error::UpstreamError;
use crate::config;

/// Which protocols a handshake offers by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2, else HTTP/1.1.
    Either,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
}

/// The settings of an upstream, one rustls configuration for each offer, so that sessions are resumed within one.
#[derive(Clone, Debug)]
pub(super) struct ClientTls {
    either: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should, or the settings do not go together.
    pub(super) fn new(upstream: &str, config: &config::ClientTls) -> Result<Self, UpstreamError> {
        let tls = |why: String| UpstreamError::Tls { upstream: upstream.to_owned(), why };
        let server_name = match &config.server_name {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
                tls(format!("tls.server_name {name:?} is neither a host name nor an address"))
            })?),
            None => None,
        };
        let roots = match &config.roots {
            Some(path) => given_roots(upstream, path)?,
            None => system_roots(),
        };
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|why| tls(why.to_string()))?
            .with_root_certificates(roots);
        let base = match (&config.cert, &config.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let certs = certificates(upstream, "cert", cert)?;
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                    file(upstream, "key", key, format!("holds no usable PEM private key: {error}"))
                })?;
                builder.with_client_auth_cert(certs, key_der).map_err(|error| {
                    file(upstream, "cert", cert, format!("does not go with tls.key: {error}"))
                })?
            }
            (Some(_), None) => return Err(tls("tls.cert needs tls.key beside it".into())),
            (None, Some(_)) => return Err(tls("tls.key needs tls.cert beside it".into())),
        };
        let offering = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            either: offering(&[b"h2", b"http/1.1"]),
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            server_name,
        })
    }

    pub(super) fn offering(&self, offer: Offer) -> Arc<ClientConfig> {
        match offer {
            Offer::Either => &self.either,
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
        }
        .clone()
    }

    /// The name to verify and to send, when it is not the endpoint's host.
    pub(super) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }
}

fn file(upstream: &str, key: &'static str, path: &Path, why: String) -> UpstreamError {
    UpstreamError::File { upstream: upstream.to_owned(), key, path: path.to_owned(), why }
}

fn certificates(
    upstream: &str,
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, UpstreamError> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file(upstream, key, path, format!("cannot be read as PEM: {error}")))?;
    if certs.is_empty() {
        return Err(file(
            upstream,
            key,
            path,
            "holds no certificate; give a PEM file with at least one".into(),
        ));
    }
    Ok(certs)
}

fn given_roots(upstream: &str, path: &Path) -> Result<RootCertStore, UpstreamError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(upstream, "roots", path)? {
        roots.add(cert).map_err(|error| {
            file(upstream, "roots", path, format!("holds a certificate that cannot be a root: {error}"))
        })?;
    }
    Ok(roots)
}

/// The system's roots, or Mozilla's as built in where the system has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::info!("the system has no TLS roots; the built-in Mozilla roots are used");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
