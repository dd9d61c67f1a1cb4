//! The provider's endpoints over HTTP.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value as Json, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use url::form_urlencoded;

use super::{
    Does, Shared,
    grants::{self, Code, Reply},
    tls,
};

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            let Some(tls) = tls else {
                let lasts = !shared.state.lock().unwrap().closes;
                let service = service_fn(move |request| answer(Arc::clone(&shared), None, request));
                let _ = http1::Builder::new()
                    .keep_alive(lasts)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                return;
            };
            let Some(stream) = tls::accept(&tls, stream, &shared).await else { return };
            let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
            let service = service_fn(move |request| answer(Arc::clone(&shared), shown.clone(), request));
            let either = auto::Builder::new(TokioExecutor::new());
            let _ = either.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Waits until an answer may go that is held.
async fn released(shared: &Shared) {
    let mut released = shared.released.subscribe();
    let _ = released.wait_for(|released| *released > 0).await;
    shared.released.send_modify(|released| *released = released.saturating_sub(1));
}

/// A question at the token endpoint, until it is answered.
struct Out(Arc<Shared>);

impl Out {
    fn begin(shared: &Arc<Shared>) -> Self {
        let counts = &mut shared.state.lock().unwrap().counts;
        counts.arrived += 1;
        counts.at_once += 1;
        counts.most_at_once = counts.most_at_once.max(counts.at_once);
        Self(Arc::clone(shared))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().counts.at_once -= 1;
    }
}

/// An error closes the connection.
async fn answer(
    shared: Arc<Shared>,
    shown: Option<Vec<u8>>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = match head.uri.path() {
        "/.well-known/openid-configuration" => discovery(&shared),
        "/keys" => {
            let reply = keys(&shared);
            if shared.state.lock().unwrap().keys_late {
                released(&shared).await;
            }
            reply
        }
        "/token" => {
            let _out = Out::begin(&shared);
            if shared.state.lock().unwrap().acts_late {
                released(&shared).await;
            }
            let (does, reply) = grants::token(&shared, &head.headers, shown.as_deref(), &body);
            let delay = shared.state.lock().unwrap().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            match does {
                Does::LosesTheAnswer => return Err(io::Error::other("the answer is lost")),
                Does::Hangs => std::future::pending().await,
                Does::GrantsLate | Does::FailsLate(_) => {
                    released(&shared).await;
                }
                _ => {}
            }
            reply
        }
        "/revoke" => grants::revoke(&shared, &head.headers, shown.as_deref(), &body),
        "/authorize" => authorize(&shared, head.uri.query().unwrap_or_default()),
        _ => plain(StatusCode::NOT_FOUND, json!({ "error": "no such page" })),
    };
    let ahead = shared.state.lock().unwrap().clock_ahead;
    let mut response = Response::new(Full::from(reply.body.to_string()));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    if ahead != 0 {
        headers.insert(header::DATE, date(ahead).parse().unwrap());
    }
    Ok(response)
}

fn plain(status: StatusCode, body: Json) -> Reply {
    Reply { status, headers: HeaderMap::new(), body }
}

fn date(ahead: i64) -> String {
    let now = tidegate_gateway::oidc::date::wall().as_secs() as i64 + ahead;
    let at = jiff::Timestamp::from_second(now).unwrap();
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
}

fn discovery(shared: &Shared) -> Reply {
    let mut state = shared.state.lock().unwrap();
    state.counts.discovery += 1;
    let here = &shared.issuer;
    let mut document = json!({
        "issuer": state.issuer.as_deref().unwrap_or(here),
        "token_endpoint": format!("{here}/token"),
        "authorization_endpoint": format!("{}/authorize", shared.pages),
        "jwks_uri": format!("{here}/keys"),
        "revocation_endpoint": format!("{here}/revoke"),
        "end_session_endpoint": format!("{here}/end"),
        "token_endpoint_auth_methods_supported": state.methods,
        "id_token_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
    });
    if let Some(mtls) = &shared.mtls {
        document["mtls_endpoint_aliases"] = json!({ "token_endpoint": format!("{mtls}/token"), "revocation_endpoint": format!("{mtls}/revoke") });
    }
    plain(state.documents, document)
}

fn keys(shared: &Shared) -> Reply {
    let mut state = shared.state.lock().unwrap();
    state.counts.keys += 1;
    let (name, key) = &state.key;
    let mut jwk = key.public_jwk().unwrap();
    jwk["kid"] = name.as_str().into();
    plain(state.documents, json!({ "keys": [jwk] }))
}

/// The user is always the same, and always agrees.
fn authorize(shared: &Shared, query: &str) -> Reply {
    let fields: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let redirect = field("redirect_uri").unwrap_or_default();
    let code = Code {
        redirect: redirect.clone(),
        nonce: field("nonce"),
        challenge: field("code_challenge"),
        key: field("dpop_jkt"),
        user: field("login_hint").unwrap_or_else(|| "ann".into()),
    };
    let code = shared.state.lock().unwrap().books.code(code);
    let mut answer = form_urlencoded::Serializer::new(String::new());
    answer.append_pair("code", &code).append_pair("iss", &shared.issuer);
    if let Some(state) = field("state") {
        answer.append_pair("state", &state);
    }
    let mut reply = plain(StatusCode::FOUND, Json::Null);
    reply.headers.insert(header::LOCATION, format!("{redirect}?{}", answer.finish()).parse().unwrap());
    reply
}
