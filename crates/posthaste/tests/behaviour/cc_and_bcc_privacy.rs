//! To and Cc recipients see To and Cc in full, nobody sees a BCC recipient,
//! and the BCC copy reads as if sent to that address alone.

use anyhow::Result;
use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn cc_and_bcc_privacy() -> Result<()> {
    let mut stage = Stage::start(&[]).await?;
    let id = stage
        .node
        .submit(&json!({
            "from": "a@example.com",
            "to": ["to@a.test"],
            "cc": ["Copy <cc@b.test>"],
            "bcc": ["secret@c.test", "hidden@a.test"],
            "subject": "Who sees whom",
            "text": "hello",
        }))
        .await?;
    let state = stage.node.follow_to_the_end(&id).await?;
    assert_eq!(state["messages"].as_array().map(Vec::len), Some(4), "{state:#}");

    let mails = stage.received(4).await?;
    let mut message_ids = Vec::new();
    for mail in &mails {
        let text = mail.text();
        message_ids.push(mail.field("Message-ID"));
        match mail.recipient.as_str() {
            "to@a.test" | "cc@b.test" => {
                assert_eq!(mail.field("To").as_deref(), Some("<to@a.test>"), "{text}");
                let cc = mail.field("Cc").unwrap_or_default();
                assert!(cc.contains("cc@b.test"), "{text}");
                assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
            }
            bcc @ ("secret@c.test" | "hidden@a.test") => {
                assert_eq!(mail.field("To"), Some(format!("<{bcc}>")), "{text}");
                assert_eq!(mail.field("Cc"), None, "{text}");
                for other in ["to@a.test", "cc@b.test", "secret@c.test", "hidden@a.test"] {
                    assert!(other == bcc || !text.contains(other), "{text}");
                }
            }
            other => panic!("mail for {other}"),
        }
        assert_eq!(mail.field("Bcc"), None, "{text}");
    }
    assert!(message_ids[0].is_some());
    assert!(message_ids.iter().all(|id| *id == message_ids[0]), "{message_ids:?}");
    Ok(())
}
