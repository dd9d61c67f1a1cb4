//! One endpoint of an upstream: sends calls, and knows how many are under way.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use http::{Request, Response, uri::Authority, uri::Scheme};
use tidegate::Breaker;
use tidegate_core::Call;

use super::{
    address::Address,
    body::UpstreamBody,
    endpoints::place,
    error::{SendError, Sent, Unsent},
    exchange::{self, Keep},
    http1::{self, Http1Body},
    open::{Link, Reached, Wire},
    pool::{ConnectionStats, InFlight},
    reach::Reach,
};
use crate::body::RequestBody;

/// Most connections in a row that turn out to be closing before a call is given back.
const MOST_STALE: u32 = 16;

/// One server of an upstream, with the connections to it.
///
/// Dropping it closes the idle connections; calls under way go on to their end.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    pub(super) link: Arc<Link>,
    breaker: Breaker,
    /// Who vouches for it: a [`Vouched`].
    vouched: AtomicU8,
}

/// Who vouches for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Vouched {
    /// Nobody: the registry listed it, and took it away in a way that looks like its own trouble.
    No,
    /// Calls that succeeded since.
    ByCalls,
    /// The registry, which lists it; or there is no registry.
    Yes,
}

impl Endpoint {
    pub(super) fn new(address: Address, link: Arc<Link>, breaker: Breaker) -> Self {
        Self { address, link, breaker, vouched: AtomicU8::new(Vouched::Yes as u8) }
    }

    /// What tells it from others.
    pub(super) fn place(&self) -> (Scheme, Authority) {
        (self.address.scheme.clone(), self.address.authority.clone())
    }

    /// Whether a URL leads to it.
    pub fn is_at(&self, url: &str) -> bool {
        place(url).is_ok_and(|place| place == self.place())
    }

    /// Its breaker, which is not asked where breakers are off.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Who vouches for it.
    pub fn vouched(&self) -> Vouched {
        match self.vouched.load(Relaxed) {
            none if none == Vouched::No as u8 => Vouched::No,
            calls if calls == Vouched::ByCalls as u8 => Vouched::ByCalls,
            _ => Vouched::Yes,
        }
    }

    pub(super) fn vouch(&self, vouched: Vouched) {
        self.vouched.store(vouched as u8, Relaxed);
    }

    /// Notes that a call succeeded; true for the first one at an endpoint that nobody vouched for.
    pub(crate) fn proves_itself(&self) -> bool {
        let (none, calls) = (Vouched::No as u8, Vouched::ByCalls as u8);
        self.vouched.load(Relaxed) == none
            && self.vouched.compare_exchange(none, calls, Relaxed, Relaxed).is_ok()
    }

    /// The host and port as configured.
    pub fn authority(&self) -> &Authority {
        &self.address.authority
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &Scheme {
        &self.address.scheme
    }

    /// Calls under way: from `send` to the end of the response body.
    pub fn in_flight(&self) -> u32 {
        self.link.pool.in_flight()
    }

    /// What the connections are doing.
    pub fn connections(&self) -> ConnectionStats {
        self.link.pool.stats()
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// It sets the request's version, target form and `Host` for the protocol that the endpoint speaks and the upstream's
    /// `host` policy; all other fields go as they are. The wait for a connection ends at the call's deadline, at most
    /// after `connections.connect_timeout`; the wait for the head does not end by itself. While the call's
    /// `attempts_left` is not zero, a refused request comes back.
    ///
    /// # Errors
    /// When there is no response head. The error says whether the call was sent.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up: an HTTP/1 connection is closed, an HTTP/2 stream reset.
    pub async fn send(
        &self,
        request: impl Into<Box<Request<RequestBody>>>,
        call: &Call,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.send_noting(request.into(), call, &Reach::default()).await
    }

    /// As [`Self::send`], and notes in `reach` whether the call may have reached the endpoint.
    ///
    /// # Errors
    /// As [`Self::send`].
    ///
    /// # Cancel safety
    /// As [`Self::send`]; `reach` says how far the call came.
    pub async fn send_noting(
        &self,
        request: Box<Request<RequestBody>>,
        call: &Call,
        reach: &Reach,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let sent = self.send_on(request, call, reach).await;
        if sent.as_ref().is_err_and(SendError::is_unsent) {
            reach.fail();
        }
        sent
    }

    async fn send_on(
        &self,
        request: Box<Request<RequestBody>>,
        call: &Call,
        reach: &Reach,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let in_flight = InFlight::new(&self.link.pool);
        // In a box, as it passes through many hands, and futures are moved too.
        let mut request = request;
        let mut repeated = false;
        for _ in 0..MOST_STALE {
            let wire = self.link.wire(request.headers());
            match wire {
                Wire::Http1 | Wire::Upgrade => {
                    let connection = match self.link.http1(wire, call).await {
                        Ok(connection) => connection,
                        Err(error) => return Err(SendError::from(error).giving_back(request)),
                    };
                    self.address.http1(&mut request);
                    self.address.finish(&mut request);
                    reach.begin();
                    if wire == Wire::Upgrade {
                        let (response, sender) = http1::send_upgrade(connection, request).await?;
                        return Ok(response.map(|incoming| {
                            UpstreamBody::http1(Http1Body::upgrade(incoming, sender), in_flight)
                        }));
                    }
                    match connection.send(request).await {
                        Ok(answer) => {
                            let (head, body) = Http1Body::new(answer, in_flight.pool());
                            return Ok(head.map(|()| UpstreamBody::http1(body, in_flight)));
                        }
                        Err(http1::Failed::Stale(back)) => request = back,
                        // A repetition is not repeated (RFC 9110 §9.2.2): an upstream that closes because it has too much
                        // to do must not get more of the same.
                        Err(http1::Failed::Silent(_)) if repeated => {
                            return Err(
                                SendError::sent(Sent::Closed).because("twice in a row, without a word")
                            );
                        }
                        Err(http1::Failed::Silent(back)) => {
                            repeated = true;
                            reach.take();
                            request = back;
                        }
                        Err(http1::Failed::Told(error)) => return Err(error),
                    }
                }
                Wire::Http2 | Wire::Unknown => {
                    let slot = match self.link.http2(call).await {
                        Ok(Reached::Stream(slot)) => slot,
                        Ok(Reached::Again) => continue,
                        Err(error) => return Err(SendError::from(error).giving_back(request)),
                    };
                    self.address.http2(&mut request);
                    self.address.finish(&mut request);
                    reach.begin();
                    let keep = if call.attempts_left > 0 { Keep::Head } else { Keep::Nothing };
                    match exchange::send(slot, request, keep).await {
                        Ok((head, body)) => return Ok(head.map(|()| UpstreamBody::http2(body, in_flight))),
                        Err(exchange::Failed::Stale(back)) => request = back,
                        Err(exchange::Failed::Told(error)) => return Err(error),
                    }
                }
            }
        }
        Err(SendError::unsent(Unsent::Refused)
            .because("one connection after another was closing")
            .giving_back(request))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.link.pool.close();
    }
}
