//! Times as HTTP writes them, and how far a provider's clock is from ours.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};
use jiff::fmt::rfc2822::DateTimeParser;

/// Less than this is the whole seconds of `Date` and the time under way.
const BLUR: i64 = 2;
/// More than this is worth a word to the operator.
const WORTH_A_WARNING: i64 = 5;

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` as the time since the Unix epoch.
pub(super) fn parse(text: &str) -> Option<Duration> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let seconds = PARSER.parse_timestamp(text).ok()?.as_second();
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Our own wall clock, since the Unix epoch.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A provider's clock, as far as its answers tell.
#[derive(Debug, Default)]
pub struct ProviderClock {
    /// How many seconds it is ahead of ours.
    ahead: AtomicI64,
    warned: AtomicBool,
}

impl ProviderClock {
    /// Learns from the `Date` of an answer that just came. One out of a cache tells what its clock showed long ago, and
    /// teaches nothing (RFC 9111 §5.1).
    pub fn learn(&self, provider: &str, headers: &HeaderMap) {
        if headers.contains_key(header::AGE) {
            return;
        }
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        let Some(theirs) = date.and_then(parse) else { return };
        let ahead = theirs.as_secs() as i64 - wall().as_secs() as i64;
        let ahead = if ahead.abs() <= BLUR { 0 } else { ahead };
        self.ahead.store(ahead, Relaxed);
        let odd = ahead.abs() > WORTH_A_WARNING;
        if self.warned.swap(odd, Relaxed) != odd && odd {
            tracing::warn!(
                provider,
                seconds_ahead = ahead,
                "the provider's clock is not ours; tokens are checked by its clock"
            );
        }
    }

    /// How many seconds it is ahead of ours.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Relaxed)
    }

    /// The time there, in seconds since the Unix epoch.
    pub fn seconds(&self) -> i64 {
        (wall().as_secs() as i64).saturating_add(self.ahead())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(784_111_777)));
        for text in ["", "784111777", "tomorrow", "Sun, 06 Nov 1894 08:49:37 GMT"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_is_learned_from_answers_and_small_differences_are_none() {
        let clock = ProviderClock::default();
        let told = |ahead: i64| {
            let at = jiff::Timestamp::from_second(wall().as_secs() as i64 + ahead).unwrap();
            let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap();
            let headers = HeaderMap::from_iter([(header::DATE, date.parse().unwrap())]);
            clock.learn("idp", &headers);
            clock.ahead()
        };
        assert_eq!(told(1), 0);
        assert!((119..=121).contains(&told(120)));
        assert!((-121..=-119).contains(&told(-120)));
        assert!(clock.seconds() < wall().as_secs() as i64 - 100);
        clock.learn("idp", &HeaderMap::new());
        assert!(clock.ahead() < -100, "an answer without a date teaches nothing");
        let old = [(header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"), (header::AGE, "1200")];
        clock.learn(
            "idp",
            &old.map(|(name, text)| (name, HeaderValue::from_static(text))).into_iter().collect(),
        );
        assert!(clock.ahead() > -200, "what a cache kept teaches nothing");
    }
}
