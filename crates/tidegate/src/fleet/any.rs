//! A ledger of whichever type.

use std::{future::Future, pin::Pin};

use tidegate_core::{
    Instant,
    ledger::{Ask, Reply, Rule, Standing},
};
use tokio::sync::broadcast;

use super::{
    error::LedgerError,
    ledger::{Adjusted, Adjustment, Hint, Ledger, Subject},
};
use crate::throttle::Key;

pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// A [`Ledger`] of whichever type.
pub(super) trait AnyLedger: Send + Sync {
    fn ask<'a>(&'a self, subject: Subject<'a>, rule: &'a Rule, ask: &'a Ask) -> Answer<'a, Reply>;
    fn inspect<'a>(&'a self, subject: Subject<'a>, rule: &'a Rule) -> Answer<'a, Standing>;
    fn adjust<'a>(&'a self, subject: Subject<'a>, rule: &'a Rule, by: Adjustment) -> Answer<'a, Adjusted>;
    fn hints(&self) -> broadcast::Receiver<Hint>;
    fn parts(&self) -> u32;
    fn tells_again(&self, subject: Subject<'_>) -> bool;
    fn heard_at(&self, key: Key) -> Option<Instant>;
}

impl<L: Ledger> AnyLedger for L {
    fn ask<'a>(&'a self, subject: Subject<'a>, rule: &'a Rule, ask: &'a Ask) -> Answer<'a, Reply> {
        Box::pin(Ledger::ask(self, subject, rule, ask))
    }

    fn inspect<'a>(&'a self, subject: Subject<'a>, rule: &'a Rule) -> Answer<'a, Standing> {
        Box::pin(Ledger::inspect(self, subject, rule))
    }

    fn adjust<'a>(&'a self, subject: Subject<'a>, rule: &'a Rule, by: Adjustment) -> Answer<'a, Adjusted> {
        Box::pin(Ledger::adjust(self, subject, rule, by))
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        Ledger::hints(self)
    }

    fn parts(&self) -> u32 {
        Ledger::parts(self)
    }

    fn tells_again(&self, subject: Subject<'_>) -> bool {
        Ledger::tells_again(self, subject)
    }

    fn heard_at(&self, key: Key) -> Option<Instant> {
        Ledger::heard_at(self, key)
    }
}
