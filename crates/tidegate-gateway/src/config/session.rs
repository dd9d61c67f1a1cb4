//! What a configuration says of browser sessions, typed.

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::{
        default_algorithms, default_callback, default_grants, default_grants_open_for, default_logout,
        default_refresh_before, default_reuse_window, default_scopes, default_session_absolute,
        default_session_idle, default_token_timeout, default_token_wait,
    },
    dpop::Dpop,
    formats::{AlgorithmText, CookieText, IssuerText, OriginText, PageText, PercentText},
    model::ClientTls,
    secret::SecretSetting,
    token::{ClientAuth, Percent},
    units::HumanDuration,
};

/// Sessions of browsers whose users log in at an identity provider.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The identity provider, by its issuer: its discovery document says the rest.
    #[schemars(with = "IssuerText")]
    pub issuer: String,
    /// Who the gateway is to the provider.
    pub client_id: String,
    /// The client's secret, by the place where it is.
    #[serde(default)]
    pub client_secret: Option<SecretSetting>,
    /// How the client proves who it is. Default: by what is given of `client_secret`, `key` and `tls.cert`.
    #[serde(default)]
    pub auth: Option<ClientAuth>,
    /// The client's private key, PEM, by the place where it is.
    #[serde(default)]
    pub key: Option<SecretSetting>,
    /// The name of `key` at the provider. Default: none.
    #[serde(default)]
    pub key_id: Option<String>,
    /// Has tokens bound to a key of the gateway's (DPoP, RFC 9449), and proves possession of it. Default: they are bearer tokens.
    #[serde(default)]
    pub dpop: Option<Dpop>,
    /// TLS towards the provider. Default: the system's roots, no client certificate.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// Whether provider and browsers may be spoken to over plain HTTP; for tests on loopback. Default: false.
    #[serde(default)]
    pub allow_http: bool,
    /// What is asked for. Default: openid, profile and offline_access.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// Further parameters of the login, like `prompt: consent`. Default: none.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How ID tokens may be signed. Default: RS256, PS256, ES256 and EdDSA.
    #[serde(default = "default_algorithms")]
    #[schemars(with = "Vec<AlgorithmText>")]
    pub algorithms: Vec<String>,
    /// The name of the cookie. Default: `__Host-tidegate`, with `allow_http` `tidegate`.
    #[serde(default)]
    #[schemars(with = "Option<CookieText>")]
    pub cookie: Option<String>,
    /// Origins besides its own whose pages may open WebSockets with it, like `https://app.example`. Default: none.
    #[serde(default)]
    #[schemars(with = "Vec<OriginText>")]
    pub origins: Vec<String>,
    /// Keys that seal what browsers and the store keep, each 32 random bytes as base64: the first one seals, all open.
    pub keys: Vec<SecretSetting>,
    /// A file that sessions stand in, sealed with `keys`, where the store is this process: so that a restart logs nobody
    /// out. Default: none, they are in memory alone.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Where the provider sends users back to; no other session may have the same. Default: /oauth2/callback.
    #[serde(default = "default_callback")]
    #[schemars(with = "PageText")]
    pub callback: String,
    /// Where users log out; no other session may have the same. Default: /oauth2/logout.
    #[serde(default = "default_logout")]
    #[schemars(with = "PageText")]
    pub logout: String,
    /// Where the provider says, from server to server, whose sessions are over. Default: `logout` and `/backchannel`.
    #[serde(default)]
    #[schemars(with = "Option<PageText>")]
    pub backchannel_logout: Option<String>,
    /// Where the provider has browsers say that their login is over. Default: `logout` and `/frontchannel`.
    #[serde(default)]
    #[schemars(with = "Option<PageText>")]
    pub frontchannel_logout: Option<String>,
    /// How long a session lasts that nobody uses. Default: 8h.
    #[serde(default = "default_session_idle")]
    pub idle: HumanDuration,
    /// How long a session lasts at all, whatever is refreshed. Default: 24h.
    #[serde(default = "default_session_absolute")]
    pub absolute: HumanDuration,
    /// How long it is remembered what became of a session that is over. Default: 30s.
    #[serde(default = "default_reuse_window")]
    pub reuse_window: HumanDuration,
    /// How long the provider takes a refresh token again that was used already, where it has such a grace. Default: none.
    #[serde(default)]
    pub reuse_grace: Option<HumanDuration>,
    /// The part of its life, counted from the end, in which a token is refreshed. Default: 20%.
    #[serde(default = "default_refresh_before")]
    #[schemars(with = "PercentText")]
    pub refresh_before: Percent,
    /// Header fields that calls get, and the claims in them; what clients send in these fields is taken out. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Who may come in: claims and their values, whole or `*` and an end, like `email: ["*@example.com"]`. Default: every user.
    #[serde(default)]
    pub allow: BTreeMap<String, Vec<String>>,
    /// Whether calls carry the user's access token in `Authorization`. Default: false.
    #[serde(default)]
    pub pass_token: bool,
    /// Most refreshes at once; others wait in line, none is refused before its call's time is up. Default: 10.
    #[serde(default = "default_grants")]
    pub grants: NonZeroU32,
    /// How long the provider is left alone after three failures in a row, before one refresh finds out. Default: 30s.
    #[serde(default = "default_grants_open_for")]
    pub open_for: HumanDuration,
    /// Longest wait for the provider. Default: 10s.
    #[serde(default = "default_token_timeout")]
    pub timeout: HumanDuration,
    /// Longest wait of a call for tokens. Default: 5s.
    #[serde(default = "default_token_wait")]
    pub max_wait: HumanDuration,
}

impl Session {
    /// Where back-channel logouts are sent to.
    pub fn backchannel_logout(&self) -> Cow<'_, str> {
        page_below(&self.backchannel_logout, &self.logout, "backchannel")
    }

    /// Where front-channel logouts are sent to.
    pub fn frontchannel_logout(&self) -> Cow<'_, str> {
        page_below(&self.frontchannel_logout, &self.logout, "frontchannel")
    }

    /// The name of its cookie.
    pub fn cookie_name(&self) -> &str {
        let usual = if self.allow_http { "tidegate" } else { "__Host-tidegate" };
        self.cookie.as_deref().unwrap_or(usual)
    }
}

/// A page as it is configured, or one below the logout.
pub(super) fn page_below<'a>(page: &'a Option<String>, logout: &str, below: &str) -> Cow<'a, str> {
    page.as_deref().map_or_else(|| Cow::Owned(format!("{logout}/{below}")), Cow::Borrowed)
}
