//! Something that fails for a while: how often it is tried, how often it is
//! talked about.

use std::{fmt::Display, time::Duration};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(10);

/// Follows one thing that may fail.
#[derive(Debug)]
pub(crate) struct Outage {
    what: &'static str,
    delay: Duration,
    error: Option<String>,
}

impl Outage {
    /// `what` completes "failed to".
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, delay: FIRST_DELAY, error: None }
    }

    /// It failed. Logs the error when it is another one than before; returns
    /// how long to wait before it is tried again.
    pub(crate) fn failed(&mut self, error: &dyn Display) -> Duration {
        let error = error.to_string();
        if self.error.as_ref() != Some(&error) {
            tracing::error!(error, "failed to {}; it is tried again until it works", self.what);
            self.error = Some(error);
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(LAST_DELAY);
        delay
    }

    /// It worked.
    pub(crate) fn over(&mut self) {
        if self.error.take().is_some() {
            self.delay = FIRST_DELAY;
            tracing::info!("managed to {} again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_start_again() {
        let mut outage = Outage::new("test");
        let delays: Vec<_> = (0..9).map(|_| outage.failed(&"x").as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        outage.over();
        assert_eq!(outage.failed(&"x").as_millis(), 100);
    }
}
