//! `kill -9` under load, three times: every message that was answered with 202
//! arrives. (`make show CASE=crash-loop` does it fifty times and counts what
//! arrives twice.)

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use posthaste_show::load::{Load, OnFailure};

use crate::support::Stage;

#[tokio::test]
async fn kill_loses_nothing() -> Result<()> {
    let mut stage = Stage::start(&[]).await?;
    let load = Load::start(stage.node.api(), 4, u64::MAX, OnFailure::Reconnect);
    let mut arrived = HashSet::new();
    for _ in 0..3 {
        let before = arrived.len();
        // So that there is something to lose: it is in the middle of it.
        while arrived.len() < before + 20 {
            arrived.extend(stage.received(1).await?.into_iter().map(|mail| mail.message_id()));
        }
        stage.node.kill()?;
        stage.node.start_again().await?;
    }
    load.end();
    let outcome = load.finish().await?;
    assert!(outcome.confirmed.len() >= 60, "{}", outcome.confirmed.len());
    let end = Instant::now() + Duration::from_secs(60);
    let is_missing = |arrived: &HashSet<String>| {
        outcome.confirmed.iter().filter(|one| !arrived.contains(&one.id)).count()
    };
    while is_missing(&arrived) > 0 {
        if Instant::now() > end {
            bail!("{} of {} messages are lost", is_missing(&arrived), outcome.confirmed.len());
        }
        arrived.extend(stage.received_now().into_iter().map(|mail| mail.message_id()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
