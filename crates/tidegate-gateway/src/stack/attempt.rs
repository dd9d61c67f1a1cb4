//! From a permit to a response head: which endpoint, which breaker, and whether a failed attempt may be repeated.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::{Request, Response, StatusCode};
use tidegate::{Gate as _, clock};
use tidegate_core::{By, Call, Outcome, Refused};

use super::again::{Again, Repeats};
use crate::{
    body::RequestBody,
    exchange::Exchange,
    refusal::Cause,
    table::Service,
    upload::Fault,
    upstream::{Endpoint, Reach, SendErrorKind, Sent, Unsent, UpstreamBody},
};

/// Sends a call to the endpoint that is least busy and whose breaker admits. A call that surely was not sent may go
/// to one other, within the retry budget.
pub(super) async fn send(
    service: &Service,
    mut request: Box<Request<RequestBody>>,
    mut call: Call,
    exchange: &mut Exchange,
    reach: &Reach,
) -> Result<Response<UpstreamBody>, Cause> {
    let mut avoid: Option<Arc<Endpoint>> = None;
    if service.config.retry.percent == 0 {
        // Then nothing is kept for a second attempt.
        call.attempts_left = 0;
    }
    service.retry.deposit(call.now);
    let repeats = if call.attempts_left > 0 { Repeats::Once } else { Repeats::Never };
    let mut again = Again::of(&mut request, repeats);
    let mut same: Option<Arc<Endpoint>> = None;
    loop {
        let endpoint = match same.take() {
            Some(endpoint) => endpoint,
            None => admitted(service, avoid.as_deref(), &call, exchange)?,
        };
        let sending = endpoint.send_noting(request, &call, reach);
        let head_due = service.head_timeout.map(|timeout| call.now + timeout);
        let sent = match [call.deadline, head_due].into_iter().flatten().min() {
            Some(due) => {
                tokio::time::timeout_at(clock::timer_at(due), sending).await.map_err(|_| Cause::Timeout)?
            }
            None => sending.await,
        };
        let error = match sent {
            Ok(mut response) => {
                if let Some(whole) = again.as_mut().and_then(|again| again.heard(&mut response, exchange))
                    && call.attempts_left > 0
                {
                    call.attempts_left -= 1;
                    call.now = clock::now();
                    if service.retry.try_enter(&call, "").is_ok() {
                        service.retries.fetch_add(1, Relaxed);
                        // Where the nonce is from, under the permit of its breaker that the call holds.
                        (request, same) = (whole, Some(endpoint));
                        continue;
                    }
                }
                if let Some(resolver) = &service.resolver
                    && is_proof(response.status())
                {
                    resolver.succeeded(&endpoint);
                }
                return Ok(response);
            }
            Err(error) => error,
        };
        if let Some(fault) = exchange.upload.as_ref().and_then(|upload| upload.fault()) {
            return Err(at_fault(fault));
        }
        let now = clock::now();
        exchange.held.settle_probe(outcome_at_endpoint(error.kind), now);
        if let Some(resolver) = &service.resolver
            && is_out_of_reach(error.kind)
        {
            resolver.unreachable(&endpoint);
        }
        match error.request {
            Some(whole) if may_retry(service, error.kind, &call) => {
                call.attempts_left -= 1;
                call.now = now;
                if service.retry.try_enter(&call, "").is_err() {
                    return Err(cause_of(error.kind));
                }
                service.retries.fetch_add(1, Relaxed);
                request = whole;
                avoid = Some(endpoint);
            }
            _ => return Err(cause_of(error.kind)),
        }
    }
}

/// Whether another attempt could do better: with another endpoint, or with another connection to the only one.
fn may_retry(service: &Service, kind: SendErrorKind, call: &Call) -> bool {
    let elsewhere = service.upstream.count() > 1 || kind == SendErrorKind::Unsent(Unsent::Refused);
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
    let Some(endpoint) = picked else {
        return Err(match &service.resolver {
            Some(resolver) if service.upstream.is_empty() => Cause::NoEndpoint(resolver.none()),
            _ => Cause::Refused(Refused { by: By::Breaker, retry_after }),
        });
    };
    exchange.held.probe = probe;
    exchange.endpoint = Some(Arc::clone(&endpoint));
    Ok(endpoint)
}

/// What a failed attempt says about its endpoint.
fn outcome_at_endpoint(kind: SendErrorKind) -> Outcome {
    match kind {
        // Our own bound was reached, or the endpoint closed in an orderly way: no failure of the endpoint.
        SendErrorKind::Unsent(Unsent::PoolTimeout | Unsent::PoolFull | Unsent::Refused) => Outcome::Unsent,
        // A client chooses the protocol by what it sends; it must not open the breaker by it.
        SendErrorKind::Unsent(Unsent::Protocol) => Outcome::Unsent,
        SendErrorKind::Sent(Sent::RequestBody) => Outcome::Ignore,
        SendErrorKind::Unsent(_) | SendErrorKind::Sent(_) => Outcome::Overload { retry_after: None },
    }
}

/// Whether an answer shows that the service is there: one that is not found, or refused, may come from whoever took the
/// address over.
fn is_proof(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// Whether nobody seems to be there.
fn is_out_of_reach(kind: SendErrorKind) -> bool {
    match kind {
        SendErrorKind::Unsent(Unsent::Dns | Unsent::Connect | Unsent::ConnectTimeout | Unsent::Tls) => true,
        SendErrorKind::Unsent(
            Unsent::Protocol | Unsent::PoolTimeout | Unsent::PoolFull | Unsent::Refused,
        )
        | SendErrorKind::Sent(_) => false,
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
