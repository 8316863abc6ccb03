//! Routes that are kept, and questions that are under way.
//!
//! A slot is made by whoever asks first; all others wait for the same slot.
//! When the one who asks is cancelled, the next who waits asks in its place,
//! so that nothing hangs on one task. Entries are in two generations: what is
//! used moves to the young one, and when that is full the old one is
//! dropped. So the size is bounded, and what is used often stays.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use crate::{Route, RouteError};

/// An outcome with the time at which it is to be asked for anew.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) result: Result<Arc<Route>, RouteError>,
    pub(crate) until: Instant,
}

type Slot = Arc<OnceCell<Kept>>;

#[derive(Debug)]
pub(crate) struct Cache {
    generations: Mutex<Generations>,
}

#[derive(Debug)]
struct Generations {
    young: HashMap<Box<str>, Slot>,
    old: HashMap<Box<str>, Slot>,
    /// Most entries of one generation.
    limit: usize,
}

impl Cache {
    /// Keeps about `size` outcomes, never more.
    pub(crate) fn new(size: usize) -> Self {
        let limit = (size / 2).max(1);
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { generations: Mutex::new(Generations { young, old, limit }) }
    }

    /// The outcome for `name`: the one that is kept, the one that somebody is
    /// asking for, or what `ask` finds.
    pub(crate) async fn get<F>(
        &self,
        name: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<Arc<Route>, RouteError>
    where
        F: Future<Output = Kept>,
    {
        let slot = self.generations.lock().slot(name, Instant::now());
        slot.get_or_init(ask).await.result.clone()
    }

    /// Entries now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.len() + generations.old.len()
    }
}

impl Generations {
    fn slot(&mut self, name: &str, now: Instant) -> Slot {
        let fresh = |slot: &Slot| slot.get().is_none_or(|kept| now < kept.until);
        if let Some(slot) = self.young.get(name).filter(|slot| fresh(slot)) {
            return slot.clone();
        }
        let slot = match self.old.remove(name) {
            Some(slot) if fresh(&slot) => slot,
            _ => Slot::default(),
        };
        if self.young.len() >= self.limit && !self.young.contains_key(name) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(name.into(), slot.clone());
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    fn kept(text: &str, seconds: u64) -> Kept {
        Kept {
            result: Err(RouteError::NoRoute(text.into())),
            until: Instant::now() + Duration::from_secs(seconds),
        }
    }

    async fn text(cache: &Cache, name: &str, fresh: &str) -> String {
        cache.get(name, || async { kept(fresh, 10) }).await.unwrap_err().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn kept_until_its_time() {
        let cache = Cache::new(10);
        assert_eq!(text(&cache, "a", "1").await, "1");
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(text(&cache, "a", "2").await, "1");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(text(&cache, "a", "3").await, "3");
        assert_eq!(cache.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bounded_and_what_is_used_stays() {
        let cache = Cache::new(10);
        for at in 0..1000 {
            assert_eq!(text(&cache, "often", &format!("at {at}")).await, "at 0");
            text(&cache, &format!("once {at}"), "x").await;
            assert!(cache.len() <= 10);
        }
        assert_eq!(text(&cache, "once 0", "again").await, "again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_for_all_and_may_be_cancelled() {
        let cache = Arc::new(Cache::new(10));
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = |cache: Arc<Cache>, asked: Arc<AtomicUsize>| async move {
            cache
                .get("a", || async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    kept("found", 10)
                })
                .await
        };
        let first = tokio::spawn(ask(cache.clone(), asked.clone()));
        let others: Vec<_> =
            (0..50).map(|_| tokio::spawn(ask(cache.clone(), asked.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        first.abort();
        for other in others {
            assert_eq!(other.await.unwrap().unwrap_err().to_string(), "found");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one took over");
    }
}
