//! An identity provider that rotates refresh tokens, detects the use of an old one and revokes its family, counts what
//! it is asked, and fails as it is told.

#![allow(dead_code, reason = "each test file uses the faults it needs")]

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use tidegate::{
    Secret,
    token::{Grant, GrantError, Identity, TokenEndpoint, Tokens, VerifyError},
};
use tokio::time::{Instant, sleep};

use crate::trace;

/// What goes wrong with one grant.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It answers this and does nothing.
    Refuse(GrantError),
    /// It rotates, and the connection breaks before the answer is there.
    LoseAnswer,
    /// It rotates, and the answer takes so much longer.
    Late(Duration),
    /// It rotates, and the answer cannot be read; with or without the refresh token.
    Garble { readable: bool },
    /// It panics in the client.
    Panic,
    /// It takes this long before anything else.
    Slow(Duration),
}

#[derive(Default)]
pub(crate) struct State {
    families: HashMap<u64, Family>,
    faults: VecDeque<Fault>,
    always: Option<GrantError>,
    pub(crate) latency: Duration,
    /// How long the token before is taken again.
    pub(crate) grace: Duration,
    pub(crate) life: Duration,
    pub(crate) grants: u64,
    pub(crate) reuses: u64,
    pub(crate) out: u64,
    pub(crate) most_out: u64,
    pub(crate) revoked: Vec<String>,
    pub(crate) verify: Option<VerifyError>,
    pub(crate) verifies: bool,
    pub(crate) verified: u64,
    issued: u64,
}

struct Family {
    current: u64,
    rotated_at: Instant,
    revoked: bool,
}

/// Clones are one provider.
#[derive(Clone)]
pub(crate) struct Idp(Arc<Mutex<State>>);

impl Idp {
    /// One that answers within 100 ms, with tokens that live for 5 minutes, and never takes a token again.
    pub(crate) fn new() -> Self {
        let state =
            State { latency: Duration::from_millis(100), life: Duration::from_secs(300), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.lock().expect("no test panics with it"))
    }

    pub(crate) fn grants(&self) -> u64 {
        self.with(|state| state.grants)
    }

    pub(crate) fn reuses(&self) -> u64 {
        self.with(|state| state.reuses)
    }

    pub(crate) fn next(&self, fault: Fault) {
        self.with(|state| state.faults.push_back(fault));
    }

    /// Answers everything with this, until told otherwise.
    pub(crate) fn always(&self, error: Option<GrantError>) {
        self.with(|state| state.always = error);
    }

    /// A login: the first tokens of a family.
    pub(crate) fn login(&self, family: u64) -> Tokens {
        self.with(|state| {
            state.families.insert(family, Family { current: 0, rotated_at: Instant::now(), revoked: false });
            state.tokens(family)
        })
    }

    /// The refresh token of a family that is good now.
    pub(crate) fn newest(&self, family: u64) -> String {
        self.with(|state| format!("rt-{family}-{}", state.families[&family].current))
    }

    /// Kills a family, as an administrator would.
    pub(crate) fn revoke_family(&self, family: u64) {
        self.with(|state| state.families.get_mut(&family).expect("it logged in").revoked = true);
    }
}

impl State {
    fn tokens(&mut self, family: u64) -> Tokens {
        self.issued += 1;
        let current = self.families[&family].current;
        let mut tokens = Tokens::bearer(format!("at-{family}-{}", self.issued))
            .expires_in(self.life)
            .refresh(format!("rt-{family}-{current}"));
        tokens.id = self.verifies.then(|| Secret::new(format!("id-{family}")));
        tokens
    }

    fn rotate(&mut self, refresh: &str) -> Result<Tokens, GrantError> {
        let (family, number) =
            refresh.strip_prefix("rt-").and_then(|rest| rest.split_once('-')).expect("a token of ours");
        let (id, number) = (family.parse().expect("a number"), number.parse::<u64>().expect("a number"));
        let grace = self.grace;
        let family = self.families.get_mut(&id).expect("it logged in");
        let terminal = Err(GrantError::Terminal { code: "invalid_grant".into() });
        if family.revoked {
            return terminal;
        }
        if number == family.current {
            (family.current, family.rotated_at) = (number + 1, Instant::now());
            return Ok(self.tokens(id));
        }
        if number + 1 == family.current && family.rotated_at.elapsed() < grace {
            return Ok(self.tokens(id));
        }
        family.revoked = true;
        self.reuses += 1;
        terminal
    }
}

/// A request that is out, counted.
struct Out<'a>(&'a Idp);

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.out -= 1);
    }
}

/// The session of a family in whole histories.
fn session_of(refresh: &str) -> String {
    let mut parts = refresh.split('-').skip(1).map(|part| part.parse::<u64>().unwrap_or_default());
    let family = parts.next().unwrap_or_default();
    format!("user-{}-{}", family / 100_000, family % 100_000)
}

impl TokenEndpoint for Idp {
    async fn grant(&self, grant: Grant, _within: Duration) -> Result<Tokens, GrantError> {
        let (latency, fault, always) = self.with(|state| {
            state.grants += 1;
            state.out += 1;
            state.most_out = state.most_out.max(state.out);
            (state.latency, state.faults.pop_front(), state.always.clone())
        });
        let _out = Out(self);
        let session = match &grant {
            Grant::Refresh { refresh, .. } => session_of(refresh.expose()),
            _ => String::new(),
        };
        trace::note(&session, format_args!("granting {grant:?}, {fault:?}"));
        sleep(latency / 2).await;
        if let Some(error) = always {
            return Err(error);
        }
        match &fault {
            Some(Fault::Refuse(error)) => return Err(error.clone()),
            Some(Fault::Panic) => panic!("the client broke"),
            Some(Fault::Slow(for_so_long)) => sleep(*for_so_long).await,
            _ => {}
        }
        let granted = match grant {
            Grant::Refresh { refresh, .. } => self.with(|state| state.rotate(refresh.expose())),
            _ => Ok(Tokens::bearer("service").expires_in(self.with(|state| state.life))),
        };
        match fault {
            Some(Fault::LoseAnswer) => return Err(GrantError::Unknown { why: "connection reset".into() }),
            Some(Fault::Garble { readable }) => {
                let refresh = granted?.refresh.filter(|_| readable);
                return Err(GrantError::Protocol { why: "not JSON".into(), refresh });
            }
            Some(Fault::Late(delay)) => sleep(delay).await,
            _ => {}
        }
        sleep(latency / 2).await;
        granted
    }

    fn verifies(&self) -> bool {
        self.with(|state| state.verifies)
    }

    async fn verify(&self, _: &Tokens, pinned: Option<&Identity>) -> Result<Option<Identity>, VerifyError> {
        self.with(|state| {
            state.verified += 1;
            state.verify.clone().map_or_else(|| Ok(pinned.cloned()), Err)
        })
    }

    async fn revoke(&self, tokens: Tokens) {
        let token = tokens.refresh.unwrap_or(tokens.access);
        self.with(|state| state.revoked.push(token.expose().to_owned()));
    }
}
