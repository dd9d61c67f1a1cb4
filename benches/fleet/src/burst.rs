//! A burst from all instances at once, and calls at a steady pace below the limit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Barrier;

use crate::{
    Outcome,
    contender::{Contender, WINDOW},
    figures::{Store, Times, print},
};

/// Callers of each instance.
const TASKS: u32 = 16;

/// Every instance is called twice as often as the fleet's limit, at once.
pub async fn burst(store: &str, name: &str, nodes: u32, limit: u32) -> Outcome {
    let fleet = fleet(store, name, nodes, limit).await?;
    let gate = Arc::new(Barrier::new((nodes * TASKS) as usize));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for node in &fleet {
        for _ in 0..TASKS {
            let (node, gate) = (Arc::clone(node), Arc::clone(&gate));
            tasks.push(tokio::spawn(async move {
                // Before the start: its memory is touched for the first time here.
                let (mut times, mut admitted) = (Times::new(), 0u64);
                gate.wait().await;
                for _ in 0..2 * limit / TASKS {
                    admitted += u64::from(timed(&node, &mut times).await);
                    tokio::task::yield_now().await;
                }
                (times, admitted)
            }));
        }
    }
    let (times, admitted) = sum(tasks).await?;
    let took = start.elapsed();
    if took > Duration::from_secs(u64::from(WINDOW) / 2) {
        return Err(format!("the burst on {name} took {took:?}, which is more than half a window").into());
    }
    print(&[
        ("admitted", admitted.to_string()),
        ("over", (admitted as f64 / f64::from(limit)).to_string()),
        ("times", times.json()),
        ("seconds", took.as_secs_f64().to_string()),
    ]);
    Ok(())
}

/// `rate` calls a second over all instances, which is 0.9 of the limit.
pub async fn paced(store: &str, name: &str, nodes: u32, rate: u32, seconds: u32) -> Outcome {
    let limit = u32::try_from(u64::from(rate) * u64::from(WINDOW) * 10 / 9)?;
    let fleet = fleet(store, name, nodes, limit).await?;
    let mut info = Store::open(store).await?;
    let before = info.scripts().await?;
    let mut tasks = Vec::new();
    for node in &fleet {
        let (node, each) = (Arc::clone(node), rate / nodes);
        tasks.push(tokio::spawn(async move {
            let (mut times, mut admitted) = (Times::new(), 0u64);
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            let (start, all) = (Instant::now(), u64::from(each * seconds));
            while times.count() < all {
                tick.tick().await;
                let due = (start.elapsed().as_secs_f64() * f64::from(each)) as u64;
                while times.count() < due.min(all) {
                    admitted += u64::from(timed(&node, &mut times).await);
                }
            }
            (times, admitted)
        }));
    }
    let (times, admitted) = sum(tasks).await?;
    let asked = info.scripts().await? - before;
    print(&[
        ("admitted", admitted.to_string()),
        ("times", times.json()),
        ("store", (asked as f64 / times.count() as f64).to_string()),
    ]);
    Ok(())
}

async fn fleet(store: &str, name: &str, nodes: u32, limit: u32) -> Outcome<Vec<Arc<Contender>>> {
    // A key of its own, so that nothing of earlier runs counts.
    let key = format!("key-{}-{}", std::process::id(), crate::upstream::second());
    let mut fleet = Vec::new();
    for _ in 0..nodes {
        fleet.push(Arc::new(Contender::start(name, store, &key, limit).await?));
    }
    Ok(fleet)
}

async fn timed(node: &Contender, times: &mut Times) -> bool {
    let start = Instant::now();
    let admitted = node.admits().await;
    times.record(start.elapsed());
    admitted
}

async fn sum(tasks: Vec<tokio::task::JoinHandle<(Times, u64)>>) -> Outcome<(Times, u64)> {
    let (mut times, mut admitted) = (Times::new(), 0);
    for task in tasks {
        let (of_task, more) = task.await?;
        times.add(&of_task);
        admitted += more;
    }
    Ok((times, admitted))
}
