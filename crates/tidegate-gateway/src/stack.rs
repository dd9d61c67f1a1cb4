//! The request path, top to bottom: route, throttle, limiter, endpoint and breaker, upstream, and back.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tidegate::{
    Gate as _, Permit as _, Throttle, clock,
    throttle::{self, Key, Ruling},
};
use tidegate_core::{By, Call, Outcome, Refused};
use tokio_util::task::TaskTracker;

use crate::{
    body::{RequestBody, ResponseBody},
    config::Hold,
    exchange::{Exchange, Scribe},
    flow::{End, Ending, Flow, LastWords, Patience},
    key::Facts,
    listener::{Handler, Peer},
    proxy::{
        forwarded::{self, Told},
        hop, upgrade,
    },
    refusal::{self, Cause, Standing},
    route,
    table::{Limit, Route, Service, Table},
    trace,
    upload::{Fault, Upload},
    upstream::{Endpoint, SendErrorKind, Sent, Unsent, UpstreamBody},
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

/// Where a call stands with each limit of its route, in their order.
type Standings = [throttle::Standing; throttle::MAX_LIMITS];

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
    let host = host(&request)?;
    normalise(&mut request)?;
    let name = route::host_of(host.to_str().unwrap_or_default());
    let route = table
        .routes
        .find(name, request.uri().path(), request.method(), request.headers())
        .ok_or(Cause::NoRoute)?;
    exchange.take_route(route, request.headers());

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
    let charge = match verdict.into_grants() {
        Ok(grants) => Charge(Some(grants)),
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

    let upgrade = hop::upgrade(request.headers()).cloned().map(|to| (to, hyper::upgrade::on(&mut request)));
    let request =
        outgoing(request, &host, route, peer.told(), trusted, upgrade.as_ref().map(|(to, _)| to), exchange);
    match send(&route.service, request, call, exchange).await {
        Ok(response) => {
            charge.keep();
            Ok(Passed { response, route: Arc::clone(route), standings, upgrade: upgrade.map(|(_, on)| on) })
        }
        Err(cause) => {
            if !cause.is_unsent() {
                charge.keep();
            }
            Err(stop(cause, None))
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

/// The limits of a route with the keys of a call: as many as there are limits count. None when there is no limit.
fn keyed<'a>(
    limits: &'a [Arc<Limit>],
    facts: &Facts<'_>,
) -> Option<[(&'a Throttle, Key); throttle::MAX_LIMITS]> {
    let first = &*limits.first()?.throttle;
    Some(std::array::from_fn(|at| match limits.get(at) {
        Some(limit) => (&*limit.throttle, limit.key(facts)),
        None => (first, Key::ALL),
    }))
}

/// What a call took of its limits. It is refunded unless the call was sent, whoever stopped it: a later gate, the
/// way to the upstream, or a client that went away while it waited.
struct Charge<'a>(Option<throttle::Grants<'a>>);

impl Charge<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(grants) = self.0.take() {
            grants.settle(Outcome::Unsent, clock::now());
        }
    }
}

/// Sends a call to the endpoint that is least busy and whose breaker admits. A call that surely was not sent may go
/// to one other, within the retry budget.
async fn send(
    service: &Service,
    mut request: Request<RequestBody>,
    mut call: Call,
    exchange: &mut Exchange,
) -> Result<Response<UpstreamBody>, Cause> {
    let mut avoid: Option<Arc<Endpoint>> = None;
    service.retry.deposit(call.now);
    loop {
        let endpoint = admitted(service, avoid.as_deref(), &call, exchange)?;
        let sending = endpoint.send(request, &call);
        let head_due = service.head_timeout.map(|timeout| call.now + timeout);
        let sent = match [call.deadline, head_due].into_iter().flatten().min() {
            Some(due) => {
                tokio::time::timeout_at(clock::timer_at(due), sending).await.map_err(|_| Cause::Timeout)?
            }
            None => sending.await,
        };
        let error = match sent {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if let Some(fault) = exchange.upload.as_ref().and_then(|upload| upload.fault()) {
            return Err(at_fault(fault));
        }
        let now = clock::now();
        exchange.give_probe_back(outcome_at_endpoint(error.kind), now);
        match error.request {
            Some(whole) if may_retry(service, error.kind, &call) => {
                call.attempts_left -= 1;
                call.now = now;
                if service.retry.try_enter(&call, "").is_err() {
                    return Err(cause_of(error.kind));
                }
                service.retries.fetch_add(1, Relaxed);
                request = *whole;
                avoid = Some(endpoint);
            }
            _ => return Err(cause_of(error.kind)),
        }
    }
}

/// Whether another attempt could do better: with another endpoint, or with another connection to the only one.
fn may_retry(service: &Service, kind: SendErrorKind, call: &Call) -> bool {
    let elsewhere = service.upstream.endpoints().len() > 1 || kind == SendErrorKind::Unsent(Unsent::Refused);
    elsewhere && call.attempts_left > 0 && matches!(kind, SendErrorKind::Unsent(_))
}

/// Picks an endpoint and takes a permit of its breaker.
fn admitted(
    service: &Service,
    avoid: Option<&Endpoint>,
    call: &Call,
    exchange: &mut Exchange,
) -> Result<Arc<Endpoint>, Cause> {
    let taken = RefCell::new((None, None));
    let picked = service.upstream.pick(avoid, |endpoint| {
        let Some(breaker) = service.breaker(endpoint) else { return true };
        let (probe, soonest) = &mut *taken.borrow_mut();
        match breaker.try_enter(call, "") {
            Ok(permit) => *probe = Some(permit),
            Err(refused) => *soonest = [*soonest, refused.retry_after].into_iter().flatten().min(),
        }
        probe.is_some()
    });
    let (probe, retry_after) = taken.into_inner();
    let endpoint = picked.ok_or(Cause::Refused(Refused { by: By::Breaker, retry_after }))?;
    exchange.held.probe = probe;
    exchange.endpoint = Some(Arc::clone(endpoint));
    Ok(Arc::clone(endpoint))
}

/// What a failed attempt says about its endpoint.
fn outcome_at_endpoint(kind: SendErrorKind) -> Outcome {
    match kind {
        // Our own bound was reached, or the endpoint closed in an orderly way: no failure of the endpoint.
        SendErrorKind::Unsent(Unsent::PoolTimeout | Unsent::PoolFull | Unsent::Refused) => Outcome::Unsent,
        SendErrorKind::Unsent(_) | SendErrorKind::Sent(_) => Outcome::Overload { retry_after: None },
    }
}

fn cause_of(kind: SendErrorKind) -> Cause {
    match kind {
        SendErrorKind::Unsent(why) => match why {
            Unsent::PoolFull => Cause::Refused(Refused::new(By::QueueFull)),
            Unsent::PoolTimeout => Cause::Refused(Refused::new(By::WaitTooLong)),
            Unsent::Dns => Cause::Unreachable("the upstream's name does not resolve; the call was not sent"),
            Unsent::Connect => {
                Cause::Unreachable("the upstream does not accept connections; the call was not sent")
            }
            Unsent::ConnectTimeout => {
                Cause::Unreachable("no connection to the upstream in time; the call was not sent")
            }
            Unsent::Tls => Cause::Unreachable("no TLS session with the upstream; the call was not sent"),
            Unsent::Protocol => {
                Cause::Unreachable("the upstream speaks another protocol; the call was not sent")
            }
            Unsent::Refused => Cause::Unreachable("the upstream refused the call before acting on it"),
        },
        SendErrorKind::Sent(how) => Cause::BadGateway(match how {
            Sent::Closed => {
                "the upstream closed the connection before it answered; the call may have had an effect"
            }
            Sent::Reset => "the upstream reset the call; it may have had an effect",
            Sent::Protocol => "the upstream's answer is not HTTP; the call may have had an effect",
            Sent::RequestBody => "the request body ended early; the call may have had an effect",
        }),
    }
}

fn at_fault(fault: Fault) -> Cause {
    match fault {
        Fault::TooLarge => Cause::TooLarge,
        Fault::TooSlow => Cause::SlowClient,
        Fault::Gone => Cause::BadRequest("the client broke off inside the request body"),
    }
}

/// The authority that the client named: one, and only one (RFC 9112 §3.2).
fn host(request: &Request<Incoming>) -> Result<HeaderValue, Cause> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = named.next();
    if named.next().is_some() {
        return Err(Cause::BadRequest("the request names more than one host"));
    }
    match (request.uri().authority(), host) {
        (Some(authority), _) => HeaderValue::from_str(authority.as_str())
            .map_err(|_| Cause::BadRequest("the request's authority is no host")),
        (None, Some(host)) if host.to_str().is_ok() => Ok(host.clone()),
        (None, Some(_)) => Err(Cause::BadRequest("the request's host has characters that no host has")),
        (None, None) if request.version() == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        (None, None) => Err(Cause::BadRequest("the request names no host")),
    }
}

/// Reduces the target to a path without dot segments, which is what routes match and upstreams get.
fn normalise(request: &mut Request<Incoming>) -> Result<(), Cause> {
    let uri = request.uri();
    let path = route::normalised(uri.path()).ok_or(Cause::BadRequest("the path climbs above its root"))?;
    let target = match (path, uri.query()) {
        (std::borrow::Cow::Borrowed(_), _) if uri.authority().is_none() => return Ok(()),
        (std::borrow::Cow::Borrowed(_), _) => uri.path_and_query().cloned(),
        (std::borrow::Cow::Owned(path), None) => PathAndQuery::try_from(path).ok(),
        (std::borrow::Cow::Owned(path), Some(query)) => {
            PathAndQuery::try_from(format!("{path}?{query}")).ok()
        }
    };
    *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Ok(())
}

/// What the upstream is sent.
fn outgoing(
    request: Request<Incoming>,
    host: &HeaderValue,
    route: &Route,
    told: &Told,
    trusted: bool,
    upgrade: Option<&HeaderValue>,
    exchange: &mut Exchange,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let headers = &mut parts.headers;
    hop::strip(headers);
    headers.remove(header::EXPECT);
    told.tell(headers, (!host.is_empty()).then_some(host), parts.version, trusted);
    headers.insert(trace::X_REQUEST_ID, exchange.request_id.clone());
    if !headers.contains_key(header::HOST) && !host.is_empty() {
        headers.insert(header::HOST, host.clone());
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    let body = if http_body::Body::is_end_stream(&body) {
        RequestBody::empty()
    } else {
        let (upload, progress) = Upload::new(body, route.allowance);
        exchange.upload = Some(progress);
        RequestBody::Incoming(upload)
    };
    Request::from_parts(parts, body)
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

/// What the client is told of its standing with each limit; shadows are not told of.
fn told<'a>(limits: &'a [Arc<Limit>], standings: &'a Standings) -> impl Iterator<Item = Standing<'a>> {
    limits.iter().zip(standings).filter(|(limit, _)| !limit.config.shadow).map(|(limit, standing)| Standing {
        policy: &limit.policy,
        remaining: standing.remaining(),
        reset_in: standing.reset_in(),
        violated: standing.ruling() == Ruling::Refuses,
    })
}
