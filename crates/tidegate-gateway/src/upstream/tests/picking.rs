//! Which endpoint takes a call.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use super::{
    super::{Endpoint, Upstream, pool::InFlight},
    server::config,
};

fn upstream(count: u16) -> Upstream {
    let mut config = config("http://127.0.0.1:1", "");
    config.endpoints = (1..=count).map(|port| format!("http://127.0.0.1:{port}")).collect();
    Upstream::new("orders", &config).unwrap()
}

fn busy(endpoint: &Endpoint, calls: usize) -> Vec<InFlight> {
    (0..calls).map(|_| InFlight::new(&endpoint.link.pool)).collect()
}

#[test]
fn calls_spread_evenly_when_each_goes_to_the_less_busy_of_two() {
    let upstream = upstream(5);
    let mut calls = Vec::new();
    for _ in 0..1000 {
        let endpoint = upstream.pick(None, |_| true).unwrap();
        calls.extend(busy(endpoint, 1));
    }
    for endpoint in upstream.endpoints() {
        assert!((150..=250).contains(&endpoint.in_flight()), "{}", endpoint.in_flight());
    }
    drop(calls);
    assert!(upstream.endpoints().iter().all(|endpoint| endpoint.in_flight() == 0));
}

#[test]
fn the_busiest_of_all_is_never_picked() {
    let upstream = upstream(3);
    let _calls = busy(&upstream.endpoints()[1], 1);
    for _ in 0..200 {
        assert!(!Arc::ptr_eq(upstream.pick(None, |_| true).unwrap(), &upstream.endpoints()[1]));
    }
}

#[test]
fn an_endpoint_is_asked_at_most_once_and_none_after_the_one_that_admits() {
    let upstream = upstream(6);
    let open = &upstream.endpoints()[4];
    for _ in 0..200 {
        let asked = RefCell::new(BTreeMap::new());
        let picked = upstream.pick(None, |endpoint| {
            *asked.borrow_mut().entry(endpoint.authority().to_string()).or_insert(0) += 1;
            std::ptr::eq(endpoint, &**open)
        });
        assert!(Arc::ptr_eq(picked.unwrap(), open));
        assert!(asked.borrow().values().all(|times| *times == 1), "{asked:?}");
    }
    assert!(upstream.pick(None, |_| false).is_none());
}

#[test]
fn the_avoided_endpoint_is_the_last_resort() {
    let upstream = upstream(3);
    let avoid = &upstream.endpoints()[0];
    for _ in 0..200 {
        assert!(!Arc::ptr_eq(upstream.pick(Some(avoid), |_| true).unwrap(), avoid));
    }
    let only = upstream.pick(Some(avoid), |endpoint| std::ptr::eq(endpoint, &**avoid));
    assert!(Arc::ptr_eq(only.unwrap(), avoid));
}
