//! By what gateways know that a token setting of theirs is the same, and the key that its tokens are sealed with where
//! they share them. Both come of what proves the client: who knows that could have the tokens granted anyway.

use std::{fs, path::PathBuf};

use aws_lc_rs::{
    digest::{Context, SHA256},
    hkdf::{HKDF_SHA256, Salt},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidegate::Secret;
use zeroize::Zeroizing;

use crate::{
    config,
    oidc::{binding::Binding, jose::base64url, session::KeyRing},
};

/// What the key is for.
const PURPOSE: &[u8] = b"tidegate tokens of upstreams, sealed in a store";

/// A token setting's own.
pub(super) struct Print {
    /// It is another one when anything changes that a grant depends on.
    pub(super) text: Box<str>,
    /// What seals its tokens; none when nothing secret proves the client.
    pub(super) ring: Option<KeyRing>,
}

impl Print {
    pub(super) fn of(
        config: &config::Token,
        secrets: &[Option<Secret>; 3],
        binding: Option<&Binding>,
    ) -> Self {
        let file = |path: &Option<PathBuf>| {
            let bytes = path.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default();
            Zeroizing::new(bytes)
        };
        let tls = config.tls.as_ref();
        let certificate = tls.map(|tls| file(&tls.cert)).unwrap_or_default();
        let key = tls.map(|tls| file(&tls.key)).unwrap_or_default();
        let secret = |at: usize| secrets[at].as_ref().map(Secret::expose).unwrap_or_default().as_bytes();
        let mut hash = Context::new(&SHA256);
        let proofs = [secret(0), secret(1), &certificate, &key];
        let texts = [
            config.issuer.as_str(),
            config.endpoint.as_deref().unwrap_or_default(),
            config.client_id.as_str(),
            config.grant.as_str(),
        ];
        let named = [&config.audience, &config.resource].map(|text| text.as_deref().unwrap_or_default());
        let scope = config.scope.join(" ");
        let all = texts.iter().chain(&named).map(|text| text.as_bytes()).chain([scope.as_bytes()]);
        for part in all.chain(proofs) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        // Gateways that prove possession of another key could not use the token.
        if let Some(binding) = binding {
            hash.update(binding.dpop.thumbprint().as_bytes());
        }
        let hash = hash.finish();
        let material = Zeroizing::new(proofs.concat());
        let ring = (!material.is_empty()).then(|| ring(&material, hash.as_ref()));
        Self { text: base64url(hash).into(), ring }
    }
}

fn ring(material: &[u8], of: &[u8]) -> KeyRing {
    let mut key = Zeroizing::new([0; 32]);
    let derived = Salt::new(HKDF_SHA256, PURPOSE).extract(material);
    derived
        .expand(&[of], HKDF_SHA256)
        .and_then(|output| output.fill(&mut *key))
        .expect("a key is as long as the hash it is made with");
    KeyRing::new(&[Secret::new(STANDARD.encode(key.as_slice()))])
        .expect("a derived key is 32 bytes that differ")
}

#[cfg(test)]
mod tests {
    use tidegate::token::Seal as _;

    use super::*;

    fn token(client: &str) -> config::Token {
        let secret = serde_json::json!({ "env": "X" });
        let all = serde_json::json!({ "issuer": "https://idp.example", "client_id": client, "client_secret": secret });
        serde_json::from_value(all).unwrap()
    }

    fn print(client: &str, secret: &str) -> Print {
        Print::of(&token(client), &[Some(Secret::new(secret)), None, None], None)
    }

    #[test]
    fn gateways_of_one_configuration_open_what_another_one_sealed_and_no_others() {
        let (one, other) = (print("gw", "hunter2"), print("gw", "hunter2"));
        assert_eq!(one.text, other.text);
        let sealed = one.ring.unwrap().seal(b"a token", b"here");
        assert_eq!(other.ring.unwrap().open(&sealed, b"here").unwrap().as_slice(), b"a token");
        for stranger in [print("gw", "hunter3"), print("web", "hunter2")] {
            assert_ne!(stranger.text, one.text);
            assert_eq!(stranger.ring.unwrap().open(&sealed, b"here"), None);
        }
    }

    #[test]
    fn gateways_whose_tokens_are_bound_to_other_keys_share_none() {
        let bound = || Binding::new(&config::Dpop::default(), None, None).unwrap();
        let of = |binding: &Binding| {
            Print::of(&token("gw"), &[Some(Secret::new("hunter2")), None, None], Some(binding)).text
        };
        let (one, other) = (bound(), bound());
        assert_eq!(of(&one), of(&one));
        assert!(of(&one) != of(&other) && of(&one) != print("gw", "hunter2").text);
    }

    #[test]
    fn without_anything_secret_nothing_is_shared() {
        assert!(Print::of(&token("gw"), &[None, None, None], None).ring.is_none());
    }
}
