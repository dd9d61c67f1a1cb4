//! Browser sessions: the user logs in at the provider with an authorization code and PKCE, the browser keeps an id that
//! means nothing by itself, the tokens stay on this side and are kept fresh by the coordinator.

mod build;
mod claims;
mod cookies;
mod denied;
mod flow;
mod kept;
mod login;
mod logout;
mod origin;
mod page;
mod ring;
mod roll;
mod suspect;
mod watch;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, header};
use tidegate::{
    Secret, clock,
    token::{AccessToken, SessionId, TokenCoordinator, TokenError, Trouble},
};
use tidegate_core::{Call, Instant, recovery::Reach};
use url::form_urlencoded;

pub use self::{
    build::NoSession, claims::Claims, denied::Denied, kept::Kept, origin::origin, ring::KeyRing, suspect::By,
    watch::Watched,
};
use self::{cookies::Marked, ring::LiveRing};
use super::{
    endpoint::Endpoint,
    id_token::IdTokens,
    prove::{self, Prover},
    service::{Reason, Refused},
};
use crate::{body::ResponseBody, config, proxy::lookalike, state::SessionsState, store::Store};

/// Sessions of one client of an identity provider.
pub struct Session {
    name: Box<str>,
    config: config::Session,
    secrets: Vec<Option<Secret>>,
    pages: [(String, Page); 4],
    cookie: String,
    flows: String,
    marked: Marked,
    ring: Arc<KeyRing>,
    ids: Arc<IdTokens>,
    store: Arc<Store>,
    kept: Kept,
    /// What seals its file, if it has one.
    file_ring: Option<Arc<LiveRing>>,
    coordinator: TokenCoordinator<Endpoint, Kept>,
    /// What proves possession of the key that tokens are bound to, if they are.
    prover: Option<Arc<Prover>>,
    /// Since when it is this key.
    bound_since: Instant,
    /// Fields of calls and the claims that they tell.
    headers: Vec<(HeaderName, String)>,
    /// Claims that something else asks for, like limits.
    asked: BTreeSet<String>,
    /// Logins that came back, in line or at the provider.
    line: Arc<tokio::sync::Semaphore>,
    slots: tokio::sync::Semaphore,
    counts: login::Counts,
}

/// A visit of a browser or a program: what of a request sessions look at.
pub struct Visit<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path and the query.
    pub target: &'r str,
    /// The host that was named.
    pub host: &'r str,
    /// The fields.
    pub headers: &'r HeaderMap,
}

/// Whose call it is.
#[derive(Debug)]
pub struct User {
    /// What is known of the user.
    pub claims: Claims,
    token: AccessToken,
    id: SessionId,
}

/// Which page of its own a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Where the provider sends users back to.
    Callback,
    /// Where users log out.
    Logout,
    /// Where the provider says, from server to server, whose sessions are over.
    Backchannel,
    /// Where the provider has browsers say that their login is over.
    Frontchannel,
}

impl Page {
    /// Whether it is sent a form.
    pub fn takes_a_form(self) -> bool {
        match self {
            Self::Backchannel => true,
            Self::Callback | Self::Logout | Self::Frontchannel => false,
        }
    }
}

impl Visit<'_> {
    /// A field of the query. What is there twice is not believed.
    fn field(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.into_owned());
        value.filter(|_| found.next().is_none())
    }
}

impl Session {
    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of its own pages stands at a path.
    pub fn page_at(&self, path: &str) -> Option<Page> {
        self.pages.iter().find(|(known, _)| known == path).map(|(_, page)| *page)
    }

    /// Answers one of its own pages; `form` is what was sent to it, where it takes one.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a login under way to its end: the code is used up, and the browser has to begin again.
    pub async fn answer(
        self: &Arc<Self>,
        page: Page,
        visit: &Visit<'_>,
        form: Bytes,
    ) -> Response<ResponseBody> {
        let answer = match page {
            Page::Callback => self.callback(visit).await,
            Page::Logout => self.logout(visit).await,
            Page::Backchannel => self.backchannel(visit, form).await,
            Page::Frontchannel => self.frontchannel(visit).await,
        };
        self.for_people(answer, visit.headers)
    }

    /// Makes a page of an answer that only programs understand, where a browser asked for one.
    pub fn for_people(&self, answer: Response<ResponseBody>, asked: &HeaderMap) -> Response<ResponseBody> {
        page::for_people(answer, asked, &self.config.logout)
    }

    /// Tells whose call it is, or why it may not go on. Without waiting, if that can be told.
    pub fn try_admit(
        &self,
        call: &Call,
        headers: &HeaderMap,
        method: &Method,
    ) -> Option<Result<User, Denied>> {
        let Some(id) = self.id(headers) else { return Some(Err(Denied::of(method, headers))) };
        let told = self.coordinator.try_fresh(&id, call)?;
        (!is_of_the_store(&told)).then(|| self.user(&id, told, headers, method))
    }

    /// As [`Self::try_admit`], and waits for tokens: at most for `max_wait`, and to the call's deadline.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a refresh under way goes on.
    pub async fn admit(&self, call: &Call, headers: &HeaderMap, method: &Method) -> Result<User, Denied> {
        let Some(id) = self.id(headers) else { return Err(Denied::of(method, headers)) };
        let patient = call.within(*self.config.max_wait);
        loop {
            let now = clock::now();
            let told = self.coordinator.fresh(&id, &Call { now, ..patient }).await;
            // A store that did not answer is asked again for as long as the call may wait; a provider is not.
            let again = match &told {
                Err(TokenError::Unavailable { retry_after, .. }) if is_of_the_store(&told) => {
                    clock::now() + *retry_after
                }
                _ => return self.user(&id, told, headers, method),
            };
            if patient.deadline.is_none_or(|deadline| deadline <= again) {
                return self.user(&id, told, headers, method);
            }
            tokio::time::sleep_until(clock::timer_at(again)).await;
        }
    }

    /// What the session of a call is known by: a hash of what the browser presents.
    fn id(&self, headers: &HeaderMap) -> Option<SessionId> {
        let value = cookies::value(headers, &self.cookie)?;
        // 256 bits as base64url; anything else was never given out, and need not be looked for.
        let given =
            value.len() == 43 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        given.then(|| self.id_of(value))
    }

    /// The name of a session in its store: what a browser presents, and whose session that is, so that the cookie of one
    /// provider's session opens none of another's.
    fn id_of(&self, value: &str) -> SessionId {
        let hash = digest(&SHA256, format!("{}\0{value}", self.name).as_bytes());
        SessionId::of_hash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn user(
        &self,
        id: &SessionId,
        told: Result<AccessToken, TokenError>,
        headers: &HeaderMap,
        method: &Method,
    ) -> Result<User, Denied> {
        let token = match told {
            Ok(token) => token,
            Err(TokenError::LoginNeeded(_)) => return Err(Denied::of(method, headers)),
            Err(TokenError::Unavailable { retry_after, .. }) => {
                return Err(Denied::Refused(Refused {
                    why: Reason::Session,
                    retry_after: Some(retry_after.max(Duration::from_millis(1))),
                }));
            }
            Err(_) => {
                return Err(Denied::Refused(Refused { why: Reason::SessionSlow, retry_after: None }));
            }
        };
        let claims = Claims::read(token.attributes());
        if claims.are_on(&self.config.allow) {
            Ok(User { claims, token, id: id.clone() })
        } else {
            Err(Denied::Forbidden)
        }
    }

    /// Tells an upstream whose call it is.
    pub fn tell<B>(&self, user: &User, request: &mut Request<B>) {
        for (name, claim) in &self.headers {
            if let Some(value) = user.claims.field(claim) {
                request.headers_mut().insert(name.clone(), value);
            }
        }
        if self.config.pass_token {
            let value = user.token.header().expect("an access token that was read is visible ASCII");
            request.headers_mut().insert(header::AUTHORIZATION, value);
            prove::forget(request);
            if let Some(prover) = &self.prover {
                prover.begin(request);
            }
        }
    }

    /// Takes out what only we may say of a user: from every call, whether or not it needs a session, as the upstream behind
    /// believes these fields.
    pub fn untell(&self, headers: &mut HeaderMap) {
        for (name, _) in &self.headers {
            headers.remove(name);
        }
        lookalike::strip(headers, |name| self.headers.iter().any(|(ours, _)| ours == name));
    }

    /// Takes out of an upstream's answer what only we may set: the cookies of these sessions.
    pub fn unset(&self, headers: &mut HeaderMap) {
        cookies::keep_own(headers, &self.cookie, &self.flows);
    }

    /// Takes out the cookies of these sessions: no upstream needs to see them.
    pub fn hide(&self, headers: &mut HeaderMap) {
        cookies::strip(headers, &self.cookie, &self.flows);
    }

    /// What it is doing now. Nothing of a session is in it.
    pub fn state(&self) -> SessionsState {
        let stats = self.coordinator.stats();
        let outcomes = tidegate::token::GrantOutcome::ALL.iter().zip(stats.grants);
        let paused = stats.paused_until.since(clock::now());
        SessionsState {
            name: self.name.to_string(),
            issuer: self.config.issuer.clone(),
            kept: match (&self.kept, &self.file_ring) {
                (Kept::Redis(_), _) => "store",
                (Kept::Memory(_), Some(_)) => "file",
                (Kept::Memory(_), None) => "memory",
            },
            provider: match stats.reach {
                Reach::Up if !paused.is_zero() => "paused",
                Reach::Up if self.counts.are_stuck() => "down",
                Reach::Up => "up",
                Reach::Down { .. } => "down",
                Reach::Probing { .. } => "probing",
            },
            paused_seconds: (!paused.is_zero()).then_some(paused.as_secs_f64()),
            sessions: stats.keeper.keys as u64,
            waiting: stats.keeper.waiting as u64,
            in_flight: stats.in_flight as u64,
            queued: stats.queued as u64,
            held_back: stats.held_back,
            refreshes: outcomes
                .filter(|(_, count)| *count > 0)
                .map(|(how, count)| (how.as_str(), count))
                .collect(),
            shared: stats.shared,
            over: stats.over,
            mismatches: stats.mismatches,
            revoked: stats.revoked,
            store_failures: stats.store_failures,
            store_failing: stats.store_failing,
            logins: self.counts.outcomes(),
            dpop: self.prover.as_ref().map(|prover| prover.state()),
        }
    }

    /// Refreshes under way here, those included that wait for their turn.
    pub fn refreshing(&self) -> usize {
        let stats = self.coordinator.stats();
        stats.in_flight + stats.queued
    }

    /// Ends its refreshes well: those under way are stored, at most for `within`.
    pub async fn shutdown(&self, within: Duration) -> usize {
        self.coordinator.shutdown(within).await
    }
}

/// Whether there is no token because the store did not answer.
fn is_of_the_store(told: &Result<AccessToken, TokenError>) -> bool {
    matches!(told, Err(TokenError::Unavailable { why: Trouble::Store(_), .. }))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "Memory",
            Self::Redis(_) => "Redis",
        })
    }
}
