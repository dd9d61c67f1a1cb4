//! An identity provider and a service behind it, on loopback, and a client for both: what the example talks to.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};

#[derive(Default)]
struct State {
    grants: usize,
    good: Vec<String>,
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
        let state = Arc::new(Mutex::new(State { grants: 0, good: vec!["first".into()] }));
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

    pub(crate) fn client(&self) -> Post {
        Post { client: Client::builder(TokioExecutor::new()).build_http(), address: self.address }
    }

    pub(crate) fn grants(&self) -> usize {
        self.state.lock().expect("nobody panics with it").grants
    }

    pub(crate) fn forget(&self, token: &str) {
        self.state.lock().expect("nobody panics with it").good.retain(|good| good != token);
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
    let (status, body) = match path.as_str() {
        "/token" if form.ends_with(format!("=rt-{}", state.grants).as_bytes()) => {
            state.grants += 1;
            state.good.push(format!("at-{}", state.grants));
            let number = state.grants;
            let text = format!(
                r#"{{"access_token":"at-{number}","refresh_token":"rt-{number}","token_type":"Bearer","expires_in":300}}"#
            );
            (StatusCode::OK, text)
        }
        "/token" => (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#.to_owned()),
        _ if token.is_some_and(|token| state.good.contains(&token)) => (StatusCode::OK, String::new()),
        _ => (StatusCode::UNAUTHORIZED, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

/// The client.
#[derive(Clone)]
pub(crate) struct Post {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl Post {
    async fn send(&self, path: &str, token: Option<&str>, body: String) -> Result<(u16, String), Error> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(Method::POST).uri(uri);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::from(body)).expect("an address, a path and a token make a request");
        let response = self.client.request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    pub(crate) async fn post(&self, path: &str, form: String) -> Result<(u16, String), Error> {
        self.send(path, None, form).await
    }

    pub(crate) async fn with_token(&self, path: &str, authorization: &str) -> Result<u16, Error> {
        self.send(path, Some(authorization), String::new()).await.map(|(status, _)| status)
    }
}
