//! The primitives of the breaker: the real ones, or shuttle's when a test explores interleavings (`--cfg shuttle`).

#[cfg(not(all(test, shuttle)))]
pub(super) use {parking_lot::Mutex, std::sync::atomic::AtomicU64};

#[cfg(all(test, shuttle))]
pub(super) use shuttle::sync::atomic::AtomicU64;

/// shuttle's mutex with `parking_lot`'s signature.
#[cfg(all(test, shuttle))]
pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[cfg(all(test, shuttle))]
impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().expect("no test panics under the lock")
    }
}
