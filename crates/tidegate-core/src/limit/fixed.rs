//! Limits that are numbers: what may be one, and the floor and ceiling between which another law moves.

use std::fmt;

use crate::gate::MOST;

/// A fixed limit of calls in flight, or explicitly none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// At most this many.
    Limit(u32),
    /// As many as come, counted; only the counter's own bound of [`MOST`] remains.
    Off,
}

impl Fixed {
    /// Makes a limit of `limit` calls in flight.
    ///
    /// # Errors
    /// [`InvalidLimit`] when it is not from 1 to [`MOST`]; "no limit" is [`Fixed::Off`], never a 0.
    pub fn new(limit: i64) -> Result<Self, InvalidLimit> {
        match u32::try_from(limit) {
            Ok(limit @ 1..=MOST) => Ok(Self::Limit(limit)),
            _ => Err(InvalidLimit::Range(limit)),
        }
    }

    /// The limit as a number.
    pub const fn count(self) -> u32 {
        match self {
            Self::Limit(limit) => limit,
            Self::Off => MOST,
        }
    }
}

/// The floor and the ceiling of a limit that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    floor: u32,
    ceiling: u32,
}

impl Bounds {
    /// Makes bounds from `floor` to `ceiling`, both possible.
    ///
    /// # Errors
    /// [`InvalidLimit`] unless 1 ≤ floor ≤ ceiling ≤ [`MOST`].
    pub fn new(floor: u32, ceiling: u32) -> Result<Self, InvalidLimit> {
        for limit in [floor, ceiling] {
            Fixed::new(limit.into())?;
        }
        if floor > ceiling {
            return Err(InvalidLimit::Crossed { floor, ceiling });
        }
        Ok(Self { floor, ceiling })
    }

    /// The least limit.
    pub const fn floor(self) -> u32 {
        self.floor
    }

    /// The greatest limit.
    pub const fn ceiling(self) -> u32 {
        self.ceiling
    }

    /// Brings `limit` between the bounds; what is not a number becomes the floor.
    pub fn clamp(self, limit: f64) -> f64 {
        limit.max(f64::from(self.floor)).min(f64::from(self.ceiling))
    }
}

/// What is wrong with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLimit {
    /// Not from 1 to [`MOST`].
    Range(i64),
    /// The floor is above the ceiling.
    Crossed {
        /// The least limit.
        floor: u32,
        /// The greatest limit.
        ceiling: u32,
    },
}

impl fmt::Display for InvalidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(limit @ ..=0) => write!(
                f,
                "a limit of {limit} calls in flight would admit nothing; write a number from 1 to {MOST}, or `off` for no limit"
            ),
            Self::Range(limit) => {
                write!(
                    f,
                    "a limit of {limit} calls in flight is more than {MOST}; write less, or `off` for no limit"
                )
            }
            Self::Crossed { floor, ceiling } => {
                write!(f, "the least limit {floor} is above the greatest limit {ceiling}; swap or widen them")
            }
        }
    }
}

impl std::error::Error for InvalidLimit {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_written_out_never_a_zero() {
        for bad in [0, -1, i64::MIN, i64::from(MOST) + 1, i64::MAX] {
            let error = Fixed::new(bad).unwrap_err().to_string();
            assert!(error.contains(&bad.to_string()) && error.contains("`off`"), "{error}");
        }
        assert_eq!(Fixed::new(250), Ok(Fixed::Limit(250)));
        assert_eq!(Fixed::Off.count(), MOST);
    }

    #[test]
    fn bounds_do_not_cross_and_hold_whatever_comes() {
        assert_eq!(Bounds::new(5, 4), Err(InvalidLimit::Crossed { floor: 5, ceiling: 4 }));
        assert_eq!(Bounds::new(0, 4), Err(InvalidLimit::Range(0)));
        let bounds = Bounds::new(2, 8).unwrap();
        for (limit, clamped) in [(f64::NAN, 2.0), (f64::INFINITY, 8.0), (-1.0, 2.0), (5.0, 5.0)] {
            assert_eq!(bounds.clamp(limit), clamped);
        }
    }
}
