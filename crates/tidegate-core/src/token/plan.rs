//! How a session stands, and what is to be done about it.

use std::time::Duration;

use super::Tries;
use crate::{Freshness, Instant, Term};

/// Why a session is over: the user has to log in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// It is not in the store: logged out, too long idle, or never there.
    Gone,
    /// The endpoint took its refresh token for worth nothing.
    Refused,
    /// A grant was sent and no answer came: its refresh token may be used up.
    Unknown,
    /// Its access token is over and there is no refresh token, or its life is over too.
    NoRefreshToken,
    /// It is as old as a session may be.
    TooOld,
    /// A refresh brought somebody else's tokens.
    Mismatch,
}

impl Over {
    /// The word for it in metrics, logs and problem documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Unknown => "outcome-unknown",
            Self::NoRefreshToken => "no-refresh-token",
            Self::TooOld => "too-old",
            Self::Mismatch => "identity-changed",
        }
    }

    /// Whether an access token that is still good is served to its end.
    const fn lets_live(self) -> bool {
        match self {
            Self::Refused | Self::Unknown | Self::NoRefreshToken => true,
            Self::Gone | Self::TooOld | Self::Mismatch => false,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Serve the access token.
    Serve,
    /// Serve the access token to its end: there will be no other one.
    ServeOut(Over),
    /// Get another one; the access token there is may be good meanwhile.
    Refresh,
    /// Verify what was granted; no other grant.
    Verify,
    /// Get another one, and not before then.
    Cooling(Instant),
    /// Nothing can be served any more.
    Over(Over),
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When the access token falls due and is over.
    pub access: Term,
    /// When the refresh token is over; `None`: there is none. [`Instant::NEVER`] where nobody told.
    pub refresh_until: Option<Instant>,
    /// Whether tokens were granted that are not verified.
    pub unverified: bool,
    /// When a grant was sent of which nobody knows what became.
    pub unknown_since: Option<Instant>,
    /// Why it is over, if it is.
    pub over: Option<Over>,
    /// When it is as old as it may be.
    pub ends_at: Instant,
    /// Its grants that failed.
    pub tries: Tries,
}

impl Standing {
    /// What is to be done at `now`. `grace` is how long the endpoint takes a refresh token again that was used;
    /// `answered_at` when it last answered anybody.
    pub fn plan(&self, grace: Option<Duration>, answered_at: Option<Instant>, now: Instant) -> Plan {
        if now >= self.ends_at {
            return Plan::Over(Over::TooOld);
        }
        let freshness = self.access.at(now);
        let good = freshness != Freshness::Dead;
        let ending =
            |over: Over| if good && over.lets_live() { Plan::ServeOut(over) } else { Plan::Over(over) };
        if let Some(over) = self.over {
            return ending(over);
        }
        if self.unverified {
            return Plan::Verify;
        }
        if freshness == Freshness::Fresh {
            return Plan::Serve;
        }
        if self.refresh_until.is_none_or(|until| until <= now) {
            return ending(Over::NoRefreshToken);
        }
        if self.unknown_since.is_some_and(|since| grace.is_none_or(|grace| now >= since + grace)) {
            return ending(Over::Unknown);
        }
        match self.tries.may(answered_at, now) {
            Ok(()) => Plan::Refresh,
            Err(until) => Plan::Cooling(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Dice,
        token::{Blame, Limits, Schedule},
    };

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    /// Due at 240 s, over at 270 s.
    fn standing() -> Standing {
        Standing {
            access: Schedule::default().term(START, Some(Duration::from_secs(300)), Dice::MOST),
            refresh_until: Some(Instant::NEVER),
            unverified: false,
            unknown_since: None,
            over: None,
            ends_at: Instant::NEVER,
            tries: Tries::default(),
        }
    }

    fn plans(standing: Standing) -> [Plan; 3] {
        [100, 250, 280].map(|second| standing.plan(None, None, at(second)))
    }

    #[test]
    fn a_session_is_served_then_refreshed() {
        assert_eq!(plans(standing()), [Plan::Serve, Plan::Refresh, Plan::Refresh]);
    }

    #[test]
    fn a_good_token_is_served_out_before_anybody_is_sent_to_the_login() {
        for (over, standing) in [
            (Over::Refused, Standing { over: Some(Over::Refused), ..standing() }),
            (Over::NoRefreshToken, Standing { refresh_until: None, ..standing() }),
            (Over::NoRefreshToken, Standing { refresh_until: Some(at(200)), ..standing() }),
            (Over::Unknown, Standing { unknown_since: Some(at(50)), ..standing() }),
        ] {
            let [_, due, dead] = plans(standing);
            assert_eq!((due, dead), (Plan::ServeOut(over), Plan::Over(over)), "{standing:?}");
        }
    }

    #[test]
    fn nothing_is_served_of_a_session_that_is_too_old_or_somebody_elses() {
        for (over, standing) in [
            (Over::TooOld, Standing { ends_at: at(100), ..standing() }),
            (Over::Mismatch, Standing { over: Some(Over::Mismatch), ..standing() }),
            (Over::Gone, Standing { over: Some(Over::Gone), ..standing() }),
        ] {
            assert_eq!(plans(standing), [Plan::Over(over); 3]);
        }
    }

    #[test]
    fn what_was_granted_is_verified_before_anything_else_is_granted() {
        assert_eq!(plans(Standing { unverified: true, ..standing() }), [Plan::Verify; 3]);
    }

    #[test]
    fn a_token_that_may_be_used_up_is_sent_again_within_the_grace_only() {
        let unknown = Standing { unknown_since: Some(at(280)), ..standing() };
        let grace = Some(Duration::from_secs(30));
        assert_eq!(unknown.plan(grace, None, at(309)), Plan::Refresh);
        assert_eq!(unknown.plan(grace, None, at(310)), Plan::Over(Over::Unknown));
        assert_eq!(unknown.plan(None, None, at(281)), Plan::Over(Over::Unknown));
    }

    #[test]
    fn a_session_that_cools_down_tells_until_when() {
        let limits = Limits::default();
        let tries = (0..5).fold(Tries::default(), |tries, _| tries.failed(Blame::Session, &limits, at(245)));
        let cooling = Standing { tries, ..standing() };
        assert_eq!(plans(cooling), [Plan::Serve, Plan::Cooling(at(845)), Plan::Cooling(at(845))]);
    }
}
