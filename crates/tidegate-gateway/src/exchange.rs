//! One call's books, from request head to the end of its response: what it holds, what became of it, who is told.

mod held;
mod kept;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use tidegate::{ByStatus, Classify as _, Judged, clock, grpc, limiter::FleetLimiter};
use tidegate_core::{Call, Instant, Outcome};

use self::{held::Held, kept::Kept};
use crate::{
    access_log::AccessLog,
    body::ResponseBody,
    flow::{End, Ending, Taken},
    in_flight::Kind,
    oidc::session::Watched,
    proxy::forwarded::Trust,
    record::{CallProtocol, CallRecord, Finished},
    refusal::{self, Cause, Dialect, Standing},
    tab::Tab,
    table::Route,
    telemetry::RouteMetrics,
    trace::{self, Trace, Tracer},
    upload::Progress,
    upstream::Endpoint,
};

/// The status that is logged for a client that went away before it was answered, as nginx logs it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One call's books. They are closed once: by an answer, by the end of the response, or by drop.
#[derive(Debug)]
pub struct Exchange {
    pub(crate) call: Call,
    pub(crate) kind: Kind,
    pub(crate) client: IpAddr,
    pub(crate) trust: Trust,
    pub(crate) request_id: HeaderValue,
    pub(crate) held: Held,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) upload: Option<Arc<Progress>>,
    /// Bytes that had gone up when a sweep last looked.
    seen_up: u64,
    /// What is settled with limits at the end; mostly nothing.
    pub(crate) tab: Option<Box<Tab>>,
    /// The session that a stream lives by.
    pub(crate) watched: Option<Box<Watched>>,
    protocol: CallProtocol,
    trace: Trace,
    metrics: Arc<RouteMetrics>,
    kept: Option<Kept>,
    scribe: Arc<Scribe>,
    head: Option<Head>,
    open: bool,
}

/// Who writes about calls that are over.
#[derive(Debug)]
pub struct Scribe {
    /// A line a call.
    pub log: AccessLog,
    /// A span a call that is sampled.
    pub tracer: Tracer,
}

/// What the upstream's response head said.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    grpc_status: Option<u16>,
    judged: Judged,
    at: Instant,
}

impl Exchange {
    /// Opens the books of a call that no route has been found for yet.
    pub(crate) fn open<B>(
        request: &mut Request<B>,
        now: Instant,
        client: IpAddr,
        trust: Trust,
        scheme: &'static str,
        metrics: &Arc<RouteMetrics>,
        scribe: &Arc<Scribe>,
    ) -> Self {
        let request_id = trace::request_id(request.headers());
        let trace = scribe.tracer.begin(request.headers_mut());
        let kept = (scribe.log.enabled() || trace.is_recorded()).then(|| Kept::of(request, scheme));
        let protocol = match request.version() {
            _ if grpc::is_grpc(request.headers()) => CallProtocol::Grpc,
            Version::HTTP_2 => CallProtocol::Http2,
            _ => CallProtocol::Http1,
        };
        Self {
            call: Call::at(now),
            kind: Kind::default(),
            client,
            trust,
            request_id,
            held: Held::default(),
            endpoint: None,
            upload: None,
            seen_up: 0,
            tab: None,
            watched: None,
            protocol,
            trace,
            metrics: Arc::clone(metrics),
            kept,
            scribe: Arc::clone(scribe),
            head: None,
            open: true,
        }
    }

    /// The call takes `route`: its counters, and the nearest of its deadline and the client's.
    pub(crate) fn take_route(&mut self, route: &Route, kind: Kind, headers: &HeaderMap) {
        self.metrics = Arc::clone(&route.metrics);
        self.kind = kind;
        for timeout in [route.times(kind).timeout, self.is_grpc().then(|| grpc::timeout(headers)).flatten()]
            .into_iter()
            .flatten()
        {
            self.call = self.call.within(timeout);
        }
    }

    /// The lease that the call's permit is of, if a fleet shares it.
    pub(crate) fn lease(&self) -> Option<&FleetLimiter> {
        self.held.lease()
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.protocol == CallProtocol::Grpc
    }

    /// The call goes on as a tunnel.
    pub(crate) fn upgraded(&mut self) {
        self.protocol = CallProtocol::Upgrade;
    }

    /// Notes the upstream's response head.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        let at = clock::now();
        let judged = ByStatus.head(status, headers);
        match judged {
            // A client that leaves the rest of a refusal unread must not hide that it was one.
            Judged::Known(outcome @ Outcome::Overload { .. }) => self.held.settle_probe(outcome, at),
            Judged::Known(_) | Judged::AtEnd => {
                if let Some(probe) = &mut self.held.probe {
                    probe.answered(at);
                }
            }
        }
        let grpc_status = if self.is_grpc() { grpc::status(headers).map(|code| code.0.into()) } else { None };
        self.head = Some(Head { status: status.as_u16(), grpc_status, judged, at });
    }

    /// Gives the permit of the limiter back at the response head (`hold: headers`).
    pub(crate) fn release_slot(&mut self) {
        let Some(head) = self.head else { return };
        let outcome = match head.judged {
            Judged::Known(outcome) => outcome,
            Judged::AtEnd => Outcome::Success,
        };
        self.held.settle_slots(outcome, head.at);
    }

    /// Answers for the gateway itself, and closes the books.
    pub(crate) fn answer<'a>(
        mut self,
        cause: &Cause,
        limit: Option<&Arc<str>>,
        policies: Option<&HeaderValue>,
        standings: impl IntoIterator<Item = Standing<'a>>,
    ) -> Response<ResponseBody> {
        let dialect = if self.is_grpc() { Dialect::Grpc } else { Dialect::Http };
        let id = self.request_id.to_str().unwrap_or_default();
        let mut response = refusal::render(cause, dialect, id, policies, standings);
        response.headers_mut().insert(trace::X_REQUEST_ID, self.request_id.clone());
        let now = clock::now();
        if let Cause::Refused(refused) = cause {
            self.metrics.refused(*refused, limit, now);
        } else if let Cause::NoToken(refused) = cause {
            self.metrics.without(refused.of(), refused.retry_after, now);
        }
        let grpc_status = self.is_grpc().then(|| cause.grpc_status());
        self.close(Close {
            outcome: cause.outcome(),
            status: response.status().as_u16(),
            grpc_status,
            bytes: response.body().size_hint().lower(),
            now,
            reason: Some(cause.name()),
            limit,
        });
        response
    }

    /// Keeps the query out of logs and traces: it holds what a login is made of.
    pub(crate) fn hide_query(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.hide_query();
        }
    }

    /// Answers with a page of the gateway's own, and closes the books.
    pub(crate) fn show(
        mut self,
        mut response: Response<ResponseBody>,
        reason: &'static str,
    ) -> Response<ResponseBody> {
        let grpc = match response.status() {
            _ if !self.is_grpc() => None,
            StatusCode::FORBIDDEN => Some((7, "the session's user may not make this call")),
            StatusCode::UNAUTHORIZED => Some((16, "this call needs a session: log in, and send its cookie")),
            _ => None,
        };
        if let Some((status, why)) = grpc {
            response = refusal::grpc_end(status, why);
        }
        response.headers_mut().insert(trace::X_REQUEST_ID, self.request_id.clone());
        let now = clock::now();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let told = response.headers().get(header::RETRY_AFTER).and_then(|told| told.to_str().ok());
            let retry_after = told.and_then(|told| told.parse().ok()).map(Duration::from_secs);
            self.metrics.without(reason, retry_after, now);
        }
        self.close(Close {
            outcome: Outcome::Unsent,
            status: response.status().as_u16(),
            grpc_status: grpc.map(|(status, _)| status),
            bytes: response.body().size_hint().lower(),
            now,
            reason: Some(reason),
            limit: None,
        });
        response
    }

    fn close(&mut self, close: Close<'_>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let Close { outcome, status, grpc_status, bytes, now, reason, limit } = close;
        // Nobody learns anything of an upstream that still waits for the client's own body. A gRPC call may answer while
        // it reads, so there silence is the upstream's as well.
        let owed = self.head.is_none() && self.upload.as_ref().is_some_and(|upload| upload.waits());
        let outcome = match outcome {
            Outcome::Abandoned if owed && !self.is_grpc() => Outcome::Unsent,
            outcome => outcome,
        };
        self.held.settle_probe(outcome, now);
        let outcome = match (self.kind, outcome) {
            // How long a stream lived is no latency: an adaptive limit must not take it for one.
            (Kind::Stream, Outcome::Success | Outcome::Abandoned) if self.head.is_some() => Outcome::Ignore,
            _ => outcome,
        };
        self.held.settle_slots(outcome, now);
        let duration = now.since(self.call.now);
        let head_duration = self.head.map(|head| head.at.since(self.call.now));
        let request_bytes = self.upload.as_ref().map_or(0, |upload| upload.bytes());
        if let Some(tab) = self.tab.take() {
            tab.settle(request_bytes, bytes);
        }
        let finished = Finished {
            status,
            grpc_status,
            duration,
            head_duration,
            request_bytes,
            response_bytes: bytes,
            protocol: self.protocol,
        };
        self.metrics.finished(&finished);
        let Some(kept) = &self.kept else { return };
        let record = CallRecord {
            at: self.call.now,
            finished,
            client: self.client,
            scheme: kept.scheme,
            method: kept.method.as_str(),
            target: kept.target(),
            version: kept.version,
            host: kept.host(),
            referer: kept.referer(),
            user_agent: kept.user_agent(),
            route: self.metrics.route(),
            upstream: self.metrics.upstream(),
            endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.authority().as_str()),
            reason,
            limit: limit.map(|limit| &**limit),
            request_id: self.request_id.as_bytes(),
            trace: self.trace,
        };
        self.scribe.log.write(&record);
        self.scribe.tracer.finish(&record);
    }
}

/// How the books are closed.
struct Close<'a> {
    outcome: Outcome,
    status: u16,
    grpc_status: Option<u16>,
    bytes: u64,
    now: Instant,
    reason: Option<&'static str>,
    limit: Option<&'a Arc<str>>,
}

impl Ending for Exchange {
    fn moved(&mut self) -> bool {
        let up = self.upload.as_ref().map_or(0, |upload| upload.bytes());
        std::mem::replace(&mut self.seen_up, up) != up
    }

    fn taken(&mut self, now: Instant) -> Option<Taken> {
        if self.watched.as_mut().is_some_and(|watched| watched.is_over(now)) {
            return Some(Taken::Session);
        }
        self.lease().is_some_and(|lease| lease.lease_ends() <= now).then_some(Taken::Permit)
    }

    fn end(mut self, end: End<'_>, bytes: u64, now: Option<Instant>) {
        let now = now.unwrap_or_else(clock::now);
        let trailers = match end {
            End::Complete(trailers) => trailers,
            _ => None,
        };
        if let (Some(tab), Some(trailers)) = (&mut self.tab, trailers) {
            tab.read(trailers);
        }
        let head = self.head;
        let status = head.map_or(CLIENT_CLOSED_REQUEST, |head| head.status);
        let grpc_status = trailers
            .filter(|_| self.is_grpc())
            .and_then(grpc::status)
            .map(|code| code.0.into())
            .or(end.cut().filter(|_| self.is_grpc()).map(|(status, _)| status))
            .or(head.and_then(|head| head.grpc_status));
        let client_fault = self.upload.as_ref().is_some_and(|upload| upload.fault().is_some());
        let outcome = match end {
            End::Complete(trailers) => match head.map(|head| head.judged) {
                Some(Judged::Known(outcome)) => outcome,
                Some(Judged::AtEnd) => ByStatus.end(trailers),
                None => Outcome::Ignore,
            },
            End::Broken if client_fault => Outcome::Ignore,
            // Neither side has anything to say any more; a stream owes no answer.
            End::Silent if self.kind == Kind::Stream => Outcome::Ignore,
            End::Broken | End::Silent => Outcome::Overload { retry_after: None },
            End::Stalled | End::OutOfTime | End::Revoked(_) => Outcome::Ignore,
            End::Overdue | End::Abandoned => Outcome::Abandoned,
        };
        self.close(Close { outcome, status, grpc_status, bytes, now, reason: None, limit: None });
    }
}

impl Drop for Exchange {
    /// The client went away before there was a response.
    fn drop(&mut self) {
        if self.open {
            let now = clock::now();
            self.close(Close {
                outcome: Outcome::Abandoned,
                status: CLIENT_CLOSED_REQUEST,
                grpc_status: None,
                bytes: 0,
                now,
                reason: None,
                limit: None,
            });
        }
    }
}
