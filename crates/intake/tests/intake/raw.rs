//! Messages that the submitter has built, and return paths by recipient.

use base64::{Engine, engine::general_purpose::STANDARD};
use posthaste_broker::Body;
use serde_json::{Value, json};

use crate::acceptance::{content, head, log, messages, published, wire};

fn raw(message: &[u8], change: &Value) -> Value {
    let mut body = json!({"to": "b@example.net", "raw": STANDARD.encode(message)});
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

const SIGNED: &[u8] = b"DKIM-Signature: v=1; b=x\r\nFrom: A <a@example.com>\r\nTo: List <l@example.net>\r\n\
    Subject: =?utf-8?Q?=C3=A4?=\r\nDate: Tue, 24 Nov 2026 16:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n";

#[tokio::test]
async fn all_recipients_get_it_as_it_was_given() {
    let change = json!({"cc": "c@example.net", "bcc": ["h@hidden.example"], "tags": ["t"]});
    let batch = published(&raw(SIGNED, &change)).await;
    let all = messages(&batch);
    assert_eq!(all.len(), 3);
    for publish in &all {
        assert!(matches!(publish.body, Body::Shared(_)));
        assert_eq!(content(publish), SIGNED);
        let head = head(publish);
        assert!(
            head.fields.starts_with("Received: ") && !head.fields.contains("\r\nTo"),
            "{head:?}"
        );
        assert_eq!(head.return_path.unwrap().as_str(), "a@example.com");
        assert_eq!(head.sender_domain.as_str(), "example.com");
        assert!(!head.eight_bit && !head.smtputf8);
        assert!(!wire(publish).contains("hidden"));
    }
    let event = log(batch.last().unwrap());
    assert_eq!(
        (event.sender.as_str(), event.subject.as_str()),
        ("a@example.com", "=?utf-8?Q?=C3=A4?=")
    );
}

#[tokio::test]
async fn what_must_not_be_sent_is_removed_and_what_is_missing_is_added() {
    let message =
        b"From: a@example.com\nBcc: h@hidden.example\nReturn-Path: <x@hidden.example>\n\nhello";
    let batch = published(&raw(message, &json!({}))).await;
    let [message, logged] = batch.as_slice() else { panic!("{}", batch.len()) };
    let expected = format!(
        "Date: Tue, 24 Nov 2026 16:00:00 +0000\r\nMessage-ID: <{}@mta.example.com>\r\n\
         From: a@example.com\r\n\r\nhello\r\n",
        head(message).submission_id
    );
    assert_eq!(String::from_utf8(content(message)).unwrap(), expected);
    assert_eq!(log(logged).size as usize, expected.len());
}

#[tokio::test]
async fn what_the_next_hop_must_offer() {
    for (message, eight_bit, smtputf8) in [
        (&b"From: a@example.com\r\n\r\n\xe4\r\n"[..], true, false),
        ("From: jörg@example.com\r\n\r\nx\r\n".as_bytes(), true, true),
        (b"From: =?utf-8?Q?J=C3=B6rg?= <a@example.com>\r\n\r\nx\r\n", false, false),
    ] {
        let batch = published(&raw(message, &json!({}))).await;
        let head = head(messages(&batch)[0]);
        assert_eq!((head.eight_bit, head.smtputf8), (eight_bit, smtputf8));
    }
}

#[tokio::test]
async fn a_return_path_for_each_recipient() {
    let change = json!({"to": ["ann@example.net", "jörg@example.net"], "verp": true,
        "return_path": "bounces@example.com"});
    let built = json!({"from": "a@example.com", "to": change["to"], "verp": true, "text": "x",
        "return_path": "bounces@example.com"});
    let individual = json!({"from": "a@example.com", "to": change["to"], "verp": true, "text": "{{x}}",
        "return_path": "bounces@example.com", "substitutions": {"x": "1"}});
    for body in [raw(SIGNED, &change), built, individual] {
        let batch = published(&body).await;
        let paths: Vec<_> =
            messages(&batch).iter().map(|p| String::from(head(p).return_path.unwrap())).collect();
        let expected =
            ["bounces+ann=example.net@example.com", "bounces+j=C3=B6rg=example.net@example.com"];
        assert_eq!(paths, expected);
    }
    // Without a return path that of From is the base.
    let body = json!({"from": "a@example.com", "to": "b@example.net", "verp": true, "text": "x"});
    let batch = published(&body).await;
    let path = head(messages(&batch)[0]).return_path.unwrap();
    assert_eq!(path.as_str(), "a+b=example.net@example.com");
}

#[tokio::test]
async fn inline_parts_are_beside_the_html_that_names_them() {
    let inline = json!({"filename": "l.png", "content": "iVBORw==", "content_type": "image/png", "content_id": "logo"});
    let mut body = json!({"from": "a@example.com", "to": "b@example.net", "text": "x",
        "html": "<img src=\"cid:logo\">", "attachments": [inline]});
    let batch = published(&body).await;
    let wire = wire(messages(&batch)[0]).replace("=3D", "=");
    for wanted in [
        "multipart/related",
        "<img src=\"cid:logo\">",
        "Content-ID: <logo>\r\n",
        "Content-Disposition: inline; filename=\"l.png\"\r\n",
    ] {
        assert!(wire.contains(wanted), "{wanted:?} in {wire}");
    }
    // Without HTML nothing names it: it is an attachment.
    body.as_object_mut().unwrap().remove("html");
    let batch = published(&body).await;
    let wire = crate::acceptance::wire(messages(&batch)[0]);
    assert!(wire.contains("Content-Disposition: attachment; filename=\"l.png\"\r\n"), "{wire}");
}

#[tokio::test]
async fn header_fields_with_international_addresses() {
    let body = json!({"from": "Jörg <jörg@bücher.example>", "to": "k@example.net", "text": "x",
        "reply_to": "Zoë <zoë@example.com>", "cc": "Ünal <u@example.net>",
        "headers": {"Sender": "Ä <ä@example.com>"}});
    let batch = published(&body).await;
    let wire = wire(messages(&batch)[0]);
    for wanted in
        ["<jörg@xn--bcher-kva.example>", "<zoë@example.com>", "<ä@example.com>", "Cc: =?utf-8?"]
    {
        assert!(wire.contains(wanted), "{wanted:?} in {wire}");
    }
    assert!(head(messages(&batch)[0]).smtputf8);
}
