//! Where an instance listens.

use std::{fmt, net::Ipv6Addr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// `[scheme://]host:port`. Without a scheme, whoever calls decides how; `http` and `https` bring their port.
///
/// ```
/// use tidegate::registry::Address;
///
/// let address: Address = "http://[::1]:9001".parse()?;
/// assert_eq!((address.scheme(), address.host(), address.port()), (Some("http"), "::1", 9001));
/// # Ok::<(), tidegate::registry::InvalidAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: Arc<str>,
    /// Where the host begins and ends, brackets excluded.
    host: (u16, u16),
    port: u16,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    /// The address, cut to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no address: {}; write [SCHEME://]HOST:PORT, like 10.0.0.7:9001",
            self.text, self.why
        )
    }
}

impl std::error::Error for InvalidAddress {}

impl Address {
    /// The most bytes an address may have.
    pub const LONGEST: usize = 512;

    /// Reads an address.
    ///
    /// # Errors
    /// [`InvalidAddress`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        read(text).map_err(|why| InvalidAddress { text: text.chars().take(80).collect(), why })
    }

    /// The address as it was written, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme, if there is one.
    pub fn scheme(&self) -> Option<&str> {
        self.text.split_once("://").map(|(scheme, _)| scheme)
    }

    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.text[usize::from(self.host.0)..usize::from(self.host.1)]
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn read(text: &str) -> Result<Address, &'static str> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.len() > Address::LONGEST {
        return Err("it is longer than 512 bytes");
    }
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    if scheme.is_some_and(|scheme| {
        !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    }) {
        return Err("the scheme is none");
    }
    let start = text.len() - rest.len();
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or("a bracket is open")?;
        host.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address stands in the brackets")?;
        ((start + 1, start + 1 + host.len()), if port.is_empty() { None } else { Some(port) })
    } else {
        let (host, port) =
            rest.split_once(':').map_or((rest, None), |(host, _)| (host, Some(&rest[host.len()..])));
        if host.is_empty() {
            return Err("the host is missing");
        }
        if !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            return Err("the host has a character that no host has");
        }
        ((start, start + host.len()), port)
    };
    let port = match (port, scheme) {
        (Some(port), _) => {
            let digits = port.strip_prefix(':').ok_or("something stands between host and port")?;
            let digits = (!digits.starts_with('+')).then_some(digits).ok_or("the port is none")?;
            digits.parse().ok().filter(|port| *port != 0).ok_or("the port is not between 1 and 65535")?
        }
        (None, Some("http")) => 80,
        (None, Some("https")) => 443,
        (None, _) => return Err("the port is missing"),
    };
    let narrow = |at: usize| u16::try_from(at).expect("an address has at most 512 bytes");
    Ok(Address { text: text.into(), host: (narrow(host.0), narrow(host.1)), port })
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        (*address.text).to_owned()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_their_parts() {
        for (text, scheme, host, port) in [
            ("10.0.0.7:9001", None, "10.0.0.7", 9001),
            ("[::1]:80", None, "::1", 80),
            ("http://[fe80::1]:80/", Some("http"), "fe80::1", 80),
            ("https://orders.example", Some("https"), "orders.example", 443),
            ("grpc://a_b-c:1", Some("grpc"), "a_b-c", 1),
            ("http://[::1]", Some("http"), "::1", 80),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.scheme(), address.host(), address.port()), (scheme, host, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_named_with_the_remedy() {
        let long = "x".repeat(600);
        for text in [
            "", ":80", "a:0", "a:65536", "a:+1", "a b:1", "a", "[::1", "[x]:1", "[::1]x:1", "1x://a:1",
            "a:1/x", "a:1:2", "user@a:1", "a:", &long,
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.ends_with("write [SCHEME://]HOST:PORT, like 10.0.0.7:9001"), "{text}: {error}");
        }
    }
}
