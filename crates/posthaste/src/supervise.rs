//! Keeps a role running: an error or a panic is logged and counted, and the
//! role is started again after a back-off, until shutdown.

use std::{future::Future, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A role that ran this long had recovered: the back-off begins anew.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// Which instance of which role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RoleLabels {
    role: &'static str,
    instance: String,
}

/// What is counted about roles.
#[derive(Debug, Clone, Default)]
pub struct RoleMetrics {
    up: Family<RoleLabels, Gauge>,
    restarts: Family<RoleLabels, Counter>,
}

impl RoleMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("role_up", "1 while the role's instance runs", metrics.up.clone());
        registry.register(
            "role_restarts",
            "Times that a role's instance ended by an error or a panic and was started again",
            metrics.restarts.clone(),
        );
        metrics
    }
}

/// Runs one instance of a role until `shutdown`, starting it again when it
/// fails. `start` is called for each run.
pub async fn supervise<F, R, E>(
    role: &'static str,
    instance: String,
    metrics: RoleMetrics,
    shutdown: CancellationToken,
    mut start: F,
) where
    F: FnMut() -> R,
    R: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let labels = RoleLabels { role, instance: instance.clone() };
    let up = metrics.up.get_or_create(&labels).clone();
    let restarts = metrics.restarts.get_or_create(&labels).clone();
    let mut backoff = FIRST_BACKOFF;
    loop {
        let began = Instant::now();
        up.set(1);
        info!(role, instance, "started");
        // A task of its own, so that a panic ends the run and not the process.
        let result = tokio::spawn(start()).await;
        up.set(0);
        let cause = match result {
            Ok(Ok(())) if shutdown.is_cancelled() => {
                info!(role, instance, "stopped");
                return;
            }
            Ok(Ok(())) => "it ended by itself".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(join) => join.to_string(),
        };
        if shutdown.is_cancelled() {
            error!(role, instance, cause, "failed while it stopped");
            return;
        }
        if began.elapsed() >= RECOVERED_AFTER {
            backoff = FIRST_BACKOFF;
        }
        restarts.inc();
        error!(role, instance, cause, "failed; starts again in {backoff:?}");
        tokio::select! {
            () = sleep(backoff) => {}
            () = shutdown.cancelled() => return,
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_role_that_fails_or_panics_is_started_again() {
        let shutdown = CancellationToken::new();
        let runs = Arc::new(AtomicU32::new(0));
        let metrics = RoleMetrics::default();
        let begin = Instant::now();
        supervise("test", "t".into(), metrics.clone(), shutdown.clone(), || {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            let shutdown = shutdown.clone();
            async move {
                match run {
                    0 => Err("an error"),
                    1 => panic!("a panic"),
                    2 => Ok(()),
                    _ => {
                        shutdown.cancel();
                        Ok(())
                    }
                }
            }
        })
        .await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        assert_eq!(begin.elapsed(), Duration::from_millis(200 + 400 + 800));
        let labels = RoleLabels { role: "test", instance: "t".into() };
        assert_eq!(metrics.restarts.get_or_create(&labels).get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_the_wait() {
        let shutdown = CancellationToken::new();
        let role =
            supervise("test", "t".into(), RoleMetrics::default(), shutdown.clone(), || async {
                Err::<(), _>("always")
            });
        let stop = async {
            sleep(Duration::from_secs(5)).await;
            shutdown.cancel();
        };
        tokio::join!(role, stop);
    }
}
