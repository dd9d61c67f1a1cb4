//! Whose sessions are whose: which ones a provider means that ends those of a user, or those of one login at it.
//!
//! A list stands in the store of sessions as a record of its own, sealed as they are, and changes by compare-and-swap. It
//! remembers for a while that it was ended, so that a login that was on its way meanwhile does not outlive that.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tidegate::token::{
    Fence, Seal as _, SessionId, SessionStore as _, SessionStoreError, Stored, Under, Write, Written,
};

use super::{Kept, KeyRing, flow};
use crate::oidc::date::wall;

/// Most sessions on one list; one more ends the oldest. Default: 1000.
const MOST: usize = 1000;
/// How long it is remembered that a list was ended: longer than a login may be on its way.
const REMEMBERED: Duration = Duration::from_secs(flow::SECONDS + 300);
/// How far the clocks of gateways may be apart before an entry is forgotten too soon, in seconds.
const APART: u64 = 300;
/// How often a change is tried that others get ahead of.
const TRIES: usize = 50;

const FORMAT: u8 = 1;
const ID_BYTES: usize = 64;
const ENTRY_BYTES: usize = ID_BYTES + 8 + 1;

/// What a list is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of<'a> {
    /// All sessions of a user: by `sub`.
    User(&'a str),
    /// The sessions of one login at the provider: by `sid`.
    Login(&'a str),
}

/// A session on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: SessionId,
    /// When it is over at the latest, in seconds since the Unix epoch.
    pub(super) until: u64,
    /// Whether the provider said of which login it is.
    pub(super) has_login: bool,
}

/// What became of putting a session on a list.
#[derive(Debug)]
pub(super) enum Entered {
    /// It stands there, and this one had to go for it.
    Stands(Option<SessionId>),
    /// The list was ended after the session's tokens were made.
    Ended,
}

/// The lists of the sessions of one name.
pub(super) struct Roll<'a> {
    pub(super) kept: &'a Kept,
    pub(super) ring: &'a KeyRing,
    pub(super) session: &'a str,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    /// When it was ended, in seconds since the Unix epoch, by the provider's clock.
    ended: Option<i64>,
    entries: Vec<Entry>,
}

impl Roll<'_> {
    /// Puts a session on a list, whose tokens were made at `issued_at` by the provider's clock.
    pub(super) async fn enter(
        &self,
        of: Of<'_>,
        entry: &Entry,
        issued_at: i64,
    ) -> Result<Entered, SessionStoreError> {
        self.change(of, |list| {
            let over = match of {
                // A login at the provider is over for good.
                Of::Login(_) => list.ended.is_some(),
                Of::User(_) => list.ended.is_some_and(|ended| issued_at <= ended),
            };
            if over {
                return (Entered::Ended, Keep::AsItIs);
            }
            let pushed_out = (list.entries.len() >= MOST).then(|| list.entries.remove(0).id);
            list.entries.push(entry.clone());
            (Entered::Stands(pushed_out), Keep::This)
        })
        .await
    }

    /// Takes sessions off a list.
    pub(super) async fn leave(&self, of: Of<'_>, ids: &[SessionId]) -> Result<(), SessionStoreError> {
        self.change(of, |list| {
            let before = list.entries.len();
            list.entries.retain(|entry| !ids.contains(&entry.id));
            ((), if list.entries.len() == before { Keep::AsItIs } else { Keep::This })
        })
        .await
    }

    /// Ends a list at `at` by the provider's clock: the sessions on it, which are to be ended and then to be taken off.
    pub(super) async fn end(&self, of: Of<'_>, at: i64) -> Result<Vec<Entry>, SessionStoreError> {
        self.change(of, |list| {
            list.ended = Some(list.ended.map_or(at, |before| before.max(at)));
            (list.entries.clone(), Keep::This)
        })
        .await
    }

    /// The sessions on a list.
    pub(super) async fn read(&self, of: Of<'_>) -> Result<Vec<Entry>, SessionStoreError> {
        let name = self.name(of);
        Ok(self
            .kept
            .read(&name, None)
            .await?
            .map(|stored| self.open(&name, &stored).entries)
            .unwrap_or_default())
    }

    /// Notes that a token was presented, for `seconds`. `false`: it was before.
    pub(super) async fn first_time(&self, token: &str, seconds: u64) -> Result<bool, SessionStoreError> {
        self.kept.create(&self.name_of("token", token), Vec::new(), Duration::from_secs(seconds.max(1))).await
    }

    /// Forgets that a token was presented: it had no effect.
    pub(super) async fn as_if_never(&self, token: &str) -> Result<(), SessionStoreError> {
        self.kept.remove(&self.name_of("token", token)).await.map(drop)
    }

    fn name(&self, of: Of<'_>) -> SessionId {
        match of {
            Of::User(user) => self.name_of("user", user),
            Of::Login(login) => self.name_of("login", login),
        }
    }

    /// Who reads the store learns no names.
    fn name_of(&self, kind: &str, name: &str) -> SessionId {
        let hash = digest(&SHA256, format!("{}\0{kind}\0{name}", self.session).as_bytes());
        let hash = SessionId::of_hash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"));
        SessionId::new(&format!("{kind}.{}", hash.as_str())).expect("a word, a dot and a hash are an id")
    }

    async fn change<R>(
        &self,
        of: Of<'_>,
        decide: impl Fn(&mut List) -> (R, Keep) + Send + Sync,
    ) -> Result<R, SessionStoreError> {
        let name = self.name(of);
        for _ in 0..TRIES {
            let stored = self.kept.read(&name, None).await?;
            let mut list = stored.as_ref().map(|stored| self.open(&name, stored)).unwrap_or_default();
            let now = wall().as_secs();
            list.entries.retain(|entry| entry.until + APART > now);
            let (decided, keep) = decide(&mut list);
            if matches!(keep, Keep::AsItIs) {
                return Ok(decided);
            }
            let over = stored.map_or(0, |stored| stored.version);
            let record = self.ring.seal(&list.write(), &context(&name, over + 1));
            let keep = list.lasts(now);
            let stands = if over == 0 {
                self.kept.create(&name, record, keep).await?
            } else {
                let write = Write { record, over, keep, fence: Fence(0), under: Under::Anybody };
                matches!(self.kept.write(&name, write).await?, Written::Done(_))
            };
            if stands {
                return Ok(decided);
            }
        }
        Err(SessionStoreError::new("too many change the same list of sessions at once"))
    }

    /// A list that cannot be read is as good as none: its key is not in the ring any more, and so are its sessions' keys.
    fn open(&self, name: &SessionId, stored: &Stored) -> List {
        let plain = self.ring.open(&stored.record, &context(name, stored.version));
        plain.and_then(|plain| List::read(&plain)).unwrap_or_default()
    }
}

/// Whether a list is to be written.
enum Keep {
    This,
    AsItIs,
}

impl List {
    /// How long it is to stand.
    fn lasts(&self, now: u64) -> Duration {
        let last = self.entries.iter().map(|entry| entry.until + APART).max().unwrap_or(now);
        let entries = Duration::from_secs(last.saturating_sub(now).max(1));
        if self.ended.is_some() { entries.max(REMEMBERED) } else { entries }
    }

    fn write(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(10 + self.entries.len() * ENTRY_BYTES);
        text.push(FORMAT);
        text.push(u8::from(self.ended.is_some()));
        text.extend_from_slice(&self.ended.unwrap_or_default().to_be_bytes());
        for entry in &self.entries {
            text.extend_from_slice(entry.id.as_str().as_bytes());
            text.extend_from_slice(&entry.until.to_be_bytes());
            text.push(u8::from(entry.has_login));
        }
        text
    }

    fn read(text: &[u8]) -> Option<Self> {
        let (&[FORMAT, was_ended], rest) = text.split_first_chunk::<2>()? else { return None };
        let (ended, rest) = rest.split_first_chunk()?;
        let (entries, []) = rest.as_chunks::<ENTRY_BYTES>() else { return None };
        let entry = |text: &[u8; ENTRY_BYTES]| {
            let (id, rest) = text.split_first_chunk::<ID_BYTES>()?;
            let (until, rest) = rest.split_first_chunk()?;
            let id = SessionId::new(std::str::from_utf8(id).ok()?).ok()?;
            Some(Entry { id, until: u64::from_be_bytes(*until), has_login: rest == [1] })
        };
        Some(Self {
            ended: (was_ended == 1).then_some(i64::from_be_bytes(*ended)),
            entries: entries.iter().map(entry).collect::<Option<_>>()?,
        })
    }
}

/// What a sealed list belongs to.
fn context(name: &SessionId, version: u64) -> Vec<u8> {
    format!("tidegate list of sessions {} {version}", name.as_str()).into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use tidegate::{Secret, token::MemorySessions};

    use super::*;

    fn ring(first: u8) -> KeyRing {
        let mut bytes = [7; 32];
        bytes[0] = first;
        KeyRing::new(&[Secret::new(STANDARD.encode(bytes))]).unwrap()
    }

    fn entry(byte: u8) -> Entry {
        Entry { id: SessionId::of_hash(&[byte; 32]), until: wall().as_secs() + 100, has_login: byte % 2 == 1 }
    }

    async fn ids(roll: &Roll<'_>, of: Of<'_>) -> Vec<SessionId> {
        roll.read(of).await.unwrap().into_iter().map(|entry| entry.id).collect()
    }

    #[tokio::test]
    async fn sessions_are_found_by_their_user_and_by_their_login_and_nobody_elses_are() {
        let (kept, ring) = (Kept::Memory(MemorySessions::default()), ring(1));
        let roll = Roll { kept: &kept, ring: &ring, session: "idp" };
        for byte in 1..=3 {
            assert!(matches!(roll.enter(Of::User("ann"), &entry(byte), 5).await, Ok(Entered::Stands(None))));
        }
        roll.enter(Of::Login("ann"), &entry(9), 5).await.unwrap();
        roll.leave(Of::User("ann"), &[entry(2).id]).await.unwrap();
        assert_eq!(ids(&roll, Of::User("ann")).await, [entry(1).id, entry(3).id]);
        assert_eq!(ids(&roll, Of::Login("ann")).await, [entry(9).id]);
        assert_eq!(ids(&roll, Of::User("bob")).await, []);
        let other = Roll { session: "partners", ..roll };
        assert_eq!(ids(&other, Of::User("ann")).await, []);
    }

    #[tokio::test]
    async fn a_login_that_was_on_its_way_while_its_list_was_ended_is_over_and_a_later_one_is_not() {
        let (kept, ring) = (Kept::Memory(MemorySessions::default()), ring(1));
        let roll = Roll { kept: &kept, ring: &ring, session: "idp" };
        let first = entry(1);
        roll.enter(Of::User("ann"), &first, 5).await.unwrap();
        let ended = roll.end(Of::User("ann"), 10).await.unwrap();
        assert_eq!(ended, [first]);
        assert!(matches!(roll.enter(Of::User("ann"), &entry(2), 10).await, Ok(Entered::Ended)));
        assert!(matches!(roll.enter(Of::User("ann"), &entry(2), 11).await, Ok(Entered::Stands(None))));
        // An older logout that comes late moves nothing back.
        roll.end(Of::User("ann"), 3).await.unwrap();
        assert!(matches!(roll.enter(Of::User("ann"), &entry(3), 9).await, Ok(Entered::Ended)));
        // A login at the provider never begins again.
        roll.end(Of::Login("sid"), 10).await.unwrap();
        assert!(matches!(roll.enter(Of::Login("sid"), &entry(4), 99).await, Ok(Entered::Ended)));
    }

    #[tokio::test]
    async fn a_list_is_bounded_and_the_oldest_session_makes_room() {
        let (kept, ring) = (Kept::Memory(MemorySessions::default()), ring(1));
        let roll = Roll { kept: &kept, ring: &ring, session: "idp" };
        let nth = |n: usize| Entry {
            id: SessionId::of_hash(&std::array::from_fn(|at| n.to_be_bytes()[at % 8])),
            ..entry(0)
        };
        for n in 0..MOST {
            assert!(matches!(roll.enter(Of::User("u"), &nth(n), 5).await, Ok(Entered::Stands(None))));
        }
        let Ok(Entered::Stands(Some(gone))) = roll.enter(Of::User("u"), &nth(MOST), 5).await else {
            panic!()
        };
        assert_eq!((gone, ids(&roll, Of::User("u")).await.len()), (nth(0).id, MOST));
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_and_those_who_change_a_list_at_once_lose_nothing() {
        let (kept, ring) = (Kept::Memory(MemorySessions::default()), ring(1));
        let roll = Roll { kept: &kept, ring: &ring, session: "idp" };
        let over = Entry { until: wall().as_secs() - APART - 1, ..entry(0) };
        roll.enter(Of::User("u"), &over, 5).await.unwrap();
        let entries: Vec<Entry> = (1..=20).map(entry).collect();
        let all = entries.iter().map(|entry| roll.enter(Of::User("u"), entry, 5));
        for entered in futures_util::future::join_all(all).await {
            assert!(matches!(entered, Ok(Entered::Stands(None))), "{entered:?}");
        }
        let mut found = ids(&roll, Of::User("u")).await;
        found.sort();
        assert_eq!(found, entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_token_counts_once_unless_it_had_no_effect() {
        let (kept, ring) = (Kept::Memory(MemorySessions::default()), ring(1));
        let roll = Roll { kept: &kept, ring: &ring, session: "idp" };
        assert_eq!(roll.first_time("jti", 60).await, Ok(true));
        assert_eq!(roll.first_time("jti", 60).await, Ok(false));
        roll.as_if_never("jti").await.unwrap();
        assert_eq!(roll.first_time("jti", 60).await, Ok(true));
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_nothing_else_is_one() {
        for list in [
            List::default(),
            List { ended: Some(-7), entries: Vec::new() },
            List { ended: None, entries: vec![entry(1), entry(2)] },
        ] {
            let text = list.write();
            assert_eq!(List::read(&text), Some(list));
            assert!((0..text.len().min(10)).all(|length| List::read(&text[..length]).is_none()));
        }
        assert_eq!(List::read(&[2; 10]), None);
    }
}
