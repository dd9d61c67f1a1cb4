//! An identity provider and a service behind it, on loopback: what the example talks to.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;

#[derive(Default)]
struct State {
    grants: usize,
    good: Vec<String>,
    revoked: bool,
}

/// The server.
pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let serve = hyper::server::conn::http1::Builder::new();
                tokio::spawn(serve.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, state, task: task.abort_handle() })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many grants it gave, and whether what was left was given back.
    pub(crate) fn told(&self) -> (usize, bool) {
        let state = self.state.lock().expect("nobody panics with it");
        (state.grants, state.revoked)
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let form = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let state = &mut *state.lock().expect("nobody panics with it");
    let newest = format!("=rt-{}", state.grants);
    let (status, body) = match path.as_str() {
        "/token" if form.ends_with(newest.as_bytes()) => {
            state.grants += 1;
            state.good.push(format!("at-{}", state.grants));
            let number = state.grants;
            let text = format!(
                r#"{{"access_token":"at-{number}","refresh_token":"rt-{number}","token_type":"Bearer","expires_in":300}}"#
            );
            (StatusCode::OK, text)
        }
        "/token" => (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#.to_owned()),
        "/revoke" => {
            state.revoked = form.ends_with(newest.as_bytes());
            (StatusCode::OK, String::new())
        }
        _ if token.is_some_and(|token| state.good.contains(&token)) => (StatusCode::OK, String::new()),
        _ => (StatusCode::UNAUTHORIZED, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}
