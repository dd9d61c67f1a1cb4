//! The metrics of calls in flight: one family for upstreams, one for partitions, one for routes, so that summing over
//! labels counts no call twice.

use std::fmt;

use super::page::Page;
use crate::state::InFlightState;

/// The names of a family.
pub(super) struct Family {
    in_flight: &'static str,
    limit: &'static str,
    queued: &'static str,
    queue_limit: &'static str,
    admitted: &'static str,
    cancelled: &'static str,
    held_long: &'static str,
    refusals: &'static str,
    wait: &'static str,
    hold: &'static str,
}

macro_rules! family {
    ($prefix:literal) => {
        Family {
            in_flight: concat!($prefix, "in_flight"),
            limit: concat!($prefix, "in_flight_limit"),
            queued: concat!($prefix, "queued"),
            queue_limit: concat!($prefix, "queue_limit"),
            admitted: concat!($prefix, "admitted"),
            cancelled: concat!($prefix, "queue_cancelled"),
            held_long: concat!($prefix, "held_long"),
            refusals: concat!($prefix, "in_flight_refusals"),
            wait: concat!($prefix, "wait"),
            hold: concat!($prefix, "hold"),
        }
    };
}

/// Of upstreams, by pool: `calls` and `streams`.
pub(super) const UPSTREAM: Family = family!("tidegate_");
/// Of the partitions of an upstream's calls.
pub(super) const PARTITION: Family = family!("tidegate_partition_");
/// Of routes that have a limit of their own.
pub(super) const ROUTE: Family = family!("tidegate_route_");

/// Labels and a reading.
type Row<'a> = ([(&'static str, &'a str); 2], &'a InFlightState);

impl Family {
    pub(super) fn encode(&self, page: &mut Page<'_>, rows: Vec<Row<'_>>) -> fmt::Result {
        let of = |of: fn(&InFlightState) -> u64| rows.iter().map(move |(labels, state)| (*labels, of(state)));
        let gauge = |page: &mut Page<'_>, name, help, value: fn(&InFlightState) -> u64| {
            page.gauge(name, help, None, of(value).map(|(labels, value)| (labels, value as f64)))
        };
        gauge(page, self.in_flight, "Calls in flight", |state| state.in_flight)?;
        let limits = rows.iter().filter_map(|(labels, state)| Some((*labels, state.limit? as f64)));
        page.gauge(self.limit, "Most calls in flight now; absent when there is no limit", None, limits)?;
        gauge(page, self.queued, "Callers waiting for a permit", |state| state.queued)?;
        gauge(page, self.queue_limit, "Most callers waiting", |state| state.queue)?;
        page.counter(self.admitted, "Calls given a permit", None, of(|state| state.admitted))?;
        page.counter(self.cancelled, "Callers that left the queue", None, of(|state| state.cancelled))?;
        gauge(page, self.held_long, "Permits held for longer than is watched for", |state| state.held_long)?;
        let refused = rows.iter().flat_map(|([first, second], state)| {
            state.refused.iter().map(move |(by, count)| ([*first, *second, ("by", by.as_str())], *count))
        });
        page.counter(self.refusals, "Calls the limiter refused, by the rule that refused", None, refused)?;
        let waits = rows.iter().map(|(labels, state)| (*labels, &state.wait));
        page.histogram(self.wait, "How long admitted calls waited for a permit", waits)?;
        let holds = rows.iter().map(|(labels, state)| (*labels, &state.hold));
        page.histogram(self.hold, "How long calls held their permit", holds)
    }
}
