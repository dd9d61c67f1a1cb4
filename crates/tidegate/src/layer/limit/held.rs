//! What a limited call holds, and which of its directions hold it.

use std::sync::Arc;

use http::Request;
use http_body::Body;

use crate::{
    Instant, Outcome,
    layer::{
        RequestBody, RequestHalf, ResponseHalf, halves,
        idle::{Watch, Watched},
    },
    limiter::Permit,
};

/// A permit on its way with a response.
pub struct Held(Kind);

enum Kind {
    One(Permit),
    Half(ResponseHalf<Permit>),
    Watched(Watched<Box<Held>>),
}

impl Held {
    pub(super) const fn one(permit: Permit) -> Self {
        Self(Kind::One(permit))
    }

    pub(super) const fn watched(permit: Watched<Box<Self>>) -> Self {
        Self(Kind::Watched(permit))
    }
}

impl crate::Permit for Held {
    fn settle(self, outcome: Outcome, now: Instant) {
        match self.0 {
            Kind::One(permit) => permit.settle(outcome, now),
            Kind::Half(permit) => permit.settle(outcome, now),
            Kind::Watched(permit) => permit.settle(outcome, now),
        }
    }

    #[inline]
    fn settle_now(self, outcome: Outcome) {
        match self.0 {
            Kind::One(permit) => permit.finish(outcome),
            Kind::Half(permit) => permit.settle_now(outcome),
            Kind::Watched(permit) => permit.settle_now(outcome),
        }
    }
}

impl crate::Permit for Box<Held> {
    fn settle(self, outcome: Outcome, now: Instant) {
        (*self).settle(outcome, now);
    }

    fn settle_now(self, outcome: Outcome) {
        (*self).settle_now(outcome);
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Which directions of a call hold its permit.
pub trait Directions<B>: sealed::Sealed {
    /// The body of the request to the service below.
    type Body;

    /// What the request's body is wrapped with.
    #[doc(hidden)]
    type Half;

    #[doc(hidden)]
    fn hold(&self, permit: Permit) -> (Held, Self::Half);

    #[doc(hidden)]
    fn wrap(&self, request: Request<B>, half: Self::Half, watch: Watching) -> Request<Self::Body>;
}

#[doc(hidden)]
pub struct Watching(pub(super) Option<Arc<Watch>>);

/// The response holds the permit. The request passes as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseOnly;

impl sealed::Sealed for ResponseOnly {}

impl<B> Directions<B> for ResponseOnly {
    type Body = B;
    type Half = ();

    #[inline]
    fn hold(&self, permit: Permit) -> (Held, ()) {
        (Held::one(permit), ())
    }

    #[inline(always)]
    fn wrap(&self, request: Request<B>, (): (), _watch: Watching) -> Request<B> {
        request
    }
}

/// Request and response hold the permit, until both are over. The request's body is wrapped by the function.
#[derive(Clone, Copy, Debug)]
pub struct BothDirections<F>(pub(super) F);

impl<F> sealed::Sealed for BothDirections<F> {}

impl<B: Body, B2, F: Fn(RequestBody<B, Permit>) -> B2> Directions<B> for BothDirections<F> {
    type Body = B2;
    type Half = RequestHalf<Permit>;

    fn hold(&self, permit: Permit) -> (Held, RequestHalf<Permit>) {
        let (half, response) = halves(permit);
        (Held(Kind::Half(response)), half)
    }

    fn wrap(&self, request: Request<B>, half: RequestHalf<Permit>, watch: Watching) -> Request<B2> {
        request.map(|body| (self.0)(RequestBody::new(body, half).watched(watch.0)))
    }
}
