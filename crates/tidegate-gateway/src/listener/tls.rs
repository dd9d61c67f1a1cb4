//! The listener's certificate: read from PEM with errors that say what to do, and replaced while connections live.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::ProducesTickets,
};

use super::peer::TlsInfo;
use crate::config::ServerTls;

/// Protocols offered, the preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];

/// TLS as the listener speaks it now.
#[derive(Debug)]
pub struct LiveTls {
    provider: Arc<CryptoProvider>,
    /// Kept over reloads, so that clients resume their sessions.
    tickets: Arc<dyn ProducesTickets>,
    current: ArcSwap<ServerConfig>,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}; check the path and that this user may read it", path.display())]
    Unreadable {
        /// `the certificate` or `the key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not valid PEM: {}; expected {what} between BEGIN and END lines", path.display(), problem(source))]
    NotPem {
        /// `the certificate` or `the key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A certificate file has none.
    #[error("no certificate in {}; expected BEGIN CERTIFICATE, the server's own first{hint}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What it may be instead.
        hint: &'static str,
    },
    /// A key file has none.
    #[error("no private key in {}; expected BEGIN PRIVATE KEY (PKCS#8, PKCS#1 or SEC1){hint}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it may be instead.
        hint: &'static str,
    },
    /// A key file is encrypted.
    #[error(
        "the private key in {path} is encrypted; decrypt it with `openssl pkey -in {path} -out plain.key` and keep that \
         readable to this user alone",
        path = path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key in {} does not belong to the first certificate in {}; put the server's own certificate first, then its \
         issuers, and take the key it was made with",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// TLS cannot use them.
    #[error("cannot serve {} with the key in {}: {}; make a new pair", cert.display(), key.display(), reason(source))]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What TLS says.
        source: rustls::Error,
    },
}

impl LiveTls {
    /// Reads the files and serves them.
    ///
    /// # Errors
    /// When they cannot be read, or are not a certificate and its key.
    pub fn load(files: &ServerTls) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let unusable =
            |source| TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), source };
        let tickets = aws_lc_rs::Ticketer::new().map_err(unusable)?;
        let current = ArcSwap::new(configure(files, &provider, &tickets)?);
        Ok(Self { provider, tickets, current })
    }

    /// Reads the files anew, which may be others, and serves new connections with them; open ones stay as they are.
    ///
    /// # Errors
    /// As [`LiveTls::load`]; what was served before stays.
    pub fn reload(&self, files: &ServerTls) -> Result<(), TlsError> {
        self.current.store(configure(files, &self.provider, &self.tickets)?);
        Ok(())
    }

    /// What a new connection is served with.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

/// What a handshake agreed on.
pub(super) fn agreed(connection: &rustls::ServerConnection) -> TlsInfo {
    TlsInfo {
        sni: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        version: connection.protocol_version(),
    }
}

fn configure(
    files: &ServerTls,
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (certificates, key) = (certificates(&files.cert)?, key(&files.key)?);
    let (cert_file, key_file) = (files.cert.clone(), files.key.clone());
    let config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(certificates, key));
    let mut config = config.map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { cert: cert_file, key: key_file },
        source => TlsError::Unusable { cert: cert_file, key: key_file, source },
    })?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.ticketer = Arc::clone(tickets);
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "the certificate";
    let pem = read(path, what)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::NotPem { what, path: path.into(), source })?;
    if certificates.is_empty() {
        let is_key = PrivateKeyDer::from_pem_slice(&pem).is_ok();
        let hint = if is_key { "; it holds a private key: are `cert` and `key` swapped?" } else { "" };
        return Err(TlsError::NoCertificate { path: path.into(), hint });
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "the key";
    let pem = read(path, what)?;
    let text = String::from_utf8_lossy(&pem);
    if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
        return Err(TlsError::EncryptedKey { path: path.into() });
    }
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let is_certificate = CertificateDer::from_pem_slice(&pem).is_ok();
            let hint =
                if is_certificate { "; it holds a certificate: are `cert` and `key` swapped?" } else { "" };
            Err(TlsError::NoKey { path: path.into(), hint })
        }
        Err(source) => Err(TlsError::NotPem { what, path: path.into(), source }),
    }
}

fn problem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("a BEGIN {} has no END, as in a file cut short", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("a line {:?} begins no section", String::from_utf8_lossy(line))
        }
        other => other.to_string(),
    }
}

fn reason(error: &rustls::Error) -> String {
    match error {
        // Of our own here, whatever the words of the library say.
        rustls::Error::InvalidCertificate(what) => format!("the certificate is invalid ({what:?})"),
        other => other.to_string(),
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { what, path: path.into(), source })
}

#[cfg(test)]
mod tests;
