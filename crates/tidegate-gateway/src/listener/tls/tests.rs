use rcgen::generate_simple_self_signed;
use tempfile::TempDir;

use super::*;

struct Files(TempDir);

impl Files {
    fn new() -> (Self, String, String) {
        let pair = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (Self(TempDir::new().unwrap()), pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    /// Writes two files and says what is wrong with them, by their names alone.
    fn wrong_with(&self, cert: &str, key: &str) -> String {
        let files = ServerTls { cert: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") };
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        let folder = format!("{}/", self.0.path().display());
        LiveTls::load(&files).unwrap_err().to_string().replace(&folder, "")
    }
}

#[test]
fn every_wrong_pair_says_which_file_what_is_wrong_and_what_to_do() {
    let (files, cert, key) = Files::new();
    let (_, _, other) = Files::new();
    let cut = &cert[..cert.len() / 2];
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\naGVsbG8=\n-----END RSA PRIVATE KEY-----\n";
    let said = [
        ("an empty certificate", "", key.as_str()),
        ("text", "hello", &key),
        ("swapped", &key, &cert),
        ("a certificate cut short", cut, &key),
        ("a certificate that is none", garbage, &key),
        ("an empty key", &cert, ""),
        ("a certificate as key", &cert, &cert),
        ("an encrypted key", &cert, encrypted),
        ("an encrypted key of old", &cert, legacy),
        ("another's key", &cert, &other),
    ]
    .map(|(name, cert, key)| format!("{name}: {}", files.wrong_with(cert, key)));
    insta::assert_snapshot!(said.join("\n"), @r#"
    an empty certificate: no certificate in tls.crt; expected BEGIN CERTIFICATE, the server's own first
    text: no certificate in tls.crt; expected BEGIN CERTIFICATE, the server's own first
    swapped: no certificate in tls.crt; expected BEGIN CERTIFICATE, the server's own first; it holds a private key: are `cert` and `key` swapped?
    a certificate cut short: tls.crt is not valid PEM: a BEGIN CERTIFICATE has no END, as in a file cut short; expected the certificate between BEGIN and END lines
    a certificate that is none: cannot serve tls.crt with the key in tls.key: the certificate is invalid (BadEncoding); make a new pair
    an empty key: no private key in tls.key; expected BEGIN PRIVATE KEY (PKCS#8, PKCS#1 or SEC1)
    a certificate as key: no private key in tls.key; expected BEGIN PRIVATE KEY (PKCS#8, PKCS#1 or SEC1); it holds a certificate: are `cert` and `key` swapped?
    an encrypted key: the private key in tls.key is encrypted; decrypt it with `openssl pkey -in tls.key -out plain.key` and keep that readable to this user alone
    an encrypted key of old: the private key in tls.key is encrypted; decrypt it with `openssl pkey -in tls.key -out plain.key` and keep that readable to this user alone
    another's key: the key in tls.key does not belong to the first certificate in tls.crt; put the server's own certificate first, then its issuers, and take the key it was made with
    "#);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let missing = ServerTls { cert: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    insta::assert_snapshot!(LiveTls::load(&missing).unwrap_err().to_string(), @r#"cannot read the certificate /nowhere/tls.crt: No such file or directory (os error 2); check the path and that this user may read it"#);
}

#[test]
fn a_right_pair_is_served_with_both_protocols() {
    let (files, cert, key) = Files::new();
    let both = ServerTls { cert: files.0.path().join("a"), key: files.0.path().join("b") };
    fs::write(&both.cert, format!("{cert}\n{cert}")).unwrap();
    fs::write(&both.key, key).unwrap();
    let tls = LiveTls::load(&both).unwrap();
    assert_eq!(tls.current().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}
