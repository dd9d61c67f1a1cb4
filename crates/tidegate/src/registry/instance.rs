//! One instance of a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Address, ServiceName};

/// One instance of a service, as it registers and as it is found.
///
/// Its serde form is Tidegate's own JSON, in etcd and in snapshots:
/// `{"service":"orders","id":"orders-7","address":"10.0.0.7:9001","version":"2.1","weight":1,"zone":"a","metadata":{}}`.
/// What a later version adds is ignored by an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    /// The service it serves.
    pub service: ServiceName,
    /// What tells it from the service's other instances; the same over a restart is the same instance.
    pub id: String,
    /// Where it listens.
    pub address: Address,
    /// The version of the service it serves. Default: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its share of the calls, beside the others'; 0: no new calls. Default: 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// The zone it runs in, if it says. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What else it says of itself. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl Instance {
    /// Makes an instance of weight 1, without version, zone and metadata.
    pub fn new(service: ServiceName, id: impl Into<String>, address: Address) -> Self {
        Self {
            service,
            id: id.into(),
            address,
            version: String::new(),
            weight: 1,
            zone: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Sets the version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets the share of the calls.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the zone.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Adds something it says of itself.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_json_is_short_and_reads_back() {
        let instance = Instance::new("a/b".parse().unwrap(), "7", "10.0.0.7:9001".parse().unwrap());
        let json = serde_json::to_string(&instance).unwrap();
        assert_eq!(json, r#"{"service":"a/b","id":"7","address":"10.0.0.7:9001","weight":1}"#);
        assert_eq!(serde_json::from_str::<Instance>(&json).unwrap(), instance);
        let full = instance.version("2").weight(3).zone("a").with("k", "v");
        let json = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&json).unwrap(), full);
    }

    #[test]
    fn an_instance_without_an_address_is_refused_with_the_reason() {
        let json = r#"{"service":"a","id":"7","address":"nowhere"}"#;
        let error = serde_json::from_str::<Instance>(json).unwrap_err().to_string();
        assert!(error.contains("\"nowhere\" is no address: the port is missing"), "{error}");
    }
}
