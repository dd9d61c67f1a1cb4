//! How a session begins: off to the provider, and back with a code.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use http::{Method, Response, StatusCode};
use parking_lot::Mutex;
use tidegate::{
    Secret, clock,
    token::{Ended, GrantError, Login, SessionId, SessionStoreError, Tokens, VerifyError},
};

use super::{
    Claims, Session, Visit, cookies,
    cookies::Marked,
    flow::{self, Flow},
    page,
    roll::{Entered, Entry, Of},
};
use crate::{
    body::ResponseBody,
    oidc::{
        date::wall,
        id_token::{Expected, invalid},
        jose::base64url,
    },
};

/// What became of logins and logouts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    /// Whether it was logged that none can begin.
    stuck: AtomicBool,
}

impl Counts {
    pub(super) fn count(&self, outcome: &'static str) {
        *self.outcomes.lock().entry(outcome).or_default() += 1;
    }

    /// Whether the last login could not begin.
    pub(super) fn are_stuck(&self) -> bool {
        self.stuck.load(Relaxed)
    }

    /// How often each was the end.
    pub(super) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.outcomes.lock().clone()
    }
}

/// Whether a session stands on the lists of those whose it is.
enum Enrolled {
    Yes,
    /// The provider ended it while it began.
    Ended,
}

/// Why a login did not lead to a session.
struct Failed {
    status: StatusCode,
    reason: &'static str,
    detail: &'static str,
}

const fn failed(status: StatusCode, reason: &'static str, detail: &'static str) -> Failed {
    Failed { status, reason, detail }
}

const AWAY: Failed = failed(
    StatusCode::SERVICE_UNAVAILABLE,
    "provider-away",
    "the identity provider can not be asked now; try again",
);
const AGAIN: Failed = failed(
    StatusCode::BAD_REQUEST,
    "no-login",
    "no login of this browser is under way, or it took too long, or it came back twice; begin again",
);
const FORBIDDEN: Failed =
    failed(StatusCode::FORBIDDEN, "not-allowed", "this user may not come in here; log in as another one");

impl Failed {
    fn page(&self) -> Response<ResponseBody> {
        page::problem(self.status, self.reason, self.detail)
    }
}

impl Session {
    /// Sends a browser to the provider, to come back where it wanted to go.
    pub async fn login(&self, visit: &Visit<'_>) -> Response<ResponseBody> {
        let provider = self.coordinator.endpoint().provider();
        let metadata = provider.metadata_within(*self.config.max_wait).await;
        let endpoint = match &metadata {
            Ok(metadata) => metadata
                .authorization_endpoint
                .as_ref()
                .ok_or("its discovery document names no authorization_endpoint"),
            Err(why) => Err(&**why),
        };
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint,
            Err(why) => {
                if !self.counts.stuck.swap(true, Relaxed) {
                    tracing::warn!(session = %self.name, "no login can begin: {why}");
                }
                return self.turned_away(&AWAY);
            }
        };
        if self.counts.stuck.swap(false, Relaxed) {
            tracing::info!(session = %self.name, "logins can begin again");
        }
        let flow = Flow::begin(visit.target);
        let mut more = self.config.parameters.clone();
        if let Some(binding) = self.coordinator.endpoint().binding() {
            // The code is worth nothing to who can not prove possession either (RFC 9449 §10).
            more.insert("dpop_jkt".into(), binding.dpop.thumbprint().into());
        }
        let client = &self.coordinator.endpoint().client().id;
        let url = flow.url(endpoint, client, &self.callback_url(visit), &self.config.scopes.join(" "), more);
        let name = flow.cookie(&self.flows);
        let kept = cookies::set(&name, &flow.seal(&self.ring, &self.name), flow::SECONDS, self.marked);
        let mut response = page::with(page::redirect(url.as_str()), kept);
        let others: Vec<&str> =
            cookies::names(visit.headers, &self.flows).filter(|other| *other != name).collect();
        // The oldest go: somebody still looks at the newest.
        for forgotten in &others[..others.len().saturating_sub(flow::MOST - 1)] {
            response = page::with(response, cookies::set(forgotten, "", 0, self.marked));
        }
        self.counts.count("begun");
        response
    }

    /// A login that is to be tried again later, as memory is short or too many are on their way. What it began with stays good meanwhile.
    pub fn held_off(&self, retry_after: Option<Duration>) -> Response<ResponseBody> {
        self.counts.count("held-off");
        let detail = "there is no room for new logins at present; try again in a moment";
        let page = page::problem(StatusCode::SERVICE_UNAVAILABLE, "pressure", detail);
        page::retry_after(page, retry_after)
    }

    /// A browser without a session that asks for something else than a page.
    pub fn unauthorized(&self) -> Response<ResponseBody> {
        page::problem(
            StatusCode::UNAUTHORIZED,
            "login-needed",
            "log in: load a page of this site in a browser",
        )
    }

    /// A user who is on no list.
    pub fn forbidden(&self) -> Response<ResponseBody> {
        FORBIDDEN.page()
    }

    pub(super) fn origin(&self, visit: &Visit<'_>) -> String {
        let scheme = if self.marked == Marked::Plain { "http" } else { "https" };
        format!("{scheme}://{}", visit.host)
    }

    fn callback_url(&self, visit: &Visit<'_>) -> String {
        format!("{}{}", self.origin(visit), self.config.callback)
    }

    /// The provider sends a browser back.
    pub(super) async fn callback(self: &Arc<Self>, visit: &Visit<'_>) -> Response<ResponseBody> {
        if *visit.method != Method::GET {
            return page::problem(StatusCode::METHOD_NOT_ALLOWED, "method", "the callback takes GET only");
        }
        let field = |name: &str| visit.field(name);
        let Some(state) = field("state") else { return self.turned_away(&AGAIN) };
        let cookie = flow::cookie_of(&self.flows, &state);
        let kept = cookies::value(visit.headers, &cookie);
        let Some(flow) = kept.and_then(|kept| Flow::open(kept, &state, &self.ring, &self.name)) else {
            return self.turned_away(&AGAIN);
        };
        let target = flow.target.clone();
        let ended = match (field("code"), field("error")) {
            (Some(code), None) => {
                // Anybody can come back with a login of their own and any code, as often as they like.
                let Ok(place) = Arc::clone(&self.line).try_acquire_owned() else {
                    return self.held_off(None);
                };
                let this = Arc::clone(self);
                let (issuer, redirect) = (field("iss"), self.callback_url(visit));
                let before = self.id(visit.headers);
                // In a task of its own: a code is used up by the question, and the browser may not wait for the answer.
                let redeemed = tokio::spawn(async move {
                    let _place = place;
                    let redeemed = this.redeem(&code, issuer.as_deref(), &redirect, flow).await;
                    if let (Ok(_), Some(before)) = (&redeemed, before) {
                        // Who logs in again has one session, with a name that nobody knew before.
                        if let Ok(Some(ended)) = this.coordinator.end(&before).await {
                            this.clean_up(&before, ended).await;
                        }
                    }
                    redeemed
                });
                redeemed.await.unwrap_or(Err(AWAY))
            }
            (_, Some(error)) => Err(match error.as_str() {
                "temporarily_unavailable" | "server_error" => AWAY,
                _ => failed(
                    StatusCode::FORBIDDEN,
                    "login-refused",
                    "the identity provider did not log the user in; begin again",
                ),
            }),
            (None, None) => Err(AGAIN),
        };
        let response = match ended {
            Ok(value) => {
                self.counts.count("success");
                let seconds = self.config.absolute.as_secs();
                let cookie = cookies::set(&self.cookie, value.expose(), seconds, self.marked);
                page::with(page::redirect(&target), cookie)
            }
            Err(why) => self.turned_away(&why),
        };
        // A login leads somewhere once.
        page::with(response, cookies::set(&cookie, "", 0, self.marked))
    }

    fn turned_away(&self, why: &Failed) -> Response<ResponseBody> {
        self.counts.count(why.reason);
        why.page()
    }

    /// Turns a code into a session; what the browser is to keep of it.
    async fn redeem(
        &self,
        code: &str,
        issuer: Option<&str>,
        redirect: &str,
        flow: Flow,
    ) -> Result<Secret, Failed> {
        const CONFUSED: Failed = failed(
            StatusCode::BAD_REQUEST,
            "wrong-issuer",
            "the answer is of another identity provider than was asked; begin again",
        );
        const REFUSED: Failed = failed(
            StatusCode::BAD_GATEWAY,
            "id-token",
            "the identity provider's answer does not say reliably who the user is; an operator has to look",
        );
        let within = *self.config.timeout;
        let endpoint = self.coordinator.endpoint();
        let metadata = endpoint.provider().metadata_within(within).await.map_err(|_| AWAY)?;
        let named = metadata.authorization_response_iss_parameter_supported;
        if issuer.map_or(named, |issuer| issuer.trim_end_matches('/') != endpoint.provider().issuer()) {
            return Err(CONFUSED);
        }
        let _slot = tokio::time::timeout(within, self.slots.acquire()).await.map_err(|_| AWAY)?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", flow.verifier.as_str()),
        ];
        let asked_at = clock::now();
        let mut tokens = endpoint.exchange(&fields, within).await.map_err(|error| {
            tracing::warn!(session = %self.name, "a login failed: {error}");
            match error {
                GrantError::Terminal { .. } => AGAIN,
                GrantError::Misconfigured { .. } | GrantError::Scope | GrantError::Protocol { .. } => failed(
                    StatusCode::BAD_GATEWAY,
                    "provider-refused",
                    "the identity provider refuses the gateway itself, which an operator has to mend",
                ),
                _ => AWAY,
            }
        })?;
        let expected = Expected {
            client_id: &endpoint.client().id,
            nonce: Some(&flow.nonce),
            access: Some(&tokens.access),
            pinned: None,
        };
        let verified = match &tokens.id {
            Some(id) => self.ids.verify(id, &expected).await,
            None => Err(invalid("there is none")),
        };
        let claims = match verified {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(session = %self.name, "a login failed: {error}");
                self.give_back(unused(tokens)).await;
                return Err(if matches!(error, VerifyError::Unavailable { .. }) { AWAY } else { REFUSED });
            }
        };
        let known = Claims::of(claims.all, |claim| self.is_wanted(claim));
        if !known.are_on(&self.config.allow) {
            self.give_back(unused(tokens)).await;
            return Err(FORBIDDEN);
        }
        // Their lives began when they were asked for; the session begins now, after the ID token was verified.
        let gone = clock::now().since(asked_at);
        for life in [&mut tokens.expires_in, &mut tokens.refresh_expires_in] {
            *life = life.map(|life| life.saturating_sub(gone));
        }
        let issued_at = claims.issued_at;
        let value = new_id();
        let id = self.id_of(value.expose());
        let login = Login {
            tokens,
            identity: Some(claims.identity),
            attributes: known.write(),
            longest: *self.config.absolute,
        };
        let stored = match self.coordinator.begin(&id, login).await {
            Ok(true) => self.enroll(&id, &known, issued_at).await,
            // Another session of the same 256 random bits there is none.
            Ok(false) => return Err(AWAY),
            Err(error) => Err(error),
        };
        let why = match stored {
            Ok(Enrolled::Yes) => return Ok(value),
            Ok(Enrolled::Ended) => {
                tracing::info!(session = %self.name, "a login came too late: the provider had ended it");
                AGAIN
            }
            Err(error) => {
                tracing::warn!(session = %self.name, "a login failed: {error}");
                failed(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store-away",
                    "the session can not be stored now; log in again in a moment",
                )
            }
        };
        if let Ok(Some(ended)) = self.coordinator.end(&id).await {
            self.clean_up(&id, ended).await;
        }
        Err(why)
    }

    /// Notes whose session it is, so that the provider can end it.
    async fn enroll(
        &self,
        id: &SessionId,
        known: &Claims,
        issued_at: i64,
    ) -> Result<Enrolled, SessionStoreError> {
        let (user, login) = (known.text("sub"), known.text("sid"));
        let until = (wall() + *self.config.absolute).as_secs();
        let entry = Entry { id: id.clone(), until, has_login: login.is_some() };
        for of in [user.as_deref().map(Of::User), login.as_deref().map(Of::Login)].into_iter().flatten() {
            match self.roll().enter(of, &entry, issued_at).await? {
                Entered::Stands(None) => {}
                Entered::Stands(Some(oldest)) => {
                    if let Some(ended) = self.coordinator.end(&oldest).await? {
                        tracing::info!(session = %self.name, "a user has too many sessions: the oldest is ended");
                        self.clean_up(&oldest, ended).await;
                    }
                }
                Entered::Ended => return Ok(Enrolled::Ended),
            }
        }
        Ok(Enrolled::Yes)
    }

    /// Whether calls, lists or limits need a claim, or it says who it is.
    fn is_wanted(&self, claim: &str) -> bool {
        claim == "sub"
            || claim == "sid"
            || self.headers.iter().any(|(_, wanted)| wanted == claim)
            || self.config.allow.contains_key(claim)
            || self.asked.contains(claim)
    }
}

/// Tokens that no session is made of, to be given back.
fn unused(tokens: Tokens) -> Ended {
    Ended { refresh: tokens.refresh, access: tokens.access, id: None, attributes: Box::default() }
}

/// What a browser keeps of a session: 256 random bits.
fn new_id() -> Secret {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the system gives randomness");
    Secret::new(base64url(bytes))
}
