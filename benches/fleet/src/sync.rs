//! What a decision takes beside a question to the store that does nothing, taken in turn: on credit in hand, and of a key that has
//! to ask.

use std::time::Instant;

use tidegate::{
    Call, Outcome as Settled, Permit as _, clock,
    fleet::{FleetThrottle, Rule},
    throttle::{Algorithm, Key, Quota},
};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Outcome,
    contender::learned,
    figures::{Times, print},
};

/// Decisions on credit in hand for each one that asks.
const LOCAL: u32 = 20;

pub async fn run(store: &str, rounds: u64) -> Outcome {
    let address = store.trim_start_matches("redis://").split('/').next().ok_or("a URL without a server")?;
    let mut raw = TcpStream::connect(address).await?;
    raw.set_nodelay(true)?;
    let client = Client::start(&store.parse()?, Settings::default())?;
    client.ready().await?;
    let ledger = RedisLedger::new(client, Namespace::new("sync")?);
    let quota = |rate: &str| -> Outcome<Rule> {
        Ok(Rule::of(Quota::of(rate.parse()?).algorithm(Algorithm::FixedWindow).build()?).build()?)
    };
    let near = FleetThrottle::builder("near", quota("10/h")?, ledger.clone()).build()?;
    let far = FleetThrottle::builder("far", quota("1000000000/h")?, ledger).build()?;
    learned(&near).await?;
    learned(&far).await?;
    let hot = Key::of(b"hot");
    // So much is asked for ahead that the rounds do not use it up.
    far.enter(&Call::at(clock::now()).cost(100_000_000), &hot)
        .await
        .map_err(|refused| format!("{refused}"))?
        .settle(Settled::Unsent, clock::now());
    let (mut ping, mut sync, mut local) = (Times::new(), Times::new(), Times::new());
    let mut answer = [0; 64];
    for round in 0..rounds {
        let began = Instant::now();
        raw.write_all(b"PING\r\n").await?;
        let read = raw.read(&mut answer).await?;
        ping.record(began.elapsed());
        if !answer[..read].starts_with(b"+PONG") {
            return Err("the store does not answer a ping".into());
        }
        sync.record(timed(&near, &Key::of(&round.to_le_bytes())).await?);
        for _ in 0..LOCAL {
            local.record(timed(&far, &hot).await?);
        }
    }
    print(&[("ping", ping.json()), ("sync", sync.json()), ("local", local.json())]);
    Ok(())
}

async fn timed(throttle: &FleetThrottle, key: &Key) -> Outcome<std::time::Duration> {
    let began = Instant::now();
    let call = Call::at(clock::now());
    let permit = throttle.enter(&call, key).await.map_err(|refused| format!("{refused}"))?;
    permit.settle(Settled::Success, call.now);
    Ok(began.elapsed())
}
