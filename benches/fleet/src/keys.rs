//! The throttle's driver under distinct keys: each call has a key that was never seen before, and so asks the ledger.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate::{
    By, Call, Outcome as Settled, Permit as _, Refused, clock,
    fleet::{FleetStats, FleetThrottle, LocalLedger, Rule},
    throttle::{Algorithm, Key, Quota},
};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings};

use crate::{
    Outcome,
    contender::learned,
    figures::{Store, Times, print, resident},
};

/// Callers at once. In memory enough that the ledger's answers do not hold the pace up; over a store more than may ask at
/// once, so that the rest has to be told so.
const CALLERS: u64 = 64;
const CALLERS_OF_STORE: u64 = 2048;
/// Books of what was met: fewer than callers, as each is large.
const BOOKS: u64 = 16;

/// What became of some calls.
struct Met {
    admitted: Times,
    /// For want of an answer: with a time to come back at.
    unanswered: Times,
    /// For any other reason.
    other: u64,
}

impl Met {
    fn new() -> Self {
        Self { admitted: Times::new(), unanswered: Times::new(), other: 0 }
    }

    fn enter(&mut self, result: Result<(), Refused>, took: Duration) {
        match result {
            Ok(()) => self.admitted.record(took),
            Err(refused) if refused.by == By::Store && refused.retry_after.is_some() => {
                self.unanswered.record(took);
            }
            Err(_) => self.other += 1,
        }
    }
}

/// `rate` calls a second over a ledger in memory, or over one in `store`.
pub async fn run(rate: u64, seconds: u64, store: Option<&str>) -> Outcome {
    let rule = Rule::of(Quota::of("10/s".parse()?).algorithm(Algorithm::FixedWindow).build()?).build()?;
    // The accounts here are those of a second of it: they must make room from then on.
    let keys = NonZeroU32::new(200_000).ok_or("no keys")?;
    let throttle = match store {
        None => {
            let ledger = LocalLedger::with_room_for(NonZeroU32::new(800_000).ok_or("no room")?);
            FleetThrottle::builder("limit", rule, ledger).max_keys(keys).build()?
        }
        Some(url) => {
            let client = Client::start(&url.parse()?, Settings::default())?;
            client.ready().await?;
            let ledger = RedisLedger::new(client, Namespace::new("keys")?);
            let throttle = FleetThrottle::builder("limit", rule, ledger).max_keys(keys).build()?;
            learned(&throttle).await?;
            throttle
        }
    };
    let mut info = match store {
        Some(url) => Some(Store::open(url).await?),
        None => None,
    };
    let before = match &mut info {
        Some(info) => Some((info.scripts().await?, info.cpu().await?, throttle.stats())),
        None => None,
    };
    let books: Arc<[Mutex<Met>]> = (0..BOOKS).map(|_| Mutex::new(Met::new())).collect();
    let callers = if store.is_some() { CALLERS_OF_STORE } else { CALLERS };
    let (start, latest, gap) = (Instant::now(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let calls = (0..callers).map(|caller| {
        let (throttle, latest, gap) = (throttle.clone(), Arc::clone(&latest), Arc::clone(&gap));
        let books = Arc::clone(&books);
        tokio::spawn(async move {
            for number in 0..rate * seconds / callers {
                let at = number * callers + caller;
                let due = start + Duration::from_secs_f64(at as f64 / rate as f64);
                if due > Instant::now() {
                    tokio::time::sleep_until(due.into()).await;
                }
                let (began, call) = (Instant::now(), Call::at(clock::now()));
                let result = throttle.enter(&call, &Key::of(&at.to_le_bytes())).await;
                let result = result.map(|permit| permit.settle(Settled::Success, call.now));
                let took = began.elapsed();
                books[(caller % BOOKS) as usize]
                    .lock()
                    .expect("no panic while it is held")
                    .enter(result, took);
                let micros = start.elapsed().as_micros() as u64;
                let before = latest.fetch_max(micros, Ordering::Relaxed);
                gap.fetch_max(micros.saturating_sub(before), Ordering::Relaxed);
                // A decision that was there at once is no reason to keep others from theirs.
                tokio::task::yield_now().await;
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let watched = tokio::spawn(watch(info, seconds));
    let mut sum = Met::new();
    for call in calls {
        call.await?;
    }
    let took = start.elapsed().as_secs_f64();
    for book in &*books {
        let met = book.lock().expect("no panic while it is held");
        sum.admitted.add(&met.admitted);
        sum.unanswered.add(&met.unanswered);
        sum.other += met.other;
    }
    let stats = throttle.stats();
    let (memory, of_store, mut info) = watched.await??;
    let decided = sum.admitted.count() + sum.unanswered.count() + sum.other;
    let list = |all: &[u64]| format!("[{}]", all.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
    let (bytes, subjects): (Vec<_>, Vec<_>) = of_store.into_iter().unzip();
    let mut all = sum.admitted.clone();
    all.add(&sum.unanswered);
    let mut fields = vec![
        ("rate", (decided as f64 / took).to_string()),
        ("admitted", sum.admitted.count().to_string()),
        ("refused", (decided - sum.admitted.count()).to_string()),
        ("unanswered", sum.unanswered.count().to_string()),
        ("errors", format!("{:?}", stats.errors)),
        ("withheld", stats.withheld.to_string()),
        ("outages", stats.outages.to_string()),
        ("times", all.json()),
        ("times_unanswered", sum.unanswered.json()),
        ("gap", (gap.load(Ordering::Relaxed) as f64 / 1e6).to_string()),
        ("bytes", stats.bytes.to_string()),
        ("keys", stats.keys.to_string()),
        ("evicted", stats.evicted.to_string()),
        ("resident", list(&memory)),
    ];
    if let (Some(info), Some((scripts, cpu, then))) = (&mut info, before) {
        let scripts = info.scripts().await? - scripts;
        fields.extend([
            ("seconds", took.to_string()),
            ("answered", answered(&stats, &then).to_string()),
            ("scripts", scripts.to_string()),
            ("store_cpu", (info.cpu().await? - cpu).to_string()),
            ("store_bytes", list(&bytes)),
            ("store_keys", list(&subjects)),
        ]);
    }
    print(&fields);
    Ok(())
}

/// Questions that the store answered since.
fn answered(stats: &FleetStats, then: &FleetStats) -> u64 {
    let answered = |stats: &FleetStats| stats.asked - stats.errors.iter().sum::<u64>() - stats.asking as u64;
    answered(stats).saturating_sub(answered(then))
}

type Watched = (Vec<u64>, Vec<(u64, u64)>, Option<Store>);

/// Each second, what this process has resident, and what the store uses for how many keys.
async fn watch(mut store: Option<Store>, seconds: u64) -> Outcome<Watched> {
    let (mut memory, mut of_store) = (Vec::new(), Vec::new());
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        memory.push(resident());
        if let Some(store) = &mut store {
            of_store.push(store.size().await?);
        }
    }
    Ok((memory, of_store, store))
}
