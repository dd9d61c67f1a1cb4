//! Which directions of a limited call hold its permit.

use std::sync::Arc;

use http::Request;
use http_body::Body;
use tower_service::Service;

use crate::{
    layer::{RequestBody, RequestHalf, ResponseHalf, halves, idle::Watch},
    limiter::Permit,
};

mod sealed {
    pub trait Sealed {}
}

/// Which directions of a call hold its permit.
pub trait Directions<B>: sealed::Sealed {
    /// The body of the request to the service below.
    type Body;

    /// What the response holds.
    type Held: crate::Permit + 'static;

    /// What the request holds.
    #[doc(hidden)]
    type Half;

    #[doc(hidden)]
    fn hold(&self, permit: Permit) -> (Self::Held, Self::Half);

    /// What tells the limiter of a call from others, as long as its response has not ended.
    #[doc(hidden)]
    fn limiter(held: &Self::Held) -> usize;

    /// Calls `service`. The request is moved as little as can be: it is large, and this is every call's path.
    #[doc(hidden)]
    fn call<S: Service<Request<Self::Body>>>(
        &self,
        service: &mut S,
        request: Request<B>,
        half: Self::Half,
        watch: Watching,
    ) -> S::Future;
}

/// The watch of a stream that is cut when nothing moves, if it has one.
#[doc(hidden)]
pub struct Watching(pub(super) Option<Arc<Watch>>);

/// The response holds the permit. The request passes as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseOnly;

impl sealed::Sealed for ResponseOnly {}

impl<B> Directions<B> for ResponseOnly {
    type Body = B;
    type Held = Permit;
    type Half = ();

    #[inline(always)]
    fn hold(&self, permit: Permit) -> (Permit, ()) {
        (permit, ())
    }

    #[inline(always)]
    fn limiter(held: &Permit) -> usize {
        held.limiter()
    }

    #[inline(always)]
    fn call<S: Service<Request<B>>>(
        &self,
        service: &mut S,
        request: Request<B>,
        (): (),
        _watch: Watching,
    ) -> S::Future {
        service.call(request)
    }
}

/// Request and response hold the permit, until both are over. The request's body is wrapped by the function.
#[derive(Clone, Copy, Debug)]
pub struct BothDirections<F>(pub(super) F);

impl<F> sealed::Sealed for BothDirections<F> {}

impl<B: Body, B2, F: Fn(RequestBody<B, Permit>) -> B2> Directions<B> for BothDirections<F> {
    type Body = B2;
    type Held = ResponseHalf<Permit>;
    type Half = RequestHalf<Permit>;

    fn hold(&self, permit: Permit) -> (ResponseHalf<Permit>, RequestHalf<Permit>) {
        let (half, response) = halves(permit);
        (response, half)
    }

    fn limiter(held: &ResponseHalf<Permit>) -> usize {
        held.look(Permit::limiter).unwrap_or(0)
    }

    fn call<S: Service<Request<B2>>>(
        &self,
        service: &mut S,
        request: Request<B>,
        half: RequestHalf<Permit>,
        watch: Watching,
    ) -> S::Future {
        service.call(request.map(|body| (self.0)(RequestBody::new(body, half).watched(watch.0))))
    }
}
