//! Atomics and the short lock, which a model checker replaces by its own to explore every interleaving.

#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(all(test, any(loom, shuttle))))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(all(test, any(loom, shuttle))))]
pub(crate) use parking_lot::Mutex;

#[cfg(all(test, any(loom, shuttle)))]
pub(crate) use modelled::Mutex;

#[cfg(all(test, any(loom, shuttle)))]
mod modelled {
    #[cfg(loom)]
    use loom::sync as model;
    #[cfg(shuttle)]
    use shuttle::sync as model;

    /// The model's lock with the face of `parking_lot`'s.
    pub(crate) struct Mutex<T>(model::Mutex<T>);

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(model::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> model::MutexGuard<'_, T> {
            self.0.lock().expect("a model ends at the first panic")
        }
    }
}

/// The clock of slow paths. A model has none: time that moves by itself would make its runs differ.
pub(crate) fn now() -> tidegate_core::Instant {
    #[cfg(not(all(test, any(loom, shuttle))))]
    return crate::clock::now();
    #[cfg(all(test, any(loom, shuttle)))]
    return tidegate_core::Instant::EPOCH;
}
