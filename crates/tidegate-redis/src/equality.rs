//! Compares scripts with what they are to equal, history by history, on a real server whose clock the test sets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use proptest::test_runner::Config;
use tokio::runtime::Runtime;

use crate::{Client, Namespace, Settings, StoreError, StoreUrl, support, watch::Watched};

/// Times that a history is compared.
const ATTEMPTS: u32 = 10;

/// A server, and namespaces in it that nobody has used.
pub(crate) struct Bench {
    runtime: Runtime,
    pub(crate) redis: support::Redis,
    client: Client,
    /// Namespaces used.
    name: AtomicU64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = support::Redis::start(&[]);
        let url: StoreUrl = redis.url().parse().unwrap();
        let client = runtime.block_on(async {
            let settings = Settings { deadline: Duration::from_secs(30), ..Settings::default() };
            let client = Client::start(&url, settings).unwrap();
            client.ready().await.unwrap();
            client
        });
        Self { runtime, redis, client, name: AtomicU64::new(0) }
    }

    /// Goes through a history in a namespace of its own, and anew where the connection was lost: an overtaken machine must
    /// not look like a difference.
    pub(crate) fn compare(&self, once: impl AsyncFn(Arc<Watched>) -> Result<(), StoreError>) {
        self.runtime.block_on(async {
            for _ in 0..ATTEMPTS {
                let namespace = Namespace::new(&format!("t{}", self.name.fetch_add(1, Relaxed))).unwrap();
                let Err(error) = once(Arc::new(Watched::new(self.client.clone(), namespace))).await else {
                    return;
                };
                eprintln!("compared anew: {error}");
                self.client.ready().await.unwrap();
            }
            panic!("the server was lost {ATTEMPTS} times");
        });
    }
}

/// A real server is in it: what failed is printed, and not kept in a file.
pub(crate) fn config() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}
