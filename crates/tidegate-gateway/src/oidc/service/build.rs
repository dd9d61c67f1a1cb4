//! A token made out of its configuration, or taken over from the one that runs.

use std::{
    num::NonZeroU32,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use tidegate::keeper::{Keeper, Settings};
use tidegate_core::{Backoff, attempts};
use url::Url;

use super::{Grants, ServiceToken};
use crate::{
    config::{self, NoSecret, SecretSetting},
    oidc::{
        client::{Client, Given, NoProof},
        endpoint::Endpoint,
        jose::InvalidKey,
        provider::{Provider, ProviderSettings},
    },
    upstream::UpstreamError,
};

/// The pause after a failed grant. Default: 200 ms and up to 1 s more at random, doubling to 30 s.
const FLOOR: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Most grants of one token setting within a minute: what keeps the provider from being asked in a loop. Default: 20 for a
/// client's own token, 600 where callers' tokens are exchanged.
const OWN_GRANTS: u32 = 20;
const EXCHANGES: u32 = 600;
/// Most callers whose exchanged tokens are kept. Default: 10 000.
const MOST_CALLERS: usize = 10_000;

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
    /// Nothing proves who the client is.
    #[error("tokens.{token}: nothing proves who the client is; add client_secret, key or tls.cert")]
    NoProof {
        /// The token.
        token: String,
    },
    /// TLS towards the provider.
    #[error(transparent)]
    Tls(#[from] UpstreamError),
}

impl ServiceToken {
    /// Makes one, or takes over the running one with its token in hand when nothing of it has changed.
    ///
    /// # Errors
    /// [`NoToken`]: what an operator has to mend.
    pub fn build(
        name: &str,
        config: &config::Token,
        running: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, NoToken> {
        let read = |key: &'static str, setting: &Option<SecretSetting>| match setting {
            None => Ok(None),
            Some(setting) => match setting.read(Path::new("")) {
                Ok(secret) => Ok(Some(secret)),
                Err(why) => Err(NoToken::Secret { token: name.to_owned(), key, why }),
            },
        };
        let secrets = [read("client_secret", &config.client_secret)?, read("key", &config.key)?];
        // Certificates may have changed under the same names.
        let same = |old: &&Arc<Self>| old.config == *config && old.secrets == secrets && config.tls.is_none();
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
        let endpoint = Endpoint::new(Arc::new(provider), client, None, None);
        let grants = Grants::new(name, endpoint, config.clone());
        let own = grants.own_key().is_some();
        let settings = Settings {
            // The endpoint keeps time itself, and says whether it was asked; this is for when it does not.
            timeout: *config.timeout + Duration::from_secs(5),
            backoff: Backoff { floor: FLOOR, base: PAUSE, cap: LONGEST_PAUSE },
            attempts: attempts::Settings {
                attempts: NonZeroU32::new(if own { OWN_GRANTS } else { EXCHANGES }).expect("it is not 0"),
                within: Duration::from_secs(60),
                ..attempts::Settings::default()
            },
            keys: if own { 1 } else { MOST_CALLERS },
            ..Settings::default()
        };
        Ok(Arc::new(Self {
            name: name.into(),
            config: config.clone(),
            secrets,
            keeper: Keeper::new(grants, settings).expect("these settings are in range"),
            dropped_at: Mutex::default(),
            dropped: AtomicU64::default(),
            refused: AtomicU64::default(),
        }))
    }
}
