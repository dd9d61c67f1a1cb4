//! Credit on its way to a waiter.

use std::sync::Arc;

use super::{shared::Shared, slot::Receipt};
use crate::{sync, throttle::Key};

/// Credit that was taken for a waiter: it goes back when nobody takes it.
pub(super) struct Parcel {
    shared: Arc<Shared>,
    key: Key,
    receipt: Option<Receipt>,
}

impl Parcel {
    pub(super) const fn new(shared: Arc<Shared>, key: Key, receipt: Receipt) -> Self {
        Self { shared, key, receipt: Some(receipt) }
    }

    pub(super) fn open(mut self) -> Receipt {
        self.receipt.take().expect("a parcel is opened once")
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.shared.refund(self.key, receipt, sync::now());
        }
    }
}
