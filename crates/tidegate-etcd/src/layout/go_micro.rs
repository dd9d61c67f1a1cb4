//! go-micro's layout: the JSON of a service with exactly one node, as its versions 2 to 6 write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate::registry::{Address, Instance, ServiceName};

/// Go writes an empty map or list as null.
type Metadata = Option<BTreeMap<String, String>>;

#[derive(Serialize, Deserialize)]
struct Service {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    metadata: Metadata,
    /// Descriptions of its methods. Nobody needs them to call it.
    #[serde(default, skip_deserializing)]
    endpoints: [(); 0],
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Serialize, Deserialize)]
struct Node {
    #[serde(default)]
    metadata: Metadata,
    id: String,
    address: String,
}

const WEIGHT: &str = "weight";
const ZONE: &str = "zone";

pub(super) fn encode(instance: &Instance) -> Vec<u8> {
    let mut metadata = instance.metadata.clone();
    if instance.weight != 1 {
        metadata.insert(WEIGHT.into(), instance.weight.to_string());
    }
    if let Some(zone) = &instance.zone {
        metadata.insert(ZONE.into(), zone.clone());
    }
    // Its clients dial the address as it stands, and know no schemes.
    let address = instance.address.as_str();
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    let node = Node { metadata: Some(metadata), id: instance.id.clone(), address: address.to_owned() };
    let service = Service {
        name: instance.service.as_str().to_owned(),
        version: instance.version.clone(),
        metadata: Some(BTreeMap::new()),
        endpoints: [],
        nodes: Some(vec![node]),
    };
    serde_json::to_vec(&service).expect("a service has strings as keys and no numbers that JSON lacks")
}

pub(super) fn decode(value: &[u8]) -> Result<Instance, String> {
    let service: Service = serde_json::from_slice(value).map_err(|why| why.to_string())?;
    let node = service.nodes.unwrap_or_default().into_iter().next().ok_or("it has no node")?;
    let name = ServiceName::new(&service.name).map_err(|why| why.to_string())?;
    let address = Address::parse(&node.address).map_err(|why| why.to_string())?;
    let mut metadata = service.metadata.unwrap_or_default();
    metadata.extend(node.metadata.unwrap_or_default());
    let mut instance = Instance::new(name, node.id, address).version(service.version);
    if let Some(weight) = metadata.get(WEIGHT).and_then(|weight| weight.parse().ok()) {
        metadata.remove(WEIGHT);
        instance.weight = weight;
    }
    instance.zone = metadata.remove(ZONE);
    instance.metadata = metadata;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_as_go_micro_writes_it_is_read() {
        let value = br#"{"name":"go.micro.srv.greeter","version":"latest","metadata":null,"endpoints":[{"name":"Say.Hello",
            "request":{"name":"Request","type":"Request","values":null},"response":null,"metadata":{"stream":"true"}}],
            "nodes":[{"id":"go.micro.srv.greeter-6f0","address":"192.168.1.4:45541","metadata":{"broker":"http",
            "protocol":"mucp","registry":"etcd","server":"mucp","transport":"http"}}]}"#;
        let instance = decode(value).unwrap();
        assert_eq!(instance.service.as_str(), "go.micro.srv.greeter");
        assert_eq!(
            (instance.id.as_str(), instance.address.as_str()),
            ("go.micro.srv.greeter-6f0", "192.168.1.4:45541")
        );
        assert_eq!((instance.version.as_str(), instance.weight), ("latest", 1));
        assert_eq!(instance.metadata["protocol"], "mucp");
    }

    #[test]
    fn what_is_written_is_what_go_micro_reads() {
        let address = "http://[::1]:9001".parse().unwrap();
        let instance = Instance::new("a/b".parse().unwrap(), "b-1", address).version("2").weight(5);
        let value = r#"{"name":"a/b","version":"2","metadata":{},"endpoints":[],"nodes":[{"metadata":{"weight":"5"},"id":"b-1","address":"[::1]:9001"}]}"#;
        assert_eq!(String::from_utf8(encode(&instance)).unwrap(), value);
    }
}
