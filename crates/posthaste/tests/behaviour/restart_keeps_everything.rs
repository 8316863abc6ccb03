//! SIGTERM drains and ends with success; what waits is delivered by the next
//! process, once, and the evidence of both is one history.

use anyhow::Result;
use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn restart_keeps_everything() -> Result<()> {
    let mut stage = Stage::start(&["rcpt:450 4.2.1 mailbox busy:once"]).await?;
    let submission = |to: &str, delay: u32| {
        json!({"from": "a@example.com", "to": to, "subject": "Kept", "text": "hello",
               "delay": delay})
    };
    let deferred = stage.node.submit(&submission("deferred@a.test", 0)).await?;
    let has_one = |state: &serde_json::Value| {
        state["messages"][0]["attempts"].as_array().is_some_and(|attempts| attempts.len() == 1)
    };
    stage.node.follow(&deferred, has_one).await?;
    let mut ids = vec![deferred];
    for number in 0..20 {
        ids.push(stage.node.submit(&submission(&format!("r{number}@b.test"), 1)).await?);
    }

    let status = stage.node.stop().await?;
    assert!(status.success(), "{status}: {}", stage.node.process().last_words());
    stage.node.start_again().await?;

    for id in &ids {
        let state = stage.node.follow_to_the_end(id).await?;
        assert_eq!(state["messages"][0]["disposition"], "delivered", "{state:#}");
    }
    let state = stage.node.submission(&ids[0]).await?.unwrap_or_default();
    let attempts = state["messages"][0]["attempts"].as_array().map(Vec::len);
    assert_eq!(attempts, Some(2), "{state:#}");
    let mut recipients: Vec<String> =
        stage.received(21).await?.into_iter().map(|mail| mail.recipient).collect();
    recipients.sort();
    recipients.dedup();
    assert_eq!(recipients.len(), 21, "a message came twice: {recipients:?}");
    assert_eq!(stage.received_now().len(), 0, "something came twice");
    Ok(())
}
