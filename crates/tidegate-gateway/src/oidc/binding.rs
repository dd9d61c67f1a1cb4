//! How the tokens of a client are bound to a key (RFC 9449), made out of its configuration.

use std::{path::Path, sync::Arc};

use tidegate::Secret;

use super::{
    dpop::{Dpop, NotOnACurve},
    jose::{InvalidKey, SigningKey},
};
use crate::config::{self, NoSecret, Unbound};

/// How a client has its tokens bound to a key.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The key.
    pub dpop: Arc<Dpop>,
    /// What becomes of tokens that are bound to none.
    pub unbound: Unbound,
    /// Where the key is from.
    pub origin: Origin,
}

/// Where a key is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Who configured the gateway gave it, perhaps to other gateways too.
    Given,
    /// This process made it, and nobody else has it.
    Made,
}

/// Why a key can not bind tokens. No variant holds a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBinding {
    /// There is none.
    #[error(transparent)]
    Secret(#[from] NoSecret),
    /// It is none.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// It is of a kind that is not used for proofs.
    #[error(transparent)]
    Kind(#[from] NotOnACurve),
}

impl Binding {
    /// Reads the key that a configuration names.
    ///
    /// # Errors
    /// [`NoBinding::Secret`].
    pub fn key(config: Option<&config::Dpop>) -> Result<Option<Secret>, NoBinding> {
        let setting = config.and_then(|dpop| dpop.key.as_ref());
        Ok(setting.map(|setting| setting.read(Path::new(""))).transpose()?)
    }

    /// Binds tokens as a configuration says, to `key` or to one that is made. What ran before goes on with its key, where that
    /// is the same or was made too: tokens in hand are bound to it.
    ///
    /// # Errors
    /// [`NoBinding`] when the key is none.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn new(
        config: &config::Dpop,
        key: Option<&Secret>,
        running: Option<&Self>,
    ) -> Result<Self, NoBinding> {
        let (dpop, origin) = match key {
            Some(key) => (Some(dpop(key)?), Origin::Given),
            None => (None, Origin::Made),
        };
        let running = running.filter(|running| match &dpop {
            Some(dpop) => running.dpop.thumbprint() == dpop.thumbprint(),
            None => running.origin == Origin::Made,
        });
        let dpop = match (running, dpop) {
            (Some(running), _) => Arc::clone(&running.dpop),
            (None, Some(dpop)) => Arc::new(dpop),
            (None, None) => Arc::new(Dpop::made()),
        };
        Ok(Self { dpop, unbound: config.unbound, origin })
    }
}

/// The key in a PEM text.
///
/// # Errors
/// [`NoBinding`] when it is none, or of a kind that is not used for proofs.
pub(crate) fn dpop(pem: &Secret) -> Result<Dpop, NoBinding> {
    Ok(Dpop::new(SigningKey::from_pem(pem.expose().as_bytes(), None, None)?)?)
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn pem() -> Secret {
        Secret::new(KeyPair::generate().unwrap().serialize_pem())
    }

    #[test]
    fn a_key_is_kept_over_a_reload_as_long_as_it_is_the_one() {
        let config = config::Dpop::default();
        let made = Binding::new(&config, None, None).unwrap();
        let name = |binding: &Binding| binding.dpop.thumbprint().to_owned();
        assert_eq!(name(&Binding::new(&config, None, Some(&made)).unwrap()), name(&made));
        let key = pem();
        let given = Binding::new(&config, Some(&key), Some(&made)).unwrap();
        assert_ne!(name(&given), name(&made));
        let again = Binding::new(&config, Some(&key), Some(&given)).unwrap();
        assert!(Arc::ptr_eq(&again.dpop, &given.dpop), "with the nonces that it knows");
        let other = Binding::new(&config, None, Some(&given)).unwrap();
        assert_ne!(name(&other), name(&given), "a key that was taken away is not used any more");
    }

    #[test]
    fn keys_on_curves_bind_and_others_are_refused() {
        for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(kind).unwrap().serialize_pem();
            dpop(&Secret::new(key)).unwrap();
        }
        let said = dpop(&Secret::new("hunter2")).unwrap_err().to_string();
        assert!(said.contains("-----BEGIN PRIVATE KEY-----") && !said.contains("hunter2"), "{said}");
    }
}
