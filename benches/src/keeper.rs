//! The keeper and the registry beside caches.

mod cases;
mod waiting;

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate::{
    Call, clock,
    flight::Flight,
    keeper::{Answer, Failed, Fetch, Fetched, Keeper, Settings},
    registry::{Instance, Registry, ServiceName, Settings as RegistrySettings, StaticSource},
};
use tidegate_core::{Backoff, Instant, Lifetime, attempts};
use tokio::runtime::{self, Runtime};

use crate::harness::{Suite, Timings, block_on};

const KEYS: [(usize, &str, &str); 2] = [
    (
        1,
        "keeper: fresh hit, one hot key",
        "at most 20 ns on 1 thread and 25 ns on 2, 0 allocations, 5x faster than moka",
    ),
    (10_000, "keeper: fresh hit, 10 000 keys", "at most 25 ns on 1 thread and 30 ns on 2, 0 allocations"),
];

pub(crate) fn tables(suite: &mut Suite) {
    for (keys, title, bar) in KEYS {
        suite.timings(title, |table| {
            fresh(table, keys);
            table.bar(bar);
        });
    }
    suite.timings("keeper: a stale answer while its source is down", stale);
    suite.timings("keeper: flight, a leader that nobody joins", flight);
    cases::tables(suite);
    waiting::tables(suite);
}

/// A value that is checked for its age, as the keeper does: what a cache holds for the same job.
#[derive(Clone)]
struct Aged {
    value: Arc<u64>,
    due_at: Instant,
}

struct Numbers;

impl Fetch for Numbers {
    type Key = Arc<str>;
    type Value = u64;
    type Error = Infallible;

    async fn fetch(&self, key: &Arc<str>) -> Result<Fetched<u64>, Failed<Infallible>> {
        Ok(Fetched::value(key.len() as u64).lifetime(Lifetime::FOR_EVER))
    }
}

/// One key after another, scattered; a place of its own for each thread.
struct Walk<K> {
    keys: Arc<[K]>,
    at: u64,
}

impl<K> Walk<K> {
    fn new(keys: &Arc<[K]>) -> Self {
        static WALKS: AtomicU64 = AtomicU64::new(0);
        Self { keys: Arc::clone(keys), at: WALKS.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed) }
    }

    fn step(&mut self) -> &K {
        self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        &self.keys[(self.at >> 33) as usize % self.keys.len()]
    }
}

fn on_one_thread() -> Runtime {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn generous() -> attempts::Settings {
    attempts::Settings { attempts: std::num::NonZeroU32::MAX, ..attempts::Settings::default() }
}

fn fresh(table: &mut Timings, count: usize) {
    let keys: Arc<[Arc<str>]> = (0..count).map(|key| Arc::from(format!("service-{key:08}"))).collect();
    let call = Call::at(clock::now());
    let due_at = Instant::NEVER;

    let settings = Settings { keys: 2 * count.max(100), attempts: generous(), ..Settings::default() };
    let keeper = Keeper::new(Numbers, settings).expect("valid settings");
    on_one_thread().block_on(async {
        for key in &*keys {
            drop(keeper.get(&call, key).await);
        }
    });
    table.ours_with(
        "Keeper, try_get",
        (keeper.clone(), Arc::clone(&keys)),
        |(keeper, keys)| (keeper.clone(), Walk::new(keys)),
        move |(keeper, walk)| keeper.try_get(&call, walk.step()).is_some_and(|found| found.value().is_some()),
    );
    table.ours_with(
        "Keeper, get().await",
        (keeper, Arc::clone(&keys)),
        |(keeper, keys)| (keeper.clone(), Walk::new(keys)),
        move |(keeper, walk)| block_on(keeper.get(&call, walk.step())).value().is_some(),
    );

    let names: Arc<[ServiceName]> = keys.iter().map(|key| key.parse().expect("a name")).collect();
    let runtime = on_one_thread();
    let registry = runtime.block_on(async {
        let address = "10.0.0.1:80".parse().expect("an address");
        let instances = names.iter().map(|name| Instance::new(name.clone(), "1", Clone::clone(&address)));
        let settings = RegistrySettings {
            services: 2 * count.max(100),
            attempts: generous(),
            ..RegistrySettings::default()
        };
        let registry = Registry::new(StaticSource::new(instances), settings).expect("valid settings");
        for name in &*names {
            drop(registry.lookup(&call, name).await);
        }
        while registry
            .services()
            .iter()
            .any(|service| service.provenance != Ok(tidegate::registry::Provenance::Live))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        registry
    });
    // The runtime lives as long as the row: its tasks watch.
    table.ours_with(
        "Registry, try_lookup, watched",
        (registry, names, runtime),
        |(registry, names, _)| (registry.clone(), Walk::new(names)),
        move |(registry, walk)| registry.try_lookup(&call, walk.step()).is_some_and(|found| found.is_ok()),
    );

    let aged = |key: &Arc<str>| Aged { value: Arc::new(key.len() as u64), due_at };
    let moka: moka::future::Cache<Arc<str>, Aged> = moka::future::Cache::new(2 * count.max(100) as u64);
    keys.iter().for_each(|key| block_on(moka.insert(Arc::clone(key), aged(key))));
    table.peer_with(
        "moka, get_with",
        (moka, Arc::clone(&keys)),
        |(moka, keys)| (moka.clone(), Walk::new(keys)),
        move |(moka, walk)| {
            let found = block_on(moka.get_with_by_ref(walk.step(), async { unreachable!("it is there") }));
            call.now < found.due_at && *found.value > 0
        },
    );
    let quick = Arc::new(quick_cache::sync::Cache::<Arc<str>, Aged>::new(2 * count.max(100)));
    keys.iter().for_each(|key| quick.insert(Arc::clone(key), aged(key)));
    table.peer_with(
        "quick_cache, get",
        (quick, Arc::clone(&keys)),
        |(quick, keys)| (Arc::clone(quick), Walk::new(keys)),
        move |(quick, walk)| {
            quick.get(walk.step()).is_some_and(|found| call.now < found.due_at && *found.value > 0)
        },
    );
    let map: HashMap<Arc<str>, Aged, RandomState> =
        keys.iter().map(|key| (Arc::clone(key), aged(key))).collect();
    table.peer_with(
        "ArcSwap<HashMap>",
        (Arc::new(ArcSwap::from_pointee(map)), Arc::clone(&keys)),
        |(map, keys)| (Arc::clone(map), Walk::new(keys)),
        move |(map, walk)| {
            map.load().get(walk.step()).is_some_and(|found| call.now < found.due_at && *found.value > 0)
        },
    );
    let papaya: Arc<papaya::HashMap<Arc<str>, Aged>> = Arc::default();
    keys.iter().for_each(|key| drop(papaya.pin().insert(Arc::clone(key), aged(key)).cloned()));
    table.peer_with(
        "papaya",
        (papaya, Arc::clone(&keys)),
        |(map, keys)| (Arc::clone(map), Walk::new(keys)),
        move |(map, walk)| {
            map.pin().get(walk.step()).is_some_and(|found| call.now < found.due_at && *found.value > 0)
        },
    );
}

struct Down;

impl Fetch for Down {
    type Key = u32;
    type Value = u64;
    type Error = &'static str;

    async fn fetch(&self, _key: &u32) -> Result<Fetched<u64>, Failed<&'static str>> {
        Err(Failed::source("down"))
    }
}

fn stale(table: &mut Timings) {
    let hour = Duration::from_secs(3600);
    let backoff = Backoff { floor: hour, base: hour, cap: hour };
    let keeper = Keeper::new(Down, Settings { backoff, ..Settings::default() }).expect("valid settings");
    on_one_thread().block_on(async {
        keeper.put(&1, Fetched::value(7).lifetime(Lifetime::of(Duration::ZERO, hour * 24)));
        drop(keeper.try_get(&Call::at(clock::now()), &1));
        while keeper.stats().failed == 0 {
            tokio::task::yield_now().await;
        }
    });
    let call = Call::at(clock::now());
    table.ours("Keeper, try_get", keeper, move |keeper| {
        matches!(keeper.try_get(&call, &1), Some(Answer::Stale { why: Some(_), .. }))
    });
    table.bar("less than 50 us at p99 for a lookup");
}

fn flight(table: &mut Timings) {
    // One runtime for each thread: what is spawned runs on the thread that waits for it.
    table.ours_with(
        "Flight::detached, spawned and joined",
        (),
        |()| on_one_thread(),
        |runtime| runtime.block_on(async { Flight::detached(async { 7 }).join().await }),
    );
    table.peer_with(
        "tokio::spawn, joined",
        (),
        |()| on_one_thread(),
        |runtime| runtime.block_on(async { tokio::spawn(async { 7 }).await }),
    );
    table.peer_with(
        "singleflight-async, inside the same runtime",
        Arc::new(singleflight_async::SingleFlight::<u64, u64>::new()),
        |group| (Arc::clone(group), on_one_thread()),
        |(group, runtime)| runtime.block_on(group.work(7, || async { 7 })),
    );
    table.bar("at most 2 allocations. A detached flight outlives its callers, which costs a spawn");
}
