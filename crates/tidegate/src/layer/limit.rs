//! The limiter as a `tower` layer over `http` types, for clients and servers, plain HTTP and gRPC alike.

mod directions;
mod error;
mod future;
mod silence;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use self::future::{Apart, prepare};
pub use self::{
    directions::{BothDirections, Directions, ResponseOnly},
    error::{Error, refused_in},
    future::ResponseFuture,
    silence::{CutIdle, Endless, Guarded, Silence},
};
use super::GuardedBody;
use crate::{
    Call,
    classify::{ByStatus, Classify},
    clock, grpc,
    limiter::{Inside, Limiter, Permit, Turned},
};

/// The response body of a limited call, by default.
pub type LimitedBody<B, C = ByStatus> = GuardedBody<B, Permit, C>;

/// How long a call holds its permit. In a request's extensions it overrides the layer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(usize)] // A whole word, as it is copied with others.
pub enum Hold {
    /// To the end of the response body.
    #[default]
    Body,
    /// To the response head: for downloads that would starve short calls.
    Headers,
}

/// How a refusal reaches the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusals {
    /// As [`Error::Refused`]: for clients, which can tell it from every answer of the server.
    #[default]
    Error,
    /// As an answer: 503 (504 past the deadline) with `Retry-After`, or trailers-only gRPC with a pushback, both marked
    /// `tidegate-refused`: for servers.
    Answer,
}

/// Limits the calls in flight through a service.
///
/// A call is admitted in `call`, after the service is ready: an idle clone holds nothing, and inside retries a slot is
/// free during back-off. The permit rides in the response body to the end of its stream. What the call knows is read from
/// a [`Call`] in the request's extensions; without one, a call that has to wait begins then, and `grpc-timeout` is its
/// deadline.
///
/// ```
/// use tidegate::{layer::limit::LimitLayer, limiter::Limiter};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = Limiter::builder().limit(50).max_wait(Duration::from_millis(200)).build()?;
/// let layer = LimitLayer::new(limiter.clone());
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LimitLayer<C = ByStatus, D = ResponseOnly, I = Endless> {
    settings: Settings<C, D, I>,
}

#[derive(Clone, Debug)]
struct Settings<C, D, I> {
    limiter: Limiter,
    streams: Option<Streams>,
    hold: Hold,
    refusals: Refusals,
    classify: C,
    directions: D,
    silence: I,
}

impl LimitLayer {
    /// Makes a layer of `limiter`, which other layers may share.
    pub const fn new(limiter: Limiter) -> Self {
        Self {
            settings: Settings {
                limiter,
                streams: None,
                hold: Hold::Body,
                refusals: Refusals::Error,
                classify: ByStatus,
                directions: ResponseOnly,
                silence: Endless,
            },
        }
    }
}

impl<C, D, I> LimitLayer<C, D, I> {
    /// How long calls hold their permits. Default: [`Hold::Body`].
    #[must_use]
    pub fn hold(mut self, hold: Hold) -> Self {
        self.settings.hold = hold;
        self
    }

    /// How refusals reach the caller. Default: [`Refusals::Error`].
    #[must_use]
    pub fn refusals(mut self, refusals: Refusals) -> Self {
        self.settings.refusals = refusals;
        self
    }

    /// Gives the calls whose path `is_stream` knows a limiter of their own, so that long-lived streams cannot starve
    /// short calls. Default: one limiter for all.
    ///
    /// ```
    /// # use tidegate::{layer::limit::LimitLayer, limiter::Limiter};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (short, streams) = (Limiter::new(200)?, Limiter::new(50)?);
    /// let layer = LimitLayer::new(short).streams(streams, |path| path.ends_with("/Watch"));
    /// # let _ = layer; Ok(()) }
    /// ```
    #[must_use]
    pub fn streams(
        mut self,
        limiter: Limiter,
        is_stream: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.streams = Some(Streams { limiter, is_stream: Arc::new(is_stream) });
        self
    }

    /// Cuts a response in which nothing moves for `idle`, read or not, and frees its permit. Default: never.
    ///
    /// Each call then has a task with a timer: for streams, not for short calls. Calls run inside a tokio runtime then.
    /// Where the client streams too, add [`both_directions`](Self::both_directions), which has the request cut as well:
    /// a server whose client goes on sending takes the call for alive.
    #[must_use]
    pub fn idle_stream(self, idle: Duration) -> LimitLayer<C, D, CutIdle> {
        let Settings { limiter, streams, hold, refusals, classify, directions, .. } = self.settings;
        let silence = CutIdle(idle);
        LimitLayer { settings: Settings { limiter, streams, hold, refusals, classify, directions, silence } }
    }

    /// How the ends of calls are judged. Default: [`ByStatus`].
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> LimitLayer<C2, D, I> {
        let Settings { limiter, streams, hold, refusals, directions, silence, .. } = self.settings;
        LimitLayer { settings: Settings { limiter, streams, hold, refusals, classify, directions, silence } }
    }

    /// Holds permits until the request's direction is over too, for calls in which both sides stream.
    ///
    /// The service below gets the request's body wrapped; `wrap` makes of it the body which that service takes (with
    /// tonic: `tonic::body::Body::new`). Default: the response alone decides.
    #[must_use]
    pub fn both_directions<F>(self, wrap: F) -> LimitLayer<C, BothDirections<F>, I> {
        let Settings { limiter, streams, hold, refusals, classify, silence, .. } = self.settings;
        let directions = BothDirections(wrap);
        LimitLayer { settings: Settings { limiter, streams, hold, refusals, classify, directions, silence } }
    }
}

/// A limiter for streams, and what knows them by their paths.
#[derive(Clone)]
struct Streams {
    limiter: Limiter,
    is_stream: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

impl<C, D, I> Settings<C, D, I> {
    /// The limiter of this request.
    #[inline]
    fn limiter<B>(&self, request: &Request<B>) -> &Limiter {
        match &self.streams {
            Some(streams) if (streams.is_stream)(request.uri().path()) => &streams.limiter,
            Some(_) | None => &self.limiter,
        }
    }
}

impl<S, C: Clone, D: Clone, I: Clone> Layer<S> for LimitLayer<C, D, I> {
    type Service = Limit<S, C, D, I>;

    fn layer(&self, inner: S) -> Self::Service {
        Limit { inner, settings: self.settings.clone() }
    }
}

/// A service with a limit of calls in flight.
#[derive(Clone, Debug)]
pub struct Limit<S, C = ByStatus, D = ResponseOnly, I = Endless> {
    inner: S,
    settings: Settings<C, D, I>,
}

impl<S, B, R, C, D, I> Service<Request<B>> for Limit<S, C, D, I>
where
    D: Directions<B> + Clone,
    S: Service<Request<D::Body>, Response = Response<R>> + Clone,
    R: Body + Send + 'static,
    C: Classify + Clone,
    I: Silence + Clone,
{
    type Response = Guarded<I, R, D::Held, C>;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, B, C, D, I>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = request.extensions().get::<Call>();
        match self.settings.limiter(&request).enter_now(call) {
            Ok(permit) => {
                let _inside = Inside::counted(&permit);
                let (on_head, half, watching) = prepare(&self.settings, &request, permit);
                let future = self.settings.directions.call(&mut self.inner, request, half, watching);
                ResponseFuture::calling(future, on_head)
            }
            Err(turned) => ResponseFuture::apart(self.turned_away(Box::new(request), turned)),
        }
    }
}

impl<S: Clone, C: Clone, D: Clone, I: Clone> Limit<S, C, D, I> {
    /// The response to a call that was not admitted at once.
    #[cold]
    #[inline(never)]
    fn turned_away<B, F>(&mut self, request: Box<Request<B>>, turned: Turned) -> Box<Apart<S, B, C, D, I, F>>
    where
        D: Directions<B>,
        I: Silence,
    {
        match turned {
            Turned::Refused(refused) => Apart::refused(&self.settings, &request, refused),
            Turned::Busy => {
                let call = request.extensions().get::<Call>().copied().unwrap_or_else(|| {
                    let call = Call::at(clock::now());
                    grpc::timeout(request.headers()).map_or(call, |timeout| call.within(timeout))
                });
                // The instance that was polled ready makes the call; a fresh one takes its place.
                let fresh = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, fresh);
                Apart::waiting(ready, self.settings.clone(), request, call)
            }
        }
    }
}
