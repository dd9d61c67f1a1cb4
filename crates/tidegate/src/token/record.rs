//! A session as it is written. Times are written relative to the moment of writing, and a store tells how long ago that
//! was by its own clock: no wall clock decides, whatever the clocks of processes show.

use std::{sync::OnceLock, time::Duration};

use http::HeaderValue;
use tidegate_core::{
    Dice, Instant, Term,
    token::{Over, Schedule, Standing, Tries},
};
use zeroize::Zeroizing;

use super::{
    Identity, SessionId, Tokens,
    seal::{Seal, Unreadable},
    store::Stored,
};
use crate::Secret;

mod text;

use text::Text;

/// An access token that was granted.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) token: Secret,
    pub(super) kind: Box<str>,
    pub(super) scope: Option<Box<str>>,
    pub(super) id: Option<Secret>,
    pub(super) from: Instant,
    pub(super) life: Option<Duration>,
    /// As calls carry it, once one did.
    pub(super) header: OnceLock<Option<HeaderValue>>,
}

impl Granted {
    /// As an `Authorization` field; `None`: it has characters that no field may have.
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        let made = || {
            let text = format!("{} {}", self.kind, self.token.expose());
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        self.header.get_or_init(made).as_ref()
    }

    pub(super) fn new(tokens: &Tokens, from: Instant) -> Self {
        Self {
            token: tokens.access.clone(),
            kind: tokens.kind.clone(),
            scope: tokens.scope.clone(),
            id: tokens.id.clone(),
            from,
            life: tokens.expires_in,
            header: OnceLock::new(),
        }
    }
}

/// A session.
#[derive(Clone)]
pub(super) struct Record {
    /// How often tokens were granted: two records of one generation have the same refresh token.
    pub(super) generation: u64,
    pub(super) access: Granted,
    /// Granted, and not verified yet.
    pub(super) pending: Option<Granted>,
    pub(super) refresh: Option<Secret>,
    pub(super) refresh_until: Instant,
    pub(super) identity: Option<Identity>,
    pub(super) attributes: Box<str>,
    pub(super) unknown_since: Option<Instant>,
    pub(super) over: Option<Over>,
    pub(super) ends_at: Instant,
    pub(super) tries: Tries,
    /// When an access token of it was last replaced because an upstream called it worthless.
    pub(super) rejected_at: Option<Instant>,
}

impl Record {
    /// Takes what was granted in place of what there was.
    pub(super) fn take(&mut self, tokens: &Tokens, from: Instant, verify: Verify) {
        self.generation += 1;
        if let Some(refresh) = &tokens.refresh {
            self.refresh = Some(refresh.clone());
            self.refresh_until = tokens.refresh_expires_in.map_or(Instant::NEVER, |life| from + life);
        }
        (self.unknown_since, self.over) = (None, None);
        let granted = Granted::new(tokens, from);
        match verify {
            Verify::Later => self.pending = Some(granted),
            Verify::No => self.accept(granted),
        }
    }

    /// Serves what was granted from now on.
    pub(super) fn accept(&mut self, granted: Granted) {
        let (scope, id) = (self.access.scope.take(), self.access.id.take());
        self.access = granted;
        // What an answer leaves out is as it was (RFC 6749 §5.1, OIDC Core §12.2).
        self.access.scope = self.access.scope.take().or(scope);
        self.access.id = self.access.id.take().or(id);
        (self.pending, self.tries) = (None, Tries::default());
    }

    /// When the access token ages. All who share a session and a salt agree, and others do not fall due with them.
    pub(super) fn term(&self, schedule: &Schedule, id: &SessionId, salt: u64) -> Term {
        let hash = foldhash::quality::FixedState::with_seed(salt ^ self.generation);
        let dice = Dice((std::hash::BuildHasher::hash_one(&hash, id.as_str()) >> 32) as u32);
        schedule.term(self.access.from, self.access.life, dice)
    }

    pub(super) fn standing(&self, term: Term) -> Standing {
        Standing {
            access: term,
            refresh_until: self.refresh.as_ref().map(|_| self.refresh_until),
            unverified: self.pending.is_some(),
            unknown_since: self.unknown_since,
            over: self.over,
            ends_at: self.ends_at,
            tries: self.tries,
        }
    }

    /// Writes it as of `now`, as `version` of `id`.
    pub(super) fn write(
        &self,
        id: &SessionId,
        version: u64,
        seal: Option<&dyn Seal>,
        now: Instant,
    ) -> Vec<u8> {
        let text = Text::of(self, now);
        let mut plain = Zeroizing::new(Vec::with_capacity(8 * 1024));
        serde_json::to_writer(&mut *plain, &text)
            .expect("texts and numbers make JSON, and memory takes them");
        match seal {
            Some(seal) => seal.seal(&plain, &context(id, version)),
            // As long as it is: it is kept for as long as the session.
            None => plain.to_vec(),
        }
    }

    /// Reads what was asked for at `asked_at`.
    pub(super) fn read(
        stored: &Stored,
        id: &SessionId,
        seal: Option<&dyn Seal>,
        asked_at: Instant,
    ) -> Result<Self, Unreadable> {
        let opened = match seal {
            Some(seal) => {
                Some(seal.open(&stored.record, &context(id, stored.version)).ok_or(Unreadable::Sealed)?)
            }
            None => None,
        };
        let plain = opened.as_deref().map_or(stored.record.as_slice(), Vec::as_slice);
        let text: Text<'_> = serde_json::from_slice(plain).map_err(|_| Unreadable::Garbled)?;
        text.record(asked_at - stored.age).ok_or(Unreadable::Garbled)
    }
}

/// Whether tokens are verified before they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    No,
    Later,
}

/// What a sealed record belongs to: another session's, or an older one, put in its place does not open.
fn context(id: &SessionId, version: u64) -> Vec<u8> {
    let mut context = b"tidegate session ".to_vec();
    context.extend_from_slice(id.as_str().as_bytes());
    context.push(0);
    context.extend_from_slice(&version.to_be_bytes());
    context
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use tidegate_core::token::{Blame, Limits};

    use super::*;

    const WRITTEN: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn record() -> Record {
        let mut tokens = Tokens::bearer("acc\"ess").expires_in(Duration::from_secs(300)).refresh("refresh");
        tokens.id = Some(Secret::new("id"));
        let granted = Granted::new(&tokens, WRITTEN - Duration::from_secs(7));
        Record {
            generation: 3,
            access: granted.clone(),
            pending: Some(Granted { scope: Some("a b".into()), life: None, ..granted }),
            refresh: tokens.refresh,
            refresh_until: Instant::NEVER,
            identity: Some(Identity { issuer: "https://idp".into(), subject: "alice".into() }),
            attributes: "{\"a\":1}".into(),
            unknown_since: Some(WRITTEN - Duration::from_secs(1)),
            over: Some(Over::Refused),
            ends_at: WRITTEN + Duration::from_secs(3600),
            tries: Tries::default().failed(Blame::Session, &Limits::default(), WRITTEN),
            rejected_at: Some(WRITTEN - Duration::from_secs(2)),
        }
    }

    fn id() -> SessionId {
        SessionId::new("s").unwrap()
    }

    #[test]
    fn a_record_is_read_as_it_was_written_with_its_times_moved_by_its_age() {
        let (before, age) = (record(), Duration::from_secs(40));
        let stored = Stored { version: 1, age, record: before.write(&id(), 1, None, WRITTEN) };
        // Another process's clock shows anything.
        let read_at = Instant::from_nanos(50_000_000_000_000_000);
        let after = Record::read(&stored, &id(), None, read_at).unwrap();
        let moved = |then: Instant| read_at - age + then.since(WRITTEN);
        assert_eq!(after.ends_at, moved(before.ends_at));
        assert_eq!(after.access.from, read_at - age - Duration::from_secs(7));
        assert_eq!(after.tries.since, read_at - age);
        assert_eq!(after.rejected_at, Some(read_at - age - Duration::from_secs(2)));
        assert_eq!((after.refresh_until, after.over), (Instant::NEVER, Some(Over::Refused)));
        assert_eq!(after.access.token, before.access.token);
        assert_eq!((after.refresh, after.identity), (before.refresh, before.identity));
        assert_eq!(after.pending.unwrap().scope.as_deref(), Some("a b"));
        assert_eq!(after.attributes, before.attributes);
    }

    #[test]
    fn what_is_no_record_is_told_apart() {
        for text in [&b""[..], b"{}", b"\xff", br#"{"format":2}"#] {
            let stored = Stored { version: 1, age: Duration::ZERO, record: text.to_vec() };
            let read = Record::read(&stored, &id(), None, WRITTEN);
            assert_eq!(read.err(), Some(Unreadable::Garbled), "{text:?}");
        }
    }
}
