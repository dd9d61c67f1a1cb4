//! Reading prefixes in pages, and writing in transactions.

use crate::{
    Client, Error, ErrorKind,
    history::Teller,
    proto::{KeyValue, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, kv_client::KvClient},
};

/// All keys of a prefix as of one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// etcd's revision.
    pub(crate) revision: i64,
    /// Its place in the order of all that etcd told, which never goes back.
    pub(crate) place: u64,
    pub(crate) cluster: u64,
    pub(crate) era: u64,
    pub(crate) entries: Vec<KeyValue>,
}

/// How much of each key is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Keys and values.
    Entries,
    /// Keys alone.
    Keys,
}

/// How many keys are asked for at once. Fewer, when they do not fit into an answer.
const PAGE: i64 = 1000;

/// The most keys of one reading, so that a prefix that is not a registry's does not fill the memory.
const MOST_KEYS: usize = 1_000_000;

impl Client {
    /// Reads all keys that begin with `prefix`, as of one revision, in pages.
    ///
    /// Reads are serializable: any member answers from what it has, and no quorum is asked. A member that is behind what
    /// this client has seen is not believed; then the cluster is asked.
    pub(crate) async fn read(&self, prefix: &[u8], extent: Extent) -> Result<Reading, Error> {
        // A history that is compacted between two pages means to begin again, as of now.
        let mut restarts = 3;
        loop {
            match self.read_once(prefix, extent).await {
                Err(error) if error.kind() == ErrorKind::Compacted && restarts > 0 => restarts -= 1,
                end => return end,
            }
        }
    }

    async fn read_once(&self, prefix: &[u8], extent: Extent) -> Result<Reading, Error> {
        let mut reading = Reading::default();
        let mut request = RangeRequest {
            key: prefix.to_vec(),
            range_end: end_of(prefix),
            limit: PAGE,
            serializable: true,
            keys_only: extent == Extent::Keys,
            ..RangeRequest::default()
        };
        loop {
            let known = self.history().known();
            let answer = match self.range(&request).await {
                Err(error) if error.kind() == ErrorKind::TooLarge && request.limit > 1 => {
                    request.limit /= 4;
                    continue;
                }
                answer => answer?,
            };
            let header = answer.header.ok_or_else(headless)?;
            if reading.revision == 0 {
                if header.revision < known.highest && request.serializable {
                    request.serializable = false;
                    continue;
                }
                let teller = if request.serializable { Teller::Member } else { Teller::Cluster(known) };
                self.history().told(header.cluster_id, header.revision, teller);
                (reading.revision, reading.cluster) = (header.revision, header.cluster_id);
                reading.era = self.history().known().era;
                reading.place = self.history().place(reading.era, reading.revision);
                // The further pages are of the same revision; a member that has not got there yet is an error.
                request.revision = header.revision;
            }
            let last = answer.kvs.last().map(|entry| entry.key.clone());
            reading.entries.extend(answer.kvs);
            let Some(last) = last.filter(|_| answer.more) else { return Ok(reading) };
            if reading.entries.len() > MOST_KEYS {
                let prefix = String::from_utf8_lossy(prefix);
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("{prefix:?} has more than {MOST_KEYS} keys in etcd; is it a registry's prefix?"),
                ));
            }
            request.key = last;
            request.key.push(0);
        }
    }

    /// The revision of the cluster, as its leader knows it.
    pub(crate) async fn revision(&self, prefix: &[u8]) -> Result<i64, Error> {
        let request = RangeRequest { key: prefix.to_vec(), count_only: true, ..RangeRequest::default() };
        let known = self.history().known();
        let header = self.range(&request).await?.header.ok_or_else(headless)?;
        self.history().told(header.cluster_id, header.revision, Teller::Cluster(known));
        Ok(header.revision)
    }

    /// How many keys begin with `prefix`, as some member knows it.
    pub(crate) async fn count(&self, prefix: &[u8]) -> Result<u64, Error> {
        let request = RangeRequest {
            key: prefix.to_vec(),
            range_end: end_of(prefix),
            count_only: true,
            serializable: true,
            ..RangeRequest::default()
        };
        Ok(self.range(&request).await?.count.try_into().unwrap_or_default())
    }

    async fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let largest = self.settings().largest_answer;
        self.call("reading", request, |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(largest).range(request).await
        })
        .await
    }

    /// Does all of `operations`, or none.
    pub(crate) async fn write(&self, operations: Vec<RequestOp>) -> Result<TxnResponse, Error> {
        let request = TxnRequest { success: operations, ..TxnRequest::default() };
        self.call(
            "writing",
            &request,
            |channel, request| async move { KvClient::new(channel).txn(request).await },
        )
        .await
    }
}

fn headless() -> Error {
    Error::unavailable("an answer has no header with a revision; is this etcd?")
}

/// Where the keys that begin with `prefix` end: the first key after all of them.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // All bytes are 0xff, or there is none: to the end of all keys.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_prefix_end_before_its_successor() {
        assert_eq!(end_of(b"/a/"), b"/a0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff\xff"), b"\0");
        assert_eq!(end_of(b""), b"\0");
    }
}
