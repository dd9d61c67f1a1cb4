//! Certificates and keys: whether the files are there and hold what they should.

use std::path::{Path, PathBuf};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{Node, Problem, entries, quoted};

/// Largest file that is read. Default: 1 MiB.
const MOST_BYTES: u64 = 1 << 20;

/// Finds what is wrong with files that the configuration names.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    if let Some(tls) = root.get("listen").and_then(|listen| listen.get("tls")) {
        pair(tls, base, "listen.tls", problems);
    }
    if let Some(tls) = root.get("store").and_then(|store| store.get("tls")) {
        roots(tls, base, "store.tls", problems);
    }
    if let Some(tls) = root.get("registry").and_then(|registry| registry.get("tls")) {
        client(tls, base, "registry.tls", problems);
    }
    let of = |section: &'static str| entries(root, section).iter().map(move |entry| (section, entry));
    for (section, entry) in of("upstreams").chain(of("tokens")).chain(of("sessions")) {
        let Some(tls) = entry.value.get("tls") else { continue };
        client(tls, base, &format!("{section}.{}.tls", entry.key.escape_debug()), problems);
    }
}

/// Roots, and a certificate that goes with its key.
fn client(tls: &Node, base: &Path, setting: &str, problems: &mut Vec<Problem>) {
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        if let Some(entry) = tls.entry(given).filter(|entry| !entry.value.is_null())
            && tls.get(missing).is_none_or(Node::is_null)
        {
            let problem = Problem::error(
                format!("there is a `{given}` without a `{missing}`"),
                format!("add {missing}: PATH, or remove `{given}`"),
            );
            problems.push(problem.at(&entry.key_span).of(setting));
        }
    }
    pair(tls, base, setting, problems);
    roots(tls, base, setting, problems);
}

/// Certificates that others are trusted by.
fn roots(tls: &Node, base: &Path, setting: &str, problems: &mut Vec<Problem>) {
    let Some(found) = certificates(tls, "roots", base, setting, problems) else { return };
    let mut trusted = RootCertStore::empty();
    if let Some(why) = found.into_iter().find_map(|root| trusted.add(root).err()) {
        let what = format!("holds a certificate that can not be a root: {why}");
        let remedy = "give the certificates of the authorities alone";
        wrong::<()>(tls, "roots", setting, &what, remedy, problems);
    }
}

/// A certificate chain and its key, each for itself and both together.
fn pair(tls: &Node, base: &Path, setting: &str, problems: &mut Vec<Problem>) {
    let chain = certificates(tls, "cert", base, setting, problems);
    let key = key(tls, base, setting, problems);
    if let (Some(chain), Some(key), Some(at)) = (chain, key, tls.get("key"))
        && let Err(wrong) = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
    {
        let problem = match wrong {
            rustls::Error::InconsistentKeys(_) => Problem::error(
                "the key does not belong to the certificate",
                "give the key with which the certificate was requested",
            ),
            other => Problem::error(format!("the certificate and its key can not be used: {other}"), ""),
        };
        problems.push(problem.at(&at.span).of(format!("{setting}.key")));
    }
}

fn certificates(
    tls: &Node,
    name: &str,
    base: &Path,
    setting: &str,
    problems: &mut Vec<Problem>,
) -> Option<Vec<CertificateDer<'static>>> {
    let pem = read(tls, name, base, setting, problems)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Some(found),
        Ok(_) | Err(_) => wrong(
            tls,
            name,
            setting,
            "holds no PEM certificate",
            "begin it with -----BEGIN CERTIFICATE-----",
            problems,
        ),
    }
}

fn key(
    tls: &Node,
    base: &Path,
    setting: &str,
    problems: &mut Vec<Problem>,
) -> Option<PrivateKeyDer<'static>> {
    let pem = read(tls, "key", base, setting, problems)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Some(key),
        Err(_) => {
            let remedy = "begin it with -----BEGIN PRIVATE KEY-----, without a pass phrase";
            wrong(tls, "key", setting, "holds no PEM private key", remedy, problems)
        }
    }
}

fn read(tls: &Node, name: &str, base: &Path, setting: &str, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let path = base.join(tls.get(name)?.text()?);
    match read_bounded(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let remedy = format!("looked for it at {}", path.display());
            wrong(tls, name, setting, &format!("can not be read: {}", plain(&error)), &remedy, problems)
        }
    }
}

/// Reads a regular file of at most [`MOST_BYTES`].
fn read_bounded(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    if meta.len() > MOST_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    std::fs::read(path)
}

/// An error of the system in our style.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn wrong<T>(
    tls: &Node,
    name: &str,
    setting: &str,
    what: &str,
    remedy: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let node = tls.get(name)?;
    let message = format!("{} {what}", quoted(node.text()?));
    problems.push(Problem::error(message, remedy).at(&node.span).of(format!("{setting}.{name}")));
    None
}
