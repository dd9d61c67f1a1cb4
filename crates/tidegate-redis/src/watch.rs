//! Keeps an eye on which ledger it is, so that a loss is noticed by those who do not ask, and before they spend on.

use std::{
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use redis::{Cmd, Value};
use tidegate::{fleet::Hint, throttle::Key};
use tokio::{
    sync::{Notify, broadcast},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Client, Health, Namespace, RedisLedger, StoreError,
    client::Work,
    epochs::{Epochs, Noticed},
    hints,
    keys::{BUCKETS, bucket_of},
    ledger::{Outbox, Seeing},
    link::{Link, Up},
    memory::Memory,
    script::Script,
};

static NOW: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("ledger/epoch.lua"), include_str!("ledger/now.lua"))));
pub(crate) static HOLD: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("ledger/epoch.lua"), include_str!("ledger/hold.lua"))));

/// The longest time in which a node that does not ask notices a loss, were no hint to reach it: two heartbeats. A new
/// epoch grants nothing for as long, and a life of credit.
pub(crate) const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// Hints that a slow listener may be behind.
const HINTS: usize = 1024;
/// Buckets of a cluster whose epoch is looked at each heartbeat; their servers are random.
const LOOKED_AT: usize = 8;
/// Questions at once when there are many to ask.
pub(crate) const AT_ONCE: usize = 128;

/// Which ledger it is, and who is told when it changes.
pub(crate) struct Watched {
    pub(crate) client: Client,
    pub(crate) namespace: Namespace,
    pub(crate) hints: broadcast::Sender<Hint>,
    epochs: Epochs,
    /// The ledger may be another one: somebody says so, or an answer did.
    pub(crate) changed: Arc<Notify>,
    pub(crate) memory: Memory,
    /// Questions on their way.
    pub(crate) outbox: Outbox,
}

impl Watched {
    pub(crate) fn new(client: Client, namespace: Namespace) -> Self {
        let buckets = if client.cluster().is_some() { BUCKETS } else { 1 };
        let outbox = Outbox::new(client.settings().deadline);
        Self {
            client,
            namespace,
            hints: broadcast::Sender::new(HINTS),
            epochs: Epochs::new(buckets),
            changed: Arc::default(),
            memory: Memory::default(),
            outbox,
        }
    }

    /// Begins to watch, for as long as it is held. Needs a runtime.
    pub(crate) fn start(self) -> Arc<Self> {
        let watched = Arc::new(self);
        tokio::spawn(watch(Arc::downgrade(&watched)));
        watched
    }

    /// Where a bucket's epoch stands: one server has one ledger, in a cluster each bucket has its own.
    pub(crate) fn marker(&self, bucket: u8) -> String {
        match self.client.cluster() {
            Some(_) => self.namespace.epoch(bucket),
            None => format!("{}:epoch", self.namespace.as_str()),
        }
    }

    /// The epoch that a bucket's server knows, of the one that was shown.
    pub(crate) fn own(&self, bucket: u8, shown: u64) -> u64 {
        self.epochs.own(self.index(bucket), shown)
    }

    /// Takes note of the epoch in an answer, and says what to show for it.
    pub(crate) fn note(&self, bucket: u8, own: u64) -> u64 {
        let (shown, noticed) = self.epochs.note(self.index(bucket), own);
        if noticed == Noticed::Change {
            tracing::warn!(
                namespace = self.namespace.as_str(),
                bucket,
                "the ledger may have lost grants; nothing is granted until nodes had the time to tell what they saw"
            );
            self.changed.notify_one();
        }
        shown
    }

    fn index(&self, bucket: u8) -> usize {
        self.ledger_of(bucket).into()
    }

    /// The bucket whose epoch is this one's: one server has one ledger.
    pub(crate) fn ledger_of(&self, bucket: u8) -> u8 {
        if self.client.cluster().is_some() { bucket } else { 0 }
    }

    /// Asks which ledger a bucket is in; one that was lost begins anew with this.
    async fn look(&self, bucket: u8) -> Result<(), StoreError> {
        self.ask(&NOW, bucket, &Seeing::REAL).await
    }

    /// Has the ledgers of some buckets begin their pauses anew, if these are young: this node has much to tell them.
    pub(crate) async fn hold(&self, buckets: impl Iterator<Item = u8>) {
        let held = buckets.map(|bucket| self.ask(&HOLD, bucket, &Seeing::REAL));
        let failed = stream::iter(held).buffer_unordered(AT_ONCE).filter_map(async |held| held.err());
        failed.for_each(async |error| tracing::debug!(%error, "the ledger does not wait")).await;
    }

    pub(crate) async fn ask(
        &self,
        script: &Script,
        bucket: u8,
        seen_as: &Seeing<'_>,
    ) -> Result<(), StoreError> {
        let marker = self.marker(bucket);
        let arguments = |command: &mut Cmd, up: &Up| {
            let (publish, channel) = hints::channel(&self.namespace, bucket, up, &self.client);
            command.arg("epoch").arg(seen_as.run_id.unwrap_or(&up.checked.run_id));
            match seen_as.clock {
                Some(clock) => command.arg(clock),
                None => command.arg(""),
            };
            command.arg(publish).arg(channel);
        };
        let work = Work::Script { script, keys: &[marker.as_bytes()], arguments: &arguments };
        let answer = self.client.run(self.namespace.slot(bucket), &work).await?;
        match &answer {
            Value::Array(values) => match values.as_slice() {
                [Value::Int(own)] => {
                    self.note(bucket, u64::try_from(*own).unwrap_or_default());
                    Ok(())
                }
                _ => Err(StoreError::Garbled { what: format!("{answer:?}") }),
            },
            _ => Err(StoreError::Garbled { what: format!("{answer:?}") }),
        }
    }

    /// Asks of all buckets, so that a loss is one change and not one for each.
    async fn look_at_all(&self) {
        let buckets: Vec<u8> = match self.client.cluster() {
            Some(_) => (0..=u8::MAX).collect(),
            None => vec![0],
        };
        for some in buckets.chunks(AT_ONCE) {
            for result in join_all(some.iter().map(|&bucket| self.look(bucket))).await {
                if let Err(error) = result {
                    tracing::debug!(%error, "which ledger it is cannot be seen");
                }
            }
        }
    }

    /// Whether what was seen in the epoch `shown` may be unknown to the ledger that a key is in now.
    pub(crate) fn is_lost(&self, key: Key, shown: u64) -> bool {
        let bucket = bucket_of(key);
        self.own(bucket, shown) != self.own(bucket, u64::MAX)
    }
}

async fn watch(watched: Weak<Watched>) {
    let mut known: Vec<Arc<str>> = Vec::new();
    let mut next = fastrand::usize(..BUCKETS);
    let mut listeners: Vec<(Link, JoinSet<()>)> = Vec::new();
    let mut is_told = true;
    loop {
        let Some(strong) = watched.upgrade() else { return };
        listen_at_all(&strong, &mut listeners);
        let processes = processes(&strong.client);
        if processes == known {
            let looked_at = if strong.client.cluster().is_some() { LOOKED_AT } else { 1 };
            let some =
                (next..next + looked_at).map(|bucket| u8::try_from(bucket % BUCKETS).expect("one of 256"));
            let _ = join_all(some.map(|bucket| strong.look(bucket))).await;
            next = (next + looked_at) % BUCKETS;
        } else {
            strong.look_at_all().await;
            known = processes;
        }
        let beat = strong.client.settings().heartbeat;
        if timeout(beat, strong.changed.notified()).await.is_ok() {
            strong.look_at_all().await;
            is_told = false;
        }
        if !is_told {
            is_told = RedisLedger::of(strong).reassert().await;
        }
    }
}

/// The processes that serve the store now.
fn processes(client: &Client) -> Vec<Arc<str>> {
    let mut all: Vec<_> = client
        .health()
        .into_iter()
        .filter_map(|health| match health {
            Health::Up { run_id, .. } => Some(run_id),
            Health::Connecting | Health::Down(_) => None,
        })
        .collect();
    all.sort();
    all
}

/// One listener at each server, and none at those that are gone.
fn listen_at_all(watched: &Watched, listeners: &mut Vec<(Link, JoinSet<()>)>) {
    let links = watched.client.links();
    listeners.retain(|(link, _)| links.iter().any(|now| now.is(link)));
    for link in links {
        if !listeners.iter().any(|(known, _)| known.is(&link)) {
            let mut task = JoinSet::new();
            task.spawn(hints::listen(
                watched.client.clone(),
                watched.namespace.clone(),
                link.clone(),
                watched.hints.clone(),
                watched.changed.clone(),
            ));
            listeners.push((link, task));
        }
    }
}
