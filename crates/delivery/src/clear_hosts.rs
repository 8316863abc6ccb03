//! Hosts whose TLS failed a while ago: with opportunistic TLS they are greeted
//! in clear at once until the memory fades.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

const REMEMBERED: Duration = Duration::from_secs(3600);
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct ClearHosts {
    until: Mutex<HashMap<Box<str>, Instant>>,
}

impl ClearHosts {
    pub fn remember(&self, host: &str) {
        let now = Instant::now();
        let mut until = self.until.lock();
        if until.len() >= MOST {
            until.retain(|_, end| *end > now);
        }
        // When it is full all the same, the host is tried with TLS again.
        if until.len() < MOST {
            until.insert(host.into(), now + REMEMBERED);
        }
    }

    /// For a host that takes no mail in clear.
    pub fn forget(&self, host: &str) {
        self.until.lock().remove(host);
    }

    pub fn contains(&self, host: &str) -> bool {
        let mut until = self.until.lock();
        match until.get(host) {
            Some(end) if *end > Instant::now() => true,
            Some(_) => {
                until.remove(host);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fades_and_is_bounded() {
        let hosts = ClearHosts::default();
        assert!(!hosts.contains("mx.example"));
        hosts.remember("mx.example");
        assert!(hosts.contains("mx.example"));
        tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
        assert!(hosts.contains("mx.example"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!hosts.contains("mx.example"));
        for n in 0..MOST + 5 {
            hosts.remember(&n.to_string());
        }
        assert_eq!(hosts.until.lock().len(), MOST);
    }
}
