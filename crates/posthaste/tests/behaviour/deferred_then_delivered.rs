//! A temporary refusal is tried again after the delay of the retry list; both
//! attempts are on record.

use anyhow::Result;
use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn deferred_then_delivered() -> Result<()> {
    let mut stage = Stage::start(&["rcpt:450 4.2.1 mailbox busy:once"]).await?;
    let id = stage
        .node
        .submit(&json!({
            "from": "a@example.com", "to": "b@a.test", "subject": "Twice", "text": "hello",
        }))
        .await?;
    let state = stage.node.follow_to_the_end(&id).await?;
    let message = &state["messages"][0];
    assert_eq!(message["disposition"], "delivered", "{state:#}");
    let attempts = &message["attempts"];
    assert_eq!(attempts.as_array().map(Vec::len), Some(2), "{state:#}");
    assert_eq!(attempts[0]["disposition"], "deferred");
    assert_eq!(attempts[0]["reason"], "remote_temporary");
    assert_eq!(attempts[0]["attempt"], 1);
    assert_eq!(attempts[0]["reply"]["code"], 450);
    assert_eq!(attempts[0]["reply"]["enhanced"], "4.2.1");
    assert!(!attempts[0]["next_attempt_at"].is_null(), "{state:#}");
    assert_eq!(attempts[1]["disposition"], "delivered");
    assert_eq!(attempts[1]["attempt"], 2);
    assert_ne!(attempts[0]["id"], attempts[1]["id"]);
    assert_eq!(stage.received(1).await?.len(), 1);
    Ok(())
}
