//! The network of a client's address: what one subscriber holds is one key.

use std::{net::IpAddr, str::FromStr};

use super::InvalidExtractor;

/// How many leading bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Networks {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

impl Default for Networks {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl Networks {
    /// Feeds the network of an address: of a different length for each family, so that no IPv4 network is an IPv6 one.
    pub(super) fn feed(self, address: IpAddr, mut sink: impl FnMut(Option<&[u8]>)) {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let network = ip.to_bits() & u32::MAX.unbounded_shl(32 - u32::from(self.v4));
                sink(Some(&network.to_be_bytes()));
            }
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & u128::MAX.unbounded_shl(128 - u32::from(self.v6));
                sink(Some(&network.to_be_bytes()));
            }
        }
    }
}

impl FromStr for Networks {
    type Err = InvalidExtractor;

    /// Reads `24`, `48` or `24/48`: a length up to 32 alone is that of IPv4, a longer one that of IPv6.
    fn from_str(text: &str) -> Result<Self, InvalidExtractor> {
        let length = |text: &str| match text.parse() {
            Ok(length @ 1_u8..=128) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(length),
            _ => Err(InvalidExtractor::Network),
        };
        let networks = match text.split_once('/') {
            Some((v4, v6)) => Self { v4: length(v4)?, v6: length(v6)? },
            None => match length(text)? {
                v4 @ 0..=32 => Self { v4, ..Self::default() },
                v6 => Self { v6, ..Self::default() },
            },
        };
        if networks.v4 > 32 { Err(InvalidExtractor::Network) } else { Ok(networks) }
    }
}
