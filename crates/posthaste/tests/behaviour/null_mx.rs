//! A domain that says it takes no mail (RFC 7505) is believed at once.

use anyhow::Result;
use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn null_mx() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let id = stage
        .node
        .submit(&json!({
            "from": "a@example.com", "to": "b@nomail.test", "subject": "No", "text": "hello",
        }))
        .await?;
    let state = stage.node.follow_to_the_end(&id).await?;
    let message = &state["messages"][0];
    assert_eq!(message["disposition"], "undeliverable", "{state:#}");
    assert_eq!(message["attempts"].as_array().map(Vec::len), Some(1), "{state:#}");
    assert_eq!(message["attempts"][0]["reason"], "null_mx", "{state:#}");
    Ok(())
}
