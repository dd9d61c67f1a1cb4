//! What the gateway counts, and how it tells: the only room that names a metric.
//!
//! The request path keeps handles ([`RouteMetrics`]) whose counters take no lock; everything else is read from a
//! [`State`] when somebody scrapes.

mod breakers;
mod codes;
mod exposition;
mod handles;
mod histogram;
mod in_flight;
mod limits;
mod page;
mod pressure;
mod process;
mod refusals;
mod registry;
mod route;
mod sessions;
mod shard;
mod text;
mod tokens;
mod upstreams;

use std::{sync::Arc, thread};

pub use self::{
    breakers::BreakerLog, histogram::Histogram, route::RouteMetrics, shard::Sharded, text::Format,
};
use self::{handles::Handles, refusals::Refusals};
use crate::state::{RouteState, State};

/// The name for the route, and the upstream, of calls that no route matched.
pub const NO_ROUTE: &str = "(none)";

/// The counters of the gateway. They live as long as the process: a reload asks for the same handles again.
#[derive(Debug)]
pub struct Telemetry {
    threads: usize,
    routes: Handles<RouteMetrics>,
    refusals: Arc<Refusals>,
}

impl Telemetry {
    /// Makes counters for `workers` threads that write them; more may, at the price of sharing.
    pub fn new(workers: usize) -> Self {
        Self { threads: workers, routes: Handles::default(), refusals: Arc::default() }
    }

    /// The counters of a route to an upstream: the same ones whenever the same names are asked for.
    ///
    /// Meant for start and reload, not for the request path: it takes a lock. At most 4096 pairs are counted apart.
    pub fn route(&self, name: &str, upstream: &str) -> Arc<RouteMetrics> {
        self.routes.of(name, upstream, |name, upstream| {
            RouteMetrics::new(name, upstream, self.threads, Arc::clone(&self.refusals))
        })
    }

    /// Adds to `state` what is counted here: the numbers of its routes, routes that it lacks, and the last refusals.
    pub fn fill(&self, state: &mut State) {
        for metrics in self.routes.sorted() {
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
        let page = exposition::render(state, self.routes.sorted());
        match format {
            Format::OpenMetrics => page,
            Format::Prometheus => text::to_prometheus(&page),
        }
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
