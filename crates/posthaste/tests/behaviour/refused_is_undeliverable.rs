//! A permanent refusal ends the life of that message, and of no other of the
//! same submission.

use anyhow::Result;
use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn refused_is_undeliverable() -> Result<()> {
    let mut stage = Stage::start(&["rcpt=nobody@a.test:550 5.1.1 no such user"]).await?;
    let id = stage
        .node
        .submit(&json!({
            "from": "a@example.com", "to": ["nobody@a.test", "somebody@a.test"],
            "subject": "One of two", "text": "hello",
        }))
        .await?;
    let state = stage.node.follow_to_the_end(&id).await?;
    for message in state["messages"].as_array().into_iter().flatten() {
        let attempts = &message["attempts"];
        assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{state:#}");
        if message["recipient"] == "nobody@a.test" {
            assert_eq!(message["disposition"], "undeliverable", "{state:#}");
            assert_eq!(attempts[0]["reason"], "remote_permanent");
            assert_eq!(attempts[0]["reply"]["code"], 550);
            assert_eq!(attempts[0]["reply"]["enhanced"], "5.1.1");
        } else {
            assert_eq!(message["disposition"], "delivered", "{state:#}");
        }
    }
    let mails = stage.received(1).await?;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].recipient, "somebody@a.test");
    Ok(())
}
