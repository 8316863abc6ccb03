//! Dialogues with a server session.

use bytes::BytesMut;
use posthaste_model::SmtpReply;
use proptest::prelude::*;

use super::*;

/// A session whose host refuses whatever has `bad` in it, and what the
/// host was asked.
struct Dialogue {
    server: Server,
    input: BytesMut,
    asked: Vec<Request>,
    messages: Vec<(Envelope, Vec<u8>)>,
}

impl Dialogue {
    fn new(options: ServerOptions) -> Self {
        let server = Server::new(options);
        Self { server, input: BytesMut::new(), asked: vec![], messages: vec![] }
    }

    fn say(&mut self, text: &[u8]) -> String {
        let mut out = Vec::new();
        self.input.extend_from_slice(text);
        while let Some(request) = self.server.next(&mut self.input, &mut out) {
            self.asked.push(request);
            let bad = match request {
                Request::Hello => self.server.hello_name().contains("bad"),
                Request::Mail => {
                    self.server.envelope().sender.as_ref().is_some_and(|s| s.contains("bad"))
                }
                Request::Recipient => self.server.candidate().contains("bad"),
                Request::Message => self.server.content().starts_with(b"bad"),
                Request::Data | Request::StartTls => false,
            };
            if bad {
                let reply =
                    SmtpReply { code: 550, enhanced: "5.7.1".parse().ok(), text: "a\nb".into() };
                self.server.refuse(&reply, &mut out);
                continue;
            }
            if request == Request::Message {
                let envelope = self.server.envelope().clone();
                self.messages.push((envelope, self.server.content().to_vec()));
            }
            self.server.accept(&mut out);
        }
        String::from_utf8(out).unwrap()
    }

    /// The codes of the replies, lines of one reply as one.
    fn codes(&mut self, text: &str) -> Vec<u16> {
        let out = self.say(text.as_bytes());
        let last = |line: &&str| line.as_bytes()[3] == b' ';
        out.lines().filter(last).map(|line| line[..3].parse().unwrap()).collect()
    }
}

fn options() -> ServerOptions {
    ServerOptions { max_content: 100, max_recipients: 2, max_errors: 5, ..ServerOptions::new("mx") }
}

#[test]
fn order_and_syntax() {
    const HI: &str = "EHLO c\r\n";
    const MAIL: &str = "EHLO c\r\nMAIL FROM:<a@b>\r\n";
    const RCPT: &str = "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    for (before, text, codes) in [
        ("", "MAIL FROM:<a@b>\r\n", vec![503]),
        ("", "RCPT TO:<a@b>\r\n", vec![503]),
        ("", "DATA\r\n", vec![503]),
        ("", "NOOP\nRSET\nVRFY x\nQUIT\n", vec![250, 250, 252, 221]),
        ("", "HELO c\r\nMAIL FROM:<a@b>\r\n", vec![250, 250]),
        ("", "HELO c\r\nMAIL FROM:<a@b> SIZE=1\r\n", vec![250, 555]),
        ("", "EHLO bad\r\nMAIL FROM:<a@b>\r\n", vec![550, 503]),
        ("", "QUIT\r\nNOOP\r\n", vec![221]),
        (HI, "EHLO bad\r\nMAIL FROM:<a@b>\r\n", vec![550, 250]),
        (HI, "RCPT TO:<a@b>\r\n", vec![503]),
        (HI, "MAIL FROM:<bad@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n", vec![550, 503, 503]),
        (HI, "MAIL FROM:<a@b> SIZE=101\r\n", vec![552]),
        (HI, "MAIL FROM:<a@b> SIZE=100\r\n", vec![250]),
        (HI, "MAIL FROM:<é@b>\r\n", vec![553]),
        (HI, "MAIL FROM:<é@b> SMTPUTF8\r\nRCPT TO:<ü@b>\r\n", vec![250, 250]),
        (HI, "STARTTLS\r\n", vec![502]),
        (HI, "nonsense\r\nNOOP\r\n", vec![500, 250]),
        (HI, "x\r\nx\r\nx\r\nx\r\nx\r\nNOOP\r\n", vec![500, 500, 500, 500, 421]),
        (MAIL, "MAIL FROM:<a@b>\r\n", vec![503]),
        (MAIL, "RCPT TO:<ü@b>\r\n", vec![553]),
        (MAIL, "RCPT TO:<bad@b>\r\nDATA\r\n", vec![550, 554]),
        (MAIL, "RSET\r\nRCPT TO:<a@b>\r\n", vec![250, 503]),
        (MAIL, "EHLO c\r\nRCPT TO:<a@b>\r\n", vec![250, 503]),
        (RCPT, "RCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\n", vec![250, 452]),
        (RCPT, "DATA\r\nbad\r\n.\r\nRCPT TO:<a@b>\r\n", vec![354, 550, 503]),
        (RCPT, "DATA\r\n.\r\nMAIL FROM:<>\r\n", vec![354, 250, 250]),
        (RCPT, "DATA\r\nhi\r\nQUIT\r\n", vec![354]),
    ] {
        let mut dialogue = Dialogue::new(options());
        dialogue.say(before.as_bytes());
        assert_eq!(dialogue.codes(text), codes, "{before:?} then {text:?}");
    }
}

#[test]
fn replies_as_written() {
    let mut dialogue = Dialogue::new(ServerOptions { starttls: true, ..options() });
    let mut out = Vec::new();
    dialogue.server.greet(&mut out);
    assert_eq!(out, b"220 mx ESMTP\r\n");
    assert_eq!(
        dialogue.say(b"EHLO c\r\n"),
        "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-STARTTLS\r\n\
         250-ENHANCEDSTATUSCODES\r\n250 SIZE 100\r\n"
    );
    assert_eq!(dialogue.say(b"EHLO bad\r\n"), "550-5.7.1 a\r\n550 5.7.1 b\r\n");
    assert_eq!(dialogue.say(b"DATA\r\n"), "503 5.5.1 Bad sequence of commands\r\n");
    let bare = ServerOptions {
        enhanced_status_codes: false,
        pipelining: false,
        eight_bit_mime: false,
        smtputf8: false,
        size: false,
        ..options()
    };
    let mut dialogue = Dialogue::new(bare);
    assert_eq!(dialogue.say(b"EHLO c\r\n"), "250-mx\r\n250 HELP\r\n");
    assert_eq!(dialogue.say(b"EHLO bad\r\n"), "550-a\r\n550 b\r\n");
    assert_eq!(dialogue.say(b"MAIL FROM:<a@b> SIZE=1\r\n")[..4], *"555 ");
}

#[test]
fn a_reply_of_the_host_stays_one_reply() {
    let mut dialogue = Dialogue::new(options());
    let mut out = Vec::new();
    dialogue.input.extend_from_slice(b"EHLO c\r\n");
    assert_eq!(dialogue.server.next(&mut dialogue.input, &mut out), Some(Request::Hello));
    let reply = SmtpReply { code: 250, enhanced: None, text: "a\r\n354 b\0".into() };
    dialogue.server.accept_with(&reply, &mut out);
    assert_eq!(out, b"250-a \r\n250 354 b \r\n");
}

#[test]
fn a_whole_session_in_one_write() {
    let mut dialogue = Dialogue::new(options());
    let codes = dialogue.codes(
        "EHLO c\r\nMAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<x@y>\r\nRCPT TO:<bad@y>\r\nDATA\r\n\
         one\r\n..two\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<z@y>\r\nDATA\r\n.\r\nQUIT\r\n",
    );
    assert_eq!(codes, [250, 250, 250, 550, 354, 250, 250, 250, 354, 250, 221]);
    let [(first, content), (second, empty)] = &dialogue.messages[..] else { panic!() };
    assert_eq!((first.sender.as_deref(), first.eight_bit), (Some("a@b"), true));
    assert_eq!(first.recipients, ["x@y"]);
    assert_eq!(content, b"one\r\n.two\r\n");
    assert_eq!((second.sender.as_deref(), second.eight_bit), (None, false));
    assert!(empty.is_empty());
    assert!(dialogue.server.is_closed());
}

#[test]
fn too_much_content_is_refused_and_the_session_goes_on() {
    let mut dialogue = Dialogue::new(options());
    dialogue.say(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    for _ in 0..1000 {
        assert_eq!(dialogue.say(&[b'x'; 1000]), "");
    }
    assert!(dialogue.server.content().len() <= 100);
    assert_eq!(dialogue.codes("\r\n.\r\nMAIL FROM:<a@b>\r\n"), [552, 250]);
    assert!(dialogue.messages.is_empty());
}

#[test]
fn an_endless_line_is_bounded() {
    let mut dialogue = Dialogue::new(options());
    for _ in 0..1000 {
        assert_eq!(dialogue.say(&[b'x'; 1000]), "");
        assert!(dialogue.input.len() < MAX_COMMAND_LEN);
    }
    assert_eq!(dialogue.codes("\r\nNOOP\r\n"), [500, 250]);
}

#[test]
fn what_comes_after_starttls_in_clear_is_never_read() {
    let mut dialogue = Dialogue::new(ServerOptions { starttls: true, ..options() });
    assert_eq!(dialogue.codes("EHLO c\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n"), [250, 220]);
    assert!(dialogue.server.is_tls() && dialogue.input.is_empty());
    assert_eq!(dialogue.server.hello_name(), "");
    assert_eq!(dialogue.codes("MAIL FROM:<a@b>\r\n"), [503]);
    assert!(!dialogue.say(b"EHLO c\r\n").contains("STARTTLS"));
    assert_eq!(dialogue.codes("STARTTLS\r\n"), [503]);
}

#[test]
fn a_request_waits_for_its_answer() {
    let mut server = Server::new(options());
    let mut input = BytesMut::from(&b"EHLO c\r\nNOOP\r\n"[..]);
    let mut out = Vec::new();
    for _ in 0..3 {
        assert_eq!(server.next(&mut input, &mut out), Some(Request::Hello));
    }
    assert!(out.is_empty());
    server.abandon();
    assert_eq!(server.next(&mut input, &mut out), None);
    assert_eq!(out, b"250 2.0.0 OK\r\n");
}

proptest! {
    #[test]
    fn any_input_in_any_pieces(
        lines in prop::collection::vec(
            prop_oneof![
                Just("EHLO c"), Just("MAIL FROM:<a@b>"), Just("MAIL FROM:<bad@b>"),
                Just("RCPT TO:<c@d>"), Just("RCPT TO:<bad@d>"), Just("DATA"), Just("RSET"),
                Just("."), Just("..x"), Just("text"), Just("bad"), Just("\0\u{7f}"), Just("STARTTLS"),
            ],
            0..30,
        ),
        chunk in 1usize..40,
    ) {
        let text = lines.join("\r\n") + "\r\n";
        let mut whole = Dialogue::new(options());
        let expected = whole.say(text.as_bytes());
        let mut pieces = Dialogue::new(options());
        let mut out = String::new();
        for piece in text.as_bytes().chunks(chunk) {
            out += &pieces.say(piece);
        }
        prop_assert_eq!(out, expected);
        prop_assert_eq!(pieces.asked, whole.asked);
        prop_assert_eq!(pieces.messages, whole.messages);
    }
}
