//! What a call owes to limits whose cost is known only at its end: an estimate was reserved, and the rest is settled.

use std::fmt;

use http::HeaderMap;

use crate::cost::{CostSource, number_in, units};

/// What a call owes. Dropping it leaves the estimates charged.
pub(crate) struct Tab {
    items: Vec<Item>,
    /// Tells a limit, by its place, what the call cost.
    settle: Box<dyn FnMut(usize, u32) + Send + Sync>,
}

/// What a call owes to one limit.
#[derive(Debug)]
struct Item {
    /// The limit's place.
    limit: usize,
    source: CostSource,
    /// What the cost turned out to be.
    told: Option<u32>,
}

impl Tab {
    /// Opens a tab with limits by their place and what tells their cost; `settle` tells them.
    pub(crate) fn new(
        sources: Vec<(usize, CostSource)>,
        settle: impl FnMut(usize, u32) + Send + Sync + 'static,
    ) -> Self {
        let items = sources.into_iter().map(|(limit, source)| Item { limit, source, told: None });
        Self { items: items.collect(), settle: Box::new(settle) }
    }

    /// Reads what the head of the response tells, or its trailers, which tell it better.
    pub(crate) fn read(&mut self, headers: &HeaderMap) {
        for item in &mut self.items {
            if let CostSource::ResponseHeader(name) = &item.source {
                item.told = number_in(headers, name).or(item.told);
            }
        }
    }

    /// Settles all of it, now that so many bytes went up and down. What nothing told stays at its estimate.
    pub(crate) fn settle(mut self, up: u64, down: u64) {
        for Item { limit, source, told } in self.items {
            let cost = match source {
                CostSource::ResponseBytes => Some(units(down)),
                CostSource::RequestBytes => Some(units(up).max(1)),
                CostSource::RequestHeader(_) | CostSource::ResponseHeader(_) => told,
            };
            if let Some(cost) = cost {
                (self.settle)(limit, cost);
            }
        }
    }
}

impl fmt::Debug for Tab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tab").field("items", &self.items).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    fn headers(tokens: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("x-tokens"), tokens.parse().unwrap())])
    }

    /// What limits that are told by `sources` are settled at, by their place.
    fn settled(sources: &[&str], then: impl FnOnce(&mut Tab)) -> Vec<(usize, u32)> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let sources = sources.iter().enumerate().map(|(at, source)| (at, source.parse().unwrap())).collect();
        let mut tab = Tab::new(sources, move |at, cost| told.lock().push((at, cost)));
        then(&mut tab);
        tab.settle(0, 4096);
        seen.lock().clone()
    }

    #[test]
    fn bytes_are_counted_and_headers_are_read() {
        let all = ["response-bytes", "request-bytes", "response-header:x-tokens"];
        assert_eq!(settled(&all, |tab| tab.read(&headers("17"))), [(0, 4096), (1, 1), (2, 17)]);
    }

    #[test]
    fn trailers_win_over_the_head_and_what_is_no_number_tells_nothing() {
        let tokens = ["response-header:x-tokens"];
        let told = |then: fn(&mut Tab)| settled(&tokens, then).first().map(|(_, cost)| *cost);
        assert_eq!(told(|_| ()), None, "the estimate stays");
        assert_eq!(told(|tab| tab.read(&headers("many"))), None);
        assert_eq!(told(|tab| tab.read(&headers("0"))), Some(0));
        assert_eq!(
            told(|tab| {
                tab.read(&headers("5"));
                tab.read(&headers("9"));
                tab.read(&headers("x"));
            }),
            Some(9)
        );
    }
}
