//! What becomes of a response in which nothing moves.

use std::{sync::Arc, time::Duration};

use http::Response;
use http_body::Body;

use super::{Hold, directions::Watching};
use crate::{
    Permit,
    classify::Classify,
    layer::{
        GuardedBody, IdleBody,
        body::Held,
        idle::{Stream, Watch, Watched},
    },
};

mod sealed {
    pub trait Sealed {}
}

/// A response with the body that `I` makes of it.
pub type Guarded<I, R, P, C> = Response<GuardedBody<<I as Silence>::Body<R>, <I as Silence>::Held<P>, C>>;

/// What becomes of a response in which nothing moves.
pub trait Silence: sealed::Sealed {
    /// The body of a response, made of the service's own.
    type Body<R: Body + Send + 'static>: Body<Data = R::Data>;

    /// What that body holds, made of the call's permit.
    type Held<P: Permit + 'static>: Permit;

    /// What watches the call.
    #[doc(hidden)]
    type Watch;

    #[doc(hidden)]
    fn watch(&self) -> Self::Watch;

    #[doc(hidden)]
    fn watching(watch: &Self::Watch) -> Watching;

    #[doc(hidden)]
    fn guard<R: Body + Send + 'static, P: Permit + 'static, C: Classify>(
        watch: Self::Watch,
        response: Response<R>,
        permit: P,
        classify: C,
        hold: Hold,
    ) -> Guarded<Self, R, P, C>
    where
        Self: Sized;
}

/// A response may be silent for ever: its reader decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Endless;

impl sealed::Sealed for Endless {}

impl Silence for Endless {
    type Body<R: Body + Send + 'static> = R;
    type Held<P: Permit + 'static> = P;
    type Watch = ();

    #[inline(always)]
    fn watch(&self) {}

    #[inline(always)]
    fn watching((): &()) -> Watching {
        Watching(None)
    }

    #[inline(always)]
    fn guard<R: Body + Send + 'static, P: Permit + 'static, C: Classify>(
        (): (),
        response: Response<R>,
        permit: P,
        classify: C,
        hold: Hold,
    ) -> Response<GuardedBody<R, P, C>> {
        let held = match hold {
            Hold::Body => Held::by(&response, permit, classify),
            Hold::Headers => {
                Held::to_head(&response, permit, &classify);
                None
            }
        };
        GuardedBody::holding(response, held)
    }
}

/// A response in which nothing moves for so long is cut, read or not.
#[derive(Clone, Copy, Debug)]
pub struct CutIdle(pub(super) Duration);

impl sealed::Sealed for CutIdle {}

impl Silence for CutIdle {
    type Body<R: Body + Send + 'static> = IdleBody<R>;
    type Held<P: Permit + 'static> = Watched<P>;
    type Watch = Arc<Watch>;

    fn watch(&self) -> Arc<Watch> {
        Watch::new(self.0)
    }

    fn watching(watch: &Arc<Watch>) -> Watching {
        Watching(Some(Arc::clone(watch)))
    }

    fn guard<R: Body + Send + 'static, P: Permit + 'static, C: Classify>(
        watch: Arc<Watch>,
        response: Response<R>,
        permit: P,
        classify: C,
        hold: Hold,
    ) -> Response<GuardedBody<IdleBody<R>, Watched<P>, C>> {
        if hold == Hold::Headers {
            Held::to_head(&response, permit, &classify);
            return GuardedBody::free(response.map(IdleBody::free));
        }
        watch.moved();
        let (head, body) = response.into_parts();
        let (stream, permit) = Stream::watch(watch, body, permit);
        GuardedBody::guard(Response::from_parts(head, IdleBody::watched(stream)), permit, classify)
    }
}
