//! A login under way: what was sent with the user, kept by the browser, sealed. Each tab has its own.

use serde::{Deserialize, Serialize};
use url::Url;

use super::{cookies::Marked, ring::KeyRing};
use crate::oidc::{client::random_id, date::wall, jose::base64url};

/// How long a login may take, in seconds. Default: 10 min.
pub(super) const SECONDS: u64 = 600;
/// Most logins under way in one browser; the cookies of others are taken away. Default: 8.
pub(super) const MOST: usize = 8;
/// Longest target that a user is sent back to. Default: 1 KiB.
const MOST_TARGET_BYTES: usize = 1 << 10;

/// A login under way.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    /// What the callback must bring back.
    pub(super) state: String,
    /// What the ID token must hold.
    pub(super) nonce: String,
    /// What proves to the provider that who brings the code began the login (RFC 7636).
    pub(super) verifier: String,
    /// Where the user wanted to go.
    pub(super) target: String,
    /// When it began, in seconds since the Unix epoch.
    begun: u64,
}

impl Flow {
    /// Begins a login of a user who wanted to go to `target`.
    pub(super) fn begin(target: &str) -> Self {
        let target = if is_ours(target) { target } else { "/" };
        Self {
            state: random_id(),
            nonce: random_id(),
            verifier: format!("{}{}", random_id(), random_id()),
            target: target.to_owned(),
            begun: wall().as_secs(),
        }
    }

    /// The cookie that keeps it.
    pub(super) fn cookie(&self, prefix: &str) -> String {
        cookie_of(prefix, &self.state)
    }

    /// Seals it for the browser.
    pub(super) fn seal(&self, ring: &KeyRing, session: &str) -> String {
        let text = serde_json::to_vec(self).expect("texts and numbers make JSON");
        ring.seal_text(&text, &context(session))
    }

    /// Opens what the browser kept, if it is of this `state` and not too old.
    pub(super) fn open(sealed: &str, state: &str, ring: &KeyRing, session: &str) -> Option<Self> {
        let text = ring.open_text(sealed, &context(session))?;
        let flow: Self = serde_json::from_slice(&text).ok()?;
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(flow.state.as_bytes(), state.as_bytes());
        let now = wall().as_secs();
        let timely = now <= flow.begun + SECONDS && flow.begun <= now + SECONDS;
        (same.is_ok() && timely && is_ours(&flow.target)).then_some(flow)
    }

    /// The proof's public half.
    pub(super) fn challenge(&self) -> String {
        base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.verifier.as_bytes()))
    }

    /// Where the user logs in.
    pub(super) fn url(
        &self,
        endpoint: &Url,
        client_id: &str,
        redirect: &str,
        scopes: &str,
        more: impl IntoIterator<Item = (String, String)>,
    ) -> Url {
        let mut url = endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", scopes)
            .append_pair("state", &self.state)
            .append_pair("nonce", &self.nonce)
            .append_pair("code_challenge", &self.challenge())
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(more);
        url
    }
}

/// The cookie of the login with this state, if that can be one.
pub(super) fn cookie_of(prefix: &str, state: &str) -> String {
    let tail: String = state.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{prefix}{tail}")
}

fn context(session: &str) -> String {
    format!("tidegate login {session}")
}

/// Whether a target leads back to us: a path, and nothing that a browser could take for another host.
fn is_ours(target: &str) -> bool {
    target.starts_with('/')
        && !target.starts_with("//")
        && !target.contains('\\')
        && target.len() <= MOST_TARGET_BYTES
        && target.bytes().all(|b| b.is_ascii_graphic())
}

/// The cookie's marks for an origin.
pub(super) fn marked(allow_http: bool) -> Marked {
    if allow_http { Marked::Plain } else { Marked::Secure }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use tidegate::Secret;

    use super::*;

    fn ring() -> KeyRing {
        let key: Vec<u8> = (0..32).collect();
        KeyRing::new(&[Secret::new(STANDARD.encode(key))]).unwrap()
    }

    #[test]
    fn a_login_opens_with_its_own_state_in_its_own_session_only() {
        let (ring, flow) = (ring(), Flow::begin("/orders?id=1"));
        let sealed = flow.seal(&ring, "idp");
        assert!(!sealed.contains(&flow.verifier) && !sealed.contains(&flow.nonce));
        let opened = Flow::open(&sealed, &flow.state, &ring, "idp").unwrap();
        assert_eq!((opened.verifier, opened.target.as_str()), (flow.verifier.clone(), "/orders?id=1"));
        assert!(Flow::open(&sealed, "other", &ring, "idp").is_none());
        assert!(Flow::open(&sealed, &flow.state, &ring, "other").is_none());
        let old = Flow { begun: wall().as_secs() - SECONDS - 5, ..flow };
        assert!(Flow::open(&old.seal(&ring, "idp"), &old.state, &ring, "idp").is_none());
    }

    #[test]
    fn nobody_is_sent_to_another_host() {
        for target in
            ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "", "/a\r\nb", "/ä"]
        {
            assert_eq!(Flow::begin(target).target, "/", "{target}");
        }
        assert_eq!(Flow::begin("/a/b?c=//d").target, "/a/b?c=//d");
    }

    #[test]
    fn the_user_is_sent_off_with_all_that_the_callback_is_checked_by() {
        let flow = Flow::begin("/");
        let endpoint: Url = "https://idp.example/authorize?tenant=a".parse().unwrap();
        let more = [("prompt".to_owned(), "consent".to_owned())];
        let url = flow.url(&endpoint, "web", "https://app/cb", "openid email", more);
        let pairs: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!((pairs["tenant"].as_str(), pairs["prompt"].as_str()), ("a", "consent"));
        assert_eq!(pairs["code_challenge"], flow.challenge());
        assert!(pairs["state"].len() >= 22 && pairs["nonce"].len() >= 22 && flow.verifier.len() >= 43);
        assert!(!url.as_str().contains(&flow.verifier));
    }
}
