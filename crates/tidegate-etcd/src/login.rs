//! The token: one login for all who need it, again only when etcd says that the token is not valid, and never faster
//! than the budgets allow.

use std::time::Duration;

use parking_lot::Mutex;
use tidegate::Credentials;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    Client, Error, ErrorKind,
    client::stamped,
    error::{Fault, told},
    pace::{Backoff, jitter},
    proto::{AuthenticateRequest, auth_client::AuthClient},
};

/// What a call shows to etcd, and which login it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    pub(crate) token: Option<MetadataValue<Ascii>>,
    generation: u64,
    since: Option<Instant>,
}

impl Stamp {
    /// That of nobody.
    const EMPTY: Self = Self { token: None, generation: 0, since: None };

    /// How long ago its login was.
    pub(crate) fn age(&self) -> Duration {
        self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

#[derive(Debug)]
pub(crate) struct Login {
    credentials: Option<Credentials>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    stamp: Stamp,
    phase: Phase,
    backoff: Backoff,
}

#[derive(Debug)]
enum Phase {
    /// Nobody has logged in, or the token was refused. Left by whoever needs a token next: to `Flying`.
    Needed,
    /// A login is under way and not sent before `due`. Left by its end: to `Held`, `Off` or `Failed`.
    Flying { due: Instant },
    /// There is a token. Left when etcd refuses it: to `Needed`.
    Held,
    /// Authentication is off. Left when etcd asks for a token after all: to `Needed`.
    Off,
    /// The last login failed. Left by whoever needs a token after `not_before`: to `Flying`.
    Failed { error: Error, not_before: Instant },
}

impl Login {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        let phase = if credentials.is_some() { Phase::Needed } else { Phase::Off };
        let stamp = Stamp::EMPTY;
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        Self {
            credentials,
            state: Mutex::new(State { stamp, phase, backoff }),
            changed: watch::channel(()).0,
        }
    }

    /// What there is to show now, without waiting.
    pub(crate) fn current(&self) -> Stamp {
        self.state.lock().stamp.clone()
    }

    /// What to show, after a login if one is needed.
    ///
    /// The login runs in a task of its own: all callers wait for the same one, and none of them can stop it.
    pub(crate) async fn stamp(&self, client: &Client, deadline: Instant) -> Result<Stamp, Error> {
        let mut changes = self.changed.subscribe();
        loop {
            match self.next(client, Instant::now()) {
                Next::Ready(stamp) => return Ok(stamp),
                Next::Refused(error) => return Err(error),
                Next::Wait { due } if due > deadline => {
                    return Err(too_late(due.duration_since(Instant::now())));
                }
                Next::Wait { .. } => {}
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(Error::unavailable("etcd did not answer a login in time"));
            }
        }
    }

    /// etcd refused this stamp: whoever needs one next logs in, unless somebody has done so already.
    pub(crate) fn refused(&self, stamp: &Stamp) -> Result<(), Error> {
        if self.credentials.is_none() {
            return Err(Error::new(
                ErrorKind::Credentials,
                "etcd has authentication on; give a user and a password: etcd://USER:PASSWORD@HOST",
            ));
        }
        let mut state = self.state.lock();
        if state.stamp.generation == stamp.generation && matches!(state.phase, Phase::Held | Phase::Off) {
            state.stamp.token = None;
            state.phase = Phase::Needed;
        }
        Ok(())
    }

    fn next(&self, client: &Client, now: Instant) -> Next {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Held | Phase::Off => return Next::Ready(state.stamp.clone()),
            Phase::Flying { due } => return Next::Wait { due: *due },
            Phase::Failed { error, not_before } if now < *not_before => {
                return Next::Refused(error.clone().after(*not_before - now));
            }
            Phase::Failed { .. } | Phase::Needed => {}
        }
        // Whoever was logged in is one of a fleet that has just lost its tokens, most likely; whoever starts is not.
        let spread = if state.stamp.generation > 0 { client.login_spread() } else { Duration::ZERO };
        let delay = jitter(spread);
        state.phase = Phase::Flying { due: now + delay };
        tokio::spawn(fly(client.clone(), delay));
        Next::Wait { due: now + delay }
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock();
        state.stamp.generation += 1;
        state.stamp.since = Some(Instant::now());
        state.phase = match end {
            End::Token(token) => {
                state.backoff.succeeded();
                state.stamp.token = Some(token);
                Phase::Held
            }
            End::Off => {
                state.backoff.succeeded();
                state.stamp.token = None;
                Phase::Off
            }
            End::Failed(error) => {
                let mut delay = state.backoff.failed();
                if error.kind() == ErrorKind::Credentials {
                    // The same password will be wrong again; each try costs etcd as much as a right one.
                    delay += WRONG_PASSWORD;
                }
                Phase::Failed { error, not_before: Instant::now() + delay }
            }
        };
        drop(state);
        self.changed.send_replace(());
    }
}

/// The pause after a wrong password, which somebody has to correct first.
const WRONG_PASSWORD: Duration = Duration::from_secs(30);

enum Next {
    Ready(Stamp),
    Refused(Error),
    Wait { due: Instant },
}

enum End {
    Token(MetadataValue<Ascii>),
    Off,
    Failed(Error),
}

fn too_late(wait: Duration) -> Error {
    let why = "the next login to etcd is put off, for many clients log in at once";
    Error::new(ErrorKind::Throttled, why).after(wait)
}

/// One login, from its delay to its end, whoever still waits for it.
async fn fly(client: Client, delay: Duration) {
    let mut landing = Landing { client: &client, end: None };
    sleep(delay).await;
    client.settings().login_budget.take().await;
    landing.end = Some(attempt(&client).await);
}

/// A login that is cut off, by a panic or the end of its runtime, must not keep others waiting.
struct Landing<'a> {
    client: &'a Client,
    end: Option<End>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let end =
            self.end.take().unwrap_or_else(|| End::Failed(Error::unavailable("a login to etcd was cut off")));
        self.client.login().end(end);
    }
}

async fn attempt(client: &Client) -> End {
    let Some(Credentials { user, password }) = &client.login().credentials else { return End::Off };
    let mut last = Error::unavailable("no member of etcd was asked for a login");
    for _ in 0..client.members().count() {
        let member = client.members().pick();
        // Without a token: an invalid one would be refused before the password is looked at.
        let message = AuthenticateRequest { name: user.clone(), password: password.expose().to_owned() };
        let mut request = stamped(message, &Stamp::EMPTY);
        request.set_timeout(client.settings().login_timeout);
        client.counts().logins.add(1);
        let mut etcd = AuthClient::new(member.channel.clone());
        let status = match timeout(client.settings().login_timeout, etcd.authenticate(request)).await {
            Ok(Ok(answer)) => {
                client.members().succeeded(member.index);
                let Ok(mut token) = MetadataValue::try_from(answer.into_inner().token) else {
                    client.counts().login_failures.add(1);
                    return End::Failed(Error::unavailable(
                        "etcd answered a login with a token that is no text",
                    ));
                };
                token.set_sensitive(true);
                return End::Token(token);
            }
            Ok(Err(status)) => status,
            Err(_) => tonic::Status::deadline_exceeded("no answer in time"),
        };
        match Fault::of(&status) {
            Fault::AuthOff => return End::Off,
            Fault::Credentials => {
                client.counts().login_failures.add(1);
                tracing::warn!(user, "etcd refuses the user or the password");
                return End::Failed(Error::new(
                    ErrorKind::Credentials,
                    format!("etcd refuses user {user:?} or its password; correct them in the registry's url"),
                ));
            }
            _ => {
                client.members().failed(member.index);
                client.counts().login_failures.add(1);
                let uri = client.members().uri(member.index);
                last = Error::unavailable(format!("logging in at {uri} failed: {}", told(&status)));
            }
        }
    }
    End::Failed(last)
}
