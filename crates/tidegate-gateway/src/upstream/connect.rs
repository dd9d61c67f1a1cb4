//! Opening a byte stream to an endpoint: name, addresses, TCP, TLS, all within one time limit.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use super::{
    error::{ConnectError, Unsent},
    stream::Io,
    tls::{ClientTls, Offer},
};

/// The head start of one address over the next (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Silence after which the kernel probes a peer, and between probes; three unanswered ones end the connection. A host
/// that vanished is found in 30 s without a word that a gRPC server would count as a ping too many.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// Where an endpoint is, and how to reach it.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) host: String,
    pub(super) port: u16,
    /// The address, when the host is one.
    pub(super) address: Option<SocketAddr>,
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) timeout: Duration,
}

/// What the TLS handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    /// Nothing was said about a protocol.
    Nothing,
    Http1,
    Http2,
}

impl Connector {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the name does not resolve, no address answers, TLS fails, or `timeout` passes first.
    ///
    /// # Cancel safety
    /// Dropping the future closes whatever was opened.
    pub(super) async fn connect(&self, offer: Offer) -> Result<(Io, Agreed), ConnectError> {
        let tcp = self.tcp().await?;
        let Some(tls) = &self.tls else { return Ok((Io::Plain(tcp), Agreed::Nothing)) };
        let name = match tls.server_name() {
            Some(name) => name.clone(),
            None => ServerName::try_from(self.host.clone())
                .map_err(|error| ConnectError::new(Unsent::Tls, error))?,
        };
        let stream = TlsConnector::from(tls.offering(offer))
            .connect(name, tcp)
            .await
            .map_err(|error| ConnectError::new(Unsent::Tls, error))?;
        let agreed = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Agreed::Http2,
            Some(_) => Agreed::Http1,
            None => Agreed::Nothing,
        };
        Ok((Io::Tls(Box::new(stream)), agreed))
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let stream = match self.address {
            Some(address) => TcpStream::connect(address).await.map_err(|error| self.refused(error)),
            None => {
                let found = tokio::net::lookup_host((self.host.as_str(), self.port))
                    .await
                    .map_err(|error| ConnectError::new(Unsent::Dns, error))?;
                self.first(alternating(found.collect())).await
            }
        }?;
        let set = |error| self.refused(error);
        stream.set_nodelay(true).map_err(set)?;
        let probes =
            TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&probes).map_err(set)?;
        Ok(stream)
    }

    /// Tries addresses in order, each with a head start over the next; the first that answers wins.
    async fn first(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, ConnectError> {
        let mut left = addresses.into_iter();
        let mut trying = FuturesUnordered::new();
        let mut last = ConnectError::new(Unsent::Dns, format!("{} has no address", self.host));
        trying.extend(left.next().map(TcpStream::connect));
        loop {
            if trying.is_empty() {
                return Err(last);
            }
            let next = async {
                if left.len() == 0 {
                    std::future::pending().await
                } else {
                    time::sleep(HEAD_START).await;
                }
            };
            tokio::select! {
                Some(result) = trying.next() => match result {
                    Ok(stream) => return Ok(stream),
                    Err(error) => {
                        last = self.refused(error);
                        trying.extend(left.next().map(TcpStream::connect));
                    }
                },
                () = next => trying.extend(left.next().map(TcpStream::connect)),
            }
        }
    }

    fn refused(&self, error: io::Error) -> ConnectError {
        ConnectError::new(
            Unsent::Connect,
            io::Error::new(error.kind(), format!("{}:{}: {error}", self.host, self.port)),
        )
    }
}

/// Sorts addresses so that the two families alternate, beginning with the one that the resolver put first.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let total = addresses.len();
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut sorted = Vec::with_capacity(total);
    while sorted.len() < total {
        sorted.extend(first.next());
        sorted.extend(second.next());
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let sorted = alternating(vec![
            address("[::1]:1"),
            address("[::2]:1"),
            address("[::3]:1"),
            address("10.0.0.1:1"),
        ]);
        let expected = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"];
        assert_eq!(sorted, expected.map(address));
    }
}
