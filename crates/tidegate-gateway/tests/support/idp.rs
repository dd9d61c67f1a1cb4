//! An identity provider inside the test: it rotates refresh tokens and detects their reuse, counts all that it is asked,
//! and fails in the ways that the test says.

mod grants;
mod server;
mod tls;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::StatusCode;
use tidegate_gateway::oidc::jose::SigningKey;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use self::grants::Books;
pub use self::tls::{Authority, Clients, Shown};
use super::dpop::Proofs;

/// The client that every provider knows, and its secret.
pub const CLIENT: &str = "gateway";
/// Its secret; a colon and a percent sign have to be encoded.
pub const SECRET: &str = "s3cret:100%-hunter2";

/// A running provider. Dropping it closes its port and its connections.
pub struct Idp {
    shared: Arc<Shared>,
    accept: Vec<JoinHandle<()>>,
}

struct Shared {
    issuer: String,
    /// Where clients with certificates ask, if that is elsewhere.
    mtls: Option<String>,
    /// Where users log in.
    pages: String,
    state: Mutex<State>,
    /// How many held answers may go.
    released: watch::Sender<usize>,
}

/// What a token endpoint does with a question.
#[derive(Clone, Debug)]
pub enum Does {
    /// Answers as it should.
    Grants,
    /// Answers as it should, once it is released.
    GrantsLate,
    /// Acts, and closes the connection without an answer.
    LosesTheAnswer,
    /// Acts, and never answers.
    Hangs,
    /// Does nothing, and says so with this status, and perhaps when to come back.
    Fails(u16, Option<u64>),
    /// Says this error of OAuth.
    Refuses(&'static str),
    /// Acts, and answers with this text as JSON.
    Says(&'static str),
    /// Sends the gateway elsewhere.
    Redirects,
    /// As [`Does::Fails`], once it is released.
    FailsLate(u16),
    /// Grants, and the ID token tells of this user.
    GrantsTo(&'static str),
    /// Grants, and the ID token is signed by a key that nobody knows.
    Forges,
    /// Grants, and says of the access token what nobody understands: of the answer only the refresh token can be used.
    Mangles,
    /// Grants, without an ID token.
    NamesNobody,
}

/// What one question of the token endpoint said.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `grant_type`.
    pub grant: String,
    /// How the client proved who it is: `basic`, `post`, `key`, `certificate` or `none`.
    pub auth: &'static str,
    /// The other fields of the form.
    pub form: BTreeMap<String, String>,
    /// Whether it proved possession of a key, with the nonce that is wanted.
    pub dpop: bool,
}

/// What the provider has seen and done.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Questions for the discovery document.
    pub discovery: usize,
    /// Questions for the keys.
    pub keys: usize,
    /// Questions at the token endpoint, acted on or not.
    pub arrived: usize,
    /// Questions at the token endpoint that were acted on.
    pub asked: usize,
    /// Tokens granted.
    pub granted: usize,
    /// Refresh tokens that came a second time: a family was revoked.
    pub reused: usize,
    /// Used refresh tokens that were taken again, within a grace.
    pub repeated: usize,
    /// Tokens given back by a client that proved who it is, each once.
    pub revoked: usize,
    /// Questions at the token endpoint that are not answered yet.
    pub at_once: usize,
    /// The most of them there were at once.
    pub most_at_once: usize,
    /// Handshakes that failed for the client's certificate.
    pub refused_handshakes: usize,
}

/// What becomes of a refresh token that comes a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// It is a thief's: its family is dead.
    None,
    /// It is taken as long as it is the last that was used.
    Last,
}

struct State {
    counts: Counts,
    asked: Vec<Asked>,
    next: VecDeque<Does>,
    always: Does,
    life: u64,
    delay: Duration,
    grace: Grace,
    acts_late: bool,
    key: (String, SigningKey),
    client_keys: Vec<u8>,
    client_certificate: Option<Vec<u8>>,
    clock_ahead: i64,
    proofs: Proofs,
    methods: Vec<&'static str>,
    issuer: Option<String>,
    documents: StatusCode,
    keys_late: bool,
    closes: bool,
    claims: serde_json::Map<String, serde_json::Value>,
    books: Books,
}

impl Idp {
    /// Starts one on a free port. Its access tokens live an hour.
    pub async fn start() -> Self {
        let (listener, port) = listen().await;
        let issuer = format!("http://127.0.0.1:{port}");
        let shared = Self::shared(issuer.clone(), None, issuer);
        let accept = vec![tokio::spawn(server::serve(listener, Arc::clone(&shared), None))];
        Self { shared, accept }
    }

    fn shared(issuer: String, mtls: Option<String>, pages: String) -> Arc<Shared> {
        Arc::new(Shared {
            issuer,
            mtls,
            pages,
            state: Mutex::new(State {
                counts: Counts::default(),
                asked: Vec::new(),
                next: VecDeque::new(),
                always: Does::Grants,
                life: 3600,
                delay: Duration::ZERO,
                grace: Grace::None,
                acts_late: false,
                key: ("key-1".into(), SigningKey::generate()),
                client_keys: br#"{"keys":[]}"#.to_vec(),
                client_certificate: None,
                clock_ahead: 0,
                proofs: Proofs::default(),
                methods: vec!["client_secret_basic", "client_secret_post", "private_key_jwt"],
                issuer: None,
                documents: StatusCode::OK,
                keys_late: false,
                closes: false,
                claims: serde_json::Map::new(),
                books: Books::default(),
            }),
            released: watch::Sender::new(0),
        })
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Says what the token endpoint does with the next question that nothing was said about yet.
    pub fn next(&self, does: Does) {
        self.state().next.push_back(does);
    }

    /// Says what it does with all questions that nothing else was said about.
    pub fn always(&self, does: Does) {
        self.state().always = does;
    }

    /// Lets all answers go that are held, and all that would be.
    pub fn release(&self) {
        self.shared.released.send_modify(|released| *released += 1_000_000);
    }

    /// Holds answers again after a [`Idp::release`].
    pub fn hold(&self) {
        self.shared.released.send_replace(0);
    }

    /// Takes this long for every answer of the token endpoint.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Acts on questions at the token endpoint once they are released, or at once.
    pub fn acts_late(&self, late: bool) {
        self.state().acts_late = late;
    }

    /// Sets what becomes of refresh tokens that come again.
    pub fn grace(&self, grace: Grace) {
        self.state().grace = grace;
    }

    /// Sets how long access tokens live that are granted from now on, in seconds.
    pub fn life(&self, seconds: u64) {
        self.state().life = seconds;
    }

    /// Signs by another key from now on, and shows that one alone.
    pub fn rotate_keys(&self) {
        let mut state = self.state();
        let name = format!("key-{}", state.counts.granted + 2);
        state.key = (name, SigningKey::generate());
    }

    /// The key by which the client signs, as a set of public keys.
    pub fn client_keys(&self, set: Vec<u8>) {
        self.state().client_keys = set;
    }

    /// Sets its clock ahead by so many seconds.
    pub fn clock_ahead(&self, seconds: i64) {
        let mut state = self.state();
        state.clock_ahead = seconds;
        state.proofs.clock_ahead = seconds;
    }

    /// Wants this nonce in proofs of possession from now on.
    pub fn dpop_nonce(&self, nonce: &str) {
        self.state().proofs.nonce = Some(nonce.to_owned());
    }

    /// Says in its document that clients authenticate so.
    pub fn methods(&self, methods: &[&'static str]) {
        self.state().methods = methods.to_vec();
    }

    /// Says in its document that it is this issuer.
    pub fn claims_to_be(&self, issuer: &str) {
        self.state().issuer = Some(issuer.to_owned());
    }

    /// Answers questions for documents with this status.
    pub fn documents(&self, status: StatusCode) {
        self.state().documents = status;
    }

    /// Answers questions for its keys once they are released, or at once.
    pub fn keys_late(&self, late: bool) {
        self.state().keys_late = late;
    }

    /// Puts these claims into ID tokens from now on, in place of what stands there.
    pub fn claims(&self, claims: serde_json::Value) {
        self.state().claims = claims.as_object().unwrap().clone();
    }

    /// Signs any claims as it signs its ID tokens, with this `typ`.
    pub fn sign(&self, kind: &str, claims: &serde_json::Value) -> String {
        let state = self.state();
        let (name, key) = &state.key;
        key.sign(kind, &[("kid", name.as_str().into())], claims)
    }

    /// What it has seen and done.
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// What the questions at the token endpoint said, in their order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// Every secret that it ever gave out or was told: none of them may be seen anywhere.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = self.state().books.secrets.clone();
        secrets.push(SECRET.to_owned());
        secrets
    }

    /// A refresh token of a new family, for this user.
    pub fn refresh_token(&self, user: &str) -> String {
        self.state().books.new_family(user, None)
    }

    /// Refresh tokens that it would take now: unused, not given back, of a family that lives.
    pub fn good_refresh_tokens(&self) -> usize {
        self.state().books.good_refresh_tokens()
    }

    /// Closes every connection after one answer: when it goes away, nobody can think that it took a question.
    pub fn closes(&self) {
        self.state().closes = true;
    }

    /// Goes away: its port is closed, and so are all connections.
    pub async fn goes_away(&mut self) {
        for accept in self.accept.drain(..) {
            accept.abort();
            let _ = accept.await;
        }
    }

    /// Comes back where it was, one that speaks no TLS.
    pub async fn comes_back(&mut self) {
        let addr: SocketAddr = self.issuer().strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind(addr).await.unwrap();
        self.accept.push(tokio::spawn(server::serve(listener, Arc::clone(&self.shared), None)));
    }

    /// Forgets an access token: an upstream that asks would say that it is invalid.
    pub fn knows(&self, access: &str) -> bool {
        self.state().books.access.contains(access)
    }

    /// The thumbprint of the key that a good access token is bound to.
    pub fn bound_to(&self, access: &str) -> Option<String> {
        let books = &self.state().books;
        books.bound.get(access).filter(|_| books.access.contains(access)).cloned()
    }

    /// Forgets all access tokens.
    pub fn forget_access_tokens(&self) {
        self.state().books.access.clear();
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.accept.iter().for_each(JoinHandle::abort);
    }
}
