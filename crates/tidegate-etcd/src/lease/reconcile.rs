//! Making etcd equal to the table: writes and deletions in batches, verified from time to time.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};

use super::{End, Inner, keep_alive::Lease, table::Operation};
use crate::{
    Error, ErrorKind,
    pace::{Backoff, about},
    proto::{
        Compare, DeleteRangeRequest, LeaseTimeToLiveRequest, PutRequest, RequestOp, TxnRequest, compare,
        lease_client::LeaseClient, request_op::Request as Op,
    },
};

/// The most operations of one transaction; etcd takes 128 by default.
const BATCH: usize = 64;

/// About the most bytes of one transaction; etcd takes 1.5 MiB by default.
const BATCH_BYTES: usize = 512 << 10;

/// How many verifications pass between two counts of the fleet.
const COUNT_EVERY: u32 = 10;

impl Inner {
    /// Makes etcd equal to the table, again and again, until nobody wants anything or the lease is no more.
    pub(super) async fn reconcile(&self, lease: Lease) -> End {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let (mut verify, mut verified) = (Instant::now() + about(self.settings.verify), 0);
        // After a batch was refused, its operations are done one by one, to find the one that is to blame.
        let mut singly = 0_usize;
        loop {
            let (batch, due) = {
                let mut table = self.table.lock();
                if table.is_leaving() {
                    return End::Empty;
                }
                let most = if singly > 0 { 1 } else { BATCH };
                (table.batch(Instant::now(), most, BATCH_BYTES), table.next_due())
            };
            singly = singly.saturating_sub(1);
            if batch.is_empty() {
                select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(due.unwrap_or(verify)), if due.is_some() => {}
                    () = sleep_until(verify) => {
                        verify = Instant::now() + about(self.settings.verify);
                        verified += 1;
                        if let Err(error) = self.verify(lease).await {
                            if error.kind() == ErrorKind::LeaseLost {
                                return End::Lost(error);
                            }
                            tracing::debug!(%error, "the registrations cannot be verified");
                        }
                        if verified % COUNT_EVERY == 0 {
                            self.count().await;
                        }
                    }
                }
                continue;
            }
            let Err(error) = self.client.write(operations(&batch, lease)).await.map(drop) else {
                let written = batch.iter().filter(|operation| operation.put.is_some()).count();
                self.client.counts().keys_written.add(u64::try_from(written).unwrap_or(u64::MAX));
                self.table.lock().done(&batch);
                backoff.succeeded();
                continue;
            };
            match error.kind() {
                ErrorKind::LeaseLost => return End::Lost(error),
                ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::TooLarge => match &*batch {
                    [operation] => self.table.lock().failed(operation, &error, Instant::now()),
                    several => singly = several.len(),
                },
                ErrorKind::Unavailable
                | ErrorKind::Throttled
                | ErrorKind::Credentials
                | ErrorKind::Compacted => {
                    self.table.lock().postponed(&batch, &error);
                    let delay = backoff.failed().max(error.retry_after().unwrap_or_default());
                    select! {
                        () = sleep(delay) => {}
                        () = self.left() => {}
                    }
                }
            }
        }
    }

    /// Asks etcd which keys stand there with the lease: one that was deleted by hand, or overwritten, is written again.
    async fn verify(&self, lease: Lease) -> Result<(), Error> {
        let request = LeaseTimeToLiveRequest { id: lease.id, keys: true };
        let largest = self.client.settings().largest_answer;
        let answer = self
            .client
            .call("verifying the lease", &request, |channel, request| async move {
                LeaseClient::new(channel).max_decoding_message_size(largest).lease_time_to_live(request).await
            })
            .await?;
        if answer.ttl <= 0 {
            return Err(Error::new(ErrorKind::LeaseLost, "the lease ended: etcd knows it no more"));
        }
        let there: BTreeSet<_> = answer.keys.into_iter().collect();
        let why = Error::unavailable("its key was deleted or overwritten in etcd by somebody else");
        let missing = self.table.lock().verify(&there, &why);
        if missing > 0 {
            tracing::warn!(missing, "registrations were deleted or overwritten in etcd; writing them again");
            self.client.counts().keys_repaired.add(missing);
        }
        Ok(())
    }
}

fn operations(batch: &[Operation], lease: Lease) -> Vec<RequestOp> {
    let operation = |operation: &Operation| {
        let key = operation.key.clone();
        let request = match &operation.put {
            Some(value) => {
                Op::RequestPut(PutRequest { key, value: value.to_vec(), lease: lease.id, prev_kv: false })
            }
            // Only what is ours: the key may belong to a successor by now.
            None => Op::RequestTxn(TxnRequest {
                compare: vec![Compare {
                    result: compare::CompareResult::Equal.into(),
                    target: compare::CompareTarget::Lease.into(),
                    key: key.clone(),
                    target_union: Some(compare::TargetUnion::Lease(lease.id)),
                }],
                success: vec![RequestOp {
                    request: Some(Op::RequestDeleteRange(DeleteRangeRequest {
                        key,
                        ..DeleteRangeRequest::default()
                    })),
                }],
                failure: Vec::new(),
            }),
        };
        RequestOp { request: Some(request) }
    };
    batch.iter().map(operation).collect()
}
