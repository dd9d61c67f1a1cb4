//! The request path, top to bottom: route, throttle, limiter, endpoint and breaker, upstream, and back.

mod attempt;
mod charge;
mod outgoing;

use std::{future::poll_fn, pin::pin, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tidegate::{clock, throttle};
use tokio_util::task::TaskTracker;

use self::{
    attempt::send,
    charge::{Charge, Standings, keyed, told},
    outgoing::outgoing,
};
use crate::{
    body::ResponseBody,
    config::Hold,
    exchange::{Exchange, Scribe},
    flow::{End, Ending, Flow, LastWords, Patience},
    key::Facts,
    listener::{Handler, Peer},
    proxy::{forwarded, hop, target, upgrade},
    refusal::{self, Cause},
    table::{Route, Table},
    trace,
    upstream::{Reach, UpstreamBody},
};

/// Answers every request.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) scribe: Arc<Scribe>,
    /// Upgraded connections, which the listener no longer sees.
    pub(crate) tunnels: TaskTracker,
}

/// What an upstream answered, and what the client is told of its limits.
struct Passed {
    response: Response<UpstreamBody>,
    route: Arc<Route>,
    standings: Standings,
    upgrade: Option<OnUpgrade>,
}

/// Why there is no answer of an upstream.
struct Stop {
    cause: Cause,
    charged: Option<Charged>,
}

/// The route whose limits had their say before the stop.
struct Charged {
    route: Arc<Route>,
    standings: Standings,
    /// The limit that refused.
    limit: Option<usize>,
}

impl From<Cause> for Stop {
    fn from(cause: Cause) -> Self {
        Self { cause, charged: None }
    }
}

impl Handler for Stack {
    async fn call(&self, mut request: Request<Incoming>, peer: &Arc<Peer>) -> Response<ResponseBody> {
        let table = self.table.load_full();
        let trusted = table.trusts(peer.addr.ip());
        let client = forwarded::client(peer.addr.ip(), request.headers(), &table.trusted);
        let scheme = if peer.tls.is_some() { "https" } else { "http" };
        let mut exchange =
            Exchange::open(&mut request, clock::now(), client, scheme, &table.unrouted, &self.scribe);
        match pass(&table, request, peer, trusted, &mut exchange).await {
            Ok(passed) => self.deliver(passed, exchange),
            Err(Stop { cause, charged: None }) => exchange.answer(&cause, None, []),
            Err(Stop { cause, charged: Some(Charged { route, standings, limit }) }) => {
                let limit = limit.map(|at| &route.limits[at].name);
                exchange.answer(&cause, limit, told(&route.limits, &standings))
            }
        }
    }
}

/// Takes a call to its upstream and back to the response head. What it takes of the gates is in the books of
/// `exchange`, which give it back whatever happens here.
async fn pass(
    table: &Table,
    mut request: Request<Incoming>,
    peer: &Peer,
    trusted: bool,
    exchange: &mut Exchange,
) -> Result<Passed, Stop> {
    if request.method() == Method::CONNECT {
        return Err(Cause::Method.into());
    }
    let host = target::host(&request)?;
    target::normalise(&mut request)?;
    let name = target::host_of(host.to_str().unwrap_or_default());
    let route = table
        .routes
        .find(name, request.uri().path(), request.method(), request.headers())
        .ok_or(Cause::NoRoute)?;
    exchange.take_route(route, request.headers());
    if route.allowance.bytes.is_some_and(|most| request.body().size_hint().lower() > most) {
        return Err(Cause::TooLarge.into());
    }

    let facts = Facts {
        method: request.method(),
        host: name,
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        client: exchange.client,
    };
    let keyed = keyed(&route.limits, &facts);
    let keyed = keyed.as_ref().map_or(&[][..], |keyed| &keyed[..route.limits.len()]);
    let verdict = throttle::enter_all(keyed, &exchange.call);
    let mut standings = Standings::default();
    standings[..route.limits.len()].copy_from_slice(verdict.standings());
    let stop =
        |cause, limit| Stop { cause, charged: Some(Charged { route: Arc::clone(route), standings, limit }) };
    let reach = Reach::default();
    let _charge = match verdict.into_grants() {
        Ok(grants) => Charge::of(grants, &reach),
        Err(refusal) => return Err(stop(Cause::Refused(refusal.refused), Some(refusal.limit))),
    };

    let mut call = exchange.call;
    if let Some(limiter) = &route.service.limiter {
        let (slot, waited) = with_wait(limiter.acquire(&call)).await;
        exchange.held.slot = Some(slot.map_err(|refused| stop(Cause::Refused(refused), None))?);
        if waited == Waited::Yes {
            // The time in the queue is not the upstream's.
            call.now = clock::now();
        }
    }

    let upgrade = hop::upgrade(request.headers(), request.version())
        .cloned()
        .map(|to| (to, hyper::upgrade::on(&mut request)));
    let request =
        outgoing(request, &host, route, peer.told(), trusted, upgrade.as_ref().map(|(to, _)| to), exchange);
    match send(&route.service, request, call, exchange, &reach).await {
        Ok(response) => {
            Ok(Passed { response, route: Arc::clone(route), standings, upgrade: upgrade.map(|(_, on)| on) })
        }
        Err(cause) => Err(stop(cause, None)),
    }
}

impl Stack {
    /// Sends an upstream's answer down. From here on the body keeps the books.
    fn deliver(&self, passed: Passed, mut exchange: Exchange) -> Response<ResponseBody> {
        let Passed { mut response, route, standings, upgrade } = passed;
        exchange.answered(response.status(), response.headers());
        let upgrade = upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
        let protocol = response.headers().get(header::UPGRADE).cloned();
        let version = response.version();
        let headers = response.headers_mut();
        hop::strip(headers);
        forwarded::via(headers, version);
        refusal::rate_limit_fields(headers, told(&route.limits, &standings));
        headers.insert(trace::X_REQUEST_ID, exchange.request_id.clone());
        if route.hold == Hold::Headers {
            exchange.release_slot();
        }
        let idle = route.service.idle_timeout;
        match upgrade {
            Some(client) => {
                if let Some(protocol) = protocol {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                    headers.insert(header::UPGRADE, protocol);
                }
                exchange.upgraded();
                let upstream = hyper::upgrade::on(&mut response);
                self.tunnels.spawn(async move {
                    let ended = upgrade::tunnel(client, upstream, idle).await;
                    let end = if ended.error.is_none() { End::Complete(None) } else { End::Abandoned };
                    exchange.end(end, ended.down, None);
                });
                response.map(|_| ResponseBody::empty())
            }
            None => {
                let last_words = if exchange.is_grpc() { LastWords::GrpcTrailers } else { LastWords::Reset };
                let patience = Patience { deadline: exchange.call.deadline, idle, last_words };
                response.map(|body| ResponseBody::Upstream(Flow::new(body, exchange, patience)))
            }
        }
    }
}

/// Whether a future was ready at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    No,
    Yes,
}

async fn with_wait<F: Future>(future: F) -> (F::Output, Waited) {
    let mut future = pin!(future);
    let mut waited = Waited::No;
    let output = poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            waited = Waited::Yes;
        }
        polled
    })
    .await;
    (output, waited)
}
