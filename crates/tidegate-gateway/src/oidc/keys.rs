//! A provider's signing keys: kept, asked for again when a token names one that is not there, and not more often than
//! agreed, however many such tokens come.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tidegate::{
    clock,
    keeper::{Answer, Failed, Fetch, Fetched, Keeper, Settings},
    token::VerifyError,
};
use tidegate_core::{Call, Instant, Lifetime};

use super::{
    date::wall,
    http::{NoAnswer, Question},
    jose::{InvalidToken, KeySet, Parts},
    provider::{DOCUMENT_TIMEOUT, Provider},
};

/// How long keys are good. Default: 1 h, and while the provider is away for 24 h more.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest time between two questions for a key that is not there. Default: 30 s.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The signing keys of a provider.
pub struct Keys {
    keeper: Keeper<Source>,
    turn: Mutex<Turn>,
    ask_again: Duration,
}

/// Which reading of the keys is current: one more than the last when a key is missed, so that all who miss it wait for one
/// question, and it is not answered by what was asked before.
struct Turn {
    number: u64,
    begun: Option<Instant>,
}

struct Source {
    provider: Arc<Provider>,
    /// The last keys that were read, whichever turn they are of.
    good: ArcSwapOption<Good>,
}

struct Good {
    keys: KeySet,
    at: Instant,
}

impl Keys {
    /// Makes a cache. Nothing is asked yet.
    pub fn new(provider: Arc<Provider>) -> Self {
        let settings = Settings {
            lifetime: Lifetime::of(LIFETIME, STALE),
            timeout: DOCUMENT_TIMEOUT * 3,
            // The last turn and the one before.
            keys: 2,
            idle: STALE,
            ..Settings::default()
        };
        let source = Source { provider, good: ArcSwapOption::empty() };
        Self {
            keeper: Keeper::new(source, settings).expect("these settings are in range"),
            turn: Mutex::new(Turn { number: 0, begun: None }),
            ask_again: ASK_AGAIN,
        }
    }

    /// Sets the shortest time between two questions for a key that is not there. Default: 30 s.
    #[must_use]
    pub fn ask_again(self, ask_again: Duration) -> Self {
        Self { ask_again, ..self }
    }

    /// Checks a token's signature.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`] only when keys that were read after the question do not fit; whatever keeps them from
    /// being read is [`VerifyError::Unavailable`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing; a question under way goes on.
    pub async fn verify(&self, call: &Call, parts: &Parts<'_>) -> Result<(), VerifyError> {
        let number = self.turn.lock().number;
        // Begins to read the keys again when that is due; a token whose key is known does not wait for it.
        self.keeper.try_get(call, &number);
        let fits =
            |good: &Option<Arc<Good>>| good.as_ref().is_some_and(|good| good.keys.verify(parts).is_ok());
        if fits(&self.good_at(call.now)) {
            return Ok(());
        }
        self.read(call, number).await?;
        let good = self.good_at(clock::now());
        if fits(&good) {
            return Ok(());
        }
        let last = good.as_ref().map_or(Instant::EPOCH, |good| good.at);
        if last < call.now {
            // Keys that were read before the token came say nothing of keys that are newer.
            let number = self.next_turn(call.now, last).map_err(|again| {
                unavailable(format!("its key is not known; keys are read again in {again:?} at the earliest"))
            })?;
            self.read(call, number).await?;
        }
        match self.good_at(clock::now()) {
            good if fits(&good) => Ok(()),
            Some(good) if good.at >= call.now => Err(invalid(InvalidToken::Signature)),
            _ => Err(unavailable("the provider's keys could not be read again".into())),
        }
    }

    /// Begins the next turn, or finds one that began after `missed` or is not read yet: one question for all who miss a key.
    ///
    /// # Errors
    /// How long it is too soon for another.
    fn next_turn(&self, missed: Instant, last: Instant) -> Result<u64, Duration> {
        let mut turn = self.turn.lock();
        let begun = turn.begun.unwrap_or(Instant::EPOCH);
        if begun >= missed || last < begun {
            return Ok(turn.number);
        }
        // Only questions for missing keys count: a provider may well change its key right after it was read, and everybody
        // who then gets a token would have to wait.
        let soonest = begun + self.ask_again;
        if missed < soonest {
            return Err(soonest.since(missed));
        }
        turn.number += 1;
        turn.begun = Some(clock::now());
        Ok(turn.number)
    }

    async fn read(&self, call: &Call, number: u64) -> Result<(), VerifyError> {
        match self.keeper.get(call, &number).await {
            Answer::Fresh(_) | Answer::Stale { .. } => Ok(()),
            Answer::Nothing { .. } => Err(unavailable("the provider has no keys".into())),
            // What was read before may still do.
            Answer::Refused(_) if self.good_at(call.now).is_some() => Ok(()),
            Answer::Refused(refusal) => Err(unavailable(refusal.to_string())),
        }
    }

    fn good_at(&self, now: Instant) -> Option<Arc<Good>> {
        let good = self.keeper.fetcher().good.load_full();
        good.filter(|good| now < good.at + LIFETIME + STALE)
    }
}

fn unavailable(why: String) -> VerifyError {
    VerifyError::Unavailable { why: why.into() }
}

fn invalid(why: InvalidToken) -> VerifyError {
    VerifyError::Invalid { why: why.to_string().into() }
}

impl Fetch for Source {
    type Key = u64;
    type Value = ();
    type Error = Arc<str>;

    async fn fetch(&self, _turn: &u64) -> Result<Fetched<()>, Failed<Arc<str>>> {
        let at = clock::now();
        let metadata = self.provider.metadata_within(DOCUMENT_TIMEOUT * 2).await.map_err(Failed::source)?;
        let url = metadata.jwks_uri.clone();
        let url = url.ok_or_else(|| Failed::key("its discovery document names no jwks_uri".into()))?;
        let asked = self.provider.http.ask(Question::get(url), DOCUMENT_TIMEOUT).await;
        let answer = asked.map_err(|NoAnswer { why, .. }| Failed::source(why.into()))?;
        self.provider.clock.learn(self.provider.issuer(), &answer.headers);
        if !answer.status.is_success() {
            let error = format!("its keys were answered with {}", answer.status).into();
            return Err(Failed { retry_after: answer.retry_after(wall()), ..Failed::source(error) });
        }
        let keys = KeySet::read(&answer.body)
            .map_err(|wrong| Failed::key(format!("its keys can not be read: {wrong}").into()))?;
        self.good.store(Some(Arc::new(Good { keys, at })));
        Ok(Fetched::value(()))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}
