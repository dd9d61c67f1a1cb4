//! Credit on its way to a waiter.

use std::sync::Arc;

use tidegate_core::Instant;

use super::slot::Receipt;
use crate::{sync, throttle::Key};

/// Where credit goes back to that nobody took.
pub(super) trait Home: Send + Sync {
    fn take_back(&self, key: Key, receipt: Receipt, now: Instant);
}

/// Credit that was taken for a waiter: it goes back when nobody takes it.
pub(super) struct Parcel {
    home: Arc<dyn Home>,
    key: Key,
    receipt: Option<Receipt>,
}

impl Parcel {
    pub(super) const fn new(home: Arc<dyn Home>, key: Key, receipt: Receipt) -> Self {
        Self { home, key, receipt: Some(receipt) }
    }

    pub(super) fn open(mut self) -> Receipt {
        self.receipt.take().expect("a parcel is opened once")
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.home.take_back(self.key, receipt, sync::now());
        }
    }
}
