//! A source that is a file, read again when it changes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{
    Address, Instance, Listing, Registrant, ServiceName, Source, SourceError, SourceErrorKind, StaticSource,
    Update, Watch,
};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// The longest a look may take: a file system may hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of a file that is read.
const LARGEST: u64 = 64 << 20;

/// Reads the text of a file.
type Parse = fn(&str) -> Result<Vec<Instance>, String>;

/// A source that is a file.
///
/// In JSON it maps services to their instances, each an address or an object that has one:
/// `{"orders": ["10.0.0.7:9001", {"address": "10.0.0.8:9001", "weight": 2, "zone": "a"}]}`. Without an id the address is the
/// id. A file that is missing or wrong is an error, never an empty registry: what was known is served on, as stale.
#[derive(Clone, Debug)]
pub struct FileSource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    parse: Parse,
}

/// What tells one state of a file from another without reading it.
type Mark = (Option<SystemTime>, u64);

impl FileSource {
    /// A file in JSON.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::parsed_by(path, json)
    }

    /// A file in another format. The parser's error names the line and the remedy.
    pub fn parsed_by(path: impl Into<PathBuf>, parse: Parse) -> Self {
        Self(Arc::new(Inner { path: path.into(), parse }))
    }

    async fn read(&self) -> Result<(StaticSource, Mark), SourceError> {
        let inner = Arc::clone(&self.0);
        self.blocking(move || read(&inner.path, inner.parse)).await
    }

    async fn mark(&self) -> Result<Mark, SourceError> {
        let inner = Arc::clone(&self.0);
        self.blocking(move || mark(&inner.path)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let path = self.0.path.display();
        match timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => {
                Err(SourceError::unavailable(format!("{path}: reading it panicked or was cut short")))
            }
            Err(_) => {
                Err(SourceError::unavailable(format!("{path}: it could not be read within {PATIENCE:?}")))
            }
        }
    }
}

fn mark(path: &Path) -> Result<Mark, SourceError> {
    let metadata = fs::metadata(path).map_err(|error| cannot(path, &error))?;
    Ok((metadata.modified().ok(), metadata.len()))
}

fn cannot(path: &Path, error: &std::io::Error) -> SourceError {
    SourceError::unavailable(format!(
        "{}: {error}; make it a file that this process may read",
        path.display()
    ))
}

fn read(path: &Path, parse: Parse) -> Result<(StaticSource, Mark), SourceError> {
    // Before the content: a change in between is seen by the next look.
    let mark = mark(path)?;
    let malformed =
        |why: String| SourceError::new(SourceErrorKind::Malformed, format!("{}: {why}", path.display()));
    if mark.1 > LARGEST {
        return Err(malformed(format!("it has {} bytes; at most {LARGEST} are read", mark.1)));
    }
    let text = fs::read_to_string(path).map_err(|error| cannot(path, &error))?;
    Ok((StaticSource::new(parse(&text).map_err(malformed)?), mark))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    address: Address,
    id: Option<String>,
    #[serde(default)]
    version: String,
    weight: Option<u32>,
    zone: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

fn json(text: &str) -> Result<Vec<Instance>, String> {
    let services: BTreeMap<ServiceName, Vec<serde_json::Value>> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut instances = Vec::new();
    for (service, listed) in services {
        for value in listed {
            let wrong = |error: &dyn std::fmt::Display| format!("{service}: {value}: {error}");
            if let serde_json::Value::String(text) = &value {
                let address: Address = text.parse().map_err(|error| wrong(&error))?;
                instances.push(Instance::new(service.clone(), address.as_str(), address.clone()));
                continue;
            }
            let object = Object::deserialize(&value).map_err(|error| wrong(&error))?;
            let id = object.id.unwrap_or_else(|| object.address.as_str().to_owned());
            let mut instance = Instance::new(service.clone(), id, object.address).version(object.version);
            instance.weight = object.weight.unwrap_or(instance.weight);
            (instance.zone, instance.metadata) = (object.zone, object.metadata);
            instances.push(instance);
        }
    }
    Ok(instances)
}

impl Source for FileSource {
    type Watch = FileWatch;

    fn describe(&self) -> String {
        format!("file:{}", self.0.path.display())
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        Ok(self.read().await?.0.names())
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        Ok(self.read().await?.0.listing(service))
    }

    async fn watch(&self, service: &ServiceName) -> Result<FileWatch, SourceError> {
        let (content, mark) = self.read().await?;
        let first = Some(content.listing(service));
        Ok(FileWatch { file: self.clone(), service: service.clone(), mark, first })
    }

    fn register(&self, _registrant: Registrant) -> Result<(), SourceError> {
        Err(SourceError::unsupported("a file takes no registrations; write the instance into it"))
    }
}

/// A watch of a file: it looks whether the file has changed.
#[derive(Debug)]
pub struct FileWatch {
    file: FileSource,
    service: ServiceName,
    mark: Mark,
    first: Option<Listing>,
}

impl Watch for FileWatch {
    async fn next(&mut self) -> Result<Update, SourceError> {
        if let Some(first) = self.first.take() {
            return Ok(Update::All(first));
        }
        loop {
            sleep(EVERY).await;
            if self.file.mark().await? != self.mark {
                let (content, mark) = self.file.read().await?;
                self.mark = mark;
                return Ok(Update::All(content.listing(&self.service)));
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::{
        Call, clock,
        registry::{Provenance, Registry, Settings},
    };

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_when_it_changes_and_a_wrong_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.json");
        fs::write(&path, r#"{"orders": ["10.0.0.7:9001"]}"#).unwrap();
        let registry = Registry::new(FileSource::new(&path), Settings::default()).unwrap();
        let orders = "orders".parse().unwrap();
        let mut subscription = registry.watch(&orders);
        assert_eq!(subscription.next().await.unwrap().endpoints.len(), 1);
        fs::write(&path, r#"{"orders": ["10.0.0.7:9001", {"address": "10.0.0.8:9001", "weight": 2}]}"#)
            .unwrap();
        while subscription.next().await.unwrap().endpoints.len() < 2 {}
        fs::write(&path, r#"{"orders": "#).unwrap();
        loop {
            let found = registry.lookup(&Call::at(clock::now()), &orders).await.unwrap();
            assert_eq!(found.endpoints.len(), 2);
            if matches!(found.provenance, Provenance::Stale { .. }) {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        fs::write(&path, r#"{"orders": ["10.0.0.9:9001"]}"#).unwrap();
        while subscription.next().await.unwrap().endpoints.len() != 1 {}
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        assert!(json("{").unwrap_err().contains("line 1"));
        let error = json(r#"{"orders": ["nowhere"]}"#).unwrap_err();
        assert!(error.starts_with(r#"orders: "nowhere": "nowhere" is no address"#), "{error}");
        let error = json(r#"{"orders": [{"address": "a:1", "wieght": 2}]}"#).unwrap_err();
        assert!(error.contains("unknown field `wieght`"), "{error}");
        assert!(json(r#"{"": []}"#).unwrap_err().contains("a service's name is empty"));
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error_and_never_an_empty_registry() {
        let source = FileSource::new("/no/such/file.json");
        let error = source.get(&"orders".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Unavailable);
        assert!(error.message.ends_with("make it a file that this process may read"));
        assert!(source.list().await.is_err());
        assert_eq!(source.describe(), "file:/no/such/file.json");
    }
}
