//! What a client has done so far, as counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What a client has done so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])+ pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: Count,)+
        }

        impl Counts {
            pub(crate) fn stats(&self) -> Stats {
                Stats { $($name: self.$name.read(),)+ }
            }
        }
    };
}

counts! {
    /// Calls sent, further attempts of a call included, logins not.
    calls,
    /// Calls that another member, or a new connection, was asked for after one had failed.
    failovers,
    /// Logins sent.
    logins,
    /// Logins that did not end with a token.
    login_failures,
    /// Answers that the token is not valid (any more).
    tokens_refused,
    /// Leases granted.
    leases_granted,
    /// Leases that ended before their owner gave them back.
    leases_lost,
    /// Streams opened to keep the lease alive.
    keep_alive_streams,
    /// Keys written with the lease: first registrations, changes and repairs.
    keys_written,
    /// Keys that were gone although their lease lived, and were written again.
    keys_repaired,
    /// Watch streams opened.
    watch_streams,
    /// Watches that had to read everything again: their history was compacted, or etcd went back in time.
    resyncs,
    /// Entries that are no instances. They are left out.
    malformed,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
