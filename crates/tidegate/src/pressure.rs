//! Sheds calls while the process is short of memory: what is sheddable first, what is critical never.
//!
//! Memory is looked at in the background: that of the process's cgroup (version 2), or of the machine where there is
//! none, and how long tasks waited for it. On the path of a call it is one load.
//!
//! ```
//! use tidegate::{Call, Priority, clock, pressure::{Pressure, Settings}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pressure = Pressure::watch(Settings::default())?;
//! let login = Call::at(clock::now()).priority(Priority::Sheddable);
//! if let Err(refused) = pressure.admit(&login) {
//!     println!("no new logins: {refused}");
//! }
//! # Ok(()) }
//! ```

use std::{
    fmt,
    future::{self, Future},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
pub use tidegate_core::pressure::{InvalidLimits, Level, Limits, Reading};
use tidegate_core::{By, Call, Instant, Outcome, Refused};
use tokio::task::AbortHandle;

use crate::gate::{self, Gate};

mod sample;

use sample::Sampler;

/// How memory is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From where on memory is short. Default: 85 % and 95 % of the limit, 20 % and 60 % of time waited.
    pub limits: Limits,
    /// How often it is looked at, at least 10 ms. Default: 1 s.
    pub every: Duration,
    /// Where the kernel's files are. Default: `/`.
    pub root: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), every: Duration::from_secs(1), root: "/".into() }
    }
}

/// What is wrong with [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// The marks.
    Limits(InvalidLimits),
    /// `every` is too short.
    Every(Duration),
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(invalid) => invalid.fmt(f),
            Self::Every(value) => write!(f, "pressure: every is {value:?}; it is at least 10ms, like 1s"),
        }
    }
}

impl std::error::Error for InvalidSettings {}

/// Whether memory is short. Clones share it; it is watched until the last one is dropped.
#[derive(Clone)]
pub struct Pressure(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    retry_after: Duration,
    watching: Option<AbortHandle>,
}

struct Shared {
    level: AtomicU8,
    reading: Mutex<Option<Reading>>,
    limits: Limits,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

impl Shared {
    fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::None,
            1 => Level::High,
            _ => Level::Critical,
        }
    }

    fn learn(&self, reading: Option<Reading>) {
        // What cannot be read sheds nothing.
        let level = reading.map_or(Level::None, |reading| self.level().after(&reading, &self.limits));
        self.level.store(level as u8, Relaxed);
        *self.reading.lock() = reading;
    }
}

impl Pressure {
    /// Watches memory, beginning with a look at once.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one. A machine without the kernel's files is no error: nothing is shed there.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch(settings: Settings) -> Result<Self, InvalidSettings> {
        settings.limits.check().map_err(InvalidSettings::Limits)?;
        if settings.every < Duration::from_millis(10) {
            return Err(InvalidSettings::Every(settings.every));
        }
        let Settings { limits, every, root } = settings;
        let shared = Arc::new(Shared { level: AtomicU8::new(0), reading: Mutex::new(None), limits });
        let sampler = Sampler::below(&root);
        shared.learn(sampler.read());
        let watched = Arc::clone(&shared);
        let watching = tokio::spawn(async move {
            let sampler = Arc::new(sampler);
            loop {
                tokio::time::sleep(every).await;
                let sampler = Arc::clone(&sampler);
                // The kernel may take its time for them when memory is short.
                let reading = tokio::task::spawn_blocking(move || sampler.read()).await;
                watched.learn(reading.unwrap_or_default());
            }
        });
        let watching = Some(watching.abort_handle());
        Ok(Self(Arc::new(Inner { shared, retry_after: every, watching })))
    }

    /// One that is told what memory is like, by [`learn`](Self::learn): where it is watched by other means.
    ///
    /// # Errors
    /// [`InvalidLimits`], the first one.
    pub fn told(limits: Limits) -> Result<Self, InvalidLimits> {
        limits.check()?;
        let shared = Arc::new(Shared { level: AtomicU8::new(0), reading: Mutex::new(None), limits });
        Ok(Self(Arc::new(Inner { shared, retry_after: Duration::from_secs(1), watching: None })))
    }

    /// Learns what memory is like.
    pub fn learn(&self, reading: Reading) {
        self.0.shared.learn(Some(reading));
    }

    /// Decides whether a call may go: one load.
    ///
    /// # Errors
    /// [`Refused`] by [`By::Pressure`] when calls of its priority are shed.
    #[inline]
    pub fn admit(&self, call: &Call) -> Result<(), Refused> {
        if self.level().sheds(call.priority) {
            return Err(Refused::after(By::Pressure, self.0.retry_after));
        }
        Ok(())
    }

    /// How short memory is.
    #[inline]
    pub fn level(&self) -> Level {
        self.0.shared.level()
    }

    /// What the last look showed; `None` where nothing can be read.
    pub fn reading(&self) -> Option<Reading> {
        *self.0.shared.reading.lock()
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pressure").field("level", &self.level()).field("reading", &self.reading()).finish()
    }
}

/// What an admitted call holds: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit;

impl gate::Permit for Permit {
    fn settle(self, _: Outcome, _: Instant) {}

    fn learns(&self) -> bool {
        false
    }

    fn settle_now(self, _: Outcome) {}
}

impl<K: ?Sized> Gate<K> for Pressure {
    type Permit = Permit;

    #[inline]
    fn try_enter(&self, call: &Call, _key: &K) -> Result<Permit, Refused> {
        self.admit(call).map(|()| Permit)
    }

    /// Does what [`try_enter`](Gate::try_enter) does: who waits needs memory.
    fn enter(&self, call: &Call, key: &K) -> impl Future<Output = Result<Permit, Refused>> + Send {
        future::ready(self.try_enter(call, key))
    }
}
