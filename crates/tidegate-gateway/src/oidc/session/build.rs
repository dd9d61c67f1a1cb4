//! Sessions made out of their configuration, or taken over from those that run.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use http::HeaderName;
use tidegate::{
    Secret, clock,
    token::{
        InvalidSettings, JournalError, Lead, MemorySessions, Schedule, Seal, Settings, TokenCoordinator,
    },
};
use tokio::sync::Semaphore;
use url::Url;

use super::{
    Kept, KeyRing, Page, Session,
    flow::marked,
    login::Counts,
    ring::{InvalidKey, LiveRing},
};
use crate::{
    config::{self, NoSecret, SecretSetting},
    oidc::{
        binding::{Binding, NoBinding},
        client::{Client, Given, NoProof},
        endpoint::Endpoint,
        id_token::IdTokens,
        jose,
        prove::Prover,
        provider::{Provider, ProviderSettings},
    },
    store::Store,
    table::Change,
    upstream::UpstreamError,
};

/// Most codes that are redeemed at once. Default: 10.
const MOST_LOGINS: usize = 10;
/// Most logins that came back and are not through, those included that are redeemed; others are told to come again, and
/// their codes stay good. Default: 1000.
const MOST_IN_LINE: usize = 1000;

/// Why there are no sessions. No variant prints a secret.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// Its issuer.
    #[error("sessions.{session}.issuer: {url:?} is no URL")]
    Url {
        /// The session.
        session: String,
        /// What was written.
        url: String,
    },
    /// A secret that is not there.
    #[error("sessions.{session}.{key}: {why}")]
    Secret {
        /// The session.
        session: String,
        /// Which of them.
        key: &'static str,
        /// Why not.
        why: NoSecret,
    },
    /// A key that cannot sign assertions.
    #[error("sessions.{session}.key: {why}")]
    Key {
        /// The session.
        session: String,
        /// Why not.
        why: jose::InvalidKey,
    },
    /// A key that tokens can not be bound to.
    #[error("sessions.{session}.dpop.key: {why}")]
    Dpop {
        /// The session.
        session: String,
        /// Why not.
        why: NoBinding,
    },
    /// A key that cannot seal.
    #[error("sessions.{session}.keys: {why}")]
    Ring {
        /// The session.
        session: String,
        /// Why not.
        why: InvalidKey,
    },
    /// There are no keys.
    #[error(
        "sessions.{session}.keys: there are none, and none is made up; make one with: openssl rand -base64 32"
    )]
    NoKeys {
        /// The session.
        session: String,
    },
    /// Nothing proves who the client is.
    #[error(
        "sessions.{session}: nothing proves who the client is; add client_secret, key or tls.cert, or auth: none"
    )]
    NoProof {
        /// The session.
        session: String,
    },
    /// A file of sessions that can not be had.
    #[error("sessions.{session}.file: {}", .why.to_string().trim_start_matches("sessions: "))]
    File {
        /// The session.
        session: String,
        /// Why not.
        why: JournalError,
    },
    /// TLS towards the provider.
    #[error(transparent)]
    Tls(#[from] UpstreamError),
    /// Times that do not go together.
    #[error("sessions.{session}: {why}")]
    Settings {
        /// The session.
        session: String,
        /// Why not.
        why: InvalidSettings,
    },
}

impl Session {
    /// Makes them, or takes over the running ones when nothing of them has changed. Sessions live on over a change: they are
    /// in the store. The claims that are `asked` for are kept from the next login on.
    ///
    /// # Errors
    /// [`NoSession`]: what an operator has to mend.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(
        name: &str,
        config: &config::Session,
        running: Option<&Arc<Self>>,
        asked: BTreeSet<String>,
        store: &Arc<Store>,
        changes: &mut Vec<Change>,
    ) -> Result<Arc<Self>, NoSession> {
        let session = || name.to_owned();
        let read = |key: &'static str, setting: &SecretSetting| {
            let secret = setting.read(Path::new(""));
            secret.map_err(|why| NoSession::Secret { session: session(), key, why })
        };
        let optional = |key, setting: &Option<SecretSetting>| {
            setting.as_ref().map(|setting| read(key, setting)).transpose()
        };
        let secret = optional("client_secret", &config.client_secret)?;
        let key = optional("key", &config.key)?;
        let keys: Vec<Secret> =
            config.keys.iter().map(|setting| read("keys", setting)).collect::<Result<_, _>>()?;
        let unbound = |why| NoSession::Dpop { session: session(), why };
        let bound_to = Binding::key(config.dpop.as_ref()).map_err(unbound)?;
        let secrets: Vec<_> = [secret.clone(), key.clone(), bound_to.clone()]
            .into_iter()
            .chain(keys.iter().cloned().map(Some))
            .collect();
        // Certificates may have changed under the same names.
        let same = |old: &&Arc<Self>| {
            Arc::ptr_eq(&old.store, store)
                && old.config == *config
                && old.asked == asked
                && old.secrets == secrets
                && config.tls.is_none()
        };
        if let Some(old) = running.filter(same) {
            return Ok(Arc::clone(old));
        }
        if keys.is_empty() {
            return Err(NoSession::NoKeys { session: session() });
        }
        let ring = KeyRing::new(&keys).map_err(|why| NoSession::Ring { session: session(), why })?;
        let ring = Arc::new(ring);
        let given = Given {
            auth: config.auth,
            secret: secret.as_ref(),
            key: key.as_ref(),
            key_id: config.key_id.as_deref(),
            algorithm: None,
            has_certificate: config.tls.as_ref().is_some_and(|tls| tls.cert.is_some()),
        };
        let auth = given.auth().map_err(|why| match why {
            NoProof::Key(why) => NoSession::Key { session: session(), why },
            NoProof::Nothing => NoSession::NoProof { session: session() },
        })?;
        let issuer: Url = config
            .issuer
            .parse()
            .map_err(|_| NoSession::Url { session: session(), url: config.issuer.clone() })?;
        let provider = Arc::new(Provider::new(
            name,
            ProviderSettings {
                issuer,
                token_endpoint: None,
                tls: config.tls.clone(),
                allow_http: config.allow_http,
            },
        )?);
        // The schema has checked the names.
        let algorithms = config.algorithms.iter().filter_map(|text| text.parse().ok()).collect();
        let ids = Arc::new(IdTokens::new(Arc::clone(&provider), algorithms));
        let client = Client { id: config.client_id.clone(), auth };
        let binding = config.dpop.as_ref().map(|dpop| {
            let running = running.and_then(|running| running.coordinator.endpoint().binding());
            Binding::new(dpop, bound_to.as_ref(), running).map_err(unbound)
        });
        let binding = binding.transpose()?;
        let same_key = |running: &&Arc<Self>| {
            let running = running.coordinator.endpoint().binding();
            running.zip(binding.as_ref()).is_some_and(|(old, new)| Arc::ptr_eq(&old.dpop, &new.dpop))
        };
        let bound_since = running.filter(same_key).map_or_else(clock::now, |running| running.bound_since);
        let url = config.dpop.as_ref().and_then(|dpop| dpop.url.as_deref());
        let prover = binding.as_ref().map(|binding| {
            Arc::new(Prover::new(Arc::clone(&binding.dpop), Arc::clone(&provider.clock), url))
        });
        let endpoint = Endpoint::new(provider, client, binding, Some(Arc::clone(&ids)));
        let settings = Settings {
            endpoint: config.issuer.as_str().into(),
            schedule: Schedule { lead: Lead::Percent(config.refresh_before.0.into()), ..Schedule::default() },
            reuse_window: *config.reuse_window,
            reuse_grace: config.reuse_grace.map(|grace| *grace),
            grants: config.grants.get() as usize,
            open_for: *config.open_for,
            limit: *config.timeout,
            idle: *config.idle,
            // The store learns that a session is used when it is asked for it, well before that is over.
            recheck: Settings::default().recheck.min(*config.idle / 4),
            seal: Some(Arc::clone(&ring) as Arc<dyn Seal>),
            ..Settings::default()
        };
        let (kept, file_ring) = match config.file.as_ref().filter(|_| !store.is_shared()) {
            None => (store.sessions(), None),
            Some(path) => {
                let kept = in_file(path, &ring, running, changes);
                let (kept, file_ring) = kept.map_err(|why| NoSession::File { session: session(), why })?;
                (kept, Some(file_ring))
            }
        };
        let coordinator = TokenCoordinator::new(endpoint, kept.clone(), settings);
        let coordinator = coordinator.map_err(|why| NoSession::Settings { session: session(), why })?;
        let headers = config.headers.iter().filter_map(|(name, claim)| {
            // The schema has checked the names.
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, claim.clone()))
        });
        let cookie = config.cookie_name().to_owned();
        let pages = [
            (config.callback.clone(), Page::Callback),
            (config.logout.clone(), Page::Logout),
            (config.backchannel_logout().into_owned(), Page::Backchannel),
            (config.frontchannel_logout().into_owned(), Page::Frontchannel),
        ];
        Ok(Arc::new(Self {
            name: name.into(),
            pages,
            flows: format!("{cookie}-login-"),
            cookie,
            marked: marked(config.allow_http),
            ring,
            ids,
            store: Arc::clone(store),
            kept,
            file_ring,
            coordinator,
            prover,
            bound_since,
            headers: headers.collect(),
            asked,
            line: Arc::new(Semaphore::new(MOST_IN_LINE)),
            slots: Semaphore::new(MOST_LOGINS),
            counts: Counts::default(),
            secrets,
            config: config.clone(),
        }))
    }
}

/// The sessions in a file: those that run, where they are in this one, with the keys of now once nothing can fail any more.
fn in_file(
    path: &Path,
    ring: &Arc<KeyRing>,
    running: Option<&Arc<Session>>,
    changes: &mut Vec<Change>,
) -> Result<(Kept, Arc<LiveRing>), JournalError> {
    if let Some(old) = running.filter(|old| old.config.file.as_deref() == Some(path))
        && let (Kept::Memory(sessions), Some(file_ring)) = (&old.kept, &old.file_ring)
    {
        let (changed, sealed, ring) = (Arc::clone(file_ring), sessions.clone(), Arc::clone(ring));
        changes.push(Box::new(move || {
            changed.replace(ring);
            sealed.seal_anew();
        }));
        return Ok((old.kept.clone(), Arc::clone(file_ring)));
    }
    let file_ring = Arc::new(LiveRing::new(Arc::clone(ring)));
    let sessions = MemorySessions::on_disk(path, Arc::clone(&file_ring) as Arc<dyn Seal>)?;
    tracing::info!(file = %path.display(), sessions = sessions.len(), "sessions are kept in a file");
    Ok((Kept::Memory(sessions), file_ring))
}
