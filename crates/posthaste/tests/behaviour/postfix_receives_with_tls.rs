//! A real Postfix takes a mail over TLS, and the attempt says so.

use anyhow::Result;
use posthaste_show::{
    names,
    node::{Node, Settings},
    peers::{self, Postfix, Purpose},
};
use serde_json::json;

use crate::support::PROGRAM;

#[tokio::test]
async fn postfix_receives_with_tls() -> Result<()> {
    if !peers::may_use("postfix", Postfix::missing())? {
        return Ok(());
    }
    let postfix = Postfix::start(&Purpose::Receive(vec!["postfix.test".into()])).await?;
    let dns = names::all_to_loopback(&["postfix.test"]).await?;
    let settings = Settings::new(PROGRAM, dns.address(), postfix.address().port());
    let node = Node::start(&settings).await?;

    let id = node
        .submit(&json!({
            "from": "A Sender <a@example.com>",
            "to": "b@postfix.test",
            "subject": "From Posthaste",
            "text": "first\n.a dot\n..two dots\n.\nlast",
        }))
        .await?;

    let state = node.follow_to_the_end(&id).await?;
    let message = &state["messages"][0];
    assert_eq!(message["disposition"], "delivered", "{state:#}");
    let attempt = &message["attempts"][0];
    assert_eq!(attempt["tls"]["version"], "TLSv1.3", "{state:#}");
    assert_eq!(attempt["reply"]["code"], 250, "{state:#}");
    assert_eq!(attempt["remote_host"], "mx.test", "{state:#}");

    let mails = postfix.wait_for_mails(1).await?;
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert!(mail.contains("using TLSv1.3"), "{mail}");
    assert!(mail.contains("\nSubject: From Posthaste\n"), "{mail}");
    assert!(mail.contains("\nTo: <b@postfix.test>\n"), "{mail}");
    assert!(mail.trim_end().ends_with("first\n.a dot\n..two dots\n.\nlast"), "{mail}");
    Ok(())
}
