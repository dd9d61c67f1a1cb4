//! What fetches, and what it brings.

use std::{fmt, future::Future, hash::Hash, time::Duration};

use tidegate_core::{Instant, Lifetime};

/// Knows how to fetch the value of a key.
pub trait Fetch: Send + Sync + 'static {
    /// What values are known by.
    type Key: Hash + Eq + Clone + Send + Sync + 'static;
    /// What is fetched. Callers share one value.
    type Value: Send + Sync + 'static;
    /// Why it failed. All who wait learn the same.
    type Error: Clone + fmt::Display + Send + Sync + 'static;

    /// Fetches. It runs in a task of its own and is dropped after [`Settings::timeout`](super::Settings::timeout) only;
    /// a panic fails it. It does not retry: when to ask again is the keeper's business.
    ///
    /// # Errors
    /// [`Failed`], which says whose fault it is. That there is nothing is no error: [`Fetched::nothing`].
    fn fetch(
        &self,
        key: &Self::Key,
    ) -> impl Future<Output = Result<Fetched<Self::Value>, Failed<Self::Error>>> + Send;

    /// Whether the pause of a key whose fetch failed with `error` at `failed_at` is over already, because what it failed for
    /// is. Asked with every look at such a key, under its lock: it is quick, and asks no keeper.
    fn is_lifted(&self, error: &Self::Error, failed_at: Instant) -> bool {
        let _ = (error, failed_at);
        false
    }

    /// Learns that a key was forgotten, because it was idle or others needed its place.
    fn evicted(&self, key: &Self::Key) {
        let _ = key;
    }
}

/// What a fetch brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched<V> {
    /// The value; `None`: it was asked, and there is nothing.
    pub value: Option<V>,
    /// How long it is worth something. Default: [`Settings::lifetime`](super::Settings::lifetime), or
    /// [`Settings::nothing`](super::Settings::nothing).
    pub lifetime: Option<Lifetime>,
    /// Of two values the one with the higher version is the later. Default: 0.
    pub version: u64,
}

impl<V> Fetched<V> {
    /// Brings a value.
    pub const fn value(value: V) -> Self {
        Self { value: Some(value), lifetime: None, version: 0 }
    }

    /// Tells that there is nothing.
    pub const fn nothing() -> Self {
        Self { value: None, lifetime: None, version: 0 }
    }

    /// Sets how long it is worth something.
    #[must_use]
    pub const fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Sets its version.
    #[must_use]
    pub const fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The source could not be reached, or did not answer in time: evidence about the other keys too.
    Source,
    /// It answered, and this key failed.
    Key,
    /// Nobody's: the source was not asked, as it is to be left alone now. No evidence of anything, and the pause of the key
    /// does not grow.
    Unasked,
}

/// A fetch that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed<E> {
    /// Why.
    pub error: E,
    /// Whose fault it is.
    pub fault: Fault,
    /// When the source wants to be asked again, if it said.
    pub retry_after: Option<Duration>,
}

impl<E> Failed<E> {
    /// The source could not be reached.
    pub const fn source(error: E) -> Self {
        Self { error, fault: Fault::Source, retry_after: None }
    }

    /// The source was not asked.
    pub const fn unasked(error: E) -> Self {
        Self { error, fault: Fault::Unasked, retry_after: None }
    }

    /// This key failed.
    pub const fn key(error: E) -> Self {
        Self { error, fault: Fault::Key, retry_after: None }
    }
}
