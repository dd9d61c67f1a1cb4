//! What a keeper answers, and how often it asks.

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tidegate_core::{Backoff, attempts, recovery::Reach};
use tokio::{
    task::yield_now,
    time::{advance, sleep},
};

use super::*;
use crate::clock;

mod ageing;
mod keys;
mod sharing;
mod source;

/// A source that has nothing, for rooms that look at how things are kept.
pub(super) struct Nothing;

impl Fetch for Nothing {
    type Key = u64;
    type Value = u64;
    type Error = Infallible;

    async fn fetch(&self, _key: &u64) -> Result<Fetched<u64>, Failed<Infallible>> {
        Ok(Fetched::nothing())
    }
}

/// What the source does.
#[derive(Clone, Copy)]
enum Does {
    Answers,
    AnswersAfter(Duration),
    HasNothing,
    IsDown,
    RefusesKey(u32),
    Panics,
    Hangs,
}

#[derive(Clone)]
struct Fake(Arc<State>);

struct State {
    does: Mutex<Does>,
    calls: AtomicUsize,
    evicted: Mutex<Vec<u32>>,
}

impl Fake {
    fn new(does: Does) -> Self {
        let state = State { does: Mutex::new(does), calls: AtomicUsize::new(0), evicted: Mutex::default() };
        Self(Arc::new(state))
    }

    fn now(&self, does: Does) {
        *self.0.does.lock() = does;
    }

    fn calls(&self) -> usize {
        self.0.calls.load(SeqCst)
    }
}

impl Fetch for Fake {
    type Key = u32;
    type Value = usize;
    type Error = &'static str;

    /// The value is the number of the call, and so is its version.
    async fn fetch(&self, key: &u32) -> Result<Fetched<usize>, Failed<&'static str>> {
        let call = self.0.calls.fetch_add(1, SeqCst) + 1;
        let does = *self.0.does.lock();
        let answer = Fetched::value(call).version(call as u64);
        match does {
            Does::Answers => Ok(answer),
            Does::AnswersAfter(delay) => {
                sleep(delay).await;
                Ok(answer)
            }
            Does::HasNothing => Ok(Fetched::nothing().version(call as u64)),
            Does::IsDown => Err(Failed::source("down")),
            Does::RefusesKey(refused) if refused == *key => Err(Failed::key("refused")),
            Does::RefusesKey(_) => Ok(answer),
            Does::Panics => panic!("oh no"),
            Does::Hangs => pending().await,
        }
    }

    fn evicted(&self, key: &u32) {
        self.0.evicted.lock().push(*key);
    }
}

fn settings() -> Settings {
    Settings {
        lifetime: Lifetime::of(seconds(60), seconds(600)),
        backoff: Backoff { floor: seconds(1), base: seconds(1), cap: seconds(30) },
        ..Settings::default()
    }
}

fn keeper_with(does: Does, settings: Settings) -> (Keeper<Fake>, Fake) {
    let fake = Fake::new(does);
    (Keeper::new(fake.clone(), settings).expect("valid settings"), fake)
}

fn keeper(does: Does) -> (Keeper<Fake>, Fake) {
    keeper_with(does, settings())
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn call() -> Call {
    Call::at(clock::now())
}

/// Lets the tasks that can run do so.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

fn fresh(answer: Answer<u32, usize, &'static str>) -> usize {
    let Answer::Fresh(value) = answer else { panic!("{answer:?} is not fresh") };
    *value
}

fn stale(answer: Answer<u32, usize, &'static str>) -> (usize, Duration, Option<Why<&'static str>>) {
    let Answer::Stale { value, age, why } = answer else { panic!("{answer:?} is not stale") };
    (*value, age, why)
}

fn refused(answer: Answer<u32, usize, &'static str>) -> Refusal<&'static str> {
    let Answer::Refused(refusal) = answer else { panic!("{answer:?} is no refusal") };
    refusal
}

fn generous() -> attempts::Settings {
    attempts::Settings { attempts: NonZeroU32::MAX, ..attempts::Settings::default() }
}
