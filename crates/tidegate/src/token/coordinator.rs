//! The coordinator: which access token is good now, for everybody who asks.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_core::{Call, Instant, keep::Landed, token::Over};
use tokio::{
    sync::{Notify, Semaphore, broadcast::error::RecvError},
    task::AbortHandle,
    time::{timeout, timeout_at},
};

use super::{
    Identity, SessionId, SessionStore, SessionStoreError, TokenEndpoint, Tokens,
    answer::{AccessToken, Known, Origin, TokenError, Trouble},
    health::Health,
    opening::Open,
    orphans::Orphans,
    record::{Granted, Record},
    refresher::{Assessed, Fetcher, Refresher},
    rejection::Rejected,
    settings::{InvalidSettings, Settings},
    stats::{Counters, Stats},
    store::Change,
};
use crate::{
    Secret,
    keeper::{self, Answer, Keeper, Kept, Refusal, Why},
    sync::{Mutex, now},
};

/// How often a session is looked up that is forgotten meanwhile.
const LOOKS: usize = 3;

/// A session that begins.
#[derive(Clone, Debug)]
pub struct Login {
    /// What the endpoint granted, verified.
    pub tokens: Tokens,
    /// Who it is for; refreshes must bring the same.
    pub identity: Option<Identity>,
    /// What else is to be kept with the session, like claims: a text of yours.
    pub attributes: Box<str>,
    /// How long the session may last at most, whatever is refreshed.
    pub longest: Duration,
}

impl Login {
    /// A session of at most 30 days that nothing but tokens is known of.
    pub fn of(tokens: Tokens) -> Self {
        let longest = Duration::from_secs(30 * 24 * 60 * 60);
        Self { tokens, identity: None, attributes: Box::default(), longest }
    }
}

/// What is left of a session that ended, for its end at the issuer.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The refresh token, to be revoked.
    pub refresh: Option<Secret>,
    /// The access token, to be revoked.
    pub access: Secret,
    /// The last ID token, as a hint.
    pub id: Option<Secret>,
    /// What was kept with the session.
    pub attributes: Box<str>,
}

/// Access tokens of sessions, refreshed once per expiry, whoever and however many ask. Clones share one coordinator.
///
/// A good token is answered without a lock and without an allocation.
pub struct TokenCoordinator<E: TokenEndpoint, S: SessionStore> {
    refresher: Arc<Refresher<E, S>>,
    keeper: Keeper<Fetcher<E, S>>,
    _listening: Arc<Listening>,
}

/// Ends the task that listens with the last clone.
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<E: TokenEndpoint, S: SessionStore> Clone for TokenCoordinator<E, S> {
    fn clone(&self) -> Self {
        Self {
            refresher: Arc::clone(&self.refresher),
            keeper: self.keeper.clone(),
            _listening: Arc::clone(&self._listening),
        }
    }
}

impl<E: TokenEndpoint, S: SessionStore> TokenCoordinator<E, S> {
    /// Makes a coordinator, and listens to what others change in the store.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one that is out of range.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(endpoint: E, store: S, settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let keeping = settings.keeper();
        let refresher = Arc::new(Refresher {
            endpoint,
            store,
            health: Health::new(settings.open_for),
            counters: Counters::default(),
            slots: Arc::new(Semaphore::new(settings.grants)),
            settings,
            runs: Mutex::new(HashMap::new()),
            arrivals: Mutex::new(HashMap::new()),
            keeper: OnceLock::new(),
            openings: Arc::default(),
            rejected: Mutex::new(HashMap::new()),
            closed: AtomicBool::new(false),
            ended: Notify::new(),
            salt: fastrand::u64(..),
        });
        let keeper = Keeper::new(Fetcher(Arc::clone(&refresher)), keeping)
            .expect("what a keeper is told here is in range, as the settings are");
        let _ = refresher.keeper.set(keeper.downgrade());
        let changes = refresher.store.changes();
        let listening = tokio::spawn(listen(Arc::downgrade(&refresher), changes, refresher.settings.lease));
        let listening = Arc::new(Listening(listening.abort_handle()));
        Ok(Self { refresher, keeper, _listening: listening })
    }

    /// The access token of a session, good when it is answered. Waits at most to the call's deadline, and only when no
    /// good one is known.
    ///
    /// # Errors
    /// [`TokenError::LoginNeeded`] when the session is over, and only then; anything else passes.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a grant goes on, and its tokens are stored.
    pub async fn fresh(&self, id: &SessionId, call: &Call) -> Result<AccessToken, TokenError> {
        if let Some(answer) = self.at_hand(id, call) {
            return answer;
        }
        for _ in 0..LOOKS {
            match self.keeper.get(call, id).await {
                // It was forgotten here while it was looked up: it stands in the store as it did.
                Answer::Refused(Refusal::Cleared) => {}
                answer => return self.told(answer),
            }
        }
        Err(refused(Refusal::Cleared))
    }

    /// The same without waiting; `None` when only waiting would tell.
    pub fn try_fresh(&self, id: &SessionId, call: &Call) -> Option<Result<AccessToken, TokenError>> {
        match self.at_hand(id, call) {
            None => self.keeper.try_get(call, id).map(|answer| self.told(answer)),
            answer => answer,
        }
    }

    /// What is known and not due; begins nothing.
    #[inline]
    pub(super) fn at_hand(&self, id: &SessionId, call: &Call) -> Option<Result<AccessToken, TokenError>> {
        self.keeper.try_fresh(call, id).map(good)
    }

    #[inline]
    fn told(&self, answer: Answer<SessionId, Known, Trouble>) -> Result<AccessToken, TokenError> {
        match answer {
            Answer::Fresh(kept) | Answer::Stale { value: kept, .. } => good(kept),
            Answer::Nothing { .. } => Err(TokenError::LoginNeeded(Over::Gone)),
            Answer::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// Begins a session. `false`: there is one of this id, and nothing was changed.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked: there is no session then, as far as is known.
    pub async fn begin(&self, id: &SessionId, login: Login) -> Result<bool, SessionStoreError> {
        let of = &self.refresher;
        let now = now();
        let record = Record {
            generation: 1,
            access: Granted::new(&login.tokens, now),
            pending: None,
            refresh_until: login.tokens.refresh_expires_in.map_or(Instant::NEVER, |life| now + life),
            refresh: login.tokens.refresh,
            identity: login.identity,
            attributes: login.attributes,
            unknown_since: None,
            over: None,
            ends_at: now + login.longest,
            tries: tidegate_core::token::Tries::default(),
            rejected_at: None,
        };
        let bytes = record.write(id, 1, of.settings.seal.as_deref(), now);
        let keep = of.settings.idle.min(login.longest).max(Duration::from_millis(1));
        if !of.counters.store(of.store.create(id, bytes, keep).await)? {
            return Ok(false);
        }
        self.keeper.clear(id);
        match of.assess(id, &record, 1, Origin::Granted, now) {
            Assessed::Tell(found) => of.tell(id, found),
            // It is looked at when it is asked for.
            Assessed::Refresh(_) | Assessed::Verify(_) | Assessed::Barred(_) => {}
        }
        Ok(true)
    }

    /// Ends a session: here at once, everywhere when the store has removed it. A refresh under way cannot bring it back;
    /// what that brings is revoked.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked: the session may live on elsewhere.
    pub async fn end(&self, id: &SessionId) -> Result<Option<Ended>, SessionStoreError> {
        let of = &self.refresher;
        of.tell(id, of.gone());
        let asked_at = now();
        let stored = of.counters.store(of.store.read(id, None).await)?;
        let removed = of.counters.store(of.store.remove(id).await)?;
        of.tell(id, of.gone());
        let record = stored.filter(|_| removed).and_then(|stored| of.record(id, &stored, asked_at).ok());
        Ok(record.map(|record| Ended {
            refresh: record.refresh,
            access: record.access.token,
            id: record.access.id,
            attributes: record.attributes,
        }))
    }

    /// Forgets what is known of a session here, so that the store is asked next. What it stands for stays.
    pub fn forget(&self, id: &SessionId) {
        self.keeper.clear(id);
    }

    /// An upstream says that the access token of a [generation](AccessToken::generation) is worth nothing, like 401 with `invalid_token` (RFC 6750 §3.1). It is not
    /// served any more, and the next call gets another one: unless that took its place already, or one was dropped within
    /// [`Settings::rejected_apart`], by any process.
    pub fn rejected(&self, id: &SessionId, generation: u64, now: Instant) -> Rejected {
        self.refresher.reject(id, generation, now)
    }

    /// What is known of a session here, however old its token; begins nothing.
    pub fn peek(&self, id: &SessionId) -> Option<AccessToken> {
        AccessToken::new(self.keeper.peek(id)?).ok()
    }

    /// Whether anything is known of a session here.
    pub(super) fn knows(&self, id: &SessionId) -> bool {
        self.keeper.peek(id).is_some()
    }

    /// Has a session begin without a login, if it is not there, for as long as what is returned is held.
    pub(super) fn open(&self, id: &SessionId, presented: impl FnOnce() -> Secret) -> Open {
        self.refresher.openings.open(id, presented)
    }

    /// Begins no more grants.
    pub(super) fn close(&self) {
        self.refresher.closed.store(true, Relaxed);
        self.refresher.slots.close();
    }

    /// Counts since the beginning.
    pub fn stats(&self) -> Stats {
        let of = &self.refresher;
        let running = of.runs.lock().len();
        let counters = &of.counters;
        let queued = running.saturating_sub(counters.in_flight.load(Relaxed));
        counters.stats(queued, of.health.reach(), of.health.paused_until(), self.keeper.stats())
    }

    /// The endpoint that grants.
    pub fn endpoint(&self) -> &E {
        &self.refresher.endpoint
    }

    /// Begins no more grants, and waits at most for `within` until those under way are stored; the number of those that
    /// are not. Tokens that are good are still answered. Twice is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future stops only the waiting.
    pub async fn shutdown(&self, within: Duration) -> usize {
        let of = &self.refresher;
        self.close();
        let drained = async {
            loop {
                let ended = of.ended.notified();
                let mut ended = std::pin::pin!(ended);
                ended.as_mut().enable();
                if of.runs.lock().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let _ = timeout(within, drained).await;
        of.runs.lock().len()
    }
}

#[inline]
fn good(kept: Kept<SessionId, Known>) -> Result<AccessToken, TokenError> {
    AccessToken::new(kept).map_err(TokenError::LoginNeeded)
}

#[cold]
fn refused(refusal: Refusal<Trouble>) -> TokenError {
    match refusal {
        Refusal::Failing { why, retry_after } => {
            let why = match why {
                Why::Failed(trouble) => trouble,
                Why::TimedOut(limit) => Trouble::Overdue(limit),
                Why::Panicked(message) => Trouble::Lost(message),
                Why::Lost => Trouble::Lost("its runtime was shut down".into()),
            };
            // The trouble knows better than the pause between two looks.
            let retry_after = why.retry_after(now()).map_or(retry_after, |known| known.max(retry_after));
            TokenError::Unavailable { why, retry_after }
        }
        Refusal::Throttled { retry_after } => {
            TokenError::Unavailable { why: Trouble::Resting { until: now() + retry_after }, retry_after }
        }
        Refusal::Deadline => TokenError::Deadline,
        Refusal::Full => TokenError::Full,
        Refusal::Cleared => {
            let why = Trouble::Lost("it was forgotten again and again".into());
            TokenError::Unavailable { why, retry_after: Duration::ZERO }
        }
    }
}

/// Passes on what others changed, and takes over what they left, for as long as the coordinator lives.
async fn listen<E: TokenEndpoint, S: SessionStore>(
    refresher: Weak<Refresher<E, S>>,
    mut changes: tokio::sync::broadcast::Receiver<Change>,
    lease: Duration,
) {
    let mut orphans = Orphans::new(lease);
    loop {
        let change = match orphans.next() {
            Some(by) => timeout_at(crate::clock::timer_at(by), changes.recv()).await.ok(),
            None => Some(changes.recv().await),
        };
        let Some(refresher) = refresher.upgrade() else { return };
        match change {
            Some(Ok(change)) => refresher.learn_of(change, &mut orphans),
            // What was missed is found when sessions are looked at again.
            Some(Err(RecvError::Lagged(_))) | None => {}
            Some(Err(RecvError::Closed)) => return,
        }
        while let Some(id) = orphans.due(now()) {
            // It goes on by itself; that none begins after the shutdown is fine.
            let _ = refresher.run(&id);
        }
    }
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    fn learn_of(&self, change: Change, orphans: &mut Orphans) {
        let keeper = self.keeper.get().and_then(keeper::WeakKeeper::upgrade);
        match change {
            Change::Written { id, version } => {
                orphans.heard(&id);
                if let Some(waiting) = self.arrivals.lock().get(&id) {
                    waiting.notify_one();
                }
                let Some(keeper) = keeper else { return };
                let is_older = match keeper.peek(&id).as_deref() {
                    Some(Known::Good(good)) => good.version < version,
                    Some(Known::Over(_)) | None => false,
                };
                if is_older {
                    keeper.refresh(&id, now());
                }
            }
            Change::Removed(id) => {
                orphans.heard(&id);
                if let Some(waiting) = self.arrivals.lock().get(&id) {
                    waiting.notify_one();
                }
                if let Some(keeper) = keeper
                    && keeper.peek(&id).is_some()
                {
                    let _: Landed = keeper.put(&id, self.gone().fetched(now()));
                }
            }
            // Later it may not be repeated; where it always may be, the next caller is soon enough.
            Change::Sent(id) => {
                if self.settings.repeats_in_time() && !self.runs.lock().contains_key(&id) {
                    orphans.sent(id, now());
                }
            }
            Change::Pause { endpoint, pause } => {
                if endpoint == self.settings.endpoint {
                    self.health.pause(pause, now());
                }
            }
        }
    }
}
