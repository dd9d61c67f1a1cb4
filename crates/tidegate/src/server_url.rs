//! URLs that name one or several servers, with a password that never shows: `redis-cluster://user:pass@a:7000,b:7000`.

use std::{borrow::Cow, fmt, net::Ipv6Addr};

use crate::Secret;

/// `scheme://[user:password@]host[:port][,host[:port]…][/path]`, read strictly.
///
/// `Display` prints it with the password as `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    scheme: String,
    credentials: Option<Credentials>,
    servers: Vec<Server>,
    path: String,
}

/// Who logs in. An empty user is the server's default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is wrong with a URL of servers. No variant holds what may be a part of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidServerUrl {
    /// There is no `scheme://`.
    Scheme,
    /// A `/`, `?` or `#` stands before an `@`: most likely a raw character of the password.
    RawPassword,
    /// The user or the password has a `%` that two hexadecimal digits do not follow, or is no UTF-8.
    Escape,
    /// A user without a password.
    NoPassword,
    /// There is no host, or one of several is empty.
    NoHost,
    /// This is no host.
    Host(String),
    /// This is no port.
    Port(String),
    /// There is a query or a fragment.
    Query,
}

impl fmt::Display for InvalidServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("not a URL; begin with a scheme, like redis://host:6379"),
            Self::RawPassword => f.write_str(
                "the password has a raw / ? or #; write it percent-encoded, like %2F for / and %23 for #",
            ),
            Self::Escape => {
                f.write_str("the user or the password has a % that begins no escape; write % itself as %25")
            }
            Self::NoPassword => {
                f.write_str("there is a user without a password; write user:password@ or :password@")
            }
            Self::NoHost => f.write_str("a host is missing; write host or host:port"),
            Self::Host(host) => {
                write!(
                    f,
                    "`{}` is not a host; write a name or an address, IPv6 in brackets",
                    host.escape_debug()
                )
            }
            Self::Port(port) => {
                write!(f, "`{}` is not a port; write a number from 1 to 65535", port.escape_debug())
            }
            Self::Query => {
                f.write_str("a query or a fragment has no meaning here; remove what follows ? or #")
            }
        }
    }
}

impl std::error::Error for InvalidServerUrl {}

impl ServerUrl {
    /// Reads a URL; servers without a port get `default_port`.
    ///
    /// # Errors
    /// [`InvalidServerUrl`] says what is wrong, never with a part of the password.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidServerUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidServerUrl::Scheme)?;
        let well_formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !well_formed {
            return Err(InvalidServerUrl::Scheme);
        }
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        if tail.contains('@') {
            return Err(InvalidServerUrl::RawPassword);
        }
        if tail.contains(['?', '#']) {
            return Err(InvalidServerUrl::Query);
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(parse_credentials(credentials)?), hosts),
            None => (None, authority),
        };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            credentials,
            servers: hosts
                .split(',')
                .map(|host| parse_server(host, default_port))
                .collect::<Result<_, _>>()?,
            path: tail.to_owned(),
        })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Who logs in, if anyone.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The servers, at least one.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// What follows the servers: empty, or a text that begins with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Reads `host[:port]`, the host in lower case.
fn parse_server(text: &str, default_port: u16) -> Result<Server, InvalidServerUrl> {
    if text.is_empty() {
        return Err(InvalidServerUrl::NoHost);
    }
    let wrong = || InvalidServerUrl::Host(text.into());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']').ok_or_else(wrong)?;
            ip.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            match port.strip_prefix(':') {
                Some(port) => (ip, Some(port)),
                None if port.is_empty() => (ip, None),
                None => return Err(wrong()),
            }
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if host.is_empty() {
                return Err(InvalidServerUrl::NoHost);
            }
            let named = host.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            });
            if !named || port.is_some_and(|port| port.contains(':')) {
                return Err(wrong());
            }
            (host, port)
        }
    };
    let port = match port {
        None => default_port,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|port| *port > 0 && digits.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| InvalidServerUrl::Port(digits.into()))?,
    };
    Ok(Server { host: host.to_ascii_lowercase(), port })
}

fn parse_credentials(text: &str) -> Result<Credentials, InvalidServerUrl> {
    let (user, password) = text.split_once(':').ok_or(InvalidServerUrl::NoPassword)?;
    if password.is_empty() {
        return Err(InvalidServerUrl::NoPassword);
    }
    Ok(Credentials { user: percent_decoded(user)?, password: Secret::new(percent_decoded(password)?) })
}

fn percent_decoded(text: &str) -> Result<String, InvalidServerUrl> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(InvalidServerUrl::Escape),
                }
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map_err(|_| InvalidServerUrl::Escape)
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(Credentials { user, .. }) = &self.credentials {
            write!(f, "{}:***@", user.escape_debug())?;
        }
        for (n, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if n > 0 { "," } else { "" })?;
        }
        f.write_str(&self.path)
    }
}

/// Replaces what stands between `://` and the last `@` of a text, but for the user's name, by `***`: for texts that may
/// be URLs and may be wrong.
pub fn redacted_url(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return Cow::Borrowed(text) };
    let Some((secret, shown)) = rest.rsplit_once('@') else { return Cow::Borrowed(text) };
    let user = secret.split_once(':').map_or("", |(user, _)| user);
    let colon = if secret.contains(':') { ":" } else { "" };
    Cow::Owned(format!("{scheme}://{user}{colon}***@{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ServerUrl, InvalidServerUrl> {
        ServerUrl::parse(text, 6379)
    }

    #[test]
    fn servers_credentials_and_path_are_read() {
        let url = parse("Redis://app:p%40ss%2F@Cache-1.example:7000,10.0.0.2,[::1]:7001/0").unwrap();
        assert_eq!(url.scheme(), "redis");
        assert_eq!(url.credentials().map(|c| (c.user.as_str(), c.password.expose())), Some(("app", "p@ss/")));
        let servers: Vec<String> = url.servers().iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["cache-1.example:7000", "10.0.0.2:6379", "[::1]:7001"]);
        assert_eq!(url.path(), "/0");
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = parse("redis://app:hunter2@host/1").unwrap();
        assert_eq!(url.to_string(), "redis://app:***@host:6379/1");
        assert!(!format!("{url:?}").contains("hunter2"));
        for (text, shown) in [
            ("redis://app:hunter2@host:6379/0", "redis://app:***@host:6379/0"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("redis://hunter2@host", "redis://***@host"),
            ("redis://app:hun/ter@2@host", "redis://app:***@host"),
            ("redis://host", "redis://host"),
            ("hunter2", "hunter2"),
        ] {
            assert_eq!(redacted_url(text), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        use InvalidServerUrl as Wrong;
        for (text, wrong) in [
            ("localhost:6379", Wrong::Scheme),
            ("://host", Wrong::Scheme),
            ("re dis://host", Wrong::Scheme),
            ("redis://", Wrong::NoHost),
            ("redis://a,,b", Wrong::NoHost),
            ("redis://:6379", Wrong::NoHost),
            ("redis://a b", Wrong::Host("a b".into())),
            ("redis://::1", Wrong::NoHost),
            ("redis://fe80::1", Wrong::Host("fe80::1".into())),
            ("redis://[::1", Wrong::Host("[::1".into())),
            ("redis://[::1]6379", Wrong::Host("[::1]6379".into())),
            ("redis://host:", Wrong::Port(String::new())),
            ("redis://host:0", Wrong::Port("0".into())),
            ("redis://host:+1", Wrong::Port("+1".into())),
            ("redis://host:70000", Wrong::Port("70000".into())),
            ("redis://u:p/w@host", Wrong::RawPassword),
            ("redis://u:p#w@host", Wrong::RawPassword),
            ("redis://u:100%@host", Wrong::Escape),
            ("redis://u:%ff@host", Wrong::Escape),
            ("redis://user@host", Wrong::NoPassword),
            ("redis://user:@host", Wrong::NoPassword),
            ("redis://host/0?db=1", Wrong::Query),
        ] {
            assert_eq!(parse(text), Err(wrong), "{text}");
        }
    }
}
