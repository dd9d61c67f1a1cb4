//! Small HTTP clients: one connection each, nothing retried, nothing added but `host`.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::within;

/// A request body.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The version of the answer.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailer fields.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header field as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = within("a response body", body.collect()).await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        Ok(Self { status: head.status, version: head.version, headers: head.headers, body, trailers })
    }
}

/// A body of any kind.
pub fn body<B>(body: B) -> RequestBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body held in memory.
pub fn whole(bytes: impl Into<Bytes>) -> RequestBody {
    body(Full::new(bytes.into()))
}

/// No body.
pub fn empty() -> RequestBody {
    whole(Bytes::new())
}

/// A connection that speaks HTTP/1.1.
pub async fn http1(addr: SocketAddr) -> http1::SendRequest<RequestBody> {
    let stream = within("connecting", TcpStream::connect(addr)).await.expect("the server listens");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// A connection that speaks HTTP/2 with prior knowledge.
pub async fn http2(addr: SocketAddr) -> http2::SendRequest<RequestBody> {
    let stream = within("connecting", TcpStream::connect(addr)).await.expect("the server listens");
    stream.set_nodelay(true).unwrap();
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A request for HTTP/1.1, `host` included.
pub fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "gateway.test")
}

/// A request for HTTP/2.
pub fn request2(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://gateway.test{path}"))
}

/// Sends one request over HTTP/1.1 on a connection of its own and reads the answer.
pub async fn send(addr: SocketAddr, request: Request<RequestBody>) -> Answer {
    let mut sender = http1(addr).await;
    let response = within("an answer", sender.send_request(request)).await.expect("an answer");
    Answer::read(response).await.expect("a whole answer")
}

/// As [`send`], over HTTP/2.
pub async fn send2(addr: SocketAddr, request: Request<RequestBody>) -> Answer {
    let mut sender = http2(addr).await;
    let response = within("an answer", sender.send_request(request)).await.expect("an answer");
    Answer::read(response).await.expect("a whole answer")
}

/// Gets a path over HTTP/1.1.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    get_with(addr, path, &[]).await
}

/// Gets a path over HTTP/1.1 with more header fields.
pub async fn get_with(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(request("GET", path), |request, (name, value)| request.header(*name, *value));
    send(addr, request.body(empty()).unwrap()).await
}

/// Gets a path over HTTP/1.1 from a server by its address: the admin pages answer no other name.
pub async fn get_at(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::get(path).header("host", addr.to_string());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    send(addr, request.body(empty()).unwrap()).await
}

/// As [`get_at`], from a server that may not be there yet.
pub async fn try_get_at(addr: SocketAddr, path: &str) -> Option<Answer> {
    let stream = TcpStream::connect(addr).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", addr.to_string()).body(empty()).unwrap();
    Answer::read(sender.send_request(request).await.ok()?).await.ok()
}
