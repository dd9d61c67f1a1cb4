//! The token endpoint of a provider: one question a grant, and what its answer means.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tidegate::{
    Secret,
    token::{Exchange, Grant, GrantError, Identity, TokenEndpoint, Tokens, VerifyError},
};
use url::Url;

use super::{
    binding::Binding,
    client::{Auth, Client, Proof},
    date::wall,
    dpop::{Asked, DPOP, Nonce, bare},
    http::{Answer, NoAnswer, Question, Reached},
    id_token::{Expected, IdTokens},
    jose::Parts,
    provider::{Metadata, Provider},
};
use crate::config::Unbound;

/// A client of a provider's token endpoint.
#[derive(Debug)]
pub struct Endpoint {
    provider: Arc<Provider>,
    client: Client,
    binding: Option<Binding>,
    ids: Option<Arc<IdTokens>>,
}

impl Endpoint {
    /// Makes one. With `binding`, tokens are bound to its key; with `ids`, ID tokens are verified.
    pub fn new(
        provider: Arc<Provider>,
        client: Client,
        binding: Option<Binding>,
        ids: Option<Arc<IdTokens>>,
    ) -> Self {
        Self { provider, client, binding, ids }
    }

    /// What its tokens are bound to, if anything.
    pub fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// The provider it is of.
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// What verifies its ID tokens, if anything does.
    pub fn ids(&self) -> Option<&Arc<IdTokens>> {
        self.ids.as_ref()
    }

    /// Who the gateway is to it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Posts a grant's fields; proves who asks, and possession where tokens are bound. A proof that lacked the server's
    /// nonce was not acted on, and goes once more with it (RFC 9449 §8).
    ///
    /// # Errors
    /// [`GrantError`] with its class.
    ///
    /// # Cancel safety
    /// Dropping the future gives the question up; the provider may have acted on it.
    pub async fn exchange(
        &self,
        fields: &[(&'static str, &str)],
        within: Duration,
    ) -> Result<Tokens, GrantError> {
        let begun = Instant::now();
        let metadata = self.provider.metadata_within(within).await;
        let metadata = metadata.map_err(|why| GrantError::NotSent { why })?;
        let url = self.url(&metadata);
        let Some(Binding { dpop, unbound, .. }) = &self.binding else {
            let answer =
                self.ask(url, &metadata, fields, None, within.saturating_sub(begun.elapsed())).await?;
            return read(&answer, self.provider.clock.seconds(), Binds::No);
        };
        metadata.takes_proofs(dpop.algorithm()).map_err(|code| GrantError::Misconfigured { code })?;
        let (htu, server) = bare(url);
        let asked = Asked { method: &Method::POST, url: &htu, server: &server, access: None };
        let binds = if *unbound == Unbound::Accept { Binds::May } else { Binds::Must };
        let mut again = true;
        loop {
            let proof = dpop.proof(asked, self.provider.clock.seconds());
            let left = within.saturating_sub(begun.elapsed());
            let answer = self.ask(url, &metadata, fields, Some(proof.field), left).await?;
            let nonce = dpop.learn(&server, proof.nonce.as_deref(), &answer.headers);
            let read = read(&answer, self.provider.clock.seconds(), binds);
            match read {
                Err(GrantError::Misconfigured { code })
                    if &*code == "use_dpop_nonce" && again && nonce == Nonce::New =>
                {
                    again = false;
                }
                read => return read,
            }
        }
    }

    async fn ask(
        &self,
        url: &Url,
        metadata: &Metadata,
        fields: &[(&'static str, &str)],
        possession: Option<HeaderValue>,
        within: Duration,
    ) -> Result<Answer, GrantError> {
        let now = self.provider.clock.seconds();
        let Proof { fields: proof, mut headers } = self.client.prove(metadata, now);
        headers.extend(possession.map(|possession| (DPOP, possession)));
        let proof = proof.iter().map(|(name, value)| (*name, value.as_str()));
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain(proof).collect();
        let question = Question::form(url.clone(), &fields, headers);
        let answer = self.provider.http.ask(question, within).await;
        let answer = answer.map_err(|NoAnswer { reached, why }| match reached {
            Reached::No => GrantError::NotSent { why: why.into() },
            Reached::Maybe => GrantError::Unknown { why: why.into() },
        })?;
        self.provider.clock.learn(self.provider.issuer(), &answer.headers);
        Ok(answer)
    }

    fn url<'a>(&self, metadata: &'a Metadata) -> &'a Url {
        self.alias(&metadata.mtls_endpoint_aliases.token_endpoint).unwrap_or(&metadata.token_endpoint)
    }

    /// The endpoint beside another one, if it is for clients that prove themselves as this one does (RFC 8705 §5).
    fn alias<'a>(&self, alias: &'a Option<Url>) -> Option<&'a Url> {
        alias.as_ref().filter(|_| matches!(self.client.auth, Auth::Certificate))
    }
}

impl TokenEndpoint for Endpoint {
    async fn grant(&self, grant: Grant, within: Duration) -> Result<Tokens, GrantError> {
        self.exchange(&fields(&grant), within).await
    }

    fn verifies(&self) -> bool {
        self.ids.is_some()
    }

    async fn verify(
        &self,
        tokens: &Tokens,
        pinned: Option<&Identity>,
    ) -> Result<Option<Identity>, VerifyError> {
        let (Some(ids), Some(id)) = (&self.ids, &tokens.id) else { return Ok(pinned.cloned()) };
        let expected =
            Expected { client_id: &self.client.id, nonce: None, access: Some(&tokens.access), pinned };
        ids.verify(id, &expected).await.map(|claims| Some(claims.identity))
    }

    async fn revoke(&self, tokens: Tokens) {
        let Ok(metadata) = self.provider.metadata_within(REVOCATION_TIMEOUT).await else { return };
        let alias = self.alias(&metadata.mtls_endpoint_aliases.revocation_endpoint);
        let Some(url) = alias.or(metadata.revocation_endpoint.as_ref()) else { return };
        // With the refresh token goes all that was granted with it (RFC 7009 §2.1).
        let (token, hint) = match &tokens.refresh {
            Some(refresh) => (refresh, "refresh_token"),
            None => (&tokens.access, "access_token"),
        };
        let fields = [("token", token.expose()), ("token_type_hint", hint)];
        let answer = self.ask(url, &metadata, &fields, None, REVOCATION_TIMEOUT).await;
        if answer.is_ok_and(|answer| !answer.status.is_success()) {
            tracing::debug!(provider = self.provider.issuer(), "tokens that nobody uses were not taken back");
        }
    }
}

/// Longest wait for a revocation. Default: 5 s.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(5);

/// What a grant is in a form.
fn fields(grant: &Grant) -> Vec<(&'static str, &str)> {
    let all: Vec<(&'static str, Option<&str>)> = match grant {
        Grant::Refresh { refresh, scope } => vec![
            ("grant_type", Some("refresh_token")),
            ("refresh_token", Some(refresh.expose())),
            ("scope", scope.as_deref()),
        ],
        Grant::ClientCredentials { scope, audience, resource } => vec![
            ("grant_type", Some("client_credentials")),
            ("scope", scope.as_deref()),
            ("audience", audience.as_deref()),
            ("resource", resource.as_deref()),
        ],
        Grant::Exchange(exchange) => {
            let Exchange { subject, subject_kind, actor, actor_kind, wanted_kind, scope, audience, resource } =
                &**exchange;
            vec![
                ("grant_type", Some("urn:ietf:params:oauth:grant-type:token-exchange")),
                ("subject_token", Some(subject.expose())),
                ("subject_token_type", Some(subject_kind)),
                ("actor_token", actor.as_ref().map(Secret::expose)),
                ("actor_token_type", actor_kind.as_deref()),
                ("requested_token_type", wanted_kind.as_deref()),
                ("scope", scope.as_deref()),
                ("audience", audience.as_deref()),
                ("resource", resource.as_deref()),
            ]
        }
        // The enum may grow; what is not known here is asked for by no name, which a provider refuses.
        _ => Vec::new(),
    };
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[derive(Deserialize)]
struct RawTokens {
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<Seconds>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default, alias = "refresh_token_expires_in")]
    refresh_expires_in: Option<Seconds>,
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    scope: Option<String>,
}

/// Some providers write numbers as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn duration(self) -> Option<Duration> {
        const MOST: f64 = 10.0 * 366.0 * 86_400.0;
        let seconds = match self {
            Self::Number(seconds) => seconds,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(MOST)))
    }
}

#[derive(Deserialize)]
struct RawError {
    error: String,
}

/// What to do about tokens that are bound to a key.
const BOUND: &str = "the provider binds tokens to a key by DPoP, which is not asked for; add dpop: {}, or have it grant Bearer tokens \
                     to this client";
/// What to do about tokens that are not.
const UNBOUND: &str = "its token is bound to no key, though possession of one was proved; have it bind this client's tokens by DPoP, \
                       or add dpop: { unbound: accept }";

/// Whether tokens are bound to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binds {
    /// They must not be: no upstream would take one without a proof.
    No,
    /// They must be.
    Must,
    /// They should be.
    May,
}

/// What an answer of a token endpoint means.
fn read(answer: &Answer, now: i64, binds: Binds) -> Result<Tokens, GrantError> {
    let status = answer.status;
    if status == StatusCode::OK {
        return granted(answer, now, binds);
    }
    let told: Option<RawError> = serde_json::from_slice(&answer.body).ok();
    let code = told.map(|told| told.error).filter(|code| is_code(code));
    let said = || -> Arc<str> {
        let status = status.as_u16();
        match &code {
            Some(code) => format!("HTTP {status}, {code}").into(),
            None => format!("HTTP {status}").into(),
        }
    };
    let transient = || GrantError::Transient { retry_after: answer.retry_after(wall()), why: said() };
    if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
        return Err(transient());
    }
    Err(match code.as_deref() {
        Some(
            code @ ("invalid_grant"
            | "interaction_required"
            | "login_required"
            | "consent_required"
            | "account_selection_required"),
        ) => GrantError::Terminal { code: code.into() },
        Some("invalid_scope") => GrantError::Scope,
        Some("temporarily_unavailable" | "server_error" | "slow_down") => transient(),
        Some(code @ ("use_dpop_nonce" | "invalid_dpop_proof")) if binds == Binds::No => {
            GrantError::Misconfigured { code: format!("{code}; {BOUND}").into() }
        }
        Some(code) => GrantError::Misconfigured { code: code.into() },
        // Redirects are not followed: they would carry secrets to who knows where.
        None => GrantError::Misconfigured { code: said() },
    })
}

fn granted(answer: &Answer, now: i64, binds: Binds) -> Result<Tokens, GrantError> {
    let protocol = |why: &str, refresh| GrantError::Protocol { why: why.into(), refresh };
    if !answer.is_json() {
        return Err(protocol("it does not say that it is JSON", None));
    }
    let raw: RawTokens = serde_json::from_slice(&answer.body)
        .map_err(|_| protocol("it is no JSON object with the members of an answer", None))?;
    let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::new);
    let refresh = secret(raw.refresh_token);
    let Some(access) = secret(raw.access_token) else {
        return Err(protocol("it has no access_token", refresh));
    };
    if !access.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(protocol("its access_token has characters that no header field may have", refresh));
    }
    let kind = raw.token_type.unwrap_or_default();
    // Case does not count in it (RFC 6749 §5.1).
    let kind = match kind.to_ascii_lowercase().as_str() {
        "dpop" if binds == Binds::No => return Err(protocol(BOUND, refresh)),
        "dpop" => "DPoP",
        "bearer" | "" if binds == Binds::Must => return Err(protocol(UNBOUND, refresh)),
        "bearer" | "" => "Bearer",
        _ => return Err(protocol("its token_type is neither Bearer nor DPoP", refresh)),
    };
    let expires_in = raw.expires_in.and_then(Seconds::duration).or_else(|| life_of(access.expose(), now));
    Ok(Tokens {
        kind: kind.into(),
        expires_in,
        refresh,
        refresh_expires_in: raw.refresh_expires_in.and_then(Seconds::duration).filter(|life| !life.is_zero()),
        id: secret(raw.id_token),
        scope: raw.scope.map(Into::into),
        access,
    })
}

/// How long a token is good by its own word, if it is a JWT.
fn life_of(token: &str, now: i64) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Expiry {
        exp: i64,
    }
    let claims: Expiry = Parts::of(token).ok()?.claims().ok()?;
    u64::try_from(claims.exp.saturating_sub(now)).ok().map(Duration::from_secs)
}

/// Whether a text can be an error code: nothing that is logged by its name may be anything else.
fn is_code(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}
