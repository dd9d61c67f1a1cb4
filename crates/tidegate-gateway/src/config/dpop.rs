//! What a configuration says of access tokens that are bound to a key of the gateway's (RFC 9449), typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{formats::BaseText, secret::SecretSetting};

/// Tokens bound to a key: worth nothing to who has no proof that the key signed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dpop {
    /// The private key, PEM, by the place where it is: EC on P-256 or P-384, or Ed25519. Gateways that share a store share it.
    /// Default: one on P-256 is made when the gateway starts, where tokens do not outlive it.
    #[serde(default)]
    pub key: Option<SecretSetting>,
    /// What upstreams take themselves for, like `https://api.example`: proofs name it and the path of the call. Default: the
    /// endpoint's scheme, and the host that the upstream is told.
    #[serde(default)]
    #[schemars(with = "Option<BaseText>")]
    pub url: Option<String>,
    /// What becomes of tokens that the provider bound to no key. Default: `refuse`.
    #[serde(default)]
    pub unbound: Unbound,
}

/// What becomes of tokens that should be bound to a key, and are not (RFC 9449 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unbound {
    /// They are not used: nothing would stop who steals one.
    #[default]
    Refuse,
    /// They are used as bearer tokens.
    Accept,
}
