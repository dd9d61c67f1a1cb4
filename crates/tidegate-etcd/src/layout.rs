//! How registrations stand in etcd: which keys, which values.

mod go_micro;
mod own;

use std::{fmt, str::FromStr, sync::Arc};

use tidegate::registry::{Instance, ServiceName};

/// How registrations stand in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Tidegate's own: `/tidegate/services/NAME/ID`, with `/` and `%` in names and ids written `%2F` and `%25`, and the
    /// JSON of [`Instance`] as value.
    #[default]
    Tidegate,
    /// That of go-micro: `/micro/registry/NAME/ID`, with `/` in names and ids written `-`, and its JSON of a service with
    /// one node as value. Weights and zones stand in the node's metadata as `weight` and `zone`.
    GoMicro,
}

/// No layout has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no layout of a registry; write tidegate or go-micro")]
pub struct InvalidLayout(pub String);

impl FromStr for Layout {
    type Err = InvalidLayout;

    fn from_str(name: &str) -> Result<Self, InvalidLayout> {
        match name {
            "tidegate" => Ok(Self::Tidegate),
            "go-micro" => Ok(Self::GoMicro),
            _ => Err(InvalidLayout(name.into())),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tidegate => "tidegate",
            Self::GoMicro => "go-micro",
        })
    }
}

/// What an entry of etcd is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Instance(Arc<Instance>),
    /// A healthy entry of another service, whose keys look the same.
    OfAnother,
    /// No instance, and why.
    Malformed(String),
}

/// A layout below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySpace {
    layout: Layout,
    /// With slashes at both ends.
    root: String,
}

impl KeySpace {
    /// `prefix` as in a registry's URL: `tidegate/`, or empty for the layout's own.
    pub(crate) fn new(layout: Layout, prefix: &str) -> Self {
        let prefix = match (prefix.trim_matches('/'), layout) {
            ("", Layout::Tidegate) => "tidegate",
            ("", Layout::GoMicro) => "micro/registry",
            (prefix, _) => prefix,
        };
        let root = match layout {
            Layout::Tidegate => format!("/{prefix}/services/"),
            Layout::GoMicro => format!("/{prefix}/"),
        };
        Self { layout, root }
    }

    /// The prefix of all services' keys.
    pub(crate) fn root(&self) -> &[u8] {
        self.root.as_bytes()
    }

    /// The prefix of a service's keys.
    pub(crate) fn of_service(&self, service: &ServiceName) -> Vec<u8> {
        format!("{}{}/", self.root, self.segment(service.as_str())).into_bytes()
    }

    /// The key of an instance.
    pub(crate) fn key(&self, instance: &Instance) -> Vec<u8> {
        let service = self.segment(instance.service.as_str());
        format!("{}{service}/{}", self.root, self.segment(&instance.id)).into_bytes()
    }

    fn segment(&self, text: &str) -> String {
        match self.layout {
            Layout::Tidegate => own::escape(text),
            Layout::GoMicro => text.replace('/', "-"),
        }
    }

    /// The id in a key, as far as the key tells.
    pub(crate) fn id_in(&self, key: &[u8]) -> String {
        let key = String::from_utf8_lossy(key);
        let tail = key.rsplit('/').next().unwrap_or_default();
        match self.layout {
            Layout::Tidegate => own::unescape(tail).unwrap_or_else(|| tail.to_owned()),
            Layout::GoMicro => tail.to_owned(),
        }
    }

    pub(crate) fn encode(&self, instance: &Instance) -> Vec<u8> {
        match self.layout {
            Layout::Tidegate => own::encode(instance),
            Layout::GoMicro => go_micro::encode(instance),
        }
    }

    /// Reads an entry that was found among the keys of `service`.
    pub(crate) fn decode(&self, service: &ServiceName, value: &[u8]) -> Entry {
        let read = match self.layout {
            Layout::Tidegate => own::decode(value),
            Layout::GoMicro => go_micro::decode(value),
        };
        match read {
            Ok(instance) if instance.service == *service => Entry::Instance(Arc::new(instance)),
            Ok(_) => Entry::OfAnother,
            Err(why) => Entry::Malformed(why),
        }
    }

    /// The name of the service that an entry belongs to, if it is one. Only go-micro's keys do not tell.
    pub(crate) fn service_in(&self, key: &[u8], value: &[u8]) -> Option<ServiceName> {
        match self.layout {
            Layout::Tidegate => {
                let below = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
                let (service, _) = below.split_once('/')?;
                ServiceName::new(&own::unescape(service)?).ok()
            }
            Layout::GoMicro => Some(go_micro::decode(value).ok()?.service),
        }
    }

    /// Whether names of services can be told from keys alone.
    pub(crate) fn keys_tell(&self) -> bool {
        self.layout == Layout::Tidegate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(service: &str, id: &str) -> Instance {
        Instance::new(service.parse().unwrap(), id, "10.0.0.7:9001".parse().unwrap())
    }

    fn key(space: &KeySpace, service: &str, id: &str) -> String {
        String::from_utf8(space.key(&instance(service, id))).unwrap()
    }

    /// go-micro's keys run names and ids together, and its own map did so without a separator (defect E6).
    #[test]
    fn keys_with_separators_do_not_collide() {
        let space = KeySpace::new(Layout::Tidegate, "tidegate/");
        assert_eq!(key(&space, "orders", "7"), "/tidegate/services/orders/7");
        assert_eq!(key(&space, "a/b", "c%/d"), "/tidegate/services/a%2Fb/c%25%2Fd");
        let same = [("a/b", "c"), ("a-b", "c"), ("a", "b/c"), ("ab", "c"), ("a", "bc"), ("a%2Fb", "c")];
        let keys: std::collections::BTreeSet<_> =
            same.iter().map(|(name, id)| key(&space, name, id)).collect();
        assert_eq!(keys.len(), same.len());
        for (name, id) in same {
            let key = space.key(&instance(name, id));
            assert_eq!(space.service_in(&key, b"").unwrap().as_str(), name);
            assert_eq!(space.id_in(&key), id);
        }
    }

    #[test]
    fn go_micros_keys_are_those_that_it_writes() {
        let space = KeySpace::new(Layout::GoMicro, "");
        assert_eq!(key(&space, "go.micro.srv/x", "x-1/2"), "/micro/registry/go.micro.srv-x/x-1-2");
        assert_eq!(KeySpace::new(Layout::GoMicro, "other/").root(), b"/other/");
    }

    #[test]
    fn of_two_services_whose_keys_look_the_same_each_finds_its_own() {
        let space = KeySpace::new(Layout::GoMicro, "");
        let value = space.encode(&instance("a/b", "7"));
        assert!(matches!(space.decode(&"a/b".parse().unwrap(), &value), Entry::Instance(_)));
        assert_eq!(space.decode(&"a-b".parse().unwrap(), &value), Entry::OfAnother);
    }

    #[test]
    fn instances_read_back_as_they_were_written() {
        let full = instance("a/b", "7").version("2.1").weight(3).zone("eu-1").with("k", "v");
        for layout in [Layout::Tidegate, Layout::GoMicro] {
            let space = KeySpace::new(layout, "");
            let read = space.decode(&full.service, &space.encode(&full));
            assert_eq!(read, Entry::Instance(Arc::new(full.clone())), "{layout}");
            let name = space.service_in(&space.key(&full), &space.encode(&full));
            assert_eq!(name, Some(full.service.clone()));
        }
    }

    #[test]
    fn values_that_are_no_instances_are_named_and_nothing_more() {
        let service = "a".parse().unwrap();
        for layout in [Layout::Tidegate, Layout::GoMicro] {
            let space = KeySpace::new(layout, "");
            let deep = "[".repeat(100_000);
            for value in [
                "",
                "null",
                "{}",
                "[]",
                "\0\u{1}",
                "{\"service\":\"a\"}",
                &deep,
                r#"{"name":"a","nodes":null}"#,
                r#"{"name":"a","nodes":[{"id":"7","address":"nowhere"}]}"#,
                r#"{"service":"a","id":"7","address":"10.0.0.7:0"}"#,
            ] {
                let read = space.decode(&service, value.as_bytes());
                assert!(matches!(&read, Entry::Malformed(why) if !why.is_empty()), "{layout} {read:?}");
            }
            assert!(matches!(space.decode(&service, b"\xff\xfe"), Entry::Malformed(_)));
        }
    }

    #[test]
    fn an_unknown_layout_is_named_with_those_there_are() {
        assert_eq!("go-micro".parse(), Ok(Layout::GoMicro));
        let error = "consul".parse::<Layout>().unwrap_err().to_string();
        assert_eq!(error, "`consul` is no layout of a registry; write tidegate or go-micro");
    }
}
