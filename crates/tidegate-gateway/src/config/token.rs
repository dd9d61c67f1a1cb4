//! What a configuration says of access tokens for upstreams, typed.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::Url;

use super::{
    defaults::{
        default_refresh_before, default_rejected_interval, default_token_life, default_token_open_for,
        default_token_timeout, default_token_wait,
    },
    dpop::Dpop,
    formats::{AlgorithmText, IssuerText, PercentText},
    model::ClientTls,
    problem::quoted,
    secret::SecretSetting,
    units::HumanDuration,
};

/// Access tokens of one client of an identity provider, for the calls of upstreams that name it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The identity provider, by its issuer: its discovery document says the rest.
    #[schemars(with = "IssuerText")]
    pub issuer: String,
    /// The token endpoint of a provider without a discovery document. Default: what that document says.
    #[serde(default)]
    #[schemars(with = "Option<IssuerText>")]
    pub endpoint: Option<String>,
    /// Who the gateway is to the provider.
    pub client_id: String,
    /// The client's secret, by the place where it is; read again when its file changes.
    #[serde(default)]
    pub client_secret: Option<SecretSetting>,
    /// How the client proves who it is. Default: by what is given of `client_secret`, `key` and `tls.cert`; a secret in the
    /// way that the provider prefers.
    #[serde(default)]
    pub auth: Option<ClientAuth>,
    /// The client's private key, PEM, by the place where it is: RSA, EC on P-256 or P-384, or Ed25519.
    #[serde(default)]
    pub key: Option<SecretSetting>,
    /// The name of `key` at the provider. Default: none.
    #[serde(default)]
    pub key_id: Option<String>,
    /// How `key` signs. Default: by its kind RS256, ES256, ES384 or EdDSA.
    #[serde(default)]
    #[schemars(with = "Option<AlgorithmText>")]
    pub algorithm: Option<String>,
    /// Has tokens bound to a key of the gateway's (DPoP, RFC 9449), and proves possession of it. Default: they are bearer tokens.
    #[serde(default)]
    pub dpop: Option<Dpop>,
    /// TLS towards the provider. Default: the system's roots, no client certificate.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// Whether the provider may be spoken to over plain HTTP, on loopback addresses. Default: false.
    #[serde(default)]
    pub allow_http: bool,
    /// What the token is granted for. Default: `client_credentials`.
    #[serde(default)]
    pub grant: GrantKind,
    /// The scope to ask for. Default: none, what the provider gives.
    #[serde(default)]
    pub scope: Vec<String>,
    /// Whom the token is for. Default: what the provider says.
    #[serde(default)]
    pub audience: Option<String>,
    /// Where the token is used, as a URL (RFC 8707). Default: none.
    #[serde(default)]
    #[schemars(with = "Option<IssuerText>")]
    pub resource: Option<String>,
    /// The part of its life, counted from the end, in which a token is renewed in the background, 5% to 90%. Default: 20%.
    #[serde(default = "default_refresh_before")]
    #[schemars(with = "PercentText")]
    pub refresh_before: Percent,
    /// How long a token is good where the provider does not say. Default: 5m.
    #[serde(default = "default_token_life")]
    pub default_life: HumanDuration,
    /// Longest wait for the provider. Default: 10s.
    #[serde(default = "default_token_timeout")]
    pub timeout: HumanDuration,
    /// Longest wait of a call for its token. Default: 5s.
    #[serde(default = "default_token_wait")]
    pub max_wait: HumanDuration,
    /// How long the provider is left alone after three grants in a row that it did not answer, 10ms to 1h. Default: 30s.
    #[serde(default = "default_token_open_for")]
    pub open_for: HumanDuration,
    /// Shortest time between two tokens that are given up because the upstream says that they are invalid, over all
    /// gateways that share a store. Default: 30s.
    #[serde(default = "default_rejected_interval")]
    pub rejected_interval: HumanDuration,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By its secret in `Authorization`.
    ClientSecretBasic,
    /// By its secret in the form.
    ClientSecretPost,
    /// By an assertion that its key signs.
    PrivateKeyJwt,
    /// By the certificate of the connection, which an authority has signed (RFC 8705 §2.1).
    TlsClientAuth,
    /// By the certificate of the connection, which the provider knows itself (RFC 8705 §2.2).
    SelfSignedTlsClientAuth,
    /// Not at all: a public client.
    None,
}

/// What a token is granted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// The client itself: one token for all calls.
    #[default]
    ClientCredentials,
    /// The caller, in exchange for the access token that it brings (RFC 8693).
    TokenExchange,
}

impl GrantKind {
    /// Its word in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "token_exchange",
        }
    }
}

/// A part, written as `20%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NOT: &str = "not a percentage; write a whole number and %, like 20%";
        let percent: u8 = text.strip_suffix('%').ok_or(NOT)?.trim_end().parse().map_err(|_| NOT)?;
        if percent <= 100 { Ok(Self(percent)) } else { Err(NOT) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Reads the URL of an issuer or an endpoint of it.
///
/// # Errors
/// What is wrong with it, and the remedy, without a password that should not have been there.
pub(super) fn issuer(text: &str) -> Result<Url, super::formats::Wrong> {
    let wrong =
        |remedy: &str| super::formats::Wrong::new(format!("{} is not an issuer's URL", quoted(text)), remedy);
    let url: Url = text.parse().map_err(|_| wrong("write https://host, as the provider names itself"))?;
    match url.scheme() {
        _ if !url.has_host() => Err(wrong("write https://host, as the provider names itself")),
        "https" | "http" if !url.username().is_empty() || url.password().is_some() => {
            Err(wrong("remove what stands before the @; client_id and client_secret have keys of their own"))
        }
        "https" | "http" if url.query().is_some() || url.fragment().is_some() => {
            Err(wrong("remove what follows ? or #"))
        }
        "https" | "http" => Ok(url),
        _ => Err(wrong("begin it with https://")),
    }
}
