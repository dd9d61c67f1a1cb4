//! From a request that hyper has read to the handler, and the answer's way back: the exchange is counted from one to the
//! end of the other.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    Handler,
    peer::{Agreement, Peer},
    stop::{Stage, Stop},
};
use crate::body::{BodyError, ResponseBody};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What the exchanges of one connection share.
pub(super) struct Connection<H> {
    pub(super) handler: Arc<H>,
    pub(super) peer: Arc<Peer>,
    pub(super) stop: Arc<Stop>,
}

impl<H: Handler> Connection<H> {
    /// Answers a request.
    pub(super) fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ExchangeBody>, Infallible>> + Send + use<H> {
        let connection = Arc::clone(self);
        let exchange = Exchange::begin(&self.peer);
        async move {
            let leaves = leaves(&request);
            let is_http1 = request.version() < Version::HTTP_2;
            let mut response = match contradiction(&request) {
                None => connection.handler.call(request, &connection.peer).await,
                Some(why) => bad_request(why),
            };
            if leaves {
                decide(&connection.peer, &mut response);
            }
            let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
            if is_http1 && stays && connection.stop.stage() > Stage::Serving {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok(response.map(|body| ExchangeBody { body, _exchange: exchange }))
        }
    }
}

/// Whether an HTTP/1 request asks for another protocol.
fn leaves(request: &Request<Incoming>) -> bool {
    request.version() < Version::HTTP_2
        && (request.headers().contains_key(header::UPGRADE) || *request.method() == Method::CONNECT)
}

/// Tells the reader of the connection whether what follows is still HTTP.
fn decide(peer: &Peer, response: &mut Response<ResponseBody>) {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        peer.activity.agree(Agreement::Agreed);
        return;
    }
    peer.activity.agree(Agreement::Refused);
    // What came early was not checked as HTTP, so it must not be answered as HTTP.
    if peer.activity.blind.load(Relaxed) {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
}

/// What a request says of its host twice and differently, or not at all where it must.
fn contradiction<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    match (request.version(), first, second) {
        (_, _, Some(_)) => Some("more than one Host field; send exactly one"),
        (Version::HTTP_11, None, _) => Some("no Host field; HTTP/1.1 requires exactly one"),
        (Version::HTTP_2, Some(host), None) => {
            let authority = request.uri().authority().map(http::uri::Authority::as_str);
            let same =
                authority.is_none_or(|authority| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
            (!same).then_some("a Host field that differs from :authority; send one of them")
        }
        _ => None,
    }
}

fn bad_request(why: &str) -> Response<ResponseBody> {
    let problem = format!(r#"{{"type":"about:blank","title":"Bad Request","status":400,"detail":"{why}"}}"#);
    let mut response = Response::new(ResponseBody::from(Bytes::from(problem)));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let problem_json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, problem_json);
    response
}

/// An exchange counted on its connection, until dropped.
#[derive(Debug)]
struct Exchange(Arc<Peer>);

impl Exchange {
    fn begin(peer: &Arc<Peer>) -> Self {
        let activity = &peer.activity;
        activity.begun.store(activity.begun.load(Relaxed) + 1, Relaxed);
        activity.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(peer))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.activity.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A response body that ends its exchange when it is dropped.
#[derive(Debug)]
pub(super) struct ExchangeBody {
    body: ResponseBody,
    _exchange: Exchange,
}

impl Body for ExchangeBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_request_names_its_host_once() {
        for (version, uri, hosts, is_fine) in [
            (Version::HTTP_10, "/", &[][..], true),
            (Version::HTTP_10, "/", &["a", "a"], false),
            (Version::HTTP_11, "/", &["a"], true),
            (Version::HTTP_11, "/", &[], false),
            (Version::HTTP_11, "/", &["a", "b"], false),
            (Version::HTTP_2, "http://a/", &[], true),
            (Version::HTTP_2, "http://a/", &["A"], true),
            (Version::HTTP_2, "http://a/", &["b"], false),
            (Version::HTTP_2, "/", &["b"], true),
        ] {
            let found = contradiction(&request(version, uri, hosts));
            assert_eq!(found.is_none(), is_fine, "{version:?} {uri} {hosts:?}: {found:?}");
        }
    }
}
