//! A token made out of its configuration, or taken over from the one that runs.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tidegate::token::{InvalidSettings, Lead, Schedule, Seal, ServiceTokens, Settings};
use tidegate_core::Backoff;
use url::Url;

use super::{Grants, ServiceToken, Wanted, print::Print};
use crate::{
    config::{self, NoSecret, SecretSetting},
    oidc::{
        binding::{Binding, NoBinding},
        client::{Client, Given, NoProof},
        endpoint::Endpoint,
        jose::InvalidKey,
        prove::Prover,
        provider::{Provider, ProviderSettings},
    },
    store::Store,
    upstream::UpstreamError,
};

/// The pause after a failed grant. Default: 200 ms and up to 1 s more at random, doubling to 30 s.
const FLOOR: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long before its end a token is not used any more: it has a way to go, and clocks differ. Default: 10 s.
const MARGIN: Duration = Duration::from_secs(10);
/// Most callers whose exchanged tokens are kept. Default: 10 000.
const MOST_CALLERS: usize = 10_000;
/// How long a token is kept that no call asks for. Default: 1 h.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Why there is no token setting. No variant prints a secret.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// Its issuer or endpoint.
    #[error("tokens.{token}.{key}: {url:?} is no URL")]
    Url {
        /// The token.
        token: String,
        /// Which of them.
        key: &'static str,
        /// What was written.
        url: String,
    },
    /// A secret that is not there.
    #[error("tokens.{token}.{key}: {why}")]
    Secret {
        /// The token.
        token: String,
        /// Which of them.
        key: &'static str,
        /// Why not.
        why: NoSecret,
    },
    /// A key that cannot sign.
    #[error("tokens.{token}.key: {why}")]
    Key {
        /// The token.
        token: String,
        /// Why not.
        why: InvalidKey,
    },
    /// A key that tokens can not be bound to.
    #[error("tokens.{token}.dpop.key: {why}")]
    Dpop {
        /// The token.
        token: String,
        /// Why not.
        why: NoBinding,
    },
    /// Nothing proves who the client is.
    #[error("tokens.{token}: nothing proves who the client is; add client_secret, key or tls.cert")]
    NoProof {
        /// The token.
        token: String,
    },
    /// Times that do not go together.
    #[error("tokens.{token}: {why}")]
    Settings {
        /// The token.
        token: String,
        /// Why not.
        why: InvalidSettings,
    },
    /// TLS towards the provider.
    #[error(transparent)]
    Tls(#[from] UpstreamError),
}

impl ServiceToken {
    /// Makes one, or takes over the running one with its token in hand when nothing of it has changed. In a store that
    /// gateways share, its tokens are theirs as well.
    ///
    /// # Errors
    /// [`NoToken`]: what an operator has to mend.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(
        name: &str,
        config: &config::Token,
        running: Option<&Arc<Self>>,
        store: &Arc<Store>,
    ) -> Result<Arc<Self>, NoToken> {
        let read = |key: &'static str, setting: &Option<SecretSetting>| match setting {
            None => Ok(None),
            Some(setting) => match setting.read(Path::new("")) {
                Ok(secret) => Ok(Some(secret)),
                Err(why) => Err(NoToken::Secret { token: name.to_owned(), key, why }),
            },
        };
        let unbound = |why| NoToken::Dpop { token: name.to_owned(), why };
        let bound_to = Binding::key(config.dpop.as_ref()).map_err(unbound)?;
        let secrets = [read("client_secret", &config.client_secret)?, read("key", &config.key)?, bound_to];
        // Certificates may have changed under the same names.
        let same = |old: &&Arc<Self>| {
            Arc::ptr_eq(&old.store, store)
                && old.config == *config
                && old.secrets == secrets
                && config.tls.is_none()
        };
        if let Some(old) = running.filter(same) {
            return Ok(Arc::clone(old));
        }
        let given = Given {
            auth: config.auth,
            secret: secrets[0].as_ref(),
            key: secrets[1].as_ref(),
            key_id: config.key_id.as_deref(),
            algorithm: config.algorithm.as_deref(),
            has_certificate: config.tls.as_ref().is_some_and(|tls| tls.cert.is_some()),
        };
        let auth = given.auth().map_err(|why| match why {
            NoProof::Key(why) => NoToken::Key { token: name.to_owned(), why },
            NoProof::Nothing => NoToken::NoProof { token: name.to_owned() },
        })?;
        let client = Client { id: config.client_id.clone(), auth };
        let url = |key: &'static str, text: &str| {
            text.parse::<Url>().map_err(|_| NoToken::Url {
                token: name.to_owned(),
                key,
                url: text.to_owned(),
            })
        };
        let provider = Provider::new(
            name,
            ProviderSettings {
                issuer: url("issuer", &config.issuer)?,
                token_endpoint: config.endpoint.as_deref().map(|text| url("endpoint", text)).transpose()?,
                tls: config.tls.clone(),
                allow_http: config.allow_http,
            },
        )?;
        let binding = config.dpop.as_ref().map(|dpop| {
            let running = running.and_then(|running| running.tokens.endpoint().binding());
            Binding::new(dpop, secrets[2].as_ref(), running).map_err(unbound)
        });
        let binding = binding.transpose()?;
        let url = config.dpop.as_ref().and_then(|dpop| dpop.url.as_deref());
        let prover = binding.as_ref().map(|binding| {
            Arc::new(Prover::new(Arc::clone(&binding.dpop), Arc::clone(&provider.clock), url))
        });
        let print = Print::of(config, &secrets, binding.as_ref());
        let endpoint = Endpoint::new(Arc::new(provider), client, binding, None);
        // Sealed where others could read them: without anything to seal with, they stay here.
        let shared = (store.is_shared() && print.ring.is_some()).then(|| store.sessions());
        let interval = *config.rejected_interval;
        let settings = Settings {
            endpoint: config.issuer.as_str().into(),
            schedule: Schedule {
                lead: Lead::Percent(config.refresh_before.0.into()),
                skew: MARGIN,
                unknown: *config.default_life,
                ..Schedule::default()
            },
            limit: *config.timeout,
            give_up: *config.timeout,
            open_for: *config.open_for,
            rejected_apart: interval.max(Duration::from_millis(10)),
            idle: IDLE,
            backoff: Backoff { floor: FLOOR, base: PAUSE, cap: LONGEST_PAUSE },
            sessions: MOST_CALLERS,
            seal: print.ring.map(|ring| Arc::new(ring) as Arc<dyn Seal>),
            ..Settings::default()
        };
        let tokens = ServiceTokens::shared(Grants::new(name, endpoint), settings, shared);
        let tokens = tokens.map_err(|why| NoToken::Settings { token: name.to_owned(), why })?;
        Ok(Arc::new(Self {
            name: name.into(),
            config: config.clone(),
            secrets,
            tokens,
            wanted: Wanted::new(config, print.text),
            prover,
            store: Arc::clone(store),
            dropped: AtomicU64::default(),
            refused: AtomicU64::default(),
        }))
    }
}
