//! The request path, top to bottom: route, throttle, limiter, endpoint and breaker, upstream, and back.

mod again;
mod attempt;
mod charge;
mod deliver;
mod outgoing;
mod user;

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tidegate::{clock, throttle::Refusal};
use tidegate_core::{Call, Refused};
use tokio_util::task::TaskTracker;

use self::{
    attempt::send,
    charge::Charge,
    outgoing::outgoing,
    user::{admit_user, first, own_page},
};
use crate::{
    body::{RequestBody, ResponseBody},
    exchange::{Exchange, Scribe},
    in_flight::{Kind, Lane},
    key::Facts,
    listener::{Handler, Peer},
    oidc::{
        service::{Carried, ServiceToken},
        session::{By, Claims},
    },
    proxy::{
        forwarded::{self, Trust},
        hop, target,
    },
    refusal::Cause,
    route::Miss,
    table::{Route, Service, Table},
    upstream::UpstreamBody,
};

/// Answers every request.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) scribe: Arc<Scribe>,
    /// Upgraded connections, which the listener no longer sees.
    pub(crate) tunnels: TaskTracker,
}

/// What an upstream answered.
struct Passed<'t> {
    response: Response<UpstreamBody>,
    route: &'t Route,
    charge: Charge<'t>,
    upgrade: Option<OnUpgrade>,
    carried: Option<Carried>,
    /// The session that let it in.
    by: Option<By>,
}

/// Why there is no answer of an upstream.
struct Stop<'t> {
    cause: Cause,
    /// What the limits had to say before, where it came so far.
    charge: Option<Charge<'t>>,
    /// The limit that refused.
    limit: Option<&'t Arc<str>>,
    /// What the client is shown in place of the cause.
    page: Option<Box<Response<ResponseBody>>>,
}

impl From<Cause> for Stop<'_> {
    fn from(cause: Cause) -> Self {
        Self { cause, charge: None, limit: None, page: None }
    }
}

impl Handler for Stack {
    async fn call(&self, mut request: Request<Incoming>, peer: &Arc<Peer>) -> Response<ResponseBody> {
        let table = self.table.load_full();
        let mut exchange = self.open(&table, &mut request, peer);
        match pass(&table, request, peer, &mut exchange).await {
            Ok(passed) => self.deliver(passed, exchange),
            Err(Stop { page: Some(page), .. }) => exchange.show(*page, "session"),
            Err(Stop { cause, charge, limit, page: None }) => {
                let policies = charge.as_ref().and_then(Charge::policies);
                exchange.answer(&cause, limit, policies, charge.iter().flat_map(Charge::told))
            }
        }
    }
}

/// Takes a call to its upstream and back to the response head. What it takes of the gates is in the books of
/// `exchange` and in its charge, which give it back whatever happens here.
async fn pass<'t>(
    table: &'t Table,
    request: Request<Incoming>,
    peer: &Peer,
    exchange: &mut Exchange,
) -> Result<Passed<'t>, Stop<'t>> {
    if !table.sessions.is_empty()
        && let Some((session, page)) = table.page_at(request.uri().path())
    {
        exchange.hide_query();
        let pressure = table.pressure.as_deref();
        let page = Box::pin(own_page(session, page, request, pressure, &exchange.call)).await?;
        return Err(Stop { page: Some(Box::new(page)), ..Cause::NoRoute.into() });
    }
    let found = find(table, request, exchange)?;
    // The books keep the call as it came: what it waits for below is of its duration.
    let mut call = exchange.call;
    let (found, user) = match found.route.session.as_deref().filter(|_| found.route.by_user) {
        None => (found, None),
        // In a box, so that other calls carry no room for it.
        Some(session) => Box::pin(first(session, found, table.pressure.as_deref(), &mut call)).await?,
    };
    let Entered { mut request, route, mut charge, upgrade, lane } =
        enter(found, user.as_ref().map(|user| &user.claims), peer, &call, exchange)?;
    table.sessions.values().for_each(|session| session.untell(request.headers_mut()));
    let mut by = None;
    if let Some(session) = &route.session {
        let user = match user {
            Some(user) => Ok(user),
            None => {
                let host = request.headers().get(header::HOST).cloned();
                let host = host.unwrap_or_else(|| HeaderValue::from_static(""));
                let pressure = table.pressure.as_deref();
                Box::pin(admit_user(session, &request, &host, pressure, &mut call)).await
            }
        };
        match user {
            Ok(user) => {
                session.tell(&user, &mut request);
                by = Some(session.by(&user, exchange.call.now));
            }
            Err(stop) => return Err(Stop { charge: Some(charge), ..stop }),
        }
    }
    table.sessions.values().for_each(|session| session.hide(request.headers_mut()));
    let (call, carried) = match carry(route.token.as_deref(), &mut request, call).await {
        Ok(carried) => carried,
        Err(cause) => return Err(Stop { charge: Some(charge), ..cause.into() }),
    };
    let call = match pay(&mut charge, call).await {
        Ok(call) => call,
        Err(refusal) => return Err(stop(route, charge, refusal)),
    };
    let call = match resolve(&route.service, call).await {
        Ok(call) => call,
        Err(cause) => return Err(Stop { charge: Some(charge), ..cause.into() }),
    };
    let call = match admit(route, lane, call, exchange).await {
        Ok(call) => call,
        Err(refused) => return Err(Stop { charge: Some(charge), ..Cause::Refused(refused).into() }),
    };
    // Credit that was over before the call could go has to be taken anew.
    let call = match pay(&mut charge, call).await {
        Ok(call) => call,
        Err(refusal) => return Err(stop(route, charge, refusal)),
    };
    let lease = exchange.lease().cloned();
    // In a box, so that calls without a lease carry no room for it.
    let mut lost = lease.map(|lease| Box::pin(async move { lease.lease_lost().await }));
    let sent = {
        let mut sending = pin!(send(&route.service, request, call, exchange, &charge.reach));
        poll_fn(|cx| match (sending.as_mut().poll(cx), &mut lost) {
            (Poll::Pending, Some(lost)) => lost.as_mut().poll(cx).map(|()| Err(Cause::LeaseLost)),
            (sent, _) => sent,
        })
        .await
    };
    match sent {
        Ok(mut response) => {
            table.sessions.values().for_each(|session| session.unset(response.headers_mut()));
            Ok(Passed { response, route, charge, upgrade, carried, by })
        }
        Err(cause) => Err(Stop { charge: Some(charge), ..cause.into() }),
    }
}

/// Puts the upstream's token in place of what the client sent to prove itself.
async fn carry(
    token: Option<&ServiceToken>,
    request: &mut Request<RequestBody>,
    call: Call,
) -> Result<(Call, Option<Carried>), Cause> {
    let Some(token) = token else { return Ok((call, None)) };
    if let Some(carried) = token.try_carry(&call, request.headers_mut()).map_err(Cause::NoToken)? {
        token.prove(request);
        return Ok((call, Some(carried)));
    }
    // In a box, so that calls that need not wait carry no room for it.
    let (carried, waited) = with_wait(Box::pin(token.carry(&call, request.headers_mut()))).await;
    let carried = carried.map_err(Cause::NoToken)?;
    token.prove(request);
    Ok((after(waited, call), Some(carried)))
}

/// Has the limits that share a ledger decide, unless their credit is in hand already.
async fn pay(charge: &mut Charge<'_>, call: Call) -> Result<Call, Refusal> {
    if !charge.is_open(call.now) {
        return Ok(call);
    }
    let (refusal, waited) = with_wait(Box::pin(charge.ask(&call))).await;
    match refusal {
        Some(refusal) => Err(refusal),
        None => Ok(after(waited, call)),
    }
}

/// Has the registry tell of an endpoint, before anything of the upstream's is taken. With any that are known, however
/// old, nobody waits.
async fn resolve(service: &Service, call: Call) -> Result<Call, Cause> {
    let Some(resolver) = &service.resolver else { return Ok(call) };
    if resolver.try_resolve(&call) {
        return Ok(call);
    }
    let (resolved, waited) = with_wait(Box::pin(resolver.resolve(&call))).await;
    resolved.map(|()| after(waited, call))
}

/// The time in a queue is not the upstream's.
fn after(waited: Waited, call: Call) -> Call {
    match waited {
        Waited::Yes => Call { now: clock::now(), ..call },
        Waited::No => call,
    }
}

/// A limit refused.
fn stop<'t>(route: &'t Route, charge: Charge<'t>, refusal: Refusal) -> Stop<'t> {
    let limit = Some(&route.limits[refusal.limit].name);
    Stop { charge: Some(charge), limit, ..Cause::Refused(refusal.refused).into() }
}

/// Takes the permits of a call: first the route's, so that who waits for it holds nothing of the upstream's.
async fn admit(
    route: &Route,
    lane: Option<Lane>,
    mut call: Call,
    exchange: &mut Exchange,
) -> Result<Call, Refused> {
    if let Some(limiter) = &route.limiter {
        let (permit, waited) = with_wait(limiter.acquire(&call)).await;
        exchange.held.of_route = Some(permit?);
        call = after(waited, call);
    }
    if let (Some(pools), Some(lane)) = (&route.service.pools, lane) {
        let (slot, waited) = with_wait(pools.acquire(lane, &call)).await;
        exchange.held.slot = Some(slot?);
        call = after(waited, call);
    }
    Ok(call)
}

/// A call that its limits in this process admitted.
struct Entered<'t> {
    request: Box<Request<RequestBody>>,
    route: &'t Route,
    charge: Charge<'t>,
    upgrade: Option<OnUpgrade>,
    /// Where in the upstream's limits it belongs; none when there are none.
    lane: Option<Lane>,
}

/// A call whose route is found.
struct Found<'t> {
    request: Request<Incoming>,
    route: &'t Route,
    host: HeaderValue,
    kind: Kind,
    upgrades: bool,
}

/// Finds the route.
fn find<'t>(
    table: &'t Table,
    mut request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<Found<'t>, Stop<'t>> {
    if request.method() == Method::CONNECT {
        return Err(Cause::Method.into());
    }
    let host = target::host(&request)?;
    target::normalise(&mut request)?;
    let name = target::host_of(host.to_str().unwrap_or_default());
    let found = table.routes.find_for_all(name, request.uri().path(), request.method(), request.headers());
    let route = found.map_err(|miss| match miss {
        Miss::NoRoute => Cause::NoRoute,
        Miss::Unclear => Cause::BadRequest(
            "the path is of one route as it stands and of another one decoded; write it without %2f, //, ; and the like",
        ),
    })?;
    let wanted = hop::upgrade(request.headers(), request.version());
    let kind =
        Kind::of(route.kind, &route.service.stream_paths, wanted, request.uri().path(), request.headers());
    let upgrades = wanted.is_some();
    exchange.take_route(route, kind, request.headers());
    if upgrades && let Some(session) = &route.session {
        user::from_own_pages(session, &request, &host)?;
    }
    if route.body_bytes.is_some_and(|most| request.body().size_hint().lower() > most) {
        return Err(Cause::TooLarge.into());
    }
    let (query, headers) = (request.uri().query(), request.headers());
    if let Some(why) = route.single.iter().find_map(|part| part.repeated(query, headers)) {
        return Err(Cause::BadRequest(why).into());
    }
    Ok(Found { request, route, host, kind, upgrades })
}

/// Charges the limits in this process: all that needs no waiting, so that the future above stays small.
fn enter<'t>(
    found: Found<'t>,
    user: Option<&Claims>,
    peer: &Peer,
    call: &Call,
    exchange: &mut Exchange,
) -> Result<Entered<'t>, Stop<'t>> {
    let Found { mut request, route, host, kind, upgrades } = found;
    let facts = Facts {
        method: request.method(),
        host: target::host_of(host.to_str().unwrap_or_default()),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        client: exchange.client,
        user,
    };
    let (charge, refusal) = Charge::take(route, &facts, request.body().size_hint().exact(), call);
    if let Some(refusal) = refusal {
        return Err(stop(route, charge, refusal));
    }
    let lane = route.service.pools.as_ref().map(|pools| pools.lane(kind, &facts));
    let upgrade = upgrades.then(|| hyper::upgrade::on(&mut request));
    let allowance = route.times(kind).allowance;
    let request = Box::new(outgoing(request, &host, allowance, peer.told(), exchange));
    Ok(Entered { request, route, charge, upgrade, lane })
}

impl Stack {
    /// Opens the books of a call.
    fn open(&self, table: &Table, request: &mut Request<Incoming>, peer: &Peer) -> Exchange {
        let ip = peer.addr.ip();
        let client = forwarded::client(ip, request.headers(), &table.trusted);
        let trust = Trust::of(ip, &table.trusted);
        let scheme = if peer.tls.is_some() { "https" } else { "http" };
        Exchange::open(request, clock::now(), client, trust, scheme, &table.unrouted, &self.scribe)
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
