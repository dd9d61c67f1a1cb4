//! How a session ends: its user logs out here, or the provider says that it is over (OpenID Connect RP-Initiated,
//! Back-Channel and Front-Channel Logout 1.0).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use tidegate::{
    Secret,
    token::{Ended, SessionId, SessionStoreError, TokenEndpoint as _, Tokens},
};
use url::form_urlencoded;

use super::{
    Claims, Session, Visit, cookies, page,
    roll::{Entry, Of, Roll},
};
use crate::{body::ResponseBody, oidc::logout_token::LogoutToken};

/// Why a provider's logout had no effect.
enum NoLogout {
    /// Nothing was ended, and the token is worth nothing.
    Invalid(&'static str),
    /// It could not be done; the provider may send it again.
    Failed(&'static str),
}

impl Session {
    /// A user logs out: here, and at the provider.
    pub(super) async fn logout(self: &Arc<Self>, visit: &Visit<'_>) -> Response<ResponseBody> {
        if *visit.method != Method::GET && *visit.method != Method::POST {
            return page::problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "the logout takes GET and POST only",
            );
        }
        if !self.is_from_here(visit) {
            return page::problem(
                StatusCode::FORBIDDEN,
                "cross-site",
                "this logout was asked for by another site; log out from a page of this one",
            );
        }
        let ended = match self.id(visit.headers) {
            Some(id) => self.coordinator.end(&id).await.map(|ended| Some((id, ended?))),
            None => Ok(None),
        };
        let Ok(ended) = ended else {
            return page::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-away",
                "the session can not be ended everywhere now; log out again in a moment",
            );
        };
        self.counts.count("logout");
        let back = format!("{}/", self.origin(visit));
        let provider = self.coordinator.endpoint().provider();
        let metadata = provider.metadata_within(*self.config.max_wait).await.ok();
        let client = &self.coordinator.endpoint().client().id;
        let url = metadata.and_then(|metadata| {
            let hint = ended.as_ref().and_then(|(_, ended)| ended.id.as_ref()).map(Secret::expose);
            metadata.end_session_endpoint.as_ref().map(|url| page::end_session(url, client, hint, &back))
        });
        if let Some((id, ended)) = ended {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.clean_up(&id, ended).await });
        }
        let response = page::redirect(url.as_ref().map_or("/", |url| url.as_str()));
        page::with(response, cookies::set(&self.cookie, "", 0, self.marked))
    }

    /// Whether a page of ours asks, by the word of the browser. One that says nothing must name us as the origin.
    fn is_from_here(&self, visit: &Visit<'_>) -> bool {
        let text = |name| visit.headers.get(name).and_then(|value| value.to_str().ok());
        let origin = self.origin(visit);
        match text(header::HeaderName::from_static("sec-fetch-site")) {
            Some(site) => site == "same-origin" || site == "none",
            None => match (text(header::ORIGIN), text(header::REFERER)) {
                (Some(told), _) => told == origin,
                (None, Some(told)) => told.strip_prefix(&origin).is_some_and(|rest| rest.starts_with('/')),
                (None, None) => false,
            },
        }
    }

    /// The provider says, from server to server, whose sessions are over.
    pub(super) async fn backchannel(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        form: Bytes,
    ) -> Response<ResponseBody> {
        if *visit.method != Method::POST {
            return page::problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "the back-channel logout takes POST only",
            );
        }
        let kind = visit.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let done = if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let this = Arc::clone(self);
            // In a task of its own: the provider may not wait for the end, and some sessions would live on.
            let ending = tokio::spawn(async move { this.end_by_token(&form).await });
            ending.await.unwrap_or(Err(NoLogout::Failed("the logout was cut short")))
        } else {
            Err(NoLogout::Invalid("the logout token comes as a form"))
        };
        let (outcome, response) = match done {
            Ok(()) => ("backchannel-logout", page::done()),
            Err(NoLogout::Invalid(why)) => ("backchannel-refused", page::not_done("invalid_request", why)),
            // Never another status than this one (§2.8).
            Err(NoLogout::Failed(why)) => {
                ("backchannel-failed", page::not_done("temporarily_unavailable", why))
            }
        };
        self.counts.count(outcome);
        response
    }

    async fn end_by_token(self: Arc<Self>, form: &[u8]) -> Result<(), NoLogout> {
        const AWAY: NoLogout =
            NoLogout::Failed("the sessions can not be ended everywhere now; send it again");
        let mut found = form_urlencoded::parse(form).filter(|(name, _)| name == "logout_token");
        let (Some((_, token)), None) = (found.next(), found.next()) else {
            return Err(NoLogout::Invalid("there has to be one logout_token"));
        };
        let client = &self.coordinator.endpoint().client().id;
        let token = self.ids.verify_logout(&Secret::new(&*token), client).await.map_err(|error| {
            tracing::warn!(session = %self.name, "a back-channel logout was refused: {error}");
            match error {
                tidegate::token::VerifyError::Unavailable { .. } => {
                    NoLogout::Failed("the token can not be verified now; send it again")
                }
                _ => NoLogout::Invalid("the logout token is not valid"),
            }
        })?;
        match self.roll().first_time(&token.id, token.good_for).await {
            Ok(true) => {}
            Ok(false) => return Err(NoLogout::Invalid("this logout token came before")),
            Err(_) => return Err(AWAY),
        }
        match self.end_those_of(&token).await {
            Ok(sessions) => {
                tracing::info!(session = %self.name, sessions, "the provider ended sessions");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(session = %self.name, "a back-channel logout failed: {error}");
                // So that it may be sent again. If that is not to be had either, a new token does it.
                let _ = self.roll().as_if_never(&token.id).await;
                Err(AWAY)
            }
        }
    }

    /// Ends the sessions that a token means: of one login where it names one, else all of the user.
    async fn end_those_of(self: &Arc<Self>, token: &LogoutToken) -> Result<usize, SessionStoreError> {
        let mut ended = 0;
        if let Some(login) = &token.login {
            let listed = self.roll().end(Of::Login(login), token.issued_at).await?;
            ended += self.end_these(Of::Login(login), listed).await?;
        }
        let Some(user) = &token.subject else { return Ok(ended) };
        let listed = match &token.login {
            None => self.roll().end(Of::User(user), token.issued_at).await?,
            // Sessions of which the provider did not say by which login they came may be of this one.
            Some(_) => {
                let mut listed = self.roll().read(Of::User(user)).await?;
                listed.retain(|entry| !entry.has_login);
                listed
            }
        };
        Ok(ended + self.end_these(Of::User(user), listed).await?)
    }

    /// The provider's page has a browser tell that its login is over. Only whose login it is counts: the browser sends no
    /// cookies along from a page of another site.
    pub(super) async fn frontchannel(self: &Arc<Self>, visit: &Visit<'_>) -> Response<ResponseBody> {
        if *visit.method != Method::GET {
            return page::problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "the front-channel logout takes GET only",
            );
        }
        let (issuer, login) = (visit.field("iss"), visit.field("sid"));
        let (Some(issuer), Some(login)) = (issuer, login) else {
            self.counts.count("frontchannel-refused");
            return page::problem(
                StatusCode::BAD_REQUEST,
                "no-login",
                "name the login to be ended: iss and sid",
            );
        };
        if issuer.trim_end_matches('/')
            != self.coordinator.endpoint().provider().issuer().trim_end_matches('/')
        {
            self.counts.count("frontchannel-refused");
            let detail = "this is of another identity provider than the sessions here";
            return page::problem(StatusCode::BAD_REQUEST, "wrong-issuer", detail);
        }
        let this = Arc::clone(self);
        // In a task of its own: the browser may be gone before the end.
        let ended = tokio::spawn(async move {
            let listed = this.roll().read(Of::Login(&login)).await?;
            this.end_these(Of::Login(&login), listed).await
        });
        match ended.await {
            Ok(Ok(_)) => {
                self.counts.count("frontchannel-logout");
                page::frame()
            }
            Ok(Err(_)) | Err(_) => {
                self.counts.count("frontchannel-failed");
                let detail = "the session can not be ended everywhere now; log out again in a moment";
                page::problem(StatusCode::SERVICE_UNAVAILABLE, "store-away", detail)
            }
        }
    }

    /// Ends sessions that are on a list, and takes them off it: how many there were.
    async fn end_these(self: &Arc<Self>, of: Of<'_>, listed: Vec<Entry>) -> Result<usize, SessionStoreError> {
        let mut ended = 0;
        let ids: Vec<SessionId> = listed.into_iter().map(|entry| entry.id).collect();
        for id in &ids {
            if let Some(left) = self.coordinator.end(id).await? {
                ended += 1;
                let (this, id) = (Arc::clone(self), id.clone());
                tokio::spawn(async move { this.clean_up(&id, left).await });
            }
        }
        if !ids.is_empty() {
            self.roll().leave(of, &ids).await?;
        }
        Ok(ended)
    }

    /// What is left to do of a session that ended: it is taken off its lists, and its tokens are given back.
    pub(super) async fn clean_up(&self, id: &SessionId, ended: Ended) {
        let claims = Claims::read(&ended.attributes);
        let (user, login) = (claims.text("sub"), claims.text("sid"));
        for of in [user.as_deref().map(Of::User), login.as_deref().map(Of::Login)].into_iter().flatten() {
            // An entry that stays is forgotten with the session's longest life.
            let _ = self.roll().leave(of, std::slice::from_ref(id)).await;
        }
        self.give_back(ended).await;
    }

    /// Has the provider take back what a session was granted (RFC 7009).
    pub(super) async fn give_back(&self, ended: Ended) {
        let tokens = Tokens {
            access: ended.access,
            kind: "Bearer".into(),
            expires_in: None,
            refresh: ended.refresh,
            refresh_expires_in: None,
            id: None,
            scope: None,
        };
        self.coordinator.endpoint().revoke(tokens).await;
    }

    /// The lists of these sessions.
    pub(super) fn roll(&self) -> Roll<'_> {
        Roll { kept: &self.kept, ring: &self.ring, session: &self.name }
    }
}
