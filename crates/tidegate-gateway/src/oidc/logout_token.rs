//! Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4, §2.6): a provider says whose sessions are over.

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use tidegate::{Secret, token::VerifyError};

use super::id_token::{Audience, IdTokens, LEEWAY, invalid};

/// How long a token may be presented after it was made, in seconds, whatever it says itself: its name is remembered for so
/// long. Default: 1 h.
const LONGEST_LIFE: i64 = 60 * 60;
/// Longest name of a token, a user or a login, in bytes. Default: 255.
const LONGEST_NAME: usize = 255;
/// What it says that happened.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What a verified logout token says. There is a user, a login, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// The user: `sub`.
    pub subject: Option<String>,
    /// The login at the provider: `sid`.
    pub login: Option<String>,
    /// Its own name: `jti`. It counts once.
    pub id: String,
    /// When it was made, in seconds since the Unix epoch, by the provider's clock.
    pub issued_at: i64,
    /// For how many seconds it could be presented again.
    pub good_for: u64,
}

#[derive(Deserialize)]
struct Raw {
    iss: String,
    aud: Audience,
    iat: f64,
    exp: f64,
    jti: String,
    events: Map<String, Json>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    nonce: Option<Json>,
}

impl IdTokens {
    /// Verifies a logout token for this client: its signature, and all that it says of itself. Whether it came before is for
    /// the caller to find out.
    ///
    /// # Errors
    /// [`VerifyError`]; none of them holds a part of the token.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn verify_logout(&self, token: &Secret, client_id: &str) -> Result<LogoutToken, VerifyError> {
        let parts = self.signed(token).await?;
        let kind = parts.header.kind.as_deref().map(str::to_ascii_lowercase);
        match kind.as_deref() {
            None | Some("jwt" | "logout+jwt" | "application/logout+jwt") => {}
            Some(_) => return Err(invalid("it is a token of another kind")),
        }
        let raw = parts.claims().map_err(|why| invalid(why.to_string()))?;
        check(raw, client_id, self.issuer(), self.now())
    }
}

/// Checks the claims of a token whose signature was verified, at `now` by the provider's clock.
fn check(raw: Raw, client_id: &str, issuer: &str, now: i64) -> Result<LogoutToken, VerifyError> {
    if raw.iss != issuer && raw.iss.strip_suffix('/') != Some(issuer) {
        return Err(invalid("it is of another issuer"));
    }
    if !raw.aud.all().iter().any(|aud| aud == client_id) {
        return Err(invalid("it is not for this client"));
    }
    let (iat, exp) = (raw.iat as i64, raw.exp as i64);
    if iat > now.saturating_add(LEEWAY) {
        return Err(invalid("it is from the future"));
    }
    let over_at = exp.min(iat.saturating_add(LONGEST_LIFE)).saturating_add(LEEWAY);
    if over_at <= now {
        return Err(invalid("it is expired"));
    }
    if !raw.events.get(EVENT).is_some_and(Json::is_object) {
        return Err(invalid("its events do not say that it is a logout"));
    }
    // An ID token must not do as one.
    if raw.nonce.is_some() {
        return Err(invalid("it has a nonce, which no logout token has"));
    }
    let is_name = |text: &String| !text.is_empty() && text.len() <= LONGEST_NAME;
    if !is_name(&raw.jti) {
        return Err(invalid("its jti is empty or too long"));
    }
    if [&raw.sub, &raw.sid].into_iter().flatten().any(|text| !is_name(text)) {
        return Err(invalid("its sub or its sid is empty or too long"));
    }
    if raw.sub.is_none() && raw.sid.is_none() {
        return Err(invalid("it names neither a user nor a login"));
    }
    let good_for = over_at.saturating_sub(now).unsigned_abs();
    Ok(LogoutToken { subject: raw.sub, login: raw.sid, id: raw.jti, issued_at: iat, good_for })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn checked(change: &Json) -> Result<LogoutToken, VerifyError> {
        let mut claims = json!({
            "iss": "https://idp.example", "aud": ["web", "api"], "iat": NOW, "exp": NOW + 120, "jti": "j", "sub": "ann",
            "sid": "s", "events": { EVENT: {} },
        });
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let raw = serde_json::from_value(claims).map_err(|why| invalid(why.to_string()))?;
        check(raw, "web", "https://idp.example", NOW)
    }

    #[test]
    fn a_token_for_us_says_whose_sessions_are_over_and_for_how_long_it_is_to_be_remembered() {
        let token = checked(&json!({})).unwrap();
        assert_eq!((token.subject.as_deref(), token.login.as_deref()), (Some("ann"), Some("s")));
        assert_eq!((token.issued_at, token.good_for), (NOW, 180));
        assert_eq!(checked(&json!({ "sid": null })).unwrap().login, None);
        assert_eq!(checked(&json!({ "sub": null })).unwrap().subject, None);
        assert_eq!(checked(&json!({ "exp": NOW + 1_000_000 })).unwrap().good_for, 3660);
        assert_eq!(checked(&json!({ "exp": 1e300 })).unwrap().good_for, 3660);
        assert!(checked(&json!({ "iss": "https://idp.example/", "aud": "web" })).is_ok());
    }

    #[test]
    fn a_token_that_is_no_logout_of_ours_now_is_refused() {
        for (change, why) in [
            (json!({ "iss": "https://other.example" }), "another issuer"),
            (json!({ "aud": "api" }), "not for this client"),
            (json!({ "iat": NOW + 61 }), "future"),
            (json!({ "iat": NOW - 3661, "exp": NOW + 9 }), "expired"),
            (json!({ "exp": NOW - 61 }), "expired"),
            (json!({ "exp": null }), "exp"),
            (json!({ "iat": null }), "iat"),
            (json!({ "jti": null }), "jti"),
            (json!({ "jti": "" }), "jti"),
            (json!({ "jti": "x".repeat(256) }), "jti"),
            (json!({ "events": null }), "events"),
            (json!({ "events": {} }), "not say that it is a logout"),
            (json!({ "events": { EVENT: true } }), "not say that it is a logout"),
            (json!({ "events": [EVENT] }), "invalid type"),
            (json!({ "nonce": "n" }), "nonce"),
            (json!({ "sub": null, "sid": null }), "neither"),
            (json!({ "sub": "" }), "sub"),
            (json!({ "sid": "x".repeat(256) }), "sid"),
        ] {
            let refused = checked(&change).unwrap_err().to_string();
            assert!(refused.contains(why), "{change}: {refused}");
        }
    }
}
