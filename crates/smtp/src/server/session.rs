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
        // Any other refusal leaves the session as it was (RFC 5321 section 4.1.4).
        if let Some(Request::Mail | Request::Message) = self.pending.take() {
            self.reset();
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
