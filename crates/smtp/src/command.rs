//! Commands of a client (RFC 5321 section 4.1.1), written into a buffer.
//!
//! Invariant: what is written is one command line. An address with a control
//! character would be a second command, so [`check_path`] refuses it before
//! anything is written.

/// The parameters of MAIL FROM that the server offers and the message needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE (RFC 1870).
    pub size: Option<u64>,
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
}

/// A path that cannot stand in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A control character: it could end the command.
    #[error("the address holds a control character")]
    Control,
    /// Longer than any address.
    #[error("the address is longer than 512 bytes")]
    TooLong,
    /// No address at all; the null path is a case of its own.
    #[error("the address is empty")]
    Empty,
}

/// Whether `path` can stand between the brackets. The full check of an address
/// is that of the model; this one guards the session against its callers.
///
/// # Errors
/// See [`PathError`].
pub fn check_path(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > 512 {
        return Err(PathError::TooLong);
    }
    if path.chars().any(char::is_control) { Err(PathError::Control) } else { Ok(()) }
}

/// `EHLO name`.
pub fn ehlo(out: &mut Vec<u8>, name: &str) {
    push(out, &["EHLO ", name, "\r\n"]);
}

/// `HELO name`.
pub fn helo(out: &mut Vec<u8>, name: &str) {
    push(out, &["HELO ", name, "\r\n"]);
}

/// `MAIL FROM:<path>` with parameters. `None` is the null path.
pub fn mail_from(out: &mut Vec<u8>, path: Option<&str>, parameters: MailParameters) {
    push(out, &["MAIL FROM:<", path.unwrap_or_default(), ">"]);
    if let Some(size) = parameters.size {
        push(out, &[" SIZE="]);
        push_number(out, size);
    }
    if parameters.eight_bit {
        push(out, &[" BODY=8BITMIME"]);
    }
    if parameters.smtputf8 {
        push(out, &[" SMTPUTF8"]);
    }
    push(out, &["\r\n"]);
}

/// `RCPT TO:<path>`.
pub fn rcpt_to(out: &mut Vec<u8>, path: &str) {
    push(out, &["RCPT TO:<", path, ">\r\n"]);
}

/// A command without argument.
pub fn plain(out: &mut Vec<u8>, command: &str) {
    push(out, &[command, "\r\n"]);
}

fn push(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    let start = out.len();
    let mut rest = number;
    loop {
        // The remainder is below 10.
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands() {
        let none = MailParameters::default;
        let all = MailParameters { size: Some(1234), eight_bit: true, smtputf8: true };
        for (command, expected) in [
            (written(|out| ehlo(out, "a.example")), "EHLO a.example\r\n"),
            (written(|out| helo(out, "[192.0.2.1]")), "HELO [192.0.2.1]\r\n"),
            (written(|out| mail_from(out, None, none())), "MAIL FROM:<>\r\n"),
            (written(|out| mail_from(out, Some("a@b"), none())), "MAIL FROM:<a@b>\r\n"),
            (
                written(|out| mail_from(out, Some("é@b"), all)),
                "MAIL FROM:<é@b> SIZE=1234 BODY=8BITMIME SMTPUTF8\r\n",
            ),
            (
                written(|out| mail_from(out, None, MailParameters { size: Some(0), ..none() })),
                "MAIL FROM:<> SIZE=0\r\n",
            ),
            (
                written(|out| {
                    mail_from(out, None, MailParameters { size: Some(u64::MAX), ..none() });
                }),
                "MAIL FROM:<> SIZE=18446744073709551615\r\n",
            ),
            (written(|out| rcpt_to(out, "\"a b\"@c")), "RCPT TO:<\"a b\"@c>\r\n"),
            (written(|out| plain(out, "DATA")), "DATA\r\n"),
        ] {
            assert_eq!(command, expected);
        }
    }

    #[test]
    fn paths() {
        assert_eq!(check_path("a@b"), Ok(()));
        assert_eq!(check_path("jörg@b"), Ok(()));
        assert_eq!(check_path(""), Err(PathError::Empty));
        assert_eq!(check_path(&"x".repeat(513)), Err(PathError::TooLong));
        for bad in ["a@b>\r\nRSET", "a\n@b", "a\0@b", "a\u{85}@b", "a\u{7f}@b"] {
            assert_eq!(check_path(bad), Err(PathError::Control), "{bad:?}");
        }
    }
}
