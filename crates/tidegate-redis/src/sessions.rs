//! Sessions of the token guard in the store, equal to `tidegate::token::MemorySessions`.
//!
//! A session stands in one key with its lease, and changes in one script: compare-and-swap by version, leases by the
//! server's clock. The record is what the guard gives, sealed or not.

use std::{
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};

use redis::{Cmd, PushInfo, PushKind, Value};
use tidegate::token::{
    Change, Fence, Leased, Phase, SessionId, SessionStore, SessionStoreError, Stored, Under, Write, Written,
};
use tokio::{
    sync::{Notify, broadcast},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::{
    Client, Namespace, StoreError,
    client::Work,
    link::{Link, State, Up},
    script::Script,
    slot::slot_of,
    wire::{Failed, Pushed, Wire},
};

static SESSIONS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sessions.lua")));

/// Changes that a slow listener may be behind.
const CHANGES: usize = 4096;
/// The longest wait before a lost subscription is made again; the wait is random.
const AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// How often servers are looked for that came to a cluster.
const LOOKED_FOR: Duration = Duration::from_secs(1);

/// The sessions of a deployment. Clones share them.
///
/// Hints go over the channel `NS:sessions`, in a cluster to all of its servers; they may be lost, and then what another
/// process changed is found when a session is looked at again.
#[derive(Clone)]
pub struct RedisSessions(Arc<Inner>);

struct Inner {
    client: Client,
    namespace: Namespace,
    changes: broadcast::Sender<Change>,
    listening: std::sync::OnceLock<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.get() {
            listening.abort();
        }
    }
}

impl RedisSessions {
    /// The sessions of a namespace. Needs a tokio runtime: it listens to what others change.
    pub fn new(client: Client, namespace: Namespace) -> Self {
        let inner = Inner {
            client,
            namespace,
            changes: broadcast::Sender::new(CHANGES),
            listening: std::sync::OnceLock::new(),
        };
        let inner = Arc::new(inner);
        let task = tokio::spawn(listen_everywhere(Arc::downgrade(&inner)));
        let _ = inner.listening.set(task.abort_handle());
        Self(inner)
    }

    fn channel(&self) -> String {
        format!("{}:sessions", self.0.namespace.as_str())
    }

    async fn run(
        &self,
        verb: &str,
        id: &SessionId,
        arguments: &(dyn Fn(&mut Cmd) + Sync),
    ) -> Result<Vec<Value>, SessionStoreError> {
        let Inner { client, namespace, .. } = &*self.0;
        let bucket = slot_of(id.as_str().as_bytes()).to_le_bytes()[0];
        let key = namespace.key(bucket, &format!("session:{}", id.as_str()));
        let arguments = |command: &mut Cmd, _: &Up| {
            command.arg(verb).arg(id.as_str());
            arguments(command);
            // A cluster passes plain messages on to all of its servers, wherever a listener is.
            command.arg("PUBLISH").arg(self.channel());
        };
        let keys = [key.as_bytes()];
        let work = Work::Script { script: &SESSIONS, keys: &keys, arguments: &arguments };
        match client.run(namespace.slot(bucket), &work).await {
            Ok(Value::Array(values)) => Ok(values),
            // What it said may hold a record: it is not repeated.
            Ok(_) => Err(garbled()),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn garbled() -> SessionStoreError {
    SessionStoreError::new("it answered what was not asked")
}

fn failed(error: &StoreError) -> SessionStoreError {
    match error {
        StoreError::Garbled { .. } => garbled(),
        _ => SessionStoreError::new(error.to_string()),
    }
}

/// Whole microseconds, rounded up, and no more than a double holds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(1 << 52).min(1 << 52)
}

fn number(value: &Value) -> Result<u64, SessionStoreError> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| garbled()),
        _ => Err(garbled()),
    }
}

fn stored(version: &Value, age: &Value, record: Value) -> Result<Stored, SessionStoreError> {
    let Value::BulkString(record) = record else { return Err(garbled()) };
    Ok(Stored { version: number(version)?, age: Duration::from_micros(number(age)?), record })
}

/// A record, or that there is none.
fn told(answer: Vec<Value>) -> Result<Option<Stored>, SessionStoreError> {
    match <[Value; 3]>::try_from(answer) {
        Ok([version, age, record]) => stored(&version, &age, record).map(Some),
        Err(other) if other.is_empty() => Ok(None),
        Err(_) => Err(garbled()),
    }
}

impl SessionStore for RedisSessions {
    async fn read(
        &self,
        id: &SessionId,
        keep: Option<Duration>,
    ) -> Result<Option<Stored>, SessionStoreError> {
        let answer = self
            .run("read", id, &|command| {
                command.arg(keep.map_or(0, micros));
            })
            .await?;
        told(answer)
    }

    async fn create(
        &self,
        id: &SessionId,
        record: Vec<u8>,
        keep: Duration,
    ) -> Result<bool, SessionStoreError> {
        let answer = self
            .run("create", id, &|command| {
                command.arg(&record[..]).arg(micros(keep));
            })
            .await?;
        answer.first().map_or_else(|| Err(garbled()), |created| Ok(number(created)? == 1))
    }

    async fn write(&self, id: &SessionId, write: Write) -> Result<Written, SessionStoreError> {
        let answer = self
            .run("write", id, &|command| {
                let under = match write.under {
                    Under::Anybody => "anybody",
                    Under::AnybodyReleasing => "releasing",
                    Under::HolderReleasing => "holder",
                };
                command.arg(write.fence.0).arg(write.over).arg(&write.record[..]);
                command.arg(micros(write.keep)).arg(under);
            })
            .await?;
        let [became, version] = &answer[..] else {
            return if answer.is_empty() { Ok(Written::Gone) } else { Err(garbled()) };
        };
        match number(became)? {
            0 => Ok(Written::Conflict),
            1 => Ok(Written::Done(number(version)?)),
            2 => Ok(Written::Fenced),
            _ => Err(garbled()),
        }
    }

    async fn remove(&self, id: &SessionId) -> Result<Option<Stored>, SessionStoreError> {
        told(self.run("remove", id, &|_| {}).await?)
    }

    async fn lease(&self, id: &SessionId, holder: u64, life: Duration) -> Result<Leased, SessionStoreError> {
        let answer = self
            .run("lease", id, &|command| {
                // As a text: it may be more than a double holds.
                command.arg(format!("{holder:x}")).arg(micros(life));
            })
            .await?;
        match <[Value; 6]>::try_from(answer) {
            Ok([_, fence, version, age, record, orphan]) => {
                let orphan = match orphan {
                    Value::Int(ago) => u64::try_from(ago).ok().map(Duration::from_micros),
                    _ => return Err(garbled()),
                };
                let stored = stored(&version, &age, record)?;
                Ok(Leased::Taken { fence: Fence(number(&fence)?), stored, orphan })
            }
            Err(other) => match &other[..] {
                [] => Ok(Leased::Gone),
                [_, rest] => Ok(Leased::Held(Duration::from_micros(number(rest)?))),
                _ => Err(garbled()),
            },
        }
    }

    async fn renew(
        &self,
        id: &SessionId,
        fence: Fence,
        life: Duration,
        phase: Phase,
    ) -> Result<bool, SessionStoreError> {
        let answer = self
            .run("renew", id, &|command| {
                let phase = match phase {
                    Phase::Held => "held",
                    Phase::Sent => "sent",
                };
                command.arg(fence.0).arg(micros(life)).arg(phase);
            })
            .await?;
        // An empty answer: the session is gone.
        answer.first().map_or(Ok(false), |renewed| Ok(number(renewed)? == 1))
    }

    async fn release(&self, id: &SessionId, fence: Fence) -> Result<(), SessionStoreError> {
        self.run("release", id, &|command| {
            command.arg(fence.0);
        })
        .await
        .map(drop)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    async fn pause(&self, endpoint: &Arc<str>, pause: Duration) {
        let text = format!("pause {} {endpoint}", micros(pause));
        for link in self.0.client.links() {
            let State::Up(up) = link.state() else { continue };
            let mut command = redis::cmd("PUBLISH");
            command.arg(self.channel()).arg(&text);
            // One server tells all that listen.
            if up.wire.tell(&command, self.0.client.settings().deadline).await.is_ok() {
                return;
            }
        }
    }
}

/// Listens at each server of the store, for as long as the sessions are held.
async fn listen_everywhere(sessions: Weak<Inner>) {
    let mut listeners: Vec<(Link, JoinSet<()>)> = Vec::new();
    while let Some(inner) = sessions.upgrade() {
        let links = inner.client.links();
        listeners.retain(|(link, _)| links.iter().any(|now| now.is(link)));
        for link in links {
            // Every server of a cluster passes on what any other was told: one listener is enough.
            if listeners.is_empty() {
                let mut task = JoinSet::new();
                task.spawn(listen(Arc::downgrade(&inner), link.clone()));
                listeners.push((link, task));
            }
        }
        drop(inner);
        sleep(LOOKED_FOR).await;
    }
}

async fn listen(sessions: Weak<Inner>, link: Link) {
    let mut states = link.follow();
    loop {
        let up = match states.wait_for(|state| matches!(state, State::Up(_))).await.as_deref() {
            Ok(State::Up(up)) => up.clone(),
            Ok(_) => continue,
            Err(_) => return,
        };
        let Some(inner) = sessions.upgrade() else { return };
        let (client, changes) = (inner.client.clone(), inner.changes.clone());
        let channel = format!("{}:sessions", inner.namespace.as_str());
        drop(inner);
        if let Err(failed) = subscribed(&client, &channel, &link, &up, changes).await {
            tracing::debug!(server = %up.server, error = %failed.at(&up.server), "no hints of sessions from the store");
        }
        sleep(AGAIN_WITHIN.mul_f64(fastrand::f64())).await;
    }
}

/// Returns when the subscription is no longer what it should be.
async fn subscribed(
    client: &Client,
    channel: &str,
    link: &Link,
    up: &Up,
    changes: broadcast::Sender<Change>,
) -> Result<(), Failed> {
    let beat = client.settings().heartbeat;
    let lost = Arc::new(Notify::new());
    let told = lost.clone();
    let pushed: Pushed = Box::new(move |push: PushInfo| match push.kind {
        PushKind::Message => {
            if let Some(change) = read(&push.data) {
                // That nobody listens is fine.
                let _ = changes.send(change);
            }
        }
        PushKind::Disconnection | PushKind::Unsubscribe => told.notify_one(),
        _ => {}
    });
    let wire = Wire::open(&client.dial(&up.server), Some(pushed)).await?;
    let mut command = redis::cmd("SUBSCRIBE");
    command.arg(channel);
    wire.tell(&command, beat).await?;
    loop {
        tokio::select! {
            () = lost.notified() => return Ok(()),
            () = sleep(beat) => {}
        }
        if !matches!(link.state(), State::Up(now) if now.number == up.number) {
            return Ok(());
        }
        wire.tell(&redis::cmd("PING"), beat).await?;
    }
}

/// Reads a message: channel and text.
fn read(data: &[Value]) -> Option<Change> {
    let [_, Value::BulkString(text)] = data else { return None };
    let (kind, rest) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    match kind {
        "removed" => Some(Change::Removed(SessionId::new(rest).ok()?)),
        "sent" => Some(Change::Sent(SessionId::new(rest).ok()?)),
        "written" => {
            let (id, version) = rest.split_once(' ')?;
            Some(Change::Written { id: SessionId::new(id).ok()?, version: version.parse().ok()? })
        }
        "pause" => {
            let (pause, endpoint) = rest.split_once(' ')?;
            let pause = Duration::from_micros(pause.parse().ok()?);
            Some(Change::Pause { endpoint: endpoint.into(), pause })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_nonsense_is_not() {
        let message = |text: &str| {
            read(&[Value::BulkString(b"c".to_vec()), Value::BulkString(text.as_bytes().to_vec())])
        };
        let id = SessionId::new("s-1").unwrap();
        assert_eq!(message("removed s-1"), Some(Change::Removed(id.clone())));
        assert_eq!(message("sent s-1"), Some(Change::Sent(id.clone())));
        assert_eq!(message("written s-1 7"), Some(Change::Written { id, version: 7 }));
        let pause = Change::Pause { endpoint: "https://idp a".into(), pause: Duration::from_micros(5) };
        assert_eq!(message("pause 5 https://idp a"), Some(pause));
        for text in ["", "removed", "removed {x}", "written s", "written s x", "pause x y", "other s"] {
            assert_eq!(message(text), None, "{text}");
        }
    }
}
