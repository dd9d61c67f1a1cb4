//! What the gateway counts, and how it tells: the only room that names a metric.
//!
//! The request path keeps handles ([`RouteMetrics`]) whose counters take no lock; everything else is read from a
//! [`State`] when somebody scrapes.

mod codes;
mod exposition;
mod histogram;
mod process;
mod refusals;
mod route;
mod shard;
mod text;

use std::{collections::HashMap, sync::Arc, thread};

use parking_lot::Mutex;

use self::refusals::Refusals;
pub use self::{histogram::Histogram, route::RouteMetrics, shard::Sharded, text::Format};
use crate::state::{RouteState, State};

/// Most pairs of route and upstream that are counted apart. Further ones share a pair of the name `(other)`.
const MOST_ROUTES: usize = 4096;
/// The route and upstream of what is not counted apart.
const OTHER: &str = "(other)";
/// The name for the route, and the upstream, of calls that no route matched.
pub const NO_ROUTE: &str = "(none)";

/// The counters of the gateway. They live as long as the process: a reload asks for the same handles again.
#[derive(Debug)]
pub struct Telemetry {
    threads: usize,
    routes: Mutex<HashMap<(String, String), Arc<RouteMetrics>>>,
    refusals: Arc<Refusals>,
}

impl Telemetry {
    /// Makes counters for `workers` threads that write them; more may, at the price of sharing.
    pub fn new(workers: usize) -> Self {
        Self { threads: workers, routes: Mutex::default(), refusals: Arc::default() }
    }

    /// The counters of a route to an upstream: the same ones whenever the same names are asked for.
    ///
    /// Meant for start and reload, not for the request path: it takes a lock.
    pub fn route(&self, name: &str, upstream: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock();
        let mut key = (name.to_owned(), upstream.to_owned());
        if !routes.contains_key(&key) && routes.len() >= MOST_ROUTES {
            // Pairs that no configuration uses any more go first; their counters end here.
            routes.retain(|_, metrics| Arc::strong_count(metrics) > 1);
            if routes.len() >= MOST_ROUTES {
                key = (OTHER.to_owned(), OTHER.to_owned());
            }
        }
        let metrics = routes.entry(key).or_insert_with_key(|(name, upstream)| {
            Arc::new(RouteMetrics::new(name, upstream, self.threads, Arc::clone(&self.refusals)))
        });
        Arc::clone(metrics)
    }

    /// Adds to `state` what is counted here: the numbers of its routes, routes that it lacks, and the last refusals.
    pub fn fill(&self, state: &mut State) {
        for metrics in self.sorted() {
            let known = state.routes.iter().position(|route| {
                *route.name == **metrics.route() && *route.upstream == **metrics.upstream()
            });
            let at = known.unwrap_or_else(|| {
                let (name, upstream) = (metrics.route().to_string(), metrics.upstream().to_string());
                state.routes.push(RouteState { name, upstream, ..RouteState::default() });
                state.routes.len() - 1
            });
            metrics.fill(&mut state.routes[at]);
        }
        state.refusals = self.refusals.newest_first();
    }

    /// Writes every metric, counters of this room and gauges out of `state`, in an exposition format.
    pub fn render(&self, state: State, format: Format) -> String {
        let page = exposition::render(state, self.sorted());
        match format {
            Format::OpenMetrics => page,
            Format::Prometheus => text::to_prometheus(&page),
        }
    }

    fn sorted(&self) -> Vec<Arc<RouteMetrics>> {
        let mut all: Vec<_> = self.routes.lock().values().cloned().collect();
        all.sort_by(|a, b| (a.route(), a.upstream()).cmp(&(b.route(), b.upstream())));
        all
    }
}

impl Default for Telemetry {
    /// For as many threads as there are cores.
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }
}

#[cfg(test)]
mod tests;
