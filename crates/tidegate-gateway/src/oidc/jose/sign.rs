//! Private keys of the gateway's own: for client assertions and proofs of possession.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{Algorithm, base64url};

/// A private key and the algorithm it signs by. It prints as its algorithm alone.
pub struct SigningKey {
    algorithm: Algorithm,
    key_id: Option<String>,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// Why a key can not be used. No variant holds a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is no PEM private key.
    #[error("it holds no PEM private key; begin it with -----BEGIN PRIVATE KEY-----, without a pass phrase")]
    Pem,
    /// Its kind is none that is known here, or not that of the algorithm.
    #[error("it is no key for {0}; use RSA of 2048 bits or more, EC on P-256 or P-384, or Ed25519")]
    Kind(String),
}

impl SigningKey {
    /// Reads a PEM private key. Without an `algorithm` its kind decides: RS256, ES256, ES384 or EdDSA.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_pem(
        pem: &[u8],
        algorithm: Option<Algorithm>,
        key_id: Option<String>,
    ) -> Result<Self, InvalidKey> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| InvalidKey::Pem)?;
        let all = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
        let tried = algorithm.as_ref().map_or(&all[..], std::slice::from_ref);
        for algorithm in tried {
            if let Some(pair) = pair(&der, *algorithm) {
                return Ok(Self { algorithm: *algorithm, key_id, pair });
            }
        }
        Err(InvalidKey::Kind(algorithm.map_or("signatures".into(), |algorithm| algorithm.to_string())))
    }

    /// Makes a new key on P-256, for proofs that last as long as the process.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn generate() -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)
            .expect("the system gives randomness");
        Self { algorithm: Algorithm::Es256, key_id: None, pair: Pair::Ecdsa(Box::new(pair)) }
    }

    /// The algorithm it signs by.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs claims as a compact token of the type `kind`; `more` joins the header.
    ///
    /// # Panics
    /// When claims can not be written as JSON.
    pub fn sign(&self, kind: &str, more: &[(&str, Json)], claims: &impl Serialize) -> String {
        self.sign_under(&self.header(kind, more), claims)
    }

    /// The header of tokens that [`Self::sign_under`] signs.
    pub fn header(&self, kind: &str, more: &[(&str, Json)]) -> String {
        let mut header = json!({ "alg": self.algorithm.name(), "typ": kind });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        for (name, value) in more {
            header[*name] = value.clone();
        }
        base64url(header.to_string())
    }

    /// As [`Self::sign`], under a header that was made before.
    ///
    /// # Panics
    /// When claims can not be written as JSON.
    pub fn sign_under(&self, header: &str, claims: &impl Serialize) -> String {
        let claims = serde_json::to_vec(claims).expect("claims are JSON");
        let signed = format!("{header}.{}", base64url(claims));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", base64url(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        const WHY: &str = "a key that was read can sign";
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding(self.algorithm), &random, message, &mut signature).expect(WHY);
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).expect(WHY).as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public half, as a JWK with the members that its thumbprint is made of, in their order (RFC 7638). None of an RSA
    /// key: proofs of possession are made with keys on curves, which are made in no time.
    pub fn public_jwk(&self) -> Option<Json> {
        match &self.pair {
            Pair::Rsa(_) => None,
            Pair::Ecdsa(pair) => {
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(coordinate(self.algorithm));
                let curve = if self.algorithm == Algorithm::Es384 { "P-384" } else { "P-256" };
                Some(json!({ "crv": curve, "kty": "EC", "x": base64url(x), "y": base64url(y) }))
            }
            Pair::Ed25519(pair) => {
                Some(json!({ "crv": "Ed25519", "kty": "OKP", "x": base64url(pair.public_key()) }))
            }
        }
    }
}

fn coordinate(algorithm: Algorithm) -> usize {
    if algorithm == Algorithm::Es384 { 48 } else { 32 }
}

fn encoding(algorithm: Algorithm) -> &'static dyn RsaEncoding {
    match algorithm {
        Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => {
            &signature::RSA_PKCS1_SHA256
        }
    }
}

fn pair(der: &PrivateKeyDer<'_>, algorithm: Algorithm) -> Option<Pair> {
    let bytes = der.secret_der();
    match algorithm {
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => {
            let pair = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes)).ok()?;
            (pair.public_modulus_len() >= 256).then(|| Pair::Rsa(Box::new(pair)))
        }
        Algorithm::Es256 | Algorithm::Es384 => {
            let curve = match algorithm {
                Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            };
            EcdsaKeyPair::from_private_key_der(curve, bytes).ok().map(|pair| Pair::Ecdsa(Box::new(pair)))
        }
        Algorithm::EdDsa => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok().map(|pair| Pair::Ed25519(Box::new(pair)))
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm)
    }
}
