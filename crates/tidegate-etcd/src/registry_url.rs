//! Which registry a URL means.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use tidegate::{Credentials, InvalidServerUrl, Server, ServerUrl};

/// What stands for the service in a name, and what it is taken for when the name is checked.
const SERVICE: &str = "{service}";
const A_LABEL: &str = "service";

/// Where services are looked up. `Display` prints it with the password as `***`.
///
/// | URL | registry |
/// |---|---|
/// | `etcd://[user:pass@]a:2379,b:2379/prefix/` | etcd; `etcds://` over TLS |
/// | `file:services.yaml` | a file |
/// | `dns:orders.example:9001` | the addresses of a name, on one port; `{service}` in the name stands for the service |
/// | `srv:_http._tcp.orders.example` | SRV records, as the system's servers of names know them; `{service}` in the name stands for the service |
/// | `srv://10.0.0.2:8600/_orders._tcp.service.consul` | the same, as these servers know them |
///
/// # Examples
/// ```
/// use tidegate_etcd::RegistryUrl;
///
/// let url: RegistryUrl = "etcd://gate:hunter2@10.0.0.1,10.0.0.2/tidegate/".parse()?;
/// assert_eq!(url.to_string(), "etcd://gate:***@10.0.0.1:2379,10.0.0.2:2379/tidegate/");
/// # Ok::<(), tidegate_etcd::InvalidRegistryUrl>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryUrl {
    /// etcd v3.
    Etcd {
        /// Members to ask, at least one.
        members: Vec<Server>,
        /// The prefix of every key, with its last slash and without the first; may be empty.
        prefix: String,
        /// Whether connections are over TLS.
        tls: bool,
        /// Who logs in, if authentication is on.
        credentials: Option<Credentials>,
    },
    /// A file that lists services.
    File(PathBuf),
    /// The addresses of a name, in which `{service}` stands for the service.
    Dns(Server),
    /// The SRV records of a name.
    Srv {
        /// The name; `{service}` stands for the service.
        name: String,
        /// Who is asked; nobody: the system's servers.
        servers: Vec<SocketAddr>,
    },
}

/// What is wrong with a registry's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistryUrl {
    /// The URL itself.
    #[error(transparent)]
    Url(#[from] InvalidServerUrl),
    /// No registry has this scheme.
    #[error("no registry has this scheme; write etcd://, etcds://, file:, dns: or srv:")]
    Scheme,
    /// `file:` without a path.
    #[error("the path is missing; write file:PATH")]
    Path,
    /// `dns:` without a name and a port.
    #[error("a name and a port are missing; write dns:NAME:PORT, like dns:orders.example:9001")]
    Dns,
    /// `srv:` without a name.
    #[error("the name is missing or is not one; write srv:NAME, like srv:_http._tcp.orders.example")]
    Srv,
    /// `srv://` with a server that is no IP address.
    #[error(
        "`{0}` is no server of names; write IP addresses, like srv://10.0.0.2:8600/_orders._tcp.service.consul"
    )]
    SrvServer(String),
}

impl FromStr for RegistryUrl {
    type Err = InvalidRegistryUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRegistryUrl> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidRegistryUrl::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            scheme @ ("etcd" | "etcds") => {
                let url = ServerUrl::parse(text, 2379)?;
                let prefix = url.path().trim_matches('/');
                Ok(Self::Etcd {
                    members: url.servers().to_vec(),
                    prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
                    tls: scheme == "etcds",
                    credentials: url.credentials().cloned(),
                })
            }
            "file" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(InvalidRegistryUrl::Path),
                path => Ok(Self::File(path.into())),
            },
            "dns" => {
                let wrong = InvalidRegistryUrl::Dns;
                if rest.is_empty() || rest.starts_with('/') || rest.contains(['@', '/']) {
                    return Err(wrong);
                }
                let url = format!("dns://{}", rest.replace(SERVICE, A_LABEL));
                match (ServerUrl::parse(&url, 0)?.servers(), rest.rsplit_once(':')) {
                    ([server], Some((name, _))) if server.port > 0 && name.contains(SERVICE) => {
                        Ok(Self::Dns(Server { host: name.to_ascii_lowercase(), port: server.port }))
                    }
                    ([server], _) if server.port > 0 => Ok(Self::Dns(server.clone())),
                    _ => Err(wrong),
                }
            }
            "srv" => {
                let (servers, name) = match rest.strip_prefix("//") {
                    Some(rest) => rest.split_once('/').ok_or(InvalidRegistryUrl::Srv)?,
                    None => ("", rest),
                };
                let label = |label: &str| {
                    let label = label.replace(SERVICE, A_LABEL);
                    !label.is_empty()
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                };
                if !name.trim_end_matches('.').split('.').all(label) {
                    return Err(InvalidRegistryUrl::Srv);
                }
                let servers = if rest.starts_with("//") {
                    servers.split(',').map(name_server).collect::<Result<_, _>>()?
                } else {
                    Vec::new()
                };
                Ok(Self::Srv { name: name.to_ascii_lowercase(), servers })
            }
            _ => Err(InvalidRegistryUrl::Scheme),
        }
    }
}

/// A server of names: an address, and a port unless it is the usual one.
fn name_server(text: &str) -> Result<SocketAddr, InvalidRegistryUrl> {
    let alone = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let socket = text.parse::<SocketAddr>().or_else(|_| alone().map(|ip| SocketAddr::new(ip, 53)));
    socket.ok().filter(|socket| socket.port() > 0).ok_or_else(|| {
        // What stands before an @ may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        InvalidRegistryUrl::SrvServer(shown.chars().take(80).collect())
    })
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd { members, prefix, tls, credentials } => {
                f.write_str(if *tls { "etcds://" } else { "etcd://" })?;
                if let Some(Credentials { user, .. }) = credentials {
                    write!(f, "{}:***@", user.escape_debug())?;
                }
                for (n, member) in members.iter().enumerate() {
                    write!(f, "{}{member}", if n > 0 { "," } else { "" })?;
                }
                write!(f, "/{prefix}")
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Dns(server) => write!(f, "dns:{server}"),
            Self::Srv { name, servers } if servers.is_empty() => write!(f, "srv:{name}"),
            Self::Srv { name, servers } => {
                let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
                write!(f, "srv://{}/{name}", servers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_printed_in_full() {
        for (text, shown) in [
            ("etcd://h", "etcd://h:2379/"),
            ("etcds://a:1,b:2/x/y", "etcds://a:1,b:2/x/y/"),
            ("etcd://u:p@[::1]/tidegate/", "etcd://u:***@[::1]:2379/tidegate/"),
            ("file:services.yaml", "file:services.yaml"),
            ("file:///etc/services.yaml", "file:/etc/services.yaml"),
            ("dns:orders.example:9001", "dns:orders.example:9001"),
            ("dns:{service}.Internal.example:9001", "dns:{service}.internal.example:9001"),
            ("srv:_http._tcp.orders.example", "srv:_http._tcp.orders.example"),
            ("srv:_{service}._tcp.Example.", "srv:_{service}._tcp.example."),
            ("srv://10.0.0.2,[::1]:8600/_a._tcp.b", "srv://10.0.0.2:53,[::1]:8600/_a._tcp.b"),
        ] {
            let url: RegistryUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong_without_the_password() {
        use InvalidRegistryUrl as Wrong;
        for (text, wrong) in [
            ("", Wrong::Scheme),
            ("consul://h", Wrong::Scheme),
            ("etcd:h", Wrong::Url(InvalidServerUrl::Scheme)),
            ("etcd://", Wrong::Url(InvalidServerUrl::NoHost)),
            ("etcd://u:p/w@h", Wrong::Url(InvalidServerUrl::RawPassword)),
            ("file:", Wrong::Path),
            ("dns:orders", Wrong::Dns),
            ("dns:a:1,b:2", Wrong::Dns),
            ("dns:", Wrong::Dns),
            ("dns:{service}", Wrong::Dns),
            ("dns:{services}:1", Wrong::Url(InvalidServerUrl::Host("{services}:1".into()))),
            ("dns:orders:x", Wrong::Url(InvalidServerUrl::Port("x".into()))),
            ("srv:", Wrong::Srv),
            ("srv:a..b", Wrong::Srv),
            ("srv:{services}", Wrong::Srv),
            ("srv://10.0.0.2", Wrong::Srv),
            ("srv://10.0.0.2/", Wrong::Srv),
            ("srv:///a", Wrong::SrvServer(String::new())),
            ("srv://consul:8600/a", Wrong::SrvServer("consul:8600".into())),
            ("srv://u:hunter2@h/a", Wrong::SrvServer("h".into())),
        ] {
            assert_eq!(text.parse::<RegistryUrl>(), Err(wrong), "{text}");
        }
        let url: RegistryUrl = "etcd://u:hunter2@h".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }
}
