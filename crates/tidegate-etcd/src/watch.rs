//! A watch of a prefix: everything once, then every change after it, through failovers, without a gap.

use std::time::Duration;

use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    Client, Error, ErrorKind,
    client::stamped,
    error::Fault,
    kv::{Extent, Reading, end_of},
    login::Stamp,
    pace::{Backoff, about},
    proto::{
        Event, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
};

/// What a watch of a prefix tells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    /// All keys: at the beginning, and when the changes cannot be told one by one.
    All(Reading),
    /// All changes of one answer, together.
    Changes { place: u64, events: Vec<Event> },
    /// Nothing changed up to here.
    Caught { place: u64 },
}

/// How long a watch may be cut off before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a stream may be silent before etcd is asked how far it is. A connection that is cut off is noticed sooner,
/// by its pings.
const QUIET: Duration = Duration::from_secs(60);

/// How long etcd may take for an answer to that. A watcher that catches up answers none.
const PROGRESS: Duration = Duration::from_secs(20);

/// The most events of one answer that comes in fragments; beyond, everything is read again.
const MOST_EVENTS: usize = 200_000;

/// A token that is older than this and may not read is taken for one that etcd has forgotten, once: some versions say
/// that permission is denied to a watch with an expired token (etcd-io/etcd#12385).
const OLD_TOKEN: Duration = Duration::from_secs(60);

/// A watch of all keys with a prefix.
pub(crate) struct KeyWatch {
    client: Client,
    prefix: Vec<u8>,
    /// Everything up to here was told.
    revision: i64,
    cluster: u64,
    era: u64,
    first: Option<Reading>,
    stream: Option<Live>,
    backoff: Backoff,
    /// Since when the watch is cut off, and by what.
    cut: Option<(Instant, Error)>,
}

struct Live {
    answers: Streaming<WatchResponse>,
    requests: mpsc::Sender<WatchRequest>,
    member: usize,
    fragments: Vec<Event>,
    /// When to ask for progress; when it was asked, when to give up.
    ask: Instant,
    asked: bool,
}

impl KeyWatch {
    /// Reads the prefix, and will tell all changes after that.
    pub(crate) async fn start(client: Client, prefix: Vec<u8>) -> Result<Self, Error> {
        let first = client.read(&prefix, Extent::Entries).await?;
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let (revision, cluster, era) = (first.revision, first.cluster, first.era);
        Ok(Self {
            client,
            prefix,
            revision,
            cluster,
            era,
            first: Some(first),
            stream: None,
            backoff,
            cut: None,
        })
    }

    /// Waits for news.
    ///
    /// # Errors
    /// When the watch was cut off for longer than it has patience, or may not read. Nothing was lost if it is asked
    /// again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Seen, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Seen::All(first));
        }
        loop {
            let news = match &mut self.stream {
                Some(live) => live.next(&self.client).await,
                None => self.open().await.map(|live| {
                    self.stream = Some(live);
                    self.cut = None;
                    self.backoff.succeeded();
                    News::Caught(self.revision)
                }),
            };
            match news {
                Ok(News::Changes(revision, events)) => {
                    self.revision = self.revision.max(revision);
                    return Ok(Seen::Changes { place: self.place(), events });
                }
                Ok(News::Caught(revision)) => {
                    self.revision = self.revision.max(revision);
                    return Ok(Seen::Caught { place: self.place() });
                }
                Err(End::Behind) => {
                    self.stream = None;
                    self.client.counts().resyncs.add(1);
                    let all = self.client.read(&self.prefix, Extent::Entries).await?;
                    (self.revision, self.cluster, self.era) = (all.revision, all.cluster, all.era);
                    return Ok(Seen::All(all));
                }
                Err(End::Cut(error)) => {
                    self.stream = None;
                    self.wait(error).await?;
                }
            }
        }
    }

    fn place(&self) -> u64 {
        self.client.history().place(self.era, self.revision)
    }

    /// Waits before the next attempt, if there is patience for one.
    async fn wait(&mut self, error: Error) -> Result<(), Error> {
        let (since, _) = *self.cut.get_or_insert((Instant::now(), error.clone()));
        let hopeless =
            matches!(error.kind(), ErrorKind::Denied | ErrorKind::Credentials | ErrorKind::Invalid);
        if hopeless || since.elapsed() > PATIENCE {
            self.cut = None;
            return Err(error);
        }
        sleep(self.backoff.failed()).await;
        Ok(())
    }

    /// Opens a stream from the revision after the last that was told.
    async fn open(&self) -> Result<Live, End> {
        let client = &self.client;
        let deadline = client.deadline();
        let stamp = client.login().stamp(client, deadline).await.map_err(End::Cut)?;
        let member = client.members().pick();
        let cut = deadline.min(Instant::now() + client.settings().attempt_timeout);
        client.counts().watch_streams.add(1);
        let (requests, outgoing) = mpsc::channel(4);
        let create = WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: end_of(&self.prefix),
            start_revision: self.revision + 1,
            progress_notify: true,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).map_err(|_| End::Cut(Error::unavailable("a watch ended as it began")))?;
        let mut etcd = WatchClient::new(member.channel.clone())
            .max_decoding_message_size(client.settings().largest_answer);
        let opening = async {
            let mut answers = etcd.watch(stamped(ReceiverStream::new(outgoing), &stamp)).await?.into_inner();
            let created = answers.message().await?;
            Ok((answers, created.ok_or_else(|| Status::unavailable("the stream ended"))?))
        };
        let failed = |status: Status| {
            client.members().failed(member.index);
            End::Cut(client.gone("watching", &member, &status))
        };
        let (answers, created) = match timeout_at(cut, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) if Fault::of(&status) == Fault::Token => {
                return Err(refused(client, &stamp, status.message()));
            }
            Ok(Err(status)) if Fault::of(&status) == Fault::Denied => {
                return Err(denied(client, &stamp, status.message()));
            }
            Ok(Err(status)) => return Err(failed(status)),
            Err(_) => return Err(failed(Status::deadline_exceeded("no answer in time"))),
        };
        let header = created.header.unwrap_or_default();
        if created.canceled {
            return Err(match Fault::told_by(&created.cancel_reason) {
                Fault::Token => refused(client, &stamp, &created.cancel_reason),
                Fault::Denied => denied(client, &stamp, &created.cancel_reason),
                _ if created.compact_revision > 0 => End::Behind,
                _ => failed(Status::unavailable(created.cancel_reason)),
            });
        }
        client.members().succeeded(member.index);
        // Somebody else of this client may have noticed that etcd was set back.
        if header.cluster_id != self.cluster || client.history().known().era != self.era {
            return Err(End::Behind);
        }
        if header.revision < self.revision {
            // A member that is behind will catch up. A cluster that is behind was set back: its next changes would have
            // revisions that this watch believes to have seen.
            let now = client.revision(&self.prefix).await.map_err(End::Cut)?;
            if now < self.revision {
                return Err(End::Behind);
            }
        }
        Ok(Live {
            answers,
            requests,
            member: member.index,
            fragments: Vec::new(),
            ask: Instant::now() + about(QUIET),
            asked: false,
        })
    }
}

/// What a stream tells, and up to which revision.
enum News {
    Changes(i64, Vec<Event>),
    Caught(i64),
}

/// How a stream ends.
enum End {
    /// It broke: another may go on from where it was.
    Cut(Error),
    /// Its changes are not to be had any more: everything must be read again.
    Behind,
}

fn refused(client: &Client, stamp: &Stamp, reason: &str) -> End {
    client.counts().tokens_refused.add(1);
    match client.login().refused(stamp) {
        Ok(()) => End::Cut(Error::unavailable(format!("etcd refused the token of a watch: {reason}"))),
        Err(error) => End::Cut(error),
    }
}

fn denied(client: &Client, stamp: &Stamp, reason: &str) -> End {
    if stamp.age() > OLD_TOKEN {
        return refused(client, stamp, reason);
    }
    End::Cut(Error::new(ErrorKind::Denied, format!("etcd does not let this user watch: {reason}")))
}

impl Live {
    async fn next(&mut self, client: &Client) -> Result<News, End> {
        loop {
            let answer = select! {
                answer = self.answers.message() => answer,
                () = sleep_until(self.ask) => {
                    self.ask_for_progress(client)?;
                    continue;
                }
            };
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(self.broken(client, &Status::unavailable("the stream ended"))),
                Err(status) if Fault::of(&status) == Fault::TooLarge => return Err(End::Behind),
                Err(status) => return Err(self.broken(client, &status)),
            };
            (self.ask, self.asked) = (Instant::now() + about(QUIET), false);
            if answer.canceled {
                if answer.compact_revision > 0 {
                    return Err(End::Behind);
                }
                return Err(self.broken(client, &Status::unavailable(answer.cancel_reason)));
            }
            self.fragments.extend(answer.events);
            if answer.fragment {
                if self.fragments.len() > MOST_EVENTS {
                    return Err(End::Behind);
                }
                continue;
            }
            let events = std::mem::take(&mut self.fragments);
            let revisions = events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
            if let Some(last) = revisions.max() {
                return Ok(News::Changes(last, events));
            }
            // Answers to requests for progress may overtake events in versions before 3.4.25 and 3.5.8
            // (etcd-io/etcd#15220), so that only notices that etcd sends by itself move the place in the history.
            let asked_for = answer.watch_id < 0;
            return Ok(News::Caught(if asked_for { 0 } else { answer.header.unwrap_or_default().revision }));
        }
    }

    fn ask_for_progress(&mut self, client: &Client) -> Result<(), End> {
        if self.asked {
            return Err(self.broken(client, &Status::unavailable("no sign of progress")));
        }
        let ask =
            WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
        if self.requests.try_send(ask).is_err() {
            return Err(self.broken(client, &Status::unavailable("the stream takes no requests")));
        }
        (self.ask, self.asked) = (Instant::now() + PROGRESS, true);
        Ok(())
    }

    fn broken(&self, client: &Client, status: &Status) -> End {
        client.members().failed(self.member);
        let uri = client.members().uri(self.member);
        End::Cut(Error::unavailable(format!("a watch at {uri} broke off: {}", crate::error::told(status))))
    }
}
