//! When to try again, and when not any more.
//!
//! Pure: the caller gives the number of the attempt that failed, the time and
//! a source of randomness. Jitter spreads the messages of one outage, so that
//! they do not all come back in the same second.

use std::time::Duration;

use posthaste_model::{Reason, Timestamp};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The delays between attempts and how many attempts there are.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySchedule {
    /// Delay after the first failed attempt, the second, …; the last one is
    /// repeated. Empty counts as one minute.
    pub delays: Vec<Duration>,
    /// Each delay is lengthened or shortened at random by up to this fraction
    /// of itself: 0 to 1.
    pub jitter: f64,
    /// Attempts in all; the last one to fail makes the message undeliverable.
    /// At least one is made.
    pub max_attempts: u32,
    /// The same for a domain that has no usable route, neither MX nor address
    /// or only refused ones: most of them are mistakes that stay.
    pub no_route_attempts: u32,
}

impl Default for RetrySchedule {
    /// 5, 10, 20 and 40 minutes, 1 and 2 hours, then every 4 hours: 20
    /// attempts in two and a half days.
    fn default() -> Self {
        let seconds = [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];
        Self {
            delays: seconds.into_iter().map(Duration::from_secs).collect(),
            jitter: 0.1,
            max_attempts: 20,
            no_route_attempts: 3,
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt at this time.
    Attempt(Timestamp),
    /// None: the allowed number is used up.
    Exhausted,
    /// None: it would begin after the time limit.
    Expired,
}

impl RetrySchedule {
    /// What follows the failure of attempt `number` (from 1) for a temporary
    /// `reason` at the time `now`. `limit` is the time after which no attempt
    /// may begin.
    #[must_use]
    pub fn next(
        &self,
        number: u32,
        reason: Reason,
        now: Timestamp,
        limit: Option<Timestamp>,
        rng: &mut fastrand::Rng,
    ) -> Next {
        let allowed = match reason {
            Reason::NoRoute | Reason::DestinationRefused => self.no_route_attempts,
            _ => self.max_attempts,
        };
        if number >= allowed {
            return Next::Exhausted;
        }
        let due = now.plus(self.delay(number, rng));
        if limit.is_some_and(|limit| due > limit) { Next::Expired } else { Next::Attempt(due) }
    }

    fn delay(&self, number: u32, rng: &mut fastrand::Rng) -> Duration {
        let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let base = self.delays.get(index).or(self.delays.last()).copied();
        let base = base.unwrap_or(Duration::from_secs(MINUTE));
        let jitter = if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 };
        base.mul_f64(1.0 + jitter * (rng.f64() * 2.0 - 1.0))
    }
}

/// The time after which no attempt may begin: the earlier of the submitter's
/// and of the operator's, whose age counts from the first attempt.
#[must_use]
pub fn limit(
    expires_at: Option<Timestamp>,
    first_attempt_at: Option<Timestamp>,
    max_age: Option<Duration>,
) -> Option<Timestamp> {
    let aged = first_attempt_at.zip(max_age).map(|(first, age)| first.plus(age));
    match (expires_at, aged) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact() -> RetrySchedule {
        RetrySchedule { jitter: 0.0, ..RetrySchedule::default() }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn the_list_then_its_last_delay() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (number, delay) in [
            (1, 5 * MINUTE),
            (2, 10 * MINUTE),
            (3, 20 * MINUTE),
            (4, 40 * MINUTE),
            (5, HOUR),
            (6, 2 * HOUR),
            (7, 4 * HOUR),
            (8, 4 * HOUR),
            (19, 4 * HOUR),
        ] {
            let next = exact().next(number, Reason::Timeout, at(100), None, &mut rng);
            assert_eq!(next, Next::Attempt(at(100 + delay)), "attempt {number}");
        }
    }

    #[test]
    fn the_end() {
        let mut rng = fastrand::Rng::with_seed(1);
        let none = RetrySchedule { max_attempts: 0, ..exact() };
        let empty = RetrySchedule { delays: vec![], ..exact() };
        for (schedule, number, reason, limit, next) in [
            (&exact(), 20, Reason::Timeout, None, Next::Exhausted),
            (&exact(), 3, Reason::NoRoute, None, Next::Exhausted),
            (&exact(), 3, Reason::DestinationRefused, None, Next::Exhausted),
            (&exact(), 2, Reason::NoRoute, None, Next::Attempt(at(600))),
            (&exact(), 1, Reason::Timeout, Some(at(300)), Next::Attempt(at(300))),
            (&exact(), 1, Reason::Timeout, Some(at(299)), Next::Expired),
            (&none, 1, Reason::Timeout, None, Next::Exhausted),
            (&empty, 1, Reason::Timeout, None, Next::Attempt(at(60))),
        ] {
            assert_eq!(schedule.next(number, reason, at(0), limit, &mut rng), next);
        }
    }

    #[test]
    fn the_earlier_limit_holds() {
        let hour = Some(Duration::from_secs(HOUR));
        assert_eq!(limit(None, Some(at(5)), None), None);
        assert_eq!(limit(None, None, hour), None);
        assert_eq!(limit(None, Some(at(5)), hour), Some(at(5 + HOUR)));
        assert_eq!(limit(Some(at(9)), Some(at(5)), hour), Some(at(9)));
        assert_eq!(limit(Some(at(9999)), Some(at(5)), hour), Some(at(5 + HOUR)));
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_fraction(seed: u64, number in 1u32..20, jitter in 0.0f64..1.0) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let schedule = RetrySchedule { jitter, ..RetrySchedule::default() };
            let Next::Attempt(exact) =
                exact().next(number, Reason::Timeout, at(0), None, &mut rng) else {
                return Err(TestCaseError::fail("no attempt"));
            };
            let Next::Attempt(due) =
                schedule.next(number, Reason::Timeout, at(0), None, &mut rng) else {
                return Err(TestCaseError::fail("no attempt"));
            };
            let exact = exact.as_millis() as f64;
            prop_assert!((due.as_millis() as f64 - exact).abs() <= exact * jitter + 1.0);
        }
    }
}
