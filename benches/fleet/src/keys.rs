//! The throttle's driver alone under distinct keys: each call has a key that was never seen before.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate::{
    Call, Outcome as Settled, Permit as _, clock,
    fleet::{FleetThrottle, LocalLedger, Rule},
    throttle::{Algorithm, Key, Quota},
};

use crate::{
    Outcome,
    figures::{Times, print, resident},
};

/// Callers at once: enough that the ledger's answers do not hold the pace up.
const TASKS: u64 = 64;

pub async fn run(rate: u64, seconds: u64) -> Outcome {
    let quota = Quota::of("10/s".parse()?).algorithm(Algorithm::FixedWindow).build()?;
    let keys = NonZeroU32::new(200_000).ok_or("no keys")?;
    let ledger = LocalLedger::with_room_for(NonZeroU32::new(800_000).ok_or("no room")?);
    // The accounts here are those of a second of it: they must make room from then on.
    let throttle =
        FleetThrottle::builder("limit", Rule::of(quota).build()?, ledger).max_keys(keys).build()?;
    let (start, latest, gap) = (Instant::now(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (throttle, latest, gap) = (throttle.clone(), Arc::clone(&latest), Arc::clone(&gap));
        tasks.push(tokio::spawn(async move {
            let (mut times, mut admitted) = (Times::new(), 0u64);
            for number in 0..rate * seconds / TASKS {
                let due = start + Duration::from_secs_f64((number * TASKS + task) as f64 / rate as f64);
                if due > Instant::now() {
                    tokio::time::sleep_until(due.into()).await;
                }
                let key = Key::of(&(number * TASKS + task).to_le_bytes());
                let (began, call) = (Instant::now(), Call::at(clock::now()));
                if let Ok(permit) = throttle.enter(&call, &key).await {
                    permit.settle(Settled::Success, call.now);
                    admitted += 1;
                }
                times.record(began.elapsed());
                let micros = start.elapsed().as_micros() as u64;
                let before = latest.fetch_max(micros, Ordering::Relaxed);
                gap.fetch_max(micros.saturating_sub(before), Ordering::Relaxed);
            }
            (times, admitted)
        }));
    }
    let watched = tokio::spawn(async move {
        let mut memory = Vec::new();
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            memory.push(resident());
        }
        memory
    });
    let (mut times, mut admitted) = (Times::new(), 0);
    for task in tasks {
        let (of_task, more) = task.await?;
        times.add(&of_task);
        admitted += more;
    }
    let (took, stats) = (start.elapsed().as_secs_f64(), throttle.stats());
    let memory: Vec<String> = watched.await?.iter().map(u64::to_string).collect();
    print(&[
        ("rate", (times.count() as f64 / took).to_string()),
        ("admitted", admitted.to_string()),
        ("refused", (times.count() - admitted).to_string()),
        ("unanswered", stats.unanswered.to_string()),
        ("errors", format!("{:?}", stats.errors)),
        ("times", times.json()),
        ("gap", (gap.load(Ordering::Relaxed) as f64 / 1e6).to_string()),
        ("bytes", stats.bytes.to_string()),
        ("keys", stats.keys.to_string()),
        ("evicted", stats.evicted.to_string()),
        ("resident", format!("[{}]", memory.join(","))),
    ]);
    Ok(())
}
