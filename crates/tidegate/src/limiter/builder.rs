//! How a limiter is set up.

use std::{fmt, sync::Arc, time::Duration};

use tidegate_core::{
    gate::{MOST, Order},
    limit::{Adaptive, Fixed, InvalidLimit},
};

use super::{
    Limiter, Nested, Shared, fleet::Wishes, permit::Ages, permits::Permits, stats::Stats, tuner::Tuner,
    watch::Watch,
};

/// The settings of a limiter, checked when it is [built](Builder::build).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    limit: Option<Limit>,
    queue: u32,
    settings: Settings,
    /// Who is told that callers find no permit.
    wanting: Option<Arc<Wishes>>,
}

#[derive(Debug)]
enum Limit {
    Fixed(Result<Fixed, InvalidLimit>),
    Adaptive(Adaptive),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) max_wait: Duration,
    pub(super) order: Order,
    pub(super) nested: Nested,
    pub(super) measure_hold: bool,
    pub(super) held_long: Option<Duration>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            limit: None,
            queue: 1000,
            settings: Settings {
                max_wait: Duration::from_millis(500),
                order: Order::Fifo,
                nested: Nested::Refuse,
                measure_hold: false,
                held_long: None,
            },
            wanting: None,
        }
    }
}

impl Builder {
    /// Most calls in flight, 1 to 1 048 575. Must be given, unless [`off`](Self::off) is.
    pub fn limit(mut self, limit: i64) -> Self {
        self.limit = Some(Limit::Fixed(Fixed::new(limit)));
        self
    }

    /// A limit that follows the upstream by a law, such as [`Gradient`](super::Gradient), within the law's bounds.
    ///
    /// ```
    /// # use tidegate::limiter::{Adaptive, Bounds, Gradient, InvalidLimiter, Limiter};
    /// # fn main() -> Result<(), InvalidLimiter> {
    /// let law = Gradient::new(Bounds::new(10, 500)?);
    /// let limiter = Limiter::builder().adaptive(Adaptive::new(law)).build()?;
    /// assert_eq!(limiter.limit(), Some(10));
    /// # Ok(()) }
    /// ```
    pub fn adaptive(mut self, adaptive: Adaptive) -> Self {
        self.limit = Some(Limit::Adaptive(adaptive));
        self
    }

    /// No limit: calls are counted, and none waits.
    pub fn off(mut self) -> Self {
        self.limit = Some(Limit::Fixed(Ok(Fixed::Off)));
        self
    }

    /// Most callers that wait at a time; 0 for none. Default: 1000.
    pub fn queue(mut self, queue: u32) -> Self {
        self.queue = queue;
        self
    }

    /// Longest wait for a permit; a call's deadline may shorten it. Default: 500 ms.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }

    /// Who goes first among those who wait. Default: [`Order::Fifo`].
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// What a call inside this limiter gets that asks again. Default: [`Nested::Refuse`].
    pub fn nested(mut self, nested: Nested) -> Self {
        self.settings.nested = nested;
        self
    }

    /// Keeps a histogram of how long permits are held. Default: none, because it reads the clock at a call's end.
    pub fn measure_hold(mut self) -> Self {
        self.settings.measure_hold = true;
        self
    }

    /// Counts the permits held for longer than `age`, to find calls that never end. Default: none; each call then
    /// passes a short lock twice.
    pub fn watch_held_longer_than(mut self, age: Duration) -> Self {
        self.settings.held_long = Some(age);
        self
    }

    pub(super) fn wanting(mut self, wishes: Arc<Wishes>) -> Self {
        self.wanting = Some(wishes);
        self
    }

    /// Makes the limiter.
    ///
    /// # Errors
    /// [`InvalidLimiter`], with the value and the remedy.
    pub fn build(self) -> Result<Limiter, InvalidLimiter> {
        let wanting = self.wanting.clone();
        let Parts { limit, queue, settings } = self.into_parts()?;
        let (limit, law) = limit.ok_or(InvalidLimiter::NoLimit)?;
        let tuner = Tuner::new(law);
        let watch = Watch::new(settings, &tuner);
        let shared = Shared {
            permits: Permits::new(limit, queue, settings.order),
            stats: Stats::new(settings.measure_hold),
            ages: Ages::default(),
            tuner,
            nested: settings.nested,
            wanting,
            watch,
        };
        Ok(Limiter { shared: Arc::new(shared) })
    }

    /// Checks the settings without making anything of them.
    ///
    /// # Errors
    /// [`InvalidLimiter`], as [`Limiter::reconfigure`] would say; [`build`](Self::build) needs a limit as well.
    pub fn check(&self) -> Result<(), InvalidLimiter> {
        if let Some(Limit::Fixed(limit)) = &self.limit {
            (*limit)?;
        }
        if self.queue > MOST { Err(InvalidLimiter::Queue(self.queue)) } else { Ok(()) }
    }

    pub(super) fn into_parts(self) -> Result<Parts, InvalidLimiter> {
        self.check()?;
        let Self { limit, queue, settings, .. } = self;
        let limit = match limit {
            Some(Limit::Fixed(limit)) => Some((limit?.count(), None)),
            Some(Limit::Adaptive(law)) => Some((law.limit(), Some(law))),
            None => None,
        };
        Ok(Parts { limit, queue, settings })
    }
}

/// Settings that were checked.
pub(super) struct Parts {
    /// The limit and what moves it, if anything does; none when it was not given.
    pub(super) limit: Option<(u32, Option<Adaptive>)>,
    pub(super) queue: u32,
    pub(super) settings: Settings,
}

/// What is wrong with the settings of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLimiter {
    /// Neither a limit nor `off` was given.
    NoLimit,
    /// The limit is none.
    Limit(InvalidLimit),
    /// The queue is longer than a limiter counts.
    Queue(u32),
}

impl fmt::Display for InvalidLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLimit => f.write_str("no limit was given; set `limit`, or `off` for no limit"),
            Self::Limit(invalid) => invalid.fmt(f),
            Self::Queue(queue) => {
                write!(f, "a queue of {queue} is longer than {MOST}; set a shorter `queue`")
            }
        }
    }
}

impl std::error::Error for InvalidLimiter {}

impl From<InvalidLimit> for InvalidLimiter {
    fn from(invalid: InvalidLimit) -> Self {
        Self::Limit(invalid)
    }
}
