//! Which Redis, or which several, a URL means.

use std::{fmt, str::FromStr};

use tidegate::{Credentials, InvalidServerUrl, Server, ServerUrl};

/// Where a Redis or Valkey store is and how to log in. `Display` prints it with the password as `***`.
///
/// | URL | store |
/// |---|---|
/// | `redis://[user:pass@]host[:6379][/0]` | one server |
/// | `redis-cluster://[user:pass@]a:7000,b:7000` | a cluster, found through these nodes |
/// | `redis-sentinel://[user:pass@]a:26379,b:26379/master[/0]` | the server that these sentinels call `master` |
///
/// With `rediss` for `redis`, over TLS.
///
/// # Examples
/// ```
/// use tidegate_redis::StoreUrl;
///
/// let url: StoreUrl = "rediss://app:hunter2@cache.example/3".parse()?;
/// assert!(url.tls);
/// assert_eq!(url.to_string(), "rediss://app:***@cache.example:6379/3");
/// # Ok::<(), tidegate_redis::InvalidStoreUrl>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// The servers and how they belong together.
    pub topology: Topology,
    /// Whether connections are over TLS.
    pub tls: bool,
    /// Who logs in; none on a server without ACL.
    pub credentials: Option<Credentials>,
    shown: String,
}

/// How the servers of a store belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Standalone {
        /// The server.
        server: Server,
        /// The number of the database.
        database: u32,
    },
    /// A cluster.
    Cluster {
        /// Nodes to ask first, at least one.
        nodes: Vec<Server>,
    },
    /// A server that sentinels watch.
    Sentinel {
        /// The sentinels, at least one.
        sentinels: Vec<Server>,
        /// The name under which they know it.
        master: String,
        /// The number of the database.
        database: u32,
    },
}

/// What is wrong with a store's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStoreUrl {
    /// The URL itself.
    #[error(transparent)]
    Url(#[from] InvalidServerUrl),
    /// No store has this scheme.
    #[error(
        "no store has the scheme `{}`; write redis, rediss, redis-cluster, rediss-cluster, redis-sentinel or \
         rediss-sentinel",
        .0.escape_debug()
    )]
    Scheme(String),
    /// Several servers under `redis://`.
    #[error("redis:// takes one server; write redis-cluster:// or redis-sentinel:// for several")]
    OneServer,
    /// The database is not a number.
    #[error("`{}` is not a database; write its number, like redis://host:6379/0", .0.escape_debug())]
    Database(String),
    /// A cluster's URL has a path.
    #[error("a cluster has no databases; remove the path")]
    ClusterPath,
    /// Sentinels without the name of what they watch.
    #[error("the name of the master is missing; write redis-sentinel://host:26379/NAME")]
    Master,
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let sentinel = scheme.is_some_and(|scheme| scheme.ends_with("-sentinel"));
        let url = ServerUrl::parse(text, if sentinel { 26379 } else { 6379 })?;
        let path = url.path().strip_prefix('/').unwrap_or(url.path());
        let (topology, tls) = match url.scheme() {
            scheme @ ("redis" | "rediss") => match url.servers() {
                [server] => {
                    let database = parse_database(path)?;
                    (Topology::Standalone { server: server.clone(), database }, scheme == "rediss")
                }
                _ => return Err(InvalidStoreUrl::OneServer),
            },
            scheme @ ("redis-cluster" | "rediss-cluster") => {
                if !path.is_empty() {
                    return Err(InvalidStoreUrl::ClusterPath);
                }
                (Topology::Cluster { nodes: url.servers().to_vec() }, scheme == "rediss-cluster")
            }
            scheme @ ("redis-sentinel" | "rediss-sentinel") => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(InvalidStoreUrl::Master);
                }
                let topology = Topology::Sentinel {
                    sentinels: url.servers().to_vec(),
                    master: master.to_owned(),
                    database: parse_database(database)?,
                };
                (topology, scheme == "rediss-sentinel")
            }
            other => return Err(InvalidStoreUrl::Scheme(other.to_owned())),
        };
        Ok(Self { topology, tls, credentials: url.credentials().cloned(), shown: url.to_string() })
    }
}

fn parse_database(text: &str) -> Result<u32, InvalidStoreUrl> {
    match text {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| InvalidStoreUrl::Database(text.to_owned()))
        }
        _ => Err(InvalidStoreUrl::Database(text.to_owned())),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, port: u16) -> Server {
        Server { host: host.into(), port }
    }

    #[test]
    fn one_server_is_read_with_its_database() {
        for (text, port, database, tls) in [
            ("redis://host", 6379, 0, false),
            ("redis://host/", 6379, 0, false),
            ("redis://host:6380/15", 6380, 15, false),
            ("rediss://host/2", 6379, 2, true),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(
                url.topology,
                Topology::Standalone { server: server("host", port), database },
                "{text}"
            );
            assert_eq!((url.tls, url.credentials), (tls, None), "{text}");
        }
    }

    #[test]
    fn a_cluster_is_read_by_its_nodes() {
        let url: StoreUrl = "rediss-cluster://:pw@a:7000,b:7001,c".parse().unwrap();
        let nodes = vec![server("a", 7000), server("b", 7001), server("c", 6379)];
        assert_eq!(url.topology, Topology::Cluster { nodes });
        assert!(url.tls);
        let credentials = url.credentials.as_ref().unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("", "pw"));
        assert_eq!(url.to_string(), "rediss-cluster://:***@a:7000,b:7001,c:6379");
    }

    #[test]
    fn sentinels_are_read_with_their_master() {
        for (text, database) in
            [("redis-sentinel://s1,s2:26380/cache", 0), ("redis-sentinel://s1,s2:26380/cache/4", 4)]
        {
            let url: StoreUrl = text.parse().unwrap();
            let sentinels = vec![server("s1", 26379), server("s2", 26380)];
            assert_eq!(url.topology, Topology::Sentinel { sentinels, master: "cache".into(), database });
        }
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong() {
        use InvalidStoreUrl as Wrong;
        for (text, wrong) in [
            ("redis", Wrong::Url(InvalidServerUrl::Scheme)),
            ("postgres://host/db", Wrong::Scheme("postgres".into())),
            ("redis://a,b", Wrong::OneServer),
            ("redis://host/zero", Wrong::Database("zero".into())),
            ("redis://host/+1", Wrong::Database("+1".into())),
            ("redis://host/0/1", Wrong::Database("0/1".into())),
            ("redis://host/99999999999", Wrong::Database("99999999999".into())),
            ("redis-cluster://a/0", Wrong::ClusterPath),
            ("redis-sentinel://a", Wrong::Master),
            ("redis-sentinel://a/", Wrong::Master),
            ("redis-sentinel://a/m/x", Wrong::Database("x".into())),
            ("redis://u:p/w@host", Wrong::Url(InvalidServerUrl::RawPassword)),
        ] {
            assert_eq!(text.parse::<StoreUrl>(), Err(wrong), "{text}");
        }
    }

    #[test]
    fn no_error_and_no_print_holds_the_password() {
        for text in [
            "redis://u:hunter2@host",
            "redis://u:hunter2@host/x",
            "redis://u:hunter2@a,b",
            "redis://u:hunter2@:1",
            "redis://u:hunter2%@host",
            "redis://u:hunter2/@host",
            "mysql://u:hunter2@host",
            "redis-cluster://u:hunter2@h/1",
        ] {
            let shown = match text.parse::<StoreUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(wrong) => format!("{wrong} {wrong:?}"),
            };
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
