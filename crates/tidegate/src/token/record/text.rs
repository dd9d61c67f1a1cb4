//! How a record is written: as JSON, its times relative to the moment of writing.

use std::{borrow::Cow, sync::OnceLock, time::Duration};

use serde::{Deserialize, Serialize};
use tidegate_core::{
    Instant,
    token::{Over, Tries},
};

use super::{Granted, Record};
use crate::{Secret, token::Identity};

/// The way records are written.
const FORMAT: u32 = 1;

/// Nanoseconds before (less than 0) or after the moment of writing; `None`: never.
type Moment = Option<i64>;

#[derive(Serialize, Deserialize)]
pub(super) struct Text<'a> {
    format: u32,
    #[serde(default)]
    born: u64,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected_at: Moment,
}

/// A text, borrowed where JSON wrote it without escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Words<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Words<'a> {
    const fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
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
            header: OnceLock::new(),
        }
    }
}

impl<'a> Text<'a> {
    /// A record as of `now`.
    pub(super) fn of(record: &'a Record, now: Instant) -> Self {
        let tries = &record.tries;
        Self {
            format: FORMAT,
            born: record.born,
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
            rejected_at: record.rejected_at.map(|at| relative(at, now)),
        }
    }

    /// The record that was written at `written_at`; `None`: in a way that is not known.
    pub(super) fn record(self, written_at: Instant) -> Option<Record> {
        if self.format != FORMAT {
            return None;
        }
        let at = |apart| absolute(apart, written_at);
        Some(Record {
            born: self.born,
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
            rejected_at: self.rejected_at.map(at),
        })
    }
}
