//! What do I know, how old is it, and who is fetching a newer one?
//!
//! A [`Keeper`] answers from what it knows and fetches beside it: one fetch per key at a time, in a task of its own, so
//! that nobody who waits can break it. A value is refreshed before it ends; while that fails it is served, marked, up to
//! its last age; and a key or a source that fails is asked less and less often.
//!
//! ```
//! use tidegate::{Call, clock, keeper::{Answer, Failed, Fetch, Fetched, Keeper, Settings}};
//!
//! struct Length;
//!
//! impl Fetch for Length {
//!     type Key = String;
//!     type Value = usize;
//!     type Error = std::convert::Infallible;
//!
//!     async fn fetch(&self, key: &String) -> Result<Fetched<usize>, Failed<Self::Error>> {
//!         Ok(Fetched::value(key.len()))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keeper = Keeper::new(Length, Settings::default())?;
//! let Answer::Fresh(length) = keeper.get(&Call::at(clock::now()), &"tide".to_owned()).await else { panic!() };
//! assert_eq!(*length, 4);
//! # Ok(()) }
//! ```

use std::{
    hash::BuildHasher,
    sync::{Arc, Weak},
    time::Duration,
};

use tidegate_core::{
    Call, Dice, Instant, Lifetime,
    keep::{Held, Landed},
};

mod answer;
mod asking;
mod drive;
mod fetch;
mod places;
mod settings;
mod slot;
mod source;
mod stats;
mod table;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use answer::{Answer, Kept, Refusal, Why};
pub use fetch::{Failed, Fault, Fetch, Fetched};
pub use settings::{InvalidSettings, Settings};
pub use stats::Stats;

use drive::Looked;
use places::Item;
use slot::Slot;
use source::SourceState;
use stats::Counters;
use table::Table;

/// Values by key, fetched when they are asked for and kept fresh while they are. Clones share one keeper.
///
/// A fresh value is answered without a lock and without an allocation.
pub struct Keeper<F: Fetch>(Arc<Shared<F>>);

pub(crate) struct Shared<F: Fetch> {
    fetch: F,
    settings: Settings,
    hasher: foldhash::fast::RandomState,
    table: Table<F>,
    source: SourceState<F::Error>,
    counters: Counters,
}

impl<F: Fetch> Clone for Keeper<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A keeper that lives only as long as others have it: for work that a fetch left behind.
pub(crate) struct WeakKeeper<F: Fetch>(Weak<Shared<F>>);

impl<F: Fetch> WeakKeeper<F> {
    /// The keeper, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<Keeper<F>> {
        self.0.upgrade().map(Keeper)
    }
}

impl<F: Fetch> Keeper<F> {
    /// The same, without keeping it alive.
    pub(crate) fn downgrade(&self) -> WeakKeeper<F> {
        WeakKeeper(Arc::downgrade(&self.0))
    }

    /// Makes a keeper that knows nothing yet.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the setting that is out of range.
    pub fn new(fetch: F, settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        Ok(Self(Arc::new(Shared {
            fetch,
            hasher: foldhash::fast::RandomState::default(),
            table: Table::new(settings.keys),
            source: SourceState::new(&settings)?,
            counters: Counters::default(),
            settings,
        })))
    }

    /// What fetches.
    pub fn fetcher(&self) -> &F {
        &self.0.fetch
    }

    /// Answers from what is known, or waits for a fetch: at most to the call's deadline.
    ///
    /// A stale value is answered at once, while a newer one is fetched.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the fetch goes on.
    pub async fn get(&self, call: &Call, key: &F::Key) -> Answer<F::Key, F::Value, F::Error> {
        let hash = self.hash(key);
        if let Some(value) = self.fresh(hash, key, call.now) {
            return Answer::Fresh(value);
        }
        match self.look_closer(call, hash, key) {
            Looked::Answer(answer) => answer,
            Looked::Wait(flight) => self.wait(call, hash, key, flight).await,
        }
    }

    /// The value, if it is fresh; begins nothing.
    #[inline]
    pub fn try_fresh(&self, call: &Call, key: &F::Key) -> Option<Kept<F::Key, F::Value>> {
        self.fresh(self.hash(key), key, call.now)
    }

    /// Answers from what is known, and begins the fetch that is wanted; `None` when only waiting would tell.
    #[inline]
    pub fn try_get(&self, call: &Call, key: &F::Key) -> Option<Answer<F::Key, F::Value, F::Error>> {
        let hash = self.hash(key);
        if let Some(value) = self.fresh(hash, key, call.now) {
            return Some(Answer::Fresh(value));
        }
        match self.look_closer(call, hash, key) {
            Looked::Answer(answer) => Some(answer),
            Looked::Wait(_) => None,
        }
    }

    /// The value, if it is fresh: the quick path of every lookup.
    // What is found is two words that are written one by one: copied as one before they have left the store buffer, as
    // calls that are not inlined do, they cost as much as the rest.
    #[inline(always)]
    fn fresh(&self, hash: u64, key: &F::Key, now: Instant) -> Option<Kept<F::Key, F::Value>> {
        self.0.table.fresh(hash, key, now).map(Kept)
    }

    #[inline]
    fn hash(&self, key: &F::Key) -> u64 {
        self.0.hasher.hash_one(key)
    }

    /// Brings a value from elsewhere: a watch, a login, a peer. It ends a failure of the key. A later version that is
    /// known stays, and the answer is [`Landed::Late`].
    pub fn put(&self, key: &F::Key, fetched: Fetched<F::Value>) -> Landed {
        let now = crate::sync::now();
        let hash = self.hash(key);
        let Some(slot) = self.slot(hash, key, now) else { return Landed::Unwanted };
        let held = self.item(key, fetched, now);
        let landed = slot.change(|state| state.put(held));
        self.0.counters.put(landed);
        landed
    }

    fn item(&self, key: &F::Key, fetched: Fetched<F::Value>, from: Instant) -> Held<Arc<slot::Item<F>>> {
        let settings = &self.0.settings;
        let usual = if fetched.value.is_some() {
            settings.lifetime
        } else {
            Lifetime::of(settings.nothing, Duration::ZERO)
        };
        let term = fetched.lifetime.unwrap_or(usual).from(from, dice());
        let item = Item::new(key.clone(), fetched.value, term, fetched.version);
        Held { term, version: fetched.version, value: Arc::new(item) }
    }

    /// Forgets a key, and what a fetch of it that is under way will bring.
    pub fn clear(&self, key: &F::Key) {
        if let Some(slot) = self.0.table.find(self.hash(key), key) {
            slot.clear();
        }
    }

    /// What is known of a key, however old; it is not a use of the key, and begins nothing.
    pub fn peek(&self, key: &F::Key) -> Option<Kept<F::Key, F::Value>> {
        let hash = self.hash(key);
        match self.0.table.shown(hash, key) {
            Some((shown, _)) => Kept::new(shown),
            None => Kept::of(self.0.table.find(hash, key)?.held()?),
        }
    }

    /// Fetches a key that is known, fresh or not, unless that must wait: for its backoff, the budget or the source.
    pub fn refresh(&self, key: &F::Key, now: Instant) -> Refresh {
        let Some(slot) = self.0.table.find(self.hash(key), key) else { return Refresh::Unknown };
        self.launch(&slot, now)
    }

    /// Forgets the keys that nobody asked for within [`Settings::idle`]. Worth a call now and then: without it idle keys
    /// go when others need their place.
    pub fn evict_idle(&self, now: Instant) {
        let evicted = self.0.table.evict_idle(now, self.0.settings.idle);
        self.evicted(evicted);
    }

    fn evicted(&self, slots: Vec<Arc<Slot<F>>>) {
        self.0.counters.evicted(slots.len());
        slots.iter().for_each(|slot| self.0.fetch.evicted(&slot.key));
    }

    /// Counts since the beginning.
    pub fn stats(&self) -> Stats {
        self.0.counters.stats(self.0.table.len(), self.0.source.reach())
    }
}

/// Whether a refresh that was asked for began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// It began.
    Begun,
    /// One is under way.
    UnderWay,
    /// It did not begin, and may then.
    NotBefore(Instant),
    /// The key is not known.
    Unknown,
}

fn dice() -> Dice {
    Dice(fastrand::u32(..))
}
