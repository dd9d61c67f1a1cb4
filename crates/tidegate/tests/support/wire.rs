//! A ledger behind a wire: answers take time, and can be lost, cut off or wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate::fleet::{
    Account, Adjusted, Adjustment, Hint, Ledger, LedgerError, LedgerErrorKind, LocalLedger, Rule, Subject,
};
use tidegate_core::ledger::{Ask, Reply};
use tokio::{sync::broadcast, time::sleep};

/// See the module. Clones share the wire.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    ledger: LocalLedger,
    /// Milliseconds there and back.
    trip: AtomicU64,
    cut: AtomicBool,
    loses_replies: AtomicBool,
    asks: AtomicU32,
    under_way: AtomicUsize,
}

/// A question under way, until it is answered or given up.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Wire {
    pub(crate) fn new(ledger: LocalLedger) -> Self {
        Self(Arc::new(Inner {
            ledger,
            trip: AtomicU64::new(2),
            cut: AtomicBool::new(false),
            loses_replies: AtomicBool::new(false),
            asks: AtomicU32::new(0),
            under_way: AtomicUsize::new(0),
        }))
    }

    /// Nothing arrives any more, or everything again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.0.cut.store(is_cut, Ordering::SeqCst);
    }

    /// Answers take so long, there and back.
    pub(crate) fn slow(&self, millis: u64) {
        self.0.trip.store(millis, Ordering::SeqCst);
    }

    /// Questions are booked, answers lost; or no longer.
    pub(crate) fn lose_replies(&self, lost: bool) {
        self.0.loses_replies.store(lost, Ordering::SeqCst);
    }

    /// Questions that were sent.
    pub(crate) fn asks(&self) -> u32 {
        self.0.asks.load(Ordering::SeqCst)
    }

    /// Questions that are under way now.
    pub(crate) fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::SeqCst)
    }

    async fn trip(&self) {
        sleep(Duration::from_millis(self.0.trip.load(Ordering::SeqCst)) / 2).await;
        if self.0.cut.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Ledger for Wire {
    async fn ask(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Result<Reply, LedgerError> {
        self.0.asks.fetch_add(1, Ordering::SeqCst);
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
        let _under_way = UnderWay(&self.0.under_way);
        self.trip().await;
        let reply = self.0.ledger.ask(subject, rule, ask).await;
        if self.0.loses_replies.load(Ordering::SeqCst) {
            return Err(LedgerError::new(LedgerErrorKind::Unreachable, "the connection broke"));
        }
        self.trip().await;
        reply
    }

    async fn inspect(&self, subject: Subject<'_>, rule: &Rule) -> Result<Account, LedgerError> {
        self.0.ledger.inspect(subject, rule).await
    }

    async fn adjust(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
    ) -> Result<Adjusted, LedgerError> {
        self.0.ledger.adjust(subject, rule, adjustment).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.0.ledger.hints()
    }
}
