//! What a keeper answers: never a bare value.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use arc_swap::Guard;

use super::places::{Item, Shown};

/// A value with its key, shared with the keeper. Cheap to hold for a while; values that are held stay as they were.
pub struct Kept<K, V>(
    /// Of an item with a value.
    pub(super) Shown<K, V>,
);

impl<K, V> Kept<K, V> {
    #[inline]
    pub(super) fn new(shown: Shown<K, V>) -> Option<Self> {
        shown.as_ref()?.value.as_ref()?;
        Some(Self(shown))
    }

    pub(super) fn of(item: Arc<Item<K, V>>) -> Option<Self> {
        Self::new(Guard::from_inner(Some(item)))
    }

    #[inline]
    fn item(&self) -> &Item<K, V> {
        self.0.as_ref().expect("only an item is made a Kept")
    }

    /// What it is known by.
    pub fn key(&self) -> &K {
        &self.item().key
    }

    /// The version it was brought with.
    pub fn version(&self) -> u64 {
        self.item().version
    }

    /// How old it is.
    pub fn age(&self, now: tidegate_core::Instant) -> Duration {
        self.item().age(now)
    }
}

impl<K, V> Deref for Kept<K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        self.item().value.as_ref().expect("only a value is made a Kept")
    }
}

impl<K, V: fmt::Debug> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Why a fetch brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why<E> {
    /// It failed.
    Failed(E),
    /// It took longer than this.
    TimedOut(Duration),
    /// It panicked, with this message.
    Panicked(Arc<str>),
    /// It was dropped with its runtime.
    Lost,
}

impl<E: fmt::Display> fmt::Display for Why<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::TimedOut(after) => write!(f, "no answer within {after:?}"),
            Self::Panicked(message) => write!(f, "the fetch panicked: {message}"),
            Self::Lost => f.write_str("the fetch was dropped with its runtime"),
        }
    }
}

/// Why there is no answer. The key may well have a value: it could not be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal<E> {
    /// Fetching failed, of this key or of its source, and is tried again later.
    Failing {
        /// Why the last attempt failed.
        why: Why<E>,
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// The budget of attempts is used up.
    Throttled {
        /// When there may be another.
        retry_after: Duration,
    },
    /// The caller's deadline passed; the fetch goes on.
    Deadline,
    /// Too many wait, or too many keys are being fetched.
    Full,
    /// The key was cleared while its fetch was under way.
    Cleared,
}

impl<E: fmt::Display> fmt::Display for Refusal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { why, retry_after } => write!(f, "{why}; tried again after {retry_after:?}"),
            Self::Throttled { retry_after } => {
                write!(f, "the budget of attempts is used up; retry after {retry_after:?}")
            }
            Self::Deadline => f.write_str("the deadline passed before there was an answer"),
            Self::Full => f.write_str("too many wait for a fetch; retry later"),
            Self::Cleared => f.write_str("it was cleared while it was fetched"),
        }
    }
}

/// What is known of a key, and how good it is.
#[derive(Debug)]
pub enum Answer<K, V, E> {
    /// A good value.
    Fresh(Kept<K, V>),
    /// A value past its time, better than none.
    Stale {
        /// The value.
        value: Kept<K, V>,
        /// How old it is.
        age: Duration,
        /// Why there is no newer one; `None` while one is being fetched for the first time.
        why: Option<Why<E>>,
    },
    /// It was asked for, and there is none.
    Nothing {
        /// How long ago.
        age: Duration,
    },
    /// It could not be asked for.
    Refused(Refusal<E>),
}

impl<K, V, E> Answer<K, V, E> {
    /// The value, fresh or stale.
    pub fn value(&self) -> Option<&Kept<K, V>> {
        match self {
            Self::Fresh(value) | Self::Stale { value, .. } => Some(value),
            Self::Nothing { .. } | Self::Refused(_) => None,
        }
    }
}
