//! One instance of each limiter, as a process of a fleet would have it: with its own connection to the store.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota as GovernorQuota};
use limitador::limit::{Context, Limit, Namespace as LimitadorNamespace};
use tidegate::{
    Call, Outcome as Settled, Permit as _, clock,
    fleet::{FleetThrottle, Opening, Rule},
    throttle::{Algorithm, Key, Quota},
};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings};
use trypema::{
    BucketSize, RateLimit, RateLimitDecision, RateLimiterBuilder as _, WindowSize,
    hybrid::{HybridRateLimiterProvider, SyncInterval},
    redis::{RedisKey, RedisRateLimiterProvider},
};

use crate::Outcome;

/// All count over windows of so many seconds, which begin with the first call where that can be said.
pub const WINDOW: u32 = 10;

pub enum Contender {
    Tidegate(Box<FleetThrottle>, Key),
    TrypemaHybrid(Arc<HybridRateLimiterProvider>, RedisKey, RateLimit),
    TrypemaRedis(Arc<RedisRateLimiterProvider>, RedisKey, RateLimit),
    Governor(DefaultKeyedRateLimiter<String>, String),
    Limitador(Box<limitador::RateLimiter>, LimitadorNamespace, Box<Context<'static>>),
}

impl Contender {
    /// `limit` calls of the key in ten seconds.
    pub async fn start(name: &str, store: &str, key: &str, limit: u32) -> Outcome<Self> {
        let rate = RateLimit::per_second(f64::from(limit) / f64::from(WINDOW))?;
        let window = WindowSize::seconds_or_panic(u64::from(WINDOW));
        Ok(match name {
            "tidegate" => {
                let quota = Quota::of(format!("{limit}/{WINDOW}s").parse()?)
                    .algorithm(Algorithm::FixedWindow)
                    .build()?;
                let rule = Rule::of(quota).opening(Opening::FirstCall).build()?;
                let client = Client::start(&store.parse()?, Settings::default())?;
                client.ready().await?;
                let ledger = RedisLedger::new(client, Namespace::new("bench")?);
                let throttle = FleetThrottle::builder("limit", rule, ledger).build()?;
                learned(&throttle).await?;
                Self::Tidegate(Box::new(throttle), Key::of(key.as_bytes()))
            }
            // Its default interval, written out.
            "trypema-hybrid" => {
                let builder = HybridRateLimiterProvider::builder(connection(store).await?);
                let provider = builder
                    .prefix(RedisKey::try_from("hybrid".to_owned())?)
                    .window_size(window)
                    .bucket_size(BucketSize::milliseconds_or_panic(10))
                    .sync_interval(SyncInterval::milliseconds_or_panic(10))
                    .build()?;
                Self::TrypemaHybrid(provider, RedisKey::try_from(key.to_owned())?, rate)
            }
            "trypema-redis" => {
                let builder = RedisRateLimiterProvider::builder(connection(store).await?);
                let provider = builder
                    .prefix(RedisKey::try_from("redis".to_owned())?)
                    .window_size(window)
                    .bucket_size(BucketSize::milliseconds_or_panic(10))
                    .build()?;
                Self::TrypemaRedis(provider, RedisKey::try_from(key.to_owned())?, rate)
            }
            "governor" => {
                let most = NonZeroU32::new(limit).ok_or("a limit of 0")?;
                let each = Duration::from_secs(u64::from(WINDOW)) / limit;
                let quota = GovernorQuota::with_period(each).ok_or("a period of 0")?.allow_burst(most);
                Self::Governor(DefaultKeyedRateLimiter::keyed(quota), key.to_owned())
            }
            "limitador-memory" => {
                let limiter = limitador::RateLimiter::new(10_000);
                limiter.add_limit(Limit::new(
                    "bench",
                    u64::from(limit),
                    u64::from(WINDOW),
                    [],
                    ["key".try_into()?],
                ));
                let context: Context<'static> = HashMap::from([("key".to_owned(), key.to_owned())]).into();
                Self::Limitador(Box::new(limiter), "bench".into(), Box::new(context))
            }
            other => return Err(format!("there is no contender {other}").into()),
        })
    }

    /// Whether one more call may go. A limiter that fails says no.
    pub async fn admits(&self) -> bool {
        let allowed = |decision| matches!(decision, RateLimitDecision::Allowed);
        match self {
            Self::Tidegate(throttle, key) => {
                let call = Call::at(clock::now());
                match throttle.enter(&call, key).await {
                    Ok(permit) => {
                        permit.settle(Settled::Success, call.now);
                        true
                    }
                    Err(_) => false,
                }
            }
            // As its documentation has it for hot paths: without awaiting where its own state suffices.
            Self::TrypemaHybrid(provider, key, rate) => {
                match provider.absolute().try_inc(key.as_key_ref(), 1) {
                    Ok(Some(decision)) => allowed(decision),
                    _ => provider.absolute().inc(key, rate, 1).await.is_ok_and(allowed),
                }
            }
            Self::TrypemaRedis(provider, key, rate) => {
                provider.absolute().inc(key, rate, 1).await.is_ok_and(allowed)
            }
            Self::Governor(limiter, key) => limiter.check_key(key).is_ok(),
            Self::Limitador(limiter, namespace, context) => limiter
                .check_rate_limited_and_update(namespace, context, 1)
                .is_ok_and(|result| !result.limited),
        }
    }
}

async fn connection(store: &str) -> Outcome<redis::aio::ConnectionManager> {
    Ok(redis::Client::open(store)?.get_connection_manager().await?)
}

/// A new ledger grants nothing at first: waits until it does.
pub async fn learned(throttle: &FleetThrottle) -> Outcome {
    for _ in 0..300 {
        if throttle.enter(&Call::at(clock::now()), &Key::of(b"warm")).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the store granted nothing for 30 s".into())
}
