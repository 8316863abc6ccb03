//! aiosmtpd, which does not pipeline, takes mail with international addresses,
//! and Python's own parser reads what was meant.

use anyhow::Result;
use posthaste_show::{
    names,
    node::{Node, Settings},
    peers::{self, Aiosmtpd},
};
use serde_json::json;

use crate::support::PROGRAM;

#[tokio::test]
async fn aiosmtpd_receives() -> Result<()> {
    if !peers::may_use("aiosmtpd", Aiosmtpd::missing())? {
        return Ok(());
    }
    let aiosmtpd = Aiosmtpd::start().await?;
    let dns = names::all_to_loopback(&["python.test"]).await?;
    let settings = Settings::new(PROGRAM, dns.address(), aiosmtpd.address().port());
    let node = Node::start(&settings).await?;

    let text = "Grüße\n.a dot\n..two\n.\nlast line";
    let attachment = "AAECAwQFBgcICQoLDA0ODw==";
    let id = node
        .submit(&json!({
            "from": {"email": "a@example.com", "name": "Ä Sender"},
            "to": "jürgen@python.test",
            "subject": "Überraschung",
            "text": text,
            "html": "<p>Grüße</p>",
            "attachments": [{
                "filename": "bytes.bin",
                "content": attachment,
                "content_type": "application/octet-stream",
            }],
        }))
        .await?;

    let state = node.follow_to_the_end(&id).await?;
    assert_eq!(state["messages"][0]["disposition"], "delivered", "{state:#}");

    let mails = aiosmtpd.wait_for_mails(1).await?;
    assert_eq!(mails.len(), 1);
    let envelope = &mails[0].envelope;
    assert_eq!(envelope["recipients"], json!(["jürgen@python.test"]));
    assert_eq!(envelope["mail_from"], "a@example.com");
    assert_eq!(envelope["ehlo"], "mta.test");
    assert_eq!(envelope["tls"], "TLSv1.3");
    let options = envelope["options"].to_string();
    assert!(options.contains("SMTPUTF8"), "{options}");
    let parsed = &envelope["parsed"];
    assert_eq!(parsed["subject"], "Überraschung");
    assert_eq!(parsed["from"], json!([["Ä Sender", "a@example.com"]]));
    assert_eq!(parsed["to"], json!([["", "jürgen@python.test"]]));
    assert_eq!(parsed["text"].as_str().map(str::trim_end), Some(text), "{parsed:#}");
    assert_eq!(parsed["html"].as_str().map(str::trim_end), Some("<p>Grüße</p>"));
    assert_eq!(parsed["attachments"], json!({"bytes.bin": attachment}));
    assert_eq!(parsed["defects"], json!([]));
    Ok(())
}
