//! Hints: what scripts publish, on their way to those who hold credit. They may be lost; nothing depends on them.

use std::{sync::Arc, time::Duration};

use redis::{PushInfo, PushKind, Value};
use tidegate::{
    fleet::{Hint, Tidings},
    throttle::Key,
};
use tokio::{
    sync::{Notify, broadcast},
    time::sleep,
};

use crate::{
    Client, Namespace,
    keys::BUCKETS,
    link::{Link, State, Up},
    wire::{Failed, Pushed, Wire},
};

/// The longest wait before a lost subscription is made again; the wait is random.
const AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// Where hints of a bucket are published and with which command: in a cluster only to the servers of its shard, where
/// they know how.
pub(crate) fn channel(namespace: &Namespace, bucket: u8, up: &Up, client: &Client) -> (&'static str, String) {
    if is_sharded(up, client) {
        ("SPUBLISH", namespace.key(bucket, "hints"))
    } else {
        ("PUBLISH", format!("{}:hints", namespace.as_str()))
    }
}

fn is_sharded(up: &Up, client: &Client) -> bool {
    client.cluster().is_some() && up.checked.version >= (7, 0)
}

/// Listens at one server of the store, for as long as it is polled, and listens again whenever that is lost. It has a
/// connection of its own: a server may push what a connection for questions would take for an answer.
pub(crate) async fn listen(
    client: Client,
    namespace: Namespace,
    link: Link,
    hints: broadcast::Sender<Hint>,
    changed: Arc<Notify>,
) {
    let mut states = link.follow();
    loop {
        let up = match states.wait_for(|state| matches!(state, State::Up(_))).await.as_deref() {
            Ok(State::Up(up)) => up.clone(),
            Ok(_) => continue,
            Err(_) => return,
        };
        // It may be another process than before.
        changed.notify_one();
        match subscribed(&client, &namespace, &link, &up, &hints, &changed).await {
            Ok(()) => {}
            Err(failed) => {
                tracing::debug!(server = %up.server, error = %failed.at(&up.server), "no hints from the store");
            }
        }
        sleep(AGAIN_WITHIN.mul_f64(fastrand::f64())).await;
    }
}

/// Returns when the subscription is no longer what it should be.
async fn subscribed(
    client: &Client,
    namespace: &Namespace,
    link: &Link,
    up: &Up,
    hints: &broadcast::Sender<Hint>,
    changed: &Arc<Notify>,
) -> Result<(), Failed> {
    let beat = client.settings().heartbeat;
    let lost = Arc::new(Notify::new());
    let (told, tell, changed) = (lost.clone(), hints.clone(), changed.clone());
    let pushed: Pushed = Box::new(move |push: PushInfo| match push.kind {
        PushKind::Message | PushKind::SMessage => {
            if matches!(&push.data[..], [_, Value::BulkString(text)] if text == b"lost") {
                changed.notify_one();
            } else if let Some(hint) = read(&push.data) {
                // Nobody may be listening, and who listens slowly loses the oldest.
                let _ = tell.send(hint);
            }
        }
        PushKind::Disconnection | PushKind::Unsubscribe | PushKind::SUnsubscribe => told.notify_one(),
        _ => {}
    });
    let wire = Wire::open(&client.dial(&up.server), Some(pushed)).await?;
    let buckets = served(client, namespace, &up.server);
    if is_sharded(up, client) {
        for &bucket in &buckets {
            let mut command = redis::cmd("SSUBSCRIBE");
            command.arg(namespace.key(bucket, "hints"));
            wire.tell(&command, beat).await?;
        }
    } else {
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg(format!("{}:hints", namespace.as_str()));
        wire.tell(&command, beat).await?;
    }
    loop {
        tokio::select! {
            () = lost.notified() => return Ok(()),
            () = sleep(beat) => {}
        }
        let same = matches!(link.state(), State::Up(now) if now.number == up.number);
        if !same || served(client, namespace, &up.server) != buckets {
            return Ok(());
        }
        wire.tell(&redis::cmd("PING"), beat).await?;
    }
}

/// The buckets that a server of a cluster serves; all of them where there is one server.
fn served(client: &Client, namespace: &Namespace, server: &tidegate::Server) -> Vec<u8> {
    let all = (0..BUCKETS).map(|bucket| u8::try_from(bucket).expect("there are 256 buckets"));
    match client.cluster() {
        None => all.collect(),
        Some(cluster) => all.filter(|&bucket| cluster.serves(server, namespace.slot(bucket))).collect(),
    }
}

/// Reads a message: channel and text, which is the tidings, a time, the key and the limit.
fn read(data: &[Value]) -> Option<Hint> {
    let [_, Value::BulkString(text)] = data else { return None };
    let mut words = std::str::from_utf8(text).ok()?.splitn(4, ' ');
    let (kind, time) = (words.next()?, words.next()?.parse().ok()?);
    let key = Key::from_bits(u128::from_str_radix(words.next()?, 16).ok()?);
    let limit = words.next()?.into();
    let tidings = match kind {
        "exhausted" => Tidings::Exhausted(Duration::from_micros(time)),
        "recall" => Tidings::Recall,
        "relieved" => Tidings::Relieved,
        _ => return None,
    };
    Some(Hint { limit, key, tidings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_nonsense_is_not() {
        let message = |text: &str| {
            read(&[Value::BulkString(b"c".to_vec()), Value::BulkString(text.as_bytes().to_vec())])
        };
        let key = Key::from_bits(0xff);
        let text = format!("exhausted 1500 {:032x} per client", key.bits());
        let tidings = Tidings::Exhausted(Duration::from_micros(1500));
        assert_eq!(message(&text), Some(Hint { limit: "per client".into(), key, tidings }));
        for text in ["", "exhausted", "exhausted x 1 l", "gone 1 1 l", "recall 0 zz l", "recall 0 1"] {
            assert_eq!(message(text), None, "{text}");
        }
    }
}
