//! The way down: an upstream's answer, as a body that keeps the books or as a tunnel.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{Passed, Stack};
use crate::{
    body::ResponseBody,
    config::Hold,
    exchange::Exchange,
    flow::{End, Ending as _, Flow, LastWords, Patience},
    in_flight::Kind,
    oidc::service,
    proxy::{forwarded, hop, upgrade},
    refusal, trace,
};

impl Stack {
    /// Sends an upstream's answer down. From here on the body keeps the books.
    pub(super) fn deliver(&self, passed: Passed<'_>, mut exchange: Exchange) -> Response<ResponseBody> {
        let Passed { mut response, route, mut charge, upgrade, carried, by } = passed;
        if let (Some(token), Some(carried)) = (&route.token, &carried)
            && service::says_invalid_token(response.status(), response.headers())
        {
            token.rejected(carried);
        }
        if let (Some(session), Some(by)) = (&route.session, &by) {
            session.answered(by, response.status(), response.headers());
        }
        exchange.answered(response.status(), response.headers());
        exchange.tab = charge.tab();
        if let Some(tab) = &mut exchange.tab {
            tab.read(response.headers());
        }
        let upgrade = upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
        let protocol = response.headers().get(header::UPGRADE).cloned();
        let version = response.version();
        let headers = response.headers_mut();
        hop::strip(headers);
        forwarded::via(headers, version);
        refusal::rate_limit_fields(headers, charge.policies(), charge.told());
        headers.insert(trace::X_REQUEST_ID, exchange.request_id.clone());
        if route.hold == Hold::Headers {
            exchange.release_slot();
        }
        let idle = route.times(exchange.kind).idle;
        let events = is_event_stream(headers);
        // What is whole in a moment need not be watched.
        if let (Some(session), Some(by)) = (&route.session, by)
            && (events || upgrade.is_some() || exchange.kind == Kind::Stream)
        {
            exchange.watched = Some(Box::new(session.watch(by.id)));
        }
        match upgrade {
            Some(client) => {
                let websocket =
                    protocol.as_ref().is_some_and(|told| told.as_bytes().eq_ignore_ascii_case(b"websocket"));
                let speaks = if websocket { upgrade::Speaks::WebSocket } else { upgrade::Speaks::Anything };
                if let Some(protocol) = protocol {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                    headers.insert(header::UPGRADE, protocol);
                }
                exchange.upgraded();
                let upstream = hyper::upgrade::on(&mut response);
                let (lease, watched) = (exchange.lease().cloned(), exchange.watched.take());
                self.tunnels.spawn(async move {
                    let lost = async {
                        match lease {
                            Some(lease) => lease.lease_lost().await,
                            None => std::future::pending().await,
                        }
                    };
                    let left = async {
                        match watched {
                            Some(watched) => watched.over().await,
                            None => std::future::pending().await,
                        }
                    };
                    let ended = tokio::select! {
                        ended = upgrade::tunnel(client, upstream, idle, speaks, left) => ended,
                        () = lost => Err(upgrade::Revoked),
                    };
                    let (end, down) = match ended {
                        Ok(ended) if ended.error.is_none() => (End::Complete(None), ended.down),
                        Ok(ended) => (End::Abandoned, ended.down),
                        Err(upgrade::Revoked) => (End::Revoked, 0),
                    };
                    exchange.end(end, down, None);
                });
                response.map(|_| ResponseBody::empty())
            }
            None => {
                let last_words = if exchange.is_grpc() { LastWords::GrpcTrailers } else { LastWords::Reset };
                let patience = Patience {
                    deadline: exchange.call.deadline,
                    idle,
                    revocable: exchange.lease().is_some() || exchange.watched.is_some(),
                    last_words,
                    when_revoked: if events && exchange.watched.is_some() {
                        LastWords::End
                    } else {
                        last_words
                    },
                };
                response.map(|body| ResponseBody::Upstream(Flow::new(body, exchange, patience)))
            }
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}
