//! One long-lived stream that renews the lease, reopened when it breaks, until the lease is given up or lost.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    Client, Error, ErrorKind,
    client::stamped,
    error::{Fault, told},
    login::Stamp,
    pace::{Backoff, about},
    proto::{LeaseKeepAliveRequest, lease_client::LeaseClient},
};

/// A lease as etcd granted it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
    pub(super) ttl: Duration,
    /// When it ends unless it is renewed, by our clock: counted from when the request was sent.
    pub(super) ends: Instant,
}

/// What becomes of the lease meanwhile.
pub(super) enum Beat<'a> {
    /// Renewed.
    Alive,
    /// Not renewed for longer than it lives; etcd may be down, and will tell.
    Late(&'a Error),
}

/// How a stream ended.
enum End {
    /// etcd says that the lease is no more.
    Lost,
    /// The token was refused: newer versions renew with a valid one only.
    Refused(Stamp),
    Broke(Error),
}

/// However short a lease is, an answer may take this long.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// Longest time until the login that a refused stream waits for; logins may be spread over minutes.
const LOGIN_WAIT: Duration = Duration::from_secs(900);

/// Renews the lease at about a third of its life. Returns when etcd says that the lease is no more.
///
/// A stream that breaks is opened again, with backoff and jitter; it takes a login only where etcd demands one. While
/// nothing succeeds, pauses and patience grow with what is left of the lease: a whole fleet that comes back at once
/// makes etcd slow, and one that gives up on slow answers and asks again keeps it so.
pub(super) async fn keep_alive(client: &Client, mut lease: Lease, mut tell: impl FnMut(Beat<'_>)) -> Error {
    let mut backoff = Backoff::new(Duration::from_millis(100), lease.ttl / 6);
    let longest = (lease.ttl / 3).max(SHORTEST_PATIENCE);
    let first = client.settings().attempt_timeout.min(longest);
    let mut patience = first;
    let mut stamp = client.login().current();
    loop {
        let before = lease.ends;
        let end = stream(client, &stamp, &mut lease, patience, &mut tell).await;
        if lease.ends > before {
            backoff.succeeded();
            patience = first;
        } else {
            patience = (patience * 2).min(longest);
        }
        let error = match end {
            End::Lost => return Error::new(ErrorKind::LeaseLost, "the lease ended: etcd knows it no more"),
            End::Broke(error) => error,
            End::Refused(refused) => {
                client.counts().tokens_refused.add(1);
                let renewed = match client.login().refused(&refused) {
                    Ok(()) => client.login().stamp(client, Instant::now() + LOGIN_WAIT).await,
                    Err(error) => Err(error),
                };
                match renewed {
                    Ok(_) => Error::unavailable("etcd refused the token of the lease"),
                    Err(error) => error,
                }
            }
        };
        if Instant::now() >= lease.ends {
            tell(Beat::Late(&error));
        }
        tracing::debug!(%error, "the stream that renews the lease broke");
        sleep(backoff.failed()).await;
        stamp = client.login().current();
    }
}

async fn stream(
    client: &Client,
    stamp: &Stamp,
    lease: &mut Lease,
    patience: Duration,
    tell: &mut impl FnMut(Beat<'_>),
) -> End {
    let member = client.members().pick();
    let broke = |status: &Status| match Fault::of(status) {
        Fault::Token => End::Refused(stamp.clone()),
        Fault::LeaseGone => End::Lost,
        _ => {
            client.members().failed(member.index);
            let uri = client.members().uri(member.index);
            End::Broke(Error::unavailable(format!("renewing the lease at {uri} failed: {}", told(status))))
        }
    };
    client.counts().keep_alive_streams.add(1);
    let (beats, outgoing) = mpsc::channel(1);
    let mut etcd = LeaseClient::new(member.channel.clone());
    let mut opening = Some(etcd.lease_keep_alive(stamped(ReceiverStream::new(outgoing), stamp)));
    let mut answers = None;
    loop {
        let sent = Instant::now();
        if beats.try_send(LeaseKeepAliveRequest { id: lease.id }).is_err() {
            return broke(&Status::unavailable("the stream takes no requests"));
        }
        let answer = async {
            if let Some(opening) = opening.take() {
                answers = Some(opening.await?.into_inner());
            }
            match &mut answers {
                Some(answers) => answers.message().await,
                None => Ok(None),
            }
        };
        let answer = match timeout_at(sent + patience, answer).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return broke(&Status::unavailable("the stream ended")),
            Ok(Err(status)) => return broke(&status),
            Err(_) => return broke(&Status::deadline_exceeded("no answer in time")),
        };
        let Some(ttl) = u64::try_from(answer.ttl).ok().filter(|ttl| *ttl > 0) else { return End::Lost };
        client.members().succeeded(member.index);
        lease.ends = sent + Duration::from_secs(ttl);
        client.lease_ends(Some(lease.ends));
        tell(Beat::Alive);
        sleep_until(sent + about(lease.ttl / 3)).await;
    }
}
