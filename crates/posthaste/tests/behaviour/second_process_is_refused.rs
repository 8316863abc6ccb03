//! A data directory belongs to one process: a second one says so and ends,
//! and the first goes on.

use std::{fs, time::Duration};

use anyhow::Result;
use posthaste_show::{port, process::Process};
use serde_json::json;

use crate::support::{PROGRAM, Stage};

#[tokio::test]
async fn second_process_is_refused() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("second.toml");
    let first = fs::read_to_string(stage.node.config())?;
    let api = port::free()?.to_string();
    fs::write(&config, first.replace(&stage.node.api().to_string(), &api))?;

    let mut command = std::process::Command::new(PROGRAM);
    command.arg("run").arg("--config").arg(&config);
    let mut second = Process::start("the second", command, &dir.path().join("log"))?;
    let status = second.wait(Duration::from_secs(20)).await?;
    assert!(!status.success());
    let printed = second.printed();
    assert!(printed.contains("another process"), "{printed}");
    assert!(printed.contains(&stage.node.data_dir().display().to_string()), "{printed}");

    let id = stage
        .node
        .submit(&json!({
            "from": "a@example.com", "to": "b@a.test", "subject": "Still here", "text": "hello",
        }))
        .await?;
    let state = stage.node.follow_to_the_end(&id).await?;
    assert_eq!(state["messages"][0]["disposition"], "delivered", "{state:#}");
    Ok(())
}
