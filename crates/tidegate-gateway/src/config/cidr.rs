//! Networks as `10.0.0.0/8`.

use std::{fmt, net::IpAddr, str::FromStr};

/// A network of IPv4 or IPv6 addresses. An address alone is a network of one.
///
/// IPv4 addresses mapped into IPv6, like `::ffff:10.0.0.1`, count as what they map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// What is wrong with a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCidr {
    /// Not `ADDRESS/LENGTH`.
    #[error("not a network; write an address and the length of its prefix, like 10.0.0.0/8 or fd00::/8")]
    Shape,
    /// The prefix is longer than the address.
    #[error("the prefix is longer than the address; write at most /32 for IPv4 and /128 for IPv6")]
    Length,
    /// The address has bits behind the prefix.
    #[error("the address has bits behind its prefix; write {0}")]
    HostBits(Cidr),
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidCidr::Shape)?;
        let most = bits(address).1;
        let length = match length {
            None => most,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|length| *length <= most).ok_or(InvalidCidr::Length)?
            }
            Some(_) => return Err(InvalidCidr::Shape),
        };
        let cidr = Self { network: network(address, length), length };
        if cidr.network == address { Ok(cidr) } else { Err(InvalidCidr::HostBits(cidr)) }
    }
}

impl Cidr {
    /// Whether this is every address of its kind.
    pub fn is_everything(&self) -> bool {
        self.length == 0
    }

    /// Whether `address` is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && network(address, self.length) == self.network
    }
}

/// The address as a number, at the high end, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

/// The address without what is behind the prefix.
fn network(address: IpAddr, length: u8) -> IpAddr {
    let mask = !u128::MAX.checked_shr(length.into()).unwrap_or(0);
    let kept = bits(address).0 & mask;
    match address {
        IpAddr::V4(_) => IpAddr::V4(((kept >> 96) as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(kept.into()),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (cidr, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::a00:1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.6"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1/128", "::1", "::2"),
        ] {
            let cidr: Cidr = cidr.parse().unwrap();
            assert!(cidr.contains(inside.parse().unwrap()), "{cidr} {inside}");
            assert!(!cidr.contains(outside.parse().unwrap()), "{cidr} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_says_why() {
        for (text, wrong) in [
            ("", InvalidCidr::Shape),
            ("10.0.0/8", InvalidCidr::Shape),
            ("10.0.0.0/", InvalidCidr::Shape),
            ("10.0.0.0/+8", InvalidCidr::Shape),
            ("10.0.0.0/33", InvalidCidr::Length),
            ("::/129", InvalidCidr::Length),
            ("10.0.0.0/999", InvalidCidr::Length),
            ("10.1.0.0/8", InvalidCidr::HostBits("10.0.0.0/8".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(wrong), "{text}");
        }
    }
}
