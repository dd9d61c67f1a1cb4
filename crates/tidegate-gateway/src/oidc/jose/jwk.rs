//! A provider's public keys (RFC 7517), and checking signatures with them.

use aws_lc_rs::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

use super::{Algorithm, InvalidToken, Parts, from_base64url};

/// Most keys that are taken from a set. Default: 100.
const MOST_KEYS: usize = 100;

/// The keys of a provider that can check signatures.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

/// A public key.
#[derive(Clone, Debug)]
pub struct PublicKey {
    id: Option<String>,
    /// The one algorithm it is for, if it says.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl KeySet {
    /// Reads a set. Keys of other kinds, or for other uses than signatures, are left out, as the standard wants.
    ///
    /// # Errors
    /// When it is no JSON object with a list of `keys`.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let set: RawSet = serde_json::from_slice(json)?;
        let keys = set.keys.into_iter().take(MOST_KEYS);
        let keys = keys.filter_map(|key| PublicKey::of(serde_json::from_value(key).ok()?));
        Ok(Self { keys: keys.collect() })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key may have made this signature.
    pub fn knows(&self, parts: &Parts<'_>) -> bool {
        self.fitting(parts).next().is_some()
    }

    /// Checks a token's signature with the key that it names; one that names none, with each that fits.
    ///
    /// # Errors
    /// [`InvalidToken::Signature`] when no key made it.
    pub fn verify(&self, parts: &Parts<'_>) -> Result<(), InvalidToken> {
        let verified = self.fitting(parts).any(|key| key.verifies(parts));
        if verified { Ok(()) } else { Err(InvalidToken::Signature) }
    }

    fn fitting(&self, parts: &Parts<'_>) -> impl Iterator<Item = &PublicKey> {
        let (id, algorithm) = (parts.header.key_id.clone(), parts.header.algorithm);
        self.keys.iter().filter(move |key| (id.is_none() || key.id == id) && key.fits(algorithm))
    }
}

impl PublicKey {
    fn of(key: RawKey) -> Option<Self> {
        if key.usage.is_some_and(|usage| usage != "sig")
            || key.key_ops.is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return None;
        }
        let number = |text: Option<String>| from_base64url(&text?).filter(|bytes| !bytes.is_empty());
        let unsigned = |text| {
            let bytes = number(text)?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            Some(bytes[zeros..].to_vec()).filter(|bytes| !bytes.is_empty())
        };
        let point = |length| {
            let (x, y) = (number(key.x.clone())?, number(key.y.clone())?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (key.kty.as_str(), key.crv.as_deref()) {
            ("RSA", _) => Material::Rsa(RsaPublicKeyComponents { n: unsigned(key.n)?, e: unsigned(key.e)? }),
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(number(key.x.clone())?),
            _ => return None,
        };
        let only = match key.alg {
            None => None,
            Some(name) => Some(name.parse().ok()?),
        };
        Some(Self { id: key.kid, only, material })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match (&self.material, algorithm) {
            (
                Material::Rsa(_),
                Algorithm::Rs256
                | Algorithm::Rs384
                | Algorithm::Rs512
                | Algorithm::Ps256
                | Algorithm::Ps384
                | Algorithm::Ps512,
            )
            | (Material::P256(_), Algorithm::Es256)
            | (Material::P384(_), Algorithm::Es384)
            | (Material::Ed25519(_), Algorithm::EdDsa) => true,
            (Material::Rsa(_) | Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        };
        kind && self.only.is_none_or(|only| only == algorithm)
    }

    fn verifies(&self, parts: &Parts<'_>) -> bool {
        let (message, signature) = (parts.signed.as_bytes(), parts.signature.as_slice());
        match &self.material {
            Material::Rsa(key) => rsa(parts.header.algorithm)
                .is_some_and(|parameters| key.verify(parameters, message, signature).is_ok()),
            Material::P256(key) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key)
                .verify(message, signature)
                .is_ok(),
            Material::P384(key) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, key)
                .verify(message, signature)
                .is_ok(),
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }
        }
    }
}

/// At least 2048 bits, whatever the padding.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}
