//! A mail that the operator purges while the process is stopped is seen as
//! undeliverable by its submitter once the process runs again.

use std::process::Command;

use anyhow::Result;
use serde_json::json;

use crate::support::{PROGRAM, Stage};

#[tokio::test]
async fn purged_is_undeliverable() -> Result<()> {
    let mut stage = Stage::start(&[]).await?;
    let submission = json!({
        "from": "a@example.com", "to": "b@a.test", "subject": "Later", "text": "hello", "delay": 3600,
    });
    let id = stage.node.submit(&submission).await?;
    stage.node.stop().await?;

    let mut purge = Command::new(PROGRAM);
    purge.args(["queue", "purge", "default", "--recipient", "*@a.test", "--yes", "--config"]);
    let purged = purge.arg(stage.node.config()).output()?;
    let said = String::from_utf8(purged.stdout)?;
    assert!(purged.status.success() && said.starts_with("1 message "), "{said}");

    stage.node.start_again().await?;
    let state = stage.node.follow_to_the_end(&id).await?;
    let message = &state["messages"][0];
    assert_eq!(message["disposition"], "undeliverable", "{state:#}");
    assert_eq!(message["attempts"][0]["reason"], "stopped", "{state:#}");
    assert!(stage.received_now().is_empty());
    Ok(())
}
