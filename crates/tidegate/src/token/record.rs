//! A session as it is written. Times are written relative to the moment of writing, and a store tells how long ago that
//! was by its own clock: no wall clock decides, whatever the clocks of processes show.

use std::time::Duration;

use serde::{Deserialize, Serialize};
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

/// The way records are written.
const FORMAT: u32 = 1;

/// An access token that was granted.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) token: Secret,
    pub(super) kind: Box<str>,
    pub(super) scope: Option<Box<str>>,
    pub(super) id: Option<Secret>,
    pub(super) from: Instant,
    pub(super) life: Option<Duration>,
}

impl Granted {
    pub(super) fn new(tokens: &Tokens, from: Instant) -> Self {
        Self {
            token: tokens.access.clone(),
            kind: tokens.kind.clone(),
            scope: tokens.scope.clone(),
            id: tokens.id.clone(),
            from,
            life: tokens.expires_in,
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
        let dice = Dice((std::hash::BuildHasher::hash_one(&hash, id) >> 32) as u32);
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
            None => std::mem::take(&mut *plain),
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
        if text.format != FORMAT {
            return Err(Unreadable::Garbled);
        }
        Ok(text.record(asked_at - stored.age))
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

/// Nanoseconds before (less than 0) or after the moment of writing; `None`: never.
type Moment = Option<i64>;

#[derive(Serialize, Deserialize)]
struct Text<'a> {
    format: u32,
    generation: u64,
    #[serde(borrow)]
    access: TokenText<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pending: Option<TokenText<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    refresh: Option<Words<'a>>,
    refresh_until: Moment,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    identity: Option<[Words<'a>; 2]>,
    #[serde(borrow)]
    attributes: Words<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown_since: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over: Option<Ended>,
    ends_at: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tries: Option<TriesText>,
}

/// A text, borrowed where JSON wrote it without escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Words<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'a> Words<'a> {
    const fn of(text: &'a str) -> Self {
        Self(std::borrow::Cow::Borrowed(text))
    }

    fn secret(self) -> Secret {
        Secret::new(&*self.0)
    }
}

#[derive(Serialize, Deserialize)]
struct TokenText<'a> {
    #[serde(borrow)]
    token: Words<'a>,
    #[serde(borrow)]
    kind: Words<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    scope: Option<Words<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    id: Option<Words<'a>>,
    from: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct TriesText {
    failures: u32,
    since: i64,
    cooling_until: i64,
    cooling_since: i64,
    own: bool,
}

/// [`Over`] as it is written.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ended {
    Gone,
    Refused,
    Unknown,
    NoRefreshToken,
    TooOld,
    Mismatch,
}

fn relative(instant: Instant, now: Instant) -> i64 {
    let apart = i128::from(instant.as_nanos()) - i128::from(now.as_nanos());
    i64::try_from(apart).unwrap_or(if apart < 0 { i64::MIN } else { i64::MAX })
}

fn moment(instant: Instant, now: Instant) -> Moment {
    (instant != Instant::NEVER).then(|| relative(instant, now))
}

fn absolute(apart: i64, written_at: Instant) -> Instant {
    let apart_by = Duration::from_nanos(apart.unsigned_abs());
    if apart < 0 { written_at - apart_by } else { written_at + apart_by }
}

impl<'a> TokenText<'a> {
    fn of(granted: &'a Granted, now: Instant) -> Self {
        Self {
            token: Words::of(granted.token.expose()),
            kind: Words::of(&granted.kind),
            scope: granted.scope.as_deref().map(Words::of),
            id: granted.id.as_ref().map(|id| Words::of(id.expose())),
            from: relative(granted.from, now),
            life: granted.life.map(tidegate_core::nanos),
        }
    }

    fn granted(self, written_at: Instant) -> Granted {
        Granted {
            token: self.token.secret(),
            kind: self.kind.0.into(),
            scope: self.scope.map(|scope| scope.0.into()),
            id: self.id.map(Words::secret),
            from: absolute(self.from, written_at),
            life: self.life.map(Duration::from_nanos),
        }
    }
}

impl<'a> Text<'a> {
    fn of(record: &'a Record, now: Instant) -> Self {
        let tries = &record.tries;
        Self {
            format: FORMAT,
            generation: record.generation,
            access: TokenText::of(&record.access, now),
            pending: record.pending.as_ref().map(|pending| TokenText::of(pending, now)),
            refresh: record.refresh.as_ref().map(|refresh| Words::of(refresh.expose())),
            refresh_until: moment(record.refresh_until, now),
            identity: record.identity.as_ref().map(|who| [Words::of(&who.issuer), Words::of(&who.subject)]),
            attributes: Words::of(&record.attributes),
            unknown_since: record.unknown_since.map(|since| relative(since, now)),
            over: record.over.map(|over| match over {
                Over::Gone => Ended::Gone,
                Over::Refused => Ended::Refused,
                Over::Unknown => Ended::Unknown,
                Over::NoRefreshToken => Ended::NoRefreshToken,
                Over::TooOld => Ended::TooOld,
                Over::Mismatch => Ended::Mismatch,
            }),
            ends_at: moment(record.ends_at, now),
            tries: (*tries != Tries::default()).then(|| TriesText {
                failures: tries.failures,
                since: relative(tries.since, now),
                cooling_until: relative(tries.cooling_until, now),
                cooling_since: relative(tries.cooling_since, now),
                own: tries.own,
            }),
        }
    }

    fn record(self, written_at: Instant) -> Record {
        let at = |apart| absolute(apart, written_at);
        Record {
            generation: self.generation,
            access: self.access.granted(written_at),
            pending: self.pending.map(|pending| pending.granted(written_at)),
            refresh: self.refresh.map(Words::secret),
            refresh_until: self.refresh_until.map_or(Instant::NEVER, at),
            identity: self
                .identity
                .map(|[issuer, subject]| Identity { issuer: issuer.0.into(), subject: subject.0.into() }),
            attributes: self.attributes.0.into(),
            unknown_since: self.unknown_since.map(at),
            over: self.over.map(|over| match over {
                Ended::Gone => Over::Gone,
                Ended::Refused => Over::Refused,
                Ended::Unknown => Over::Unknown,
                Ended::NoRefreshToken => Over::NoRefreshToken,
                Ended::TooOld => Over::TooOld,
                Ended::Mismatch => Over::Mismatch,
            }),
            ends_at: self.ends_at.map_or(Instant::NEVER, at),
            tries: self.tries.map_or_else(Tries::default, |tries| Tries {
                failures: tries.failures,
                since: at(tries.since),
                cooling_until: at(tries.cooling_until),
                cooling_since: at(tries.cooling_since),
                own: tries.own,
            }),
        }
    }
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
