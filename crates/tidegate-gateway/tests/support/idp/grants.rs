//! What the provider grants, and what it remembers of that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value as Json, json};
use tidegate_gateway::oidc::{
    date::wall,
    jose::{KeySet, Parts, SigningKey, base64url},
};
use url::form_urlencoded;

use super::{super::dpop::NoProof, Asked, CLIENT, Does, Grace, SECRET, Shared, State};

/// What the provider remembers.
#[derive(Default)]
pub struct Books {
    /// Everything that must not be seen.
    pub secrets: Vec<String>,
    /// Access tokens that are good.
    pub access: BTreeSet<String>,
    /// The thumbprints of the keys that access tokens are bound to.
    pub bound: HashMap<String, String>,
    refresh: HashMap<String, Refresh>,
    dead_families: HashSet<u64>,
    /// The place of the last token that was used, of each family.
    places: HashMap<u64, u64>,
    codes: HashMap<String, Code>,
    families: u64,
}

#[derive(Clone)]
struct Refresh {
    family: u64,
    /// How many of the family came before it.
    place: u64,
    user: String,
    used: bool,
    /// The thumbprint of the key that it is bound to.
    key: Option<String>,
}

/// A user who logged in, until the code is redeemed.
pub struct Code {
    pub redirect: String,
    pub nonce: Option<String>,
    pub challenge: Option<String>,
    /// The thumbprint of the key that it is bound to (RFC 9449 §10).
    pub key: Option<String>,
    pub user: String,
}

impl Books {
    fn secret(&mut self, kind: &str) -> String {
        let secret = format!("{kind}-{:032x}", fastrand::u128(..));
        self.secrets.push(secret.clone());
        secret
    }

    /// A refresh token of a family that begins.
    pub fn new_family(&mut self, user: &str, key: Option<String>) -> String {
        self.families += 1;
        let (family, user) = (self.families, user.to_owned());
        let token = self.secret("rt");
        self.refresh.insert(token.clone(), Refresh { family, place: 0, user, used: false, key });
        self.places.insert(family, 0);
        token
    }

    /// A code for a user who logged in.
    pub fn code(&mut self, code: Code) -> String {
        let secret = self.secret("code");
        self.codes.insert(secret.clone(), code);
        secret
    }

    /// Refresh tokens that would be taken.
    pub fn good_refresh_tokens(&self) -> usize {
        let good = |known: &&Refresh| !known.used && !self.dead_families.contains(&known.family);
        self.refresh.values().filter(good).count()
    }

    /// Takes a token back; whether there was one. A refresh token takes no other one with it: whoever holds two of a family
    /// has to give both back.
    fn take_back(&mut self, token: &str) -> bool {
        self.refresh.remove(token).is_some() || self.access.remove(token)
    }
}

/// What the token endpoint answers: a status, fields and JSON.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Json,
}

impl Reply {
    fn error(status: u16, code: &str) -> Self {
        let body = json!({ "error": code, "error_description": "as the test said" });
        Self { status: status.try_into().unwrap(), headers: HeaderMap::new(), body }
    }
}

/// Acts on a question at the token endpoint, and tells what to do with the answer.
pub fn token(shared: &Shared, headers: &HeaderMap, shown: Option<&[u8]>, body: &[u8]) -> (Does, Reply) {
    let mut state = shared.state.lock().unwrap();
    let state = &mut *state;
    state.counts.asked += 1;
    let mut form: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let auth = client(state, &shared.issuer, headers, shown, &mut form);
    let dpop = proof(state, &shared.issuer, headers);
    for name in ["refresh_token", "client_assertion", "code_verifier", "subject_token"] {
        state.books.secrets.extend(form.get(name).cloned());
    }
    let grant = form.remove("grant_type").unwrap_or_default();
    state.asked.push(Asked {
        grant: grant.clone(),
        auth: auth.unwrap_or("wrong"),
        form: form.clone(),
        dpop: matches!(dpop, Ok(Some(_))),
    });
    let does = state.next.pop_front().unwrap_or_else(|| state.always.clone());
    match does {
        Does::FailsLate(status) => return (does, Reply::error(status, "server_error")),
        Does::Fails(status, after) => {
            let mut reply = Reply::error(status, "server_error");
            if let Some(after) = after {
                reply.headers.insert(header::RETRY_AFTER, after.into());
            }
            return (does, reply);
        }
        Does::Refuses(code) => {
            let status = if code == "invalid_client" { 401 } else { 400 };
            return (does, Reply::error(status, code));
        }
        Does::Redirects => {
            let mut reply = Reply::error(302, "moved");
            reply.headers.insert(header::LOCATION, "/elsewhere".parse().unwrap());
            return (does, reply);
        }
        Does::Grants
        | Does::GrantsLate
        | Does::LosesTheAnswer
        | Does::Hangs
        | Does::Says(_)
        | Does::GrantsTo(_)
        | Does::Forges
        | Does::Mangles
        | Does::NamesNobody => {}
    }
    if auth.is_none() {
        return (does, Reply::error(401, "invalid_client"));
    }
    let mut fields = HeaderMap::new();
    if let Some(nonce) = &state.proofs.nonce {
        fields.insert("dpop-nonce", nonce.parse().unwrap());
    }
    let key = match dpop {
        Ok(key) => key,
        Err(code) => return (does, Reply { headers: fields, ..Reply::error(400, code) }),
    };
    let granted = match grant.as_str() {
        "client_credentials" => Ok((None, None, None)),
        "urn:ietf:params:oauth:grant-type:token-exchange" => match form.get("subject_token") {
            Some(subject) if subject.starts_with("good") => Ok((None, None, None)),
            _ => Err("invalid_request"),
        },
        "refresh_token" => refresh(state, &form, key.as_deref()),
        "authorization_code" => code(state, &form, auth, key.as_deref()),
        _ => Err("unsupported_grant_type"),
    };
    let (refresh, user, nonce) = match granted {
        Ok(granted) => granted,
        Err(code) => return (does, Reply::error(400, code)),
    };
    state.counts.granted += 1;
    let access = state.books.secret("at");
    state.books.access.insert(access.clone());
    let kind = if key.is_some() { "DPoP" } else { "Bearer" };
    state.books.bound.extend(key.map(|key| (access.clone(), key)));
    let mut body = json!({ "access_token": access, "token_type": kind, "expires_in": state.life });
    if let Some(refresh) = refresh {
        body["refresh_token"] = refresh.into();
    }
    if let Some(user) = user.filter(|_| !matches!(does, Does::NamesNobody)) {
        let user = if let Does::GrantsTo(other) = does { other.to_owned() } else { user };
        let forged = matches!(does, Does::Forges).then(SigningKey::generate);
        body["id_token"] = id_token(state, &shared.issuer, &user, nonce, forged.as_ref()).into();
    }
    if let Does::Mangles = &does {
        body["token_type"] = "mac".into();
    }
    if let Does::Says(text) = &does {
        body = serde_json::from_str(text).unwrap_or_else(|_| Json::from(*text));
    }
    (does, Reply { status: StatusCode::OK, headers: fields, body })
}

/// Takes tokens back (RFC 7009).
pub fn revoke(shared: &Shared, headers: &HeaderMap, shown: Option<&[u8]>, body: &[u8]) -> Reply {
    let mut state = shared.state.lock().unwrap();
    let mut form: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    if client(&state, &shared.issuer, headers, shown, &mut form).is_none() {
        return Reply::error(401, "invalid_client");
    }
    let known = form.get("token").is_some_and(|token| state.books.take_back(token));
    state.counts.revoked += usize::from(known);
    Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: Json::Null }
}

type Granted = (Option<String>, Option<String>, Option<String>);

/// Rotates. A token that comes again is a thief's or ours: the family is dead.
fn refresh(
    state: &mut State,
    form: &BTreeMap<String, String>,
    key: Option<&str>,
) -> Result<Granted, &'static str> {
    let books = &mut state.books;
    let presented = form.get("refresh_token").ok_or("invalid_request")?;
    let known = books.refresh.get_mut(presented).ok_or("invalid_grant")?;
    let last = books.places.get(&known.family) == Some(&known.place);
    if known.used && state.grace == Grace::Last && last {
        state.counts.repeated += 1;
    } else if known.used {
        state.counts.reused += 1;
        books.dead_families.insert(known.family);
        return Err("invalid_grant");
    }
    if books.dead_families.contains(&known.family) {
        return Err("invalid_grant");
    }
    // Of a client that proves nothing else (RFC 9449 §5).
    if known.key.as_deref().is_some_and(|bound| key != Some(bound)) {
        return Err("invalid_grant");
    }
    known.used = true;
    let known = known.clone();
    books.places.insert(known.family, known.place);
    let user = known.user.clone();
    let next = books.secret("rt");
    books.refresh.insert(next.clone(), Refresh { used: false, place: known.place + 1, ..known });
    Ok((Some(next), Some(user), None))
}

fn code(
    state: &mut State,
    form: &BTreeMap<String, String>,
    auth: Option<&str>,
    key: Option<&str>,
) -> Result<Granted, &'static str> {
    let code = form.get("code").and_then(|code| state.books.codes.remove(code)).ok_or("invalid_grant")?;
    if form.get("redirect_uri") != Some(&code.redirect) {
        return Err("invalid_grant");
    }
    if let Some(challenge) = code.challenge {
        let verifier = form.get("code_verifier").map(String::as_bytes).unwrap_or_default();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier);
        if base64url(hash) != challenge {
            return Err("invalid_grant");
        }
    }
    if code.key.as_deref().is_some_and(|bound| key != Some(bound)) {
        return Err("invalid_grant");
    }
    let key = key.filter(|_| auth == Some("none")).map(str::to_owned);
    let refresh = state.books.new_family(&code.user, key);
    Ok((Some(refresh), Some(code.user), code.nonce))
}

fn id_token(
    state: &mut State,
    issuer: &str,
    user: &str,
    nonce: Option<String>,
    forged: Option<&SigningKey>,
) -> String {
    let now = wall().as_secs() as i64 + state.clock_ahead;
    let mut claims = json!({
        "iss": issuer, "sub": user, "aud": CLIENT, "iat": now, "exp": now + 300, "email": format!("{user}@example.com"),
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = nonce.into();
    }
    claims.as_object_mut().unwrap().extend(state.claims.clone());
    let (name, key) = &state.key;
    let token = forged.unwrap_or(key).sign("JWT", &[("kid", name.as_str().into())], &claims);
    state.books.secrets.push(token.clone());
    token
}

/// How the client proved who it is; none when it did not.
fn client(
    state: &State,
    issuer: &str,
    headers: &HeaderMap,
    shown: Option<&[u8]>,
    form: &mut BTreeMap<String, String>,
) -> Option<&'static str> {
    let basic = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
    let given = (basic, form.remove("client_secret"), form.get("client_assertion"));
    match given {
        (Some(basic), None, None) => {
            let joined = STANDARD.decode(basic.strip_prefix("Basic ")?).ok()?;
            let joined = String::from_utf8(joined).ok()?;
            let (id, secret) = joined.split_once(':')?;
            let decoded = |text: &str| {
                form_urlencoded::parse(format!("x={text}").as_bytes())
                    .next()
                    .map(|(_, text)| text.into_owned())
            };
            (decoded(id)? == CLIENT && decoded(secret)? == SECRET).then_some("basic")
        }
        (None, Some(secret), None) => {
            (form.get("client_id").is_some_and(|id| id == CLIENT) && secret == SECRET).then_some("post")
        }
        (None, None, Some(assertion)) => {
            let parts = Parts::of(assertion).ok()?;
            KeySet::read(&state.client_keys).ok()?.verify(&parts).ok()?;
            let claims: Json = parts.claims().ok()?;
            let now = wall().as_secs() as i64 + state.clock_ahead;
            let timely = (claims["iat"].as_i64()? - now).abs() < 30 && claims["exp"].as_i64()? > now;
            (claims["iss"] == CLIENT && claims["sub"] == CLIENT && claims["aud"] == issuer && timely)
                .then_some("key")
        }
        (None, None, None) => {
            let named = form.get("client_id").is_some_and(|id| id == CLIENT);
            match &state.client_certificate {
                None => named.then_some("none"),
                Some(known) => (named && shown == Some(known)).then_some("certificate"),
            }
        }
        // More than one way at once is an error (RFC 6749 §2.3).
        _ => None,
    }
}

/// The thumbprint of the key that was proved, if one was; the error where the proof is none.
fn proof(state: &mut State, issuer: &str, headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    match state.proofs.check(headers, Method::POST.as_str(), &format!("{issuer}/token"), None) {
        Ok(key) => Ok(Some(key)),
        Err(NoProof::Missing) => Ok(None),
        Err(NoProof::Nonce) => Err("use_dpop_nonce"),
        Err(NoProof::Wrong(_)) => Err("invalid_dpop_proof"),
    }
}
