//! What a limit is in the ledger: how much, over which window, how long credit lives; in whole microseconds, small
//! enough that a store whose numbers are doubles computes the same.

use std::{fmt, time::Duration};

use super::{Micros, bucket, micros};
use crate::{Algorithm, Quota};

/// Most slices of a sliding window. Each is a number in the store.
pub const MOST_SLICES: u64 = 100;
/// The life of credit unless the window or the bucket asks for a shorter one. A learning pause lasts as long, so it
/// is an outage's length after the ledger is lost; and each node that uses a key asks at least once in it.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(5);
/// The shortest life of credit. It is counted from before the question is sent, so one below the store's latency
/// would be over on arrival.
pub const MIN_LIFE: Duration = Duration::from_millis(10);
/// The longest life of credit.
pub const MAX_LIFE: Duration = Duration::from_secs(3600);
/// The longest time of prohibition.
pub const MAX_PROHIBIT: Duration = Duration::from_secs(366 * 24 * 3600);
/// A node gets at most one part in this many of its share at once, unless its callers wait for more.
pub const DEFAULT_DIVISOR: u32 = 4;
/// The longest time in which a node gives back what has died in hand, in microseconds.
const NOTICED_WITHIN: Micros = 1_000_000;
/// The longest a bucket may take to fill in the ledger: ten years.
const MAX_REFILL: u128 = 10 * 366 * 24 * 3600 * 1_000_000;

/// How a store counts: all that its arithmetic needs, in integers below 2^53.
///
/// A store keeps an account for each subject and law: [`Display`](fmt::Display) is short and tells laws apart whose
/// accounts cannot be read as one another's. A changed limit, rate, burst or life keeps the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// Windows that begin at multiples of `period` on the store's clock.
    Aligned {
        /// The length of a window, in microseconds.
        period: Micros,
    },
    /// A window begins with the first credit after the one before has ended.
    FirstCall {
        /// The length of a window, in microseconds.
        period: Micros,
    },
    /// Calendar months in UTC.
    Month,
    /// Slices at multiples of `slice` on the store's clock. Credit dies with its slice, and `slices` + 1 slices that
    /// follow each other hold no more than the limit: no span of one period touches more.
    Sliding {
        /// The length of a slice, in microseconds; `slices` of them are at least a period.
        slice: Micros,
        /// Slices in a period.
        slices: u64,
    },
    /// A token bucket: `count` units flow in each `period` (in lowest terms), and `burst` are there when it is full.
    Bucket {
        /// Units in a period.
        count: u64,
        /// The period, in microseconds.
        period: Micros,
        /// What the ledger lets out at once: the limit less what flows in during the life of credit.
        burst: u64,
        /// The time in which `burst` flows in, rounded up.
        refill: Micros,
    },
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aligned { period } => write!(f, "a{period}"),
            Self::FirstCall { period } => write!(f, "f{period}"),
            Self::Month => f.write_str("m"),
            Self::Sliding { slice, slices } => write!(f, "s{slice}x{slices}"),
            Self::Bucket { .. } => f.write_str("b"),
        }
    }
}

/// Where the windows of a fixed-window quota begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Opening {
    /// At multiples of the period on the store's clock (UTC).
    #[default]
    Clock,
    /// With the first call after the last window has ended.
    FirstCall,
}

/// A window of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calendar {
    /// From second 0 to second 59.
    Minute,
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From midnight of the first to midnight of the next month's first.
    Month,
}

/// A limit as a ledger of credit keeps it. One that exists is valid, and no arithmetic on it overflows a double.
///
/// What is strict is so at the instant of spending, whatever the number of nodes:
/// - a fixed window never spends more than the limit: credit dies with its window;
/// - no span of one period of a sliding window spends more than the limit. At least
///   [`slices`](Law::Sliding)/(slices + 1) of the limit can be used by those who always ask: 99 % by default;
/// - a token bucket spends at most burst + rate × (time + [`tolerance`](Self::tolerance)) in any time. The tolerance
///   is zero, for the ledger's burst is smaller by rate × life, unless the burst is too small for that.
///
/// When a limit is lowered the new one holds for what is granted from then on; what was granted before may still be
/// spent while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    limit: u32,
    law: Law,
    life: Micros,
    prohibit: Micros,
    divisor: u32,
    tolerance: Micros,
}

/// A rule in the making.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct RuleBuilder {
    basis: Basis,
    opening: Opening,
    life: Option<Duration>,
    prohibit: Duration,
    divisor: u32,
}

#[derive(Clone, Copy, Debug)]
enum Basis {
    Quota(Quota),
    Calendar(u32, Calendar),
}

impl Rule {
    /// Begins a rule of a rate, burst and algorithm.
    pub const fn of(quota: Quota) -> RuleBuilder {
        RuleBuilder::new(Basis::Quota(quota))
    }

    /// Begins a rule of `limit` units in each window of the calendar. 0 denies all.
    pub const fn each(calendar: Calendar, limit: u32) -> RuleBuilder {
        RuleBuilder::new(Basis::Calendar(limit, calendar))
    }

    /// The most that is admitted in a window, or at once out of a rested bucket. 0 denies all.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The most that is ever granted in one piece, so the most that one call may cost: the limit; of a bucket the
    /// ledger's burst.
    pub const fn largest(&self) -> u64 {
        match self.law {
            Law::Bucket { burst, .. } if self.limit > 0 => burst,
            Law::Bucket { .. }
            | Law::Aligned { .. }
            | Law::FirstCall { .. }
            | Law::Month
            | Law::Sliding { .. } => self.limit as u64,
        }
    }

    /// The time in which the limit is there anew, in microseconds; of a month, 31 days.
    pub const fn window(&self) -> Micros {
        match self.law {
            Law::Aligned { period } | Law::FirstCall { period } => period,
            Law::Month => 31 * 86_400_000_000,
            Law::Sliding { slice, slices } => slice * (slices + 1),
            Law::Bucket { count, period, .. } => (self.limit as u64 * period).div_ceil(count),
        }
    }

    /// How long a node is remembered at least after it asked, in microseconds: as long as it may give something back.
    /// Where the window goes on after a life of credit, that includes the time in which a node notices that some has
    /// died in hand. The census of an account counts in generations of this length.
    pub const fn memory(&self) -> Micros {
        match self.law {
            Law::Sliding { .. } => self.window(),
            Law::Bucket { .. } => self.life,
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month if self.life == self.window() => {
                self.life
            }
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month if self.life > NOTICED_WITHIN => {
                2 * self.life
            }
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month => self.life + NOTICED_WITHIN,
        }
    }

    /// How the store counts.
    pub const fn law(&self) -> Law {
        self.law
    }

    /// The longest time in which credit may be spent after it was granted, in microseconds.
    pub const fn life(&self) -> Micros {
        self.life
    }

    /// For how long nothing is granted after more was asked than there was, in microseconds; 0 for not at all.
    pub const fn prohibit(&self) -> Micros {
        self.prohibit
    }

    /// A node gets at most this part of its share at once, unless its callers wait for more. Its share is by what it wants
    /// beside what others wanted and did not get, and not below an equal one.
    pub const fn divisor(&self) -> u32 {
        self.divisor
    }

    /// By how much time a token bucket may be early: see [`Rule`]. Zero where the rule is strict.
    pub const fn tolerance(&self) -> Duration {
        Duration::from_micros(self.tolerance)
    }
}

impl RuleBuilder {
    const fn new(basis: Basis) -> Self {
        Self {
            basis,
            opening: Opening::Clock,
            life: None,
            prohibit: Duration::ZERO,
            divisor: DEFAULT_DIVISOR,
        }
    }

    /// Sets where windows begin. Default: [`Opening::Clock`].
    pub const fn opening(mut self, opening: Opening) -> Self {
        self.opening = opening;
        self
    }

    /// Sets the longest life of credit. It is shortened to what the window or the burst allows. Default: 5 s; for a
    /// sliding window a hundredth of its period; for a bucket a tenth of the time it takes to fill.
    pub const fn life(mut self, life: Duration) -> Self {
        self.life = Some(life);
        self
    }

    /// Sets for how long nothing is granted after more was asked than there was. Default: 0.
    pub const fn prohibit(mut self, prohibit: Duration) -> Self {
        self.prohibit = prohibit;
        self
    }

    /// Sets which part of its share a node gets at once at most. Default: 4.
    pub const fn divisor(mut self, divisor: u32) -> Self {
        self.divisor = divisor;
        self
    }

    /// Makes the rule.
    ///
    /// # Errors
    /// [`InvalidRule`] when a time is out of its bounds, the divisor is 0 or above 1000, an opening is given for what
    /// has no windows of its own, or the bucket takes more than ten years to fill.
    pub fn build(self) -> Result<Rule, InvalidRule> {
        if let Some(life) = self.life.filter(|life| !(MIN_LIFE..=MAX_LIFE).contains(life)) {
            return Err(InvalidRule::Life(life));
        }
        if self.prohibit > MAX_PROHIBIT {
            return Err(InvalidRule::Prohibit(self.prohibit));
        }
        if !(1..=1000).contains(&self.divisor) {
            return Err(InvalidRule::Divisor(self.divisor));
        }
        let (limit, law, life, tolerance) = match self.basis {
            Basis::Calendar(_, calendar) if self.opening != Opening::Clock => {
                return Err(InvalidRule::OpeningOfCalendar(calendar));
            }
            Basis::Calendar(limit, calendar) => {
                let law = calendar.law();
                (limit, law, self.window_life(law), 0)
            }
            Basis::Quota(quota) => self.of_quota(&quota)?,
        };
        Ok(Rule { limit, law, life, prohibit: micros(self.prohibit), divisor: self.divisor, tolerance })
    }

    fn of_quota(&self, quota: &Quota) -> Result<(u32, Law, Micros, Micros), InvalidRule> {
        let (algorithm, period) = (quota.algorithm(), micros(quota.rate().period()));
        if self.opening != Opening::Clock && algorithm != Algorithm::FixedWindow {
            return Err(InvalidRule::OpeningOf(algorithm));
        }
        Ok(match algorithm {
            Algorithm::FixedWindow => {
                let law = match self.opening {
                    Opening::Clock => Law::Aligned { period },
                    Opening::FirstCall => Law::FirstCall { period },
                };
                (quota.limit(), law, self.window_life(law), 0)
            }
            Algorithm::SlidingWindow => {
                let finest = period.div_ceil(MOST_SLICES);
                let wish = self.life.map_or(finest.max(micros(MIN_LIFE)), micros);
                let slices = period / wish.clamp(finest, period);
                let slice = period.div_ceil(slices);
                (quota.limit(), Law::Sliding { slice, slices }, slice, 0)
            }
            Algorithm::TokenBucket => {
                let bucket = bucket::Shape::of(quota, self.life.map(micros));
                if bucket.refill_of_limit > MAX_REFILL {
                    return Err(InvalidRule::BurstTooSlow { burst: quota.limit(), rate: quota.rate() });
                }
                (quota.limit(), bucket.law, bucket.life, bucket.tolerance)
            }
        })
    }

    /// Credit never lives longer than its window, whose end the ledger knows.
    fn window_life(&self, law: Law) -> Micros {
        let longest = match law {
            Law::Aligned { period } | Law::FirstCall { period } => period,
            Law::Month | Law::Sliding { .. } | Law::Bucket { .. } => micros(MAX_LIFE),
        };
        micros(self.life.unwrap_or(DEFAULT_LIFE)).min(longest)
    }
}

impl Calendar {
    const fn law(self) -> Law {
        match self {
            Self::Minute => Law::Aligned { period: 60_000_000 },
            Self::Hour => Law::Aligned { period: 3_600_000_000 },
            Self::Day => Law::Aligned { period: 86_400_000_000 },
            Self::Month => Law::Month,
        }
    }
}

/// What is wrong with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRule {
    /// The life of credit is out of bounds.
    Life(Duration),
    /// The time of prohibition is out of bounds.
    Prohibit(Duration),
    /// The divisor is out of bounds.
    Divisor(u32),
    /// Only fixed windows begin with the first call.
    OpeningOf(Algorithm),
    /// A calendar's windows begin with the calendar.
    OpeningOfCalendar(Calendar),
    /// The bucket takes more than ten years to fill.
    BurstTooSlow {
        /// The burst as given.
        burst: u32,
        /// The rate as given.
        rate: crate::Rate,
    },
}

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Life(life) => {
                write!(f, "credit cannot live for {life:?}; choose a time from {MIN_LIFE:?} to {MAX_LIFE:?}")
            }
            Self::Prohibit(prohibit) => {
                write!(f, "a prohibition of {prohibit:?} is longer than 366 days; choose a shorter one")
            }
            Self::Divisor(divisor) => {
                write!(f, "a share cannot be divided by {divisor}; choose a number from 1 to 1000, like 4")
            }
            Self::OpeningOf(_) => f.write_str(
                "only a fixed-window begins with the first call; leave the opening out, or choose fixed-window",
            ),
            Self::OpeningOfCalendar(_) => f.write_str(
                "a calendar window begins with the calendar; leave the opening out, or give a rate like 10000/d",
            ),
            Self::BurstTooSlow { burst, rate } => write!(
                f,
                "a burst of {burst} at {rate} takes more than ten years to regenerate; lower the burst or raise the rate"
            ),
        }
    }
}

impl std::error::Error for InvalidRule {}

/// A number that the checks of a rule keep below 2^53.
pub(super) fn exact(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
