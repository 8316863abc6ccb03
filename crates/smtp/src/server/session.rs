//! The state machine.

use bytes::{Buf, BytesMut};
use posthaste_model::SmtpReply;

use super::{
    Envelope, MAX_COMMAND_LEN, Request, ServerOptions,
    answer::{self, Answer},
    command::{Command, MailParameters, parse},
};
use crate::content::ContentReader;

/// Content buffers up to this size are kept for the next message.
const KEPT_CONTENT: usize = 64 * 1024;

/// What the next input is.
#[derive(Debug)]
enum Reading {
    Commands,
    /// The rest of a line that is too long.
    LongLine,
    Content(ContentReader),
    /// The session is over: nothing is read any more.
    Nothing,
}

/// A server session. See the module for how it is driven.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    reading: Reading,
    pending: Option<Request>,
    tls: bool,
    /// The name after EHLO or HELO; empty before.
    hello_name: String,
    greeted: bool,
    extended: bool,
    in_transaction: bool,
    envelope: Envelope,
    candidate: String,
    content: Vec<u8>,
    errors: usize,
    line: Vec<u8>,
}

impl Server {
    /// A session before its greeting.
    #[must_use]
    pub fn new(options: ServerOptions) -> Self {
        Self {
            options,
            reading: Reading::Commands,
            pending: None,
            tls: false,
            hello_name: String::new(),
            greeted: false,
            extended: false,
            in_transaction: false,
            envelope: Envelope::default(),
            candidate: String::new(),
            content: Vec::new(),
            errors: 0,
            line: Vec::new(),
        }
    }

    /// Writes the greeting.
    pub fn greet(&self, out: &mut Vec<u8>) {
        answer::push(out, &["220 ", &self.options.hostname, " ESMTP\r\n"]);
    }

    /// Writes a greeting of the host's in place of the usual one. 421 ends the
    /// session.
    pub fn greet_with(&mut self, reply: &SmtpReply, out: &mut Vec<u8>) {
        self.refuse(reply, out);
    }

    /// The name that the client gave with EHLO or HELO; empty before that.
    #[must_use]
    pub fn hello_name(&self) -> &str {
        &self.hello_name
    }

    /// The envelope so far.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The recipient that [`Request::Recipient`] asks about.
    #[must_use]
    pub fn candidate(&self) -> &str {
        &self.candidate
    }

    /// The content, dots unstuffed.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Whether TLS is in use, as far as this session was told.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether the session is over: the host sends what is written, and closes.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.reading, Reading::Nothing)
    }

    /// Takes what it can from `input` and writes replies to `out`, up to the
    /// next request. `None`: more input is needed, or the session is over.
    ///
    /// While a request is not answered, it is given again.
    pub fn next(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Request> {
        while self.pending.is_none() {
            let progress = match self.reading {
                Reading::Commands => self.read_command(input, out),
                Reading::LongLine => self.skip_line(input, out),
                Reading::Content(_) => self.read_content(input, out),
                Reading::Nothing => {
                    input.clear();
                    false
                }
            };
            if !progress {
                return None;
            }
        }
        self.pending
    }

    fn read_command(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
        let window = input.get(..MAX_COMMAND_LEN).unwrap_or(input);
        let Some(end) = memchr::memchr(b'\n', window) else {
            if window.len() < MAX_COMMAND_LEN {
                return false;
            }
            self.reading = Reading::LongLine;
            return true;
        };
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend_from_slice(window.get(..end).unwrap_or_default());
        input.advance(end + 1);
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        let outcome = parse(text).and_then(|command| self.command(command, out));
        self.line = line;
        if let Err(answer) = outcome {
            self.mistake(answer, out);
        }
        if self.pending == Some(Request::StartTls) {
            // Anyone may have put it there (RFC 3207 section 4.2).
            input.clear();
        }
        true
    }

    fn skip_line(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
        match memchr::memchr(b'\n', input) {
            Some(end) => {
                input.advance(end + 1);
                self.reading = Reading::Commands;
                self.mistake(Answer::LINE_TOO_LONG, out);
                true
            }
            None => {
                input.clear();
                false
            }
        }
    }

    fn read_content(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
        let Reading::Content(reader) = &mut self.reading else { return false };
        let (consumed, ended) = reader.advance(input, &mut self.content);
        input.advance(consumed);
        if !ended {
            return false;
        }
        let over = reader.is_over();
        self.reading = Reading::Commands;
        if over {
            self.say(Answer::TOO_LARGE, out);
            self.reset();
        } else {
            self.pending = Some(Request::Message);
        }
        true
    }

    fn command(&mut self, command: Command<'_>, out: &mut Vec<u8>) -> Result<(), Answer> {
        match command {
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::Mail(sender, parameters) => self.mail(sender, parameters)?,
            Command::Rcpt(recipient) => self.rcpt(recipient)?,
            Command::Data if !self.in_transaction => return Err(Answer::OUT_OF_ORDER),
            Command::Data if self.envelope.recipients.is_empty() => {
                return Err(Answer::NO_RECIPIENTS);
            }
            Command::Data => self.pending = Some(Request::Data),
            Command::StartTls if !self.options.starttls => return Err(Answer::NOT_IMPLEMENTED),
            Command::StartTls if self.tls || !self.greeted => return Err(Answer::OUT_OF_ORDER),
            Command::StartTls => self.pending = Some(Request::StartTls),
            Command::Rset => {
                self.reset();
                self.say(Answer::NOOP_OK, out);
            }
            Command::Noop => self.say(Answer::NOOP_OK, out),
            Command::Vrfy => self.say(Answer::VRFY_OK, out),
            Command::Quit => {
                self.say(Answer::BYE, out);
                self.reading = Reading::Nothing;
            }
        }
        Ok(())
    }

    fn hello(&mut self, name: &str, extended: bool) {
        self.hello_name.clear();
        self.hello_name.push_str(name);
        self.extended = extended;
        self.pending = Some(Request::Hello);
    }

    fn mail(&mut self, sender: Option<&str>, parameters: MailParameters) -> Result<(), Answer> {
        if !self.greeted || self.in_transaction {
            return Err(Answer::OUT_OF_ORDER);
        }
        let offered = |wanted: bool, offered: bool| !wanted || (offered && self.extended);
        let known = offered(parameters.size.is_some(), self.options.size)
            && offered(parameters.body, self.options.eight_bit_mime)
            && offered(parameters.smtputf8, self.options.smtputf8);
        if !known {
            return Err(Answer::PARAMETER);
        }
        if !parameters.smtputf8 && !sender.is_none_or(str::is_ascii) {
            return Err(Answer::INTERNATIONAL);
        }
        if parameters.size.is_some_and(|size| size > self.options.max_content as u64) {
            return Err(Answer::TOO_LARGE);
        }
        self.envelope.sender = sender.map(str::to_owned);
        self.envelope.size = parameters.size;
        self.envelope.eight_bit = parameters.eight_bit;
        self.envelope.smtputf8 = parameters.smtputf8;
        self.pending = Some(Request::Mail);
        Ok(())
    }

    fn rcpt(&mut self, recipient: &str) -> Result<(), Answer> {
        if !self.in_transaction {
            return Err(Answer::OUT_OF_ORDER);
        }
        if !self.envelope.smtputf8 && !recipient.is_ascii() {
            return Err(Answer::INTERNATIONAL);
        }
        if self.envelope.recipients.len() >= self.options.max_recipients {
            return Err(Answer::TOO_MANY_RECIPIENTS);
        }
        self.candidate.clear();
        self.candidate.push_str(recipient);
        self.pending = Some(Request::Recipient);
        Ok(())
    }

    /// Answers the request positively, in the usual words.
    pub fn accept(&mut self, out: &mut Vec<u8>) {
        match self.pending {
            Some(Request::Hello) => self.welcome(out),
            Some(Request::Mail) => self.say(Answer::MAIL_OK, out),
            Some(Request::Recipient) => self.say(Answer::RCPT_OK, out),
            Some(Request::Data) => self.say(Answer::GO_AHEAD, out),
            Some(Request::Message) => self.say(Answer::MESSAGE_OK, out),
            Some(Request::StartTls) => self.say(Answer::TLS_OK, out),
            None => {}
        }
        self.proceed();
    }

    /// Answers the request positively with a reply of the host's.
    pub fn accept_with(&mut self, reply: &SmtpReply, out: &mut Vec<u8>) {
        answer::write_reply(reply, self.options.enhanced_status_codes, out);
        self.proceed();
    }

    /// Answers the request negatively. 421 ends the session.
    pub fn refuse(&mut self, reply: &SmtpReply, out: &mut Vec<u8>) {
        answer::write_reply(reply, self.options.enhanced_status_codes, out);
        self.abandon();
        if reply.code == 421 {
            self.reading = Reading::Nothing;
        }
    }

    /// Treats the request as refused and writes nothing: for a host that has
    /// words of its own.
    pub fn abandon(&mut self) {
        match self.pending.take() {
            Some(Request::Mail | Request::Message) => self.reset(),
            // The session stays as it was (RFC 5321 section 4.1.4).
            Some(_) | None => {}
        }
    }

    fn proceed(&mut self) {
        match self.pending.take() {
            Some(Request::Hello) => {
                self.reset();
                self.greeted = true;
            }
            Some(Request::Mail) => self.in_transaction = true,
            Some(Request::Recipient) => {
                self.envelope.recipients.push(std::mem::take(&mut self.candidate));
            }
            Some(Request::Data) => {
                self.reading = Reading::Content(ContentReader::new(self.options.max_content));
            }
            Some(Request::Message) => self.reset(),
            Some(Request::StartTls) => {
                self.reset();
                self.greeted = false;
                self.hello_name.clear();
                self.tls = true;
            }
            None => {}
        }
    }

    /// Forgets the transaction.
    fn reset(&mut self) {
        self.in_transaction = false;
        self.envelope.sender = None;
        self.envelope.recipients.clear();
        self.envelope.size = None;
        self.envelope.eight_bit = false;
        self.envelope.smtputf8 = false;
        if self.content.capacity() > KEPT_CONTENT {
            self.content = Vec::new();
        } else {
            self.content.clear();
        }
    }

    fn welcome(&self, out: &mut Vec<u8>) {
        let options = &self.options;
        if !self.extended {
            answer::push(out, &["250 ", &options.hostname, "\r\n"]);
            return;
        }
        answer::push(out, &["250-", &options.hostname, "\r\n"]);
        for (offered, keyword) in [
            (options.pipelining, "PIPELINING"),
            (options.eight_bit_mime, "8BITMIME"),
            (options.smtputf8, "SMTPUTF8"),
            (options.starttls && !self.tls, "STARTTLS"),
            (options.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
        ] {
            if offered {
                answer::push(out, &["250-", keyword, "\r\n"]);
            }
        }
        // Some line must be the last one; HELP, alone of all, says nothing.
        if options.size {
            answer::push(out, &["250 SIZE ", &options.max_content.to_string(), "\r\n"]);
        } else {
            answer::push(out, &["250 HELP\r\n"]);
        }
    }

    fn say(&self, answer: Answer, out: &mut Vec<u8>) {
        answer.write(self.options.enhanced_status_codes, out);
    }

    fn mistake(&mut self, answer: Answer, out: &mut Vec<u8>) {
        // A client that pipelines is out of order through no fault of its own
        // once a command has been refused.
        if !matches!(answer, Answer::OUT_OF_ORDER | Answer::NO_RECIPIENTS) {
            self.errors += 1;
        }
        if self.errors >= self.options.max_errors {
            self.say(Answer::TOO_MANY_ERRORS, out);
            self.reading = Reading::Nothing;
        } else {
            self.say(answer, out);
        }
    }
}

#[cfg(test)]
mod tests {
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
                    let reply = SmtpReply {
                        code: 550,
                        enhanced: "5.7.1".parse().ok(),
                        text: "a\nb".into(),
                    };
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
        ServerOptions {
            max_content: 100,
            max_recipients: 2,
            max_errors: 5,
            ..ServerOptions::new("mx")
        }
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
}
