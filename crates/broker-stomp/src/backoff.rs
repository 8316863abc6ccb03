//! How long to wait before the next try. Pure: the randomness is given.

use std::time::Duration;

/// Doubles from try to try up to a bound; each wait is somewhere in the upper
/// half, so that clients that lost the same broker do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration, random: fastrand::Rng) -> Self {
        Self { first, most, next: first, random }
    }

    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next.min(self.most);
        self.next = whole.saturating_mul(2).min(self.most);
        whole / 2 + whole.mul_f64(self.random.f64() / 2.0)
    }

    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_its_bounds() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000), fastrand::Rng::with_seed(7));
        let mut all = Vec::new();
        for most in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait();
            assert!(wait >= ms(most / 2) && wait <= ms(most), "{wait:?} {most}");
            all.push(wait);
        }
        backoff.reset();
        let again = backoff.wait();
        assert!(again <= ms(100));
        assert_ne!(again, all[0], "there is no jitter");
    }
}
