//! What is built reads back with a parser that is not ours, and keeps the
//! rules of the wire whatever the draft holds.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

use bytes::Bytes;
use mail_parser::{Message, MessageParser, MimeHeaders};
use posthaste_mail::{
    Attachment, AttachmentError, BuildError, Content, ContentTypeError, Draft, HeaderError,
    Mailbox, MailboxError, TextError, build,
};
use posthaste_model::Timestamp;
use proptest::prelude::*;

const DATE: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// A draft that owns what it needs.
#[derive(Debug, Clone)]
struct Owned {
    from: Mailbox,
    reply_to: Vec<Mailbox>,
    subject: String,
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<Attachment>,
    headers: Vec<(String, String)>,
    message_id: String,
}

impl Owned {
    fn plain() -> Self {
        Self {
            from: "A <a@example.com>".parse().unwrap(),
            reply_to: Vec::new(),
            subject: "Hello".into(),
            text: Some("Hi\n".into()),
            html: None,
            attachments: Vec::new(),
            headers: Vec::new(),
            message_id: "1@example.com".into(),
        }
    }

    fn build(&self) -> Result<Content, BuildError> {
        build(&Draft {
            from: &self.from,
            reply_to: &self.reply_to,
            subject: &self.subject,
            text: self.text.as_deref(),
            html: self.html.as_deref(),
            attachments: &self.attachments,
            headers: &self.headers,
            message_id: &self.message_id,
            date: DATE,
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.build().unwrap().bytes).unwrap()
    }
}

fn file(name: &str, content_type: &str, content: &[u8]) -> Attachment {
    Attachment {
        filename: Some(name.into()),
        content_type: content_type.into(),
        content: Bytes::copy_from_slice(content),
        content_id: None,
    }
}

fn inline(id: &str) -> Attachment {
    Attachment { content_id: Some(id.into()), ..file("i.png", "image/png", b"\x89PNG") }
}

/// The rules of the wire: RFC 5322 section 2.1.1, RFC 2045 section 2.7.
fn check_wire(bytes: &[u8]) {
    assert!(bytes.ends_with(b"\r\n"));
    assert!(!bytes.contains(&0));
    let mut body = false;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("a bare LF");
        assert!(!line.contains(&b'\r'), "a bare CR: {line:?}");
        // From an empty line to a boundary it is an encoded body.
        body = (body || line.is_empty()) && !line.starts_with(b"--=_");
        assert!(line.len() <= if body { 76 } else { 998 }, "{}", line.len());
    }
}

/// The nesting by content types: "mixed(alternative(text/plain …".
fn shape(message: &Message<'_>, at: usize) -> String {
    let part = &message.parts[at];
    match part.sub_parts() {
        Some(children) => {
            let inner: Vec<_> =
                children.iter().map(|child| shape(message, *child as usize)).collect();
            format!("{}({})", part.content_type().unwrap().subtype().unwrap(), inner.join(" "))
        }
        None => part.content_type().unwrap().subtype().unwrap().to_owned(),
    }
}

#[test]
fn a_plain_message_to_the_byte() {
    let mut draft = Owned::plain();
    draft.reply_to = vec!["r@example.com".parse().unwrap()];
    draft.headers = vec![
        ("List-Unsubscribe".into(), "<https://example.com/u>".into()),
        ("sender".into(), "Jö <s@example.com>".into()),
    ];
    assert_eq!(
        draft.text(),
        "Date: Mon, 24 Nov 2025 16:00:00 +0000\r\n\
         From: \"A\" <a@example.com>\r\n\
         Reply-To: <r@example.com>\r\n\
         Subject: Hello\r\n\
         Message-ID: <1@example.com>\r\n\
         MIME-Version: 1.0\r\n\
         List-Unsubscribe: <https://example.com/u>\r\n\
         sender: =?utf-8?B?SsO2?= <s@example.com>\r\n\
         Content-Type: text/plain; charset=\"utf-8\"\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         Hi\r\n"
    );
}

#[test]
fn nesting() {
    let (pdf, png) = (file("a.pdf", "application/pdf", b"%PDF"), inline("i1"));
    for (text, html, attachments, expected) in [
        (true, false, vec![], "plain"),
        (false, true, vec![], "html"),
        (false, false, vec![], "plain"),
        (true, true, vec![], "alternative(plain html)"),
        (true, false, vec![pdf.clone()], "mixed(plain pdf)"),
        (false, false, vec![pdf.clone()], "mixed(pdf)"),
        (false, true, vec![png.clone()], "related(html png)"),
        (true, false, vec![png.clone()], "mixed(plain png)"),
        (true, true, vec![png.clone()], "alternative(plain related(html png))"),
        (
            true,
            true,
            vec![pdf.clone(), png, pdf],
            "mixed(alternative(plain related(html png)) pdf pdf)",
        ),
    ] {
        let mut draft = Owned::plain();
        draft.text = text.then(|| "text".into());
        draft.html = html.then(|| "<img src=\"cid:i1\">".into());
        draft.attachments = attachments;
        let bytes = draft.build().unwrap().bytes;
        let message = MessageParser::new().parse(&bytes).unwrap();
        assert_eq!(shape(&message, 0), expected);
        check_wire(&bytes);
    }
}

#[test]
fn related_part_names_its_root_and_content_id() {
    let mut draft = Owned::plain();
    draft.html = Some("<img src=\"cid:logo@x\">".into());
    draft.attachments = vec![inline("logo@x")];
    let text = draft.text();
    assert!(text.contains("Content-Type: multipart/related; type=\"text/html\";"), "{text}");
    assert!(text.contains("Content-ID: <logo@x>\r\n"), "{text}");
    assert!(text.contains("Content-Disposition: inline; filename=\"i.png\"\r\n"), "{text}");
}

#[test]
fn file_names() {
    for (name, field) in [
        ("a b.pdf", "attachment; filename=\"a b.pdf\"".to_owned()),
        ("a\"b\\.pdf", "attachment; filename=\"a\\\"b\\\\.pdf\"".to_owned()),
        ("ä b.pdf", "attachment; filename*=UTF-8''%C3%A4%20b.pdf".to_owned()),
        (
            "a name with spaces that is too long for one line.pdf",
            "attachment;\r\n filename*0*=UTF-8''a%20name%20with%20spaces%20that%20is%20too%20long;\r\n \
             filename*1*=%20for%20one%20line.pdf"
                .to_owned(),
        ),
        (&"x".repeat(60), format!("attachment;\r\n filename=\"{}\"", "x".repeat(60))),
    ] {
        let mut draft = Owned::plain();
        draft.attachments = vec![file(name, "a/b", b"")];
        let text = draft.text();
        assert!(text.contains(&format!("Content-Disposition: {field}\r\n")), "{name}: {text}");
    }
}

#[test]
fn the_same_draft_gives_the_same_bytes() {
    let mut draft = Owned::plain();
    draft.html = Some("<p>Hi</p>".into());
    let first = draft.text();
    assert_eq!(first, draft.text());
    draft.message_id = "2@example.com".into();
    assert_ne!(first.replace("<1@", "<2@"), draft.text(), "the boundary follows the Message-ID");
}

#[test]
fn a_boundary_that_a_part_holds_is_not_taken() {
    let mut draft = Owned::plain();
    draft.html = Some("<p>Hi</p>".into());
    let taken = draft.text();
    let start = taken.find("=_").unwrap();
    let boundary = taken[start..start + 20].to_owned();
    let evil = format!("--{boundary}\n--{boundary}--\nContent-Type: text/html\n");
    draft.text = Some(evil.clone());
    let bytes = draft.build().unwrap().bytes;
    let message = MessageParser::new().parse(&bytes).unwrap();
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n"), evil);
    assert_eq!(shape(&message, 0), "alternative(plain html)");
}

#[test]
fn line_ends_become_crlf() {
    for text in ["a\nb\n", "a\r\nb\r\n", "a\rb\r", "a\nb"] {
        let mut draft = Owned::plain();
        draft.text = Some(text.into());
        let built = draft.text();
        assert!(built.ends_with("\r\n\r\na\r\nb\r\n"), "{text:?}: {built}");
    }
}

#[test]
fn a_message_within_a_message_is_not_encoded() {
    let mut draft = Owned::plain();
    let inner = b"From: x@example.com\nSubject: in\n\nBody\rtext\r\n";
    draft.attachments = vec![file("m.eml", "message/rfc822", inner)];
    let text = draft.text();
    assert!(text.contains("Content-Transfer-Encoding: 7bit\r\n"), "{text}");
    assert!(
        text.contains("\r\n\r\nFrom: x@example.com\r\nSubject: in\r\n\r\nBody\r\ntext\r\n\r\n--"),
        "{text}"
    );
}

#[test]
fn a_text_attachment_keeps_its_bytes() {
    let content = b"one\ntwo\rthree\r\n\0 trailing \n";
    for content_id in [None, Some("c".to_owned())] {
        let mut draft = Owned::plain();
        draft.html = Some("h".into());
        draft.attachments =
            vec![Attachment { content_id, ..file("a.csv", "text/csv; charset=utf-8", content) }];
        let bytes = draft.build().unwrap().bytes;
        let message = MessageParser::new().parse(&bytes).unwrap();
        let part = message.parts.iter().find(|p| p.attachment_name().is_some()).unwrap();
        assert_eq!(part.contents(), content);
        check_wire(&bytes);
    }
}

#[test]
fn an_address_over_ascii_needs_smtputf8() {
    let mut draft = Owned::plain();
    assert!(!draft.build().unwrap().smtputf8);
    draft.from = "jörg@bücher.example".parse().unwrap();
    let content = draft.build().unwrap();
    assert!(content.smtputf8 && content.eight_bit);
    assert!(
        String::from_utf8(content.bytes)
            .unwrap()
            .contains("From: <jörg@xn--bcher-kva.example>\r\n")
    );
}

#[test]
fn refused() {
    type Change = fn(&mut Owned);
    let table: [(Change, BuildError); 16] = [
        (
            |d| d.from.name = Some("A\r\nBcc: b".into()),
            BuildError::From(MailboxError::Control('\r')),
        ),
        (
            |d| {
                d.reply_to =
                    vec![d.from.clone(), Mailbox { name: Some("\n".into()), ..d.from.clone() }]
            },
            BuildError::ReplyTo { index: 1, error: MailboxError::Control('\n') },
        ),
        (|d| d.subject = "a\r\nBcc: b@c".into(), BuildError::Subject(HeaderError::Control('\r'))),
        (|d| d.subject = "a\0".into(), BuildError::Subject(HeaderError::Control('\0'))),
        (|d| d.subject = "x".repeat(8193), BuildError::Subject(HeaderError::ValueTooLong)),
        (|d| d.text = Some("\0".into()), BuildError::Text(TextError::Nul)),
        (|d| d.html = Some("\0".into()), BuildError::Html(TextError::Nul)),
        (
            |d| d.headers = vec![("X-A".into(), "1".into()), ("Bcc".into(), "x@y".into())],
            BuildError::Header { index: 1, error: HeaderError::Reserved },
        ),
        (
            |d| d.headers = vec![("X-A: 1\r\nBcc".into(), "x@y".into())],
            BuildError::Header { index: 0, error: HeaderError::Name },
        ),
        (|d| d.message_id = "1".into(), BuildError::MessageId),
        (|d| d.message_id = "1@x>\r\nBcc: y".into(), BuildError::MessageId),
        (
            |d| d.attachments = vec![file("a\r\nb", "a/b", b"")],
            BuildError::Attachment { index: 0, error: AttachmentError::Filename },
        ),
        (
            |d| d.attachments = vec![inline("a"), inline("a>\r\nX: y")],
            BuildError::Attachment { index: 1, error: AttachmentError::ContentId },
        ),
        (
            |d| d.attachments = vec![file("a", "multipart/mixed", b"")],
            BuildError::Attachment {
                index: 0,
                error: AttachmentError::ContentType(ContentTypeError::Multipart),
            },
        ),
        (
            |d| d.attachments = vec![file("a", "message/rfc822", "ä".as_bytes())],
            BuildError::Attachment { index: 0, error: AttachmentError::NotSevenBit },
        ),
        (
            |d| d.attachments = vec![file("a", "message/rfc822", &[b'x'; 999])],
            BuildError::Attachment { index: 0, error: AttachmentError::NotSevenBit },
        ),
    ];
    for (change, error) in table {
        let mut draft = Owned::plain();
        change(&mut draft);
        assert_eq!(draft.build(), Err(error));
    }
}

/// Lines of all sorts: long, with trailing white space, dots, "From ".
fn body() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => "[ -~]{0,100}",
        2 => "\\PC{0,40}",
        1 => Just("x".repeat(1200)),
        1 => Just("trailing \t".to_owned()),
        1 => Just("From here. \u{1}".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("--=_0".to_owned()),
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r"), Just("\n\n")];
    proptest::collection::vec((line, end), 1..8)
        .prop_map(|lines| lines.into_iter().map(|(line, end)| line + end).collect())
}

/// Neither control characters nor line separators, and nothing that reads as
/// an encoded-word.
fn line() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{1,12}( [!-~]{1,12}){0,20}", "\\PC{0,80}", Just("x".repeat(1100))]
        .prop_map(|text: String| text.replace("=?", "= ?").replace(['\u{2028}', '\u{2029}'], "."))
}

fn name() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(line().prop_map(|text| {
        let mut name: String = text.trim().to_owned();
        while name.len() > 256 {
            name.pop();
        }
        name
    }))
}

fn attachment() -> impl Strategy<Value = Attachment> {
    let filename = "[ -~]{1,100}|[!-~]{20,90}|\\PC{1,20}|[äöü€]{1,60}";
    let content = proptest::collection::vec(any::<u8>(), 0..300);
    let kind =
        prop_oneof![Just("application/pdf"), Just("application/json"), Just("image/png; x=y")];
    (filename, content, kind).prop_map(|(filename, content, kind)| file(&filename, kind, &content))
}

fn normal(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn unspaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

proptest! {
    #[test]
    fn what_is_built_reads_back(
        name in name(), subject in line(), text in body(), html in body(), value in line(),
        attachments in proptest::collection::vec(attachment(), 0..4),
    ) {
        let mut draft = Owned::plain();
        let name = name.filter(|name| !name.is_empty());
        draft.from.name = name.clone();
        (draft.subject, draft.text, draft.html) = (subject.clone(), Some(text.clone()), Some(html.clone()));
        draft.attachments = attachments.clone();
        if value.len() < 880 {
            draft.headers = vec![("Comments".into(), value.clone())];
        }
        let bytes = draft.build().unwrap().bytes;
        check_wire(&bytes);
        prop_assert!(bytes.is_ascii());

        let message = MessageParser::new().parse(&bytes).unwrap();
        let from = message.from().unwrap().first().unwrap();
        prop_assert_eq!(from.address(), Some("a@example.com"));
        prop_assert_eq!(unspaced(from.name().unwrap_or_default()), unspaced(&name.unwrap_or_default()));
        prop_assert_eq!(unspaced(message.subject().unwrap_or_default()), unspaced(&subject));
        if value.len() < 880 {
            let read = message.header("Comments").and_then(|value| value.as_text());
            prop_assert_eq!(unspaced(read.unwrap_or_default()), unspaced(&value));
        }
        prop_assert_eq!(normal(&message.body_text(0).unwrap()), normal(&text));
        prop_assert_eq!(normal(&message.body_html(0).unwrap()), normal(&html));
        prop_assert_eq!(message.attachment_count(), attachments.len());
        for (at, given) in attachments.iter().enumerate() {
            let read = message.attachment(u32::try_from(at).unwrap()).unwrap();
            prop_assert_eq!(read.contents(), &given.content[..]);
            prop_assert_eq!(read.attachment_name(), given.filename.as_deref());
        }
    }

    /// Whatever the strings hold: either an error, or the fields that were
    /// meant and no other.
    #[test]
    fn nothing_injects(
        name in any::<String>(), subject in any::<String>(), text in any::<String>(),
        header in "[A-Za-z:\\r\\n -]{0,12}", value in any::<String>(), filename in any::<String>(),
        kind in any::<String>(), id in any::<String>(),
        evil in prop_oneof![Just(""), Just("\r\nBcc: x@y"), Just("\n\nbody"), Just("\r\rX: y"), Just("\u{2028}Bcc: x")],
        at in 0..7_usize,
    ) {
        let mut strings = [name, subject, text, value, filename, kind, id];
        strings[at].push_str(evil);
        let [name, subject, text, value, filename, kind, id] = strings;
        let mut draft = Owned::plain();
        draft.from.name = Some(name);
        draft.subject = subject;
        draft.html = Some(text);
        draft.headers = vec![(header.clone(), value)];
        draft.attachments = vec![Attachment { content_id: Some(id), ..file(&filename, &kind, b"x") }];
        for keep in [true, false] {
            if !keep {
                (draft.headers, draft.attachments) = (Vec::new(), Vec::new());
            }
            let Ok(content) = draft.build() else { continue };
            check_wire(&content.bytes);
            prop_assert!(content.bytes.is_ascii());
            let fields: Vec<(String, String)> = serde_json::from_str(
                posthaste_mail::header_json("", &content.bytes, usize::MAX).get()).unwrap();
            let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
            let mut expected = vec!["Date", "From", "Subject", "Message-ID", "MIME-Version"];
            expected.extend(draft.headers.iter().map(|(name, _)| name.as_str()));
            expected.push("Content-Type");
            prop_assert_eq!(names, expected);
        }
    }
}
