//! The replies that a server session gives by itself, and how replies are
//! written (RFC 5321 section 4.2, RFC 2034).

use posthaste_model::SmtpReply;

/// A fixed reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) enhanced: &'static str,
    pub(super) text: &'static str,
}

const fn answer(code: u16, enhanced: &'static str, text: &'static str) -> Answer {
    Answer { code, enhanced, text }
}

impl Answer {
    pub(super) const MAIL_OK: Self = answer(250, "2.1.0", "OK");
    pub(super) const RCPT_OK: Self = answer(250, "2.1.5", "OK");
    pub(super) const MESSAGE_OK: Self = answer(250, "2.0.0", "OK");
    pub(super) const NOOP_OK: Self = answer(250, "2.0.0", "OK");
    pub(super) const VRFY_OK: Self = answer(252, "2.1.5", "Send mail and see");
    pub(super) const GO_AHEAD: Self = answer(354, "", "End data with <CR><LF>.<CR><LF>");
    pub(super) const TLS_OK: Self = answer(220, "2.0.0", "Ready to start TLS");
    pub(super) const BYE: Self = answer(221, "2.0.0", "Bye");

    pub(super) const NOT_UNDERSTOOD: Self = answer(500, "5.5.2", "Command not recognized");
    pub(super) const LINE_TOO_LONG: Self = answer(500, "5.5.2", "Line too long");
    pub(super) const NO_ARGUMENT: Self = answer(501, "5.5.4", "This command takes no argument");
    pub(super) const HELLO_NAME: Self = answer(501, "5.5.4", "A host name is needed");
    pub(super) const SENDER_SYNTAX: Self = answer(501, "5.1.7", "Syntax: MAIL FROM:<address>");
    pub(super) const RECIPIENT_SYNTAX: Self = answer(501, "5.1.3", "Syntax: RCPT TO:<address>");
    pub(super) const PARAMETER_VALUE: Self = answer(501, "5.5.4", "Invalid parameter value");
    pub(super) const NOT_IMPLEMENTED: Self = answer(502, "5.5.1", "Command not implemented");
    pub(super) const OUT_OF_ORDER: Self = answer(503, "5.5.1", "Bad sequence of commands");
    pub(super) const NO_RECIPIENTS: Self = answer(554, "5.5.1", "No valid recipients");
    pub(super) const PARAMETER: Self = answer(555, "5.5.4", "Parameter not recognized");
    pub(super) const INTERNATIONAL: Self =
        answer(553, "5.6.7", "An international address needs SMTPUTF8");
    pub(super) const TOO_LARGE: Self = answer(552, "5.3.4", "Message too large");
    pub(super) const TOO_MANY_RECIPIENTS: Self = answer(452, "4.5.3", "Too many recipients");
    pub(super) const TOO_MANY_ERRORS: Self = answer(421, "4.7.0", "Too many errors, closing");

    pub(super) fn write(self, enhanced: bool, out: &mut Vec<u8>) {
        begin(out, self.code, false);
        if enhanced && !self.enhanced.is_empty() {
            push(out, &[self.enhanced, " "]);
        }
        push(out, &[self.text, "\r\n"]);
    }
}

/// Writes a reply, one line for each line of its text.
pub(super) fn write_reply(reply: &SmtpReply, enhanced: bool, out: &mut Vec<u8>) {
    let enhanced = reply.enhanced.filter(|_| enhanced).map(|code| code.to_string());
    let mut lines = reply.text.split('\n').peekable();
    while let Some(line) = lines.next() {
        begin(out, reply.code, lines.peek().is_some());
        if let Some(enhanced) = &enhanced {
            push(out, &[enhanced, " "]);
        }
        // A control character could end the line and begin another reply.
        out.extend(line.bytes().map(|byte| if byte < b' ' || byte == 127 { b' ' } else { byte }));
        push(out, &["\r\n"]);
    }
}

/// The code and what follows it.
pub(super) fn begin(out: &mut Vec<u8>, code: u16, more: bool) {
    // Each remainder is below 10.
    let digit = |n: u16| b'0' + (n % 10) as u8;
    let separator = if more { b'-' } else { b' ' };
    out.extend_from_slice(&[digit(code / 100), digit(code / 10), digit(code), separator]);
}

pub(super) fn push(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}
