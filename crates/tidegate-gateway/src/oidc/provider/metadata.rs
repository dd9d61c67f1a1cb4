//! What a provider says of itself.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

use super::is_allowed;
use crate::oidc::jose::Algorithm;

/// What a provider says of itself (OpenID Connect Discovery 1.0 §3, RFC 8414 §2): what is needed of it here.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// Who it is. It was compared with the configuration.
    pub issuer: String,
    /// Where tokens are granted.
    #[serde(deserialize_with = "url")]
    pub token_endpoint: Url,
    /// Where users log in.
    #[serde(default, deserialize_with = "maybe_url")]
    pub authorization_endpoint: Option<Url>,
    /// Where its keys are.
    #[serde(default, deserialize_with = "maybe_url")]
    pub jwks_uri: Option<Url>,
    /// Where tokens are given back (RFC 7009).
    #[serde(default, deserialize_with = "maybe_url")]
    pub revocation_endpoint: Option<Url>,
    /// Where users log out.
    #[serde(default, deserialize_with = "maybe_url")]
    pub end_session_endpoint: Option<Url>,
    /// How clients may authenticate; none: `client_secret_basic`.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// How it signs ID tokens.
    #[serde(default)]
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// How proofs of possession may be signed (RFC 9449 §5.1); none: it does not say.
    #[serde(default)]
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// Whether its callbacks name it (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    /// Endpoints for clients with certificates (RFC 8705 §5).
    #[serde(default)]
    pub mtls_endpoint_aliases: Aliases,
}

/// Endpoints for clients with certificates.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Aliases {
    /// Where they are granted tokens.
    #[serde(default, deserialize_with = "maybe_url")]
    pub token_endpoint: Option<Url>,
    /// Where they give tokens back.
    #[serde(default, deserialize_with = "maybe_url")]
    pub revocation_endpoint: Option<Url>,
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

fn maybe_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(from)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

impl Metadata {
    pub(super) fn fixed(issuer: &str, token_endpoint: Url) -> Self {
        Self {
            issuer: issuer.to_owned(),
            token_endpoint,
            authorization_endpoint: None,
            jwks_uri: None,
            revocation_endpoint: None,
            end_session_endpoint: None,
            token_endpoint_auth_methods_supported: None,
            id_token_signing_alg_values_supported: Vec::new(),
            dpop_signing_alg_values_supported: None,
            authorization_response_iss_parameter_supported: false,
            mtls_endpoint_aliases: Aliases::default(),
        }
    }

    /// Whether it takes proofs of possession that are signed so, as far as it says.
    pub(in crate::oidc) fn takes_proofs(&self, by: Algorithm) -> Result<(), Arc<str>> {
        match &self.dpop_signing_alg_values_supported {
            Some(known) if !known.iter().any(|name| name.parse() == Ok(by)) => {
                let known: Vec<_> = known.iter().take(10).map(|name| shown(name)).collect();
                let known = known.join(", ");
                Err(format!(
                    "that it takes proofs of possession by {known}, and the key of dpop signs by {by}"
                )
                .into())
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn check(&self, expected: &str, allow_http: bool) -> Result<(), String> {
        if self.issuer.strip_suffix('/').unwrap_or(&self.issuer)
            != expected.strip_suffix('/').unwrap_or(expected)
        {
            return Err(format!(
                "the discovery document is of the issuer {:?}, not {expected:?}; write that one, or look who answers",
                shown(&self.issuer)
            ));
        }
        let aliases = &self.mtls_endpoint_aliases;
        let endpoints = [
            ("token_endpoint", Some(&self.token_endpoint)),
            ("authorization_endpoint", self.authorization_endpoint.as_ref()),
            ("jwks_uri", self.jwks_uri.as_ref()),
            ("revocation_endpoint", self.revocation_endpoint.as_ref()),
            ("end_session_endpoint", self.end_session_endpoint.as_ref()),
            ("mtls_endpoint_aliases.token_endpoint", aliases.token_endpoint.as_ref()),
            ("mtls_endpoint_aliases.revocation_endpoint", aliases.revocation_endpoint.as_ref()),
        ];
        match endpoints.iter().find(|(_, url)| url.is_some_and(|url| !is_allowed(url, allow_http))) {
            Some((name, _)) => Err(format!("the discovery document's {name} is no https URL")),
            None => Ok(()),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}
