//! Which endpoint takes a call.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use super::{
    super::{Endpoint, Upstream, Vouched, Wanted, Zone, pool::InFlight},
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
        calls.extend(busy(&endpoint, 1));
    }
    for endpoint in upstream.endpoints().iter() {
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
        assert!(!Arc::ptr_eq(&upstream.pick(None, |_| true).unwrap(), &upstream.endpoints()[1]));
    }
}

#[test]
fn an_endpoint_is_asked_at_most_once_and_none_after_the_one_that_admits() {
    let upstream = upstream(6);
    let open = Arc::clone(&upstream.endpoints()[4]);
    for _ in 0..200 {
        let asked = RefCell::new(BTreeMap::new());
        let picked = upstream.pick(None, |endpoint| {
            *asked.borrow_mut().entry(endpoint.authority().to_string()).or_insert(0) += 1;
            std::ptr::eq(endpoint, &*open)
        });
        assert!(Arc::ptr_eq(&picked.unwrap(), &open));
        assert!(asked.borrow().values().all(|times| *times == 1), "{asked:?}");
    }
    assert!(upstream.pick(None, |_| false).is_none());
}

#[test]
fn the_avoided_endpoint_is_the_last_resort() {
    let upstream = upstream(3);
    let avoid = Arc::clone(&upstream.endpoints()[0]);
    for _ in 0..200 {
        assert!(!Arc::ptr_eq(&upstream.pick(Some(&avoid), |_| true).unwrap(), &avoid));
    }
    let only = upstream.pick(Some(&avoid), |endpoint| std::ptr::eq(endpoint, &*avoid));
    assert!(Arc::ptr_eq(&only.unwrap(), &avoid));
}

fn wanted(port: u16, weight: u32) -> Wanted {
    Wanted { url: format!("http://127.0.0.1:{port}"), weight, vouched: Vouched::Yes, zone: Zone::Elsewhere }
}

#[test]
fn calls_come_as_often_as_weights_say_and_a_weight_of_0_takes_none() {
    let upstream = upstream(1);
    assert!(upstream.replace(&[wanted(1, 1), wanted(2, 4), wanted(3, 0), wanted(4, 3)]).is_empty());
    let endpoints = upstream.endpoints();
    let mut drawn = [0; 4];
    let mut calls = Vec::new();
    for _ in 0..800 {
        let endpoint = upstream.pick(None, |_| true).unwrap();
        drawn[endpoints.iter().position(|one| Arc::ptr_eq(one, &endpoint)).unwrap()] += 1;
        calls.extend(busy(&endpoint, 1));
    }
    // Each is as busy for its weight as the others: it is drawn by weight, and compared by it.
    for (count, share) in drawn.into_iter().zip([100, 400, 0, 300]) {
        assert!((share * 8 / 10..=share * 12 / 10).contains(&count), "{drawn:?}");
    }
    upstream.replace(&[wanted(3, 0)]);
    assert!(upstream.is_empty() && upstream.pick(None, |_| true).is_none());
    assert_eq!(upstream.endpoints().len(), 1);
}

#[test]
fn endpoints_that_stay_keep_what_they_have_and_those_that_go_end_with_their_last_call() {
    let upstream = upstream(2);
    let before = upstream.endpoints();
    upstream.replace(&[wanted(2, 1), wanted(3, 1)]);
    let after = upstream.endpoints();
    assert!(Arc::ptr_eq(&before[1], &after[0]));
    let gone = Arc::downgrade(&before[0]);
    drop(before);
    assert!(gone.upgrade().is_none());
}

#[test]
fn a_server_that_is_listed_twice_is_one_and_vouched_for_once_is_vouched_for() {
    let upstream = upstream(1);
    let suspect = Wanted { vouched: Vouched::No, ..wanted(1, 5) };
    upstream.replace(&[wanted(1, 2), suspect.clone()]);
    let endpoints = upstream.endpoints();
    assert_eq!((endpoints.len(), endpoints[0].vouched()), (1, Vouched::Yes));
    upstream.replace(&[suspect]);
    assert_eq!(endpoints[0].vouched(), Vouched::No);
    assert!(endpoints[0].proves_itself() && !endpoints[0].proves_itself(), "once");
    assert_eq!(endpoints[0].vouched(), Vouched::ByCalls);
}

fn near(port: u16, weight: u32) -> Wanted {
    Wanted { zone: Zone::Here, ..wanted(port, weight) }
}

#[test]
fn those_of_the_zone_take_all_calls_until_they_are_much_busier() {
    let upstream = upstream(1);
    upstream.replace(&[wanted(1, 1), near(2, 1), wanted(3, 1), near(4, 1)]);
    let endpoints = upstream.endpoints();
    let is_near = |picked: &Arc<Endpoint>| [1, 3].iter().any(|at| Arc::ptr_eq(picked, &endpoints[*at]));
    for _ in 0..200 {
        assert!(is_near(&upstream.pick(None, |_| true).unwrap()));
    }
    // Calls that stay: those of the zone carry twice what the others do, and no more.
    let mut calls = Vec::new();
    for _ in 0..600 {
        let picked = upstream.pick(None, |_| true).unwrap();
        calls.extend(busy(&picked, 1));
    }
    let carried: Vec<_> = endpoints.iter().map(|endpoint| endpoint.in_flight()).collect();
    for (count, share) in carried.iter().zip([100, 200, 100, 200]) {
        assert!((share * 8 / 10..=share * 12 / 10).contains(count), "{carried:?}");
    }
}

#[test]
fn where_no_endpoint_of_the_zone_is_admitted_the_others_are() {
    let upstream = upstream(1);
    upstream.replace(&[wanted(1, 1), near(2, 1), near(3, 0), wanted(4, 1)]);
    let endpoints = upstream.endpoints();
    for _ in 0..50 {
        let asked = RefCell::new(Vec::new());
        let picked = upstream.pick(None, |endpoint| {
            asked.borrow_mut().push(endpoint.authority().to_string());
            !std::ptr::eq(&*endpoints[1], endpoint)
        });
        assert!(!Arc::ptr_eq(&picked.unwrap(), &endpoints[1]));
        assert_eq!(asked.borrow()[0], "127.0.0.1:2", "asked first");
        assert_eq!(asked.borrow().len(), 2, "and of the others the first that is drawn");
    }
    // A second attempt goes to another zone before it goes to the same endpoint.
    for _ in 0..50 {
        assert!(!Arc::ptr_eq(&upstream.pick(Some(&endpoints[1]), |_| true).unwrap(), &endpoints[1]));
    }
}

#[test]
fn weights_count_between_zones_too() {
    let upstream = upstream(1);
    upstream.replace(&[near(1, 1), wanted(2, 5)]);
    let mut calls = Vec::new();
    for _ in 0..700 {
        let picked = upstream.pick(None, |_| true).unwrap();
        calls.extend(busy(&picked, 1));
    }
    let carried: Vec<_> = upstream.endpoints().iter().map(|endpoint| endpoint.in_flight()).collect();
    assert!((180..=220).contains(&carried[0]), "twice as busy for its weight: {carried:?}");
}

#[test]
fn an_endpoint_that_cannot_be_called_is_told_and_left_out() {
    let upstream = upstream(1);
    let wrong =
        upstream.replace(&[Wanted { url: "grpc://127.0.0.1:5".into(), ..wanted(5, 1) }, wanted(6, 1)]);
    let told = wrong[0].to_string();
    assert!(told.contains("\"grpc://127.0.0.1:5\" has the scheme \"grpc\""), "{told}");
    assert_eq!((wrong.len(), upstream.endpoints().len()), (1, 1));
}
