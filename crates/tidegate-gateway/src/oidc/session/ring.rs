//! The keys that seal what browsers and stores keep for us: the first seals, all open, so that keys can be replaced.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    hkdf::{HKDF_SHA256, Salt},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidegate::{Secret, token::Seal};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;
const NAME_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;

/// A ring of keys, AES-256-GCM with random nonces: good for 2^32 sealings a key. What browsers keep is sealed with another
/// key that is derived from it: anybody may begin logins, as often as they like, and must not use up what seals sessions.
pub struct KeyRing(Vec<Key>);

struct Key {
    /// The beginning of its hash: which key sealed a text stands before it.
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
    for_browsers: RandomizedNonceKey,
}

/// Why a text is no key. It holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not 32 random bytes as base64; make one with: openssl rand -base64 32")]
pub struct InvalidKey;

impl KeyRing {
    /// Reads keys; the first one seals.
    ///
    /// # Errors
    /// `InvalidKey` for what is not 32 bytes as base64, or has no secret in it: the same byte again and again.
    pub fn new(keys: &[Secret]) -> Result<Self, InvalidKey> {
        keys.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Seals a text for browsers as base64url, to be opened with the same `context` only.
    pub(super) fn seal_text(&self, plain: &[u8], context: &str) -> String {
        crate::oidc::jose::base64url(self.seal_with(|key| &key.for_browsers, plain, context.as_bytes()))
    }

    /// Opens what [`Self::seal_text`] made.
    pub(super) fn open_text(&self, sealed: &str, context: &str) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = crate::oidc::jose::from_base64url(sealed)?;
        self.open_with(|key| &key.for_browsers, &sealed, context.as_bytes())
    }

    fn seal_with(&self, by: impl Fn(&Key) -> &RandomizedNonceKey, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let first = self.0.first().expect("a configuration without a key is refused");
        let mut text = plain.to_vec();
        let nonce = by(first).seal_in_place_append_tag(Aad::from(context), &mut text);
        let nonce = nonce.expect("the system gives randomness, and a text is shorter than a cipher can take");
        [&[FORMAT][..], &first.name, nonce.as_ref(), &text].concat()
    }

    fn open_with(
        &self,
        by: impl Fn(&Key) -> &RandomizedNonceKey,
        sealed: &[u8],
        context: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (FORMAT, rest) = sealed.split_first().map(|(format, rest)| (*format, rest))? else { return None };
        let (name, rest) = rest.split_at_checked(NAME_BYTES)?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES)?;
        self.0.iter().filter(|key| key.name == name).find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = Zeroizing::new(text.to_vec());
            let length = by(key).open_in_place(nonce, Aad::from(context), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })
    }
}

/// A ring whose keys are replaced while something is sealed with it.
pub(super) struct LiveRing(ArcSwap<KeyRing>);

impl LiveRing {
    pub(super) fn new(ring: Arc<KeyRing>) -> Self {
        Self(ArcSwap::new(ring))
    }

    pub(super) fn replace(&self, ring: Arc<KeyRing>) {
        self.0.store(ring);
    }
}

impl Seal for LiveRing {
    fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        self.0.load().seal(plain, context)
    }

    fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.0.load().open(sealed, context)
    }
}

fn key(text: &Secret) -> Result<Key, InvalidKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text.expose().trim()).map_err(|_| InvalidKey)?);
    if bytes.len() != KEY_BYTES || bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(InvalidKey);
    }
    let hash = digest(&SHA256, &bytes);
    let name = hash.as_ref()[..NAME_BYTES].try_into().expect("a hash is longer than its beginning");
    let mut derived = Zeroizing::new([0; KEY_BYTES]);
    let secret = Salt::new(HKDF_SHA256, b"tidegate").extract(&bytes);
    let filled = secret.expand(&[b"what browsers keep"], HKDF_SHA256).and_then(|key| key.fill(&mut *derived));
    filled.map_err(|_| InvalidKey)?;
    let cipher = |bytes: &[u8]| RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| InvalidKey);
    Ok(Key { name, key: cipher(&bytes)?, for_browsers: cipher(&*derived)? })
}

impl Seal for KeyRing {
    fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        self.seal_with(|key| &key.key, plain, context)
    }

    fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.open_with(|key| &key.key, sealed, context)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret {
        let mut bytes = [byte; 32];
        bytes[0] = !byte;
        Secret::new(STANDARD.encode(bytes))
    }

    #[test]
    fn what_one_key_sealed_opens_while_that_key_is_in_the_ring_and_nowhere_else() {
        let old = KeyRing::new(&[secret(1)]).unwrap();
        let both = KeyRing::new(&[secret(2), secret(1)]).unwrap();
        let new = KeyRing::new(&[secret(2)]).unwrap();
        let sealed = old.seal(b"hunter2", b"here");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(both.open(&sealed, b"here").unwrap().as_slice(), b"hunter2");
        assert_eq!(new.open(&sealed, b"here"), None);
        assert_eq!(old.open(&sealed, b"there"), None);
        assert_eq!(old.open(&both.seal(b"x", b"here"), b"here"), None);
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(old.open(&changed, b"here"), None);
        for length in 0..sealed.len() {
            assert_eq!(old.open(&sealed[..length], b"here"), None, "{length}");
        }
        assert_ne!(old.seal(b"hunter2", b"here"), sealed, "no nonce comes twice");
    }

    #[test]
    fn what_browsers_keep_and_what_is_stored_open_in_no_place_of_each_other() {
        let ring = KeyRing::new(&[secret(1)]).unwrap();
        let kept = ring.seal_text(b"hunter2", "here");
        assert_eq!(ring.open_text(&kept, "here").unwrap().as_slice(), b"hunter2");
        assert_eq!(ring.open(&crate::oidc::jose::from_base64url(&kept).unwrap(), b"here"), None);
        let stored = crate::oidc::jose::base64url(ring.seal(b"hunter2", b"here"));
        assert_eq!(ring.open_text(&stored, "here"), None);
    }

    #[test]
    fn what_is_no_key_or_everybodys_is_refused() {
        for text in ["", "secret", "c2hvcnQ=", &STANDARD.encode([0; 32]), &STANDARD.encode([7; 33])] {
            assert!(KeyRing::new(&[Secret::new(text)]).is_err(), "{text}");
        }
    }
}
