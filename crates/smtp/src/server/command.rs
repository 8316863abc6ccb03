//! Command lines (RFC 5321 section 4.1), read without I/O.

use super::answer::Answer;

/// Longest path, with its brackets (RFC 5321 section 4.5.3.1.3), and room for
/// the international ones.
const MAX_PATH_LEN: usize = 512;

/// A command, in order or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ehlo(&'a str),
    Helo(&'a str),
    /// `None` is the null path.
    Mail(Option<&'a str>, MailParameters),
    Rcpt(&'a str),
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    StartTls,
}

/// The parameters of MAIL FROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MailParameters {
    pub(super) size: Option<u64>,
    pub(super) body: bool,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
}

/// Reads a line without its end. The error is the answer to it.
pub(super) fn parse(line: &[u8]) -> Result<Command<'_>, Answer> {
    let line = std::str::from_utf8(line).map_err(|_| Answer::NOT_UNDERSTOOD)?;
    if line.chars().any(char::is_control) {
        return Err(Answer::NOT_UNDERSTOOD);
    }
    let line = line.trim_end_matches(' ');
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    let argument = argument.trim_start_matches(' ');
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    let alone = |command| if argument.is_empty() { Ok(command) } else { Err(Answer::NO_ARGUMENT) };
    if is("MAIL") {
        mail(argument)
    } else if is("RCPT") {
        rcpt(argument)
    } else if is("DATA") {
        alone(Command::Data)
    } else if is("RSET") {
        alone(Command::Rset)
    } else if is("EHLO") {
        hello(argument).map(Command::Ehlo)
    } else if is("HELO") {
        hello(argument).map(Command::Helo)
    } else if is("QUIT") {
        alone(Command::Quit)
    } else if is("STARTTLS") {
        alone(Command::StartTls)
    } else if is("NOOP") {
        Ok(Command::Noop)
    } else if is("VRFY") {
        Ok(Command::Vrfy)
    } else if ["EXPN", "HELP", "BDAT", "AUTH", "TURN", "ETRN"].iter().any(|name| is(name)) {
        Err(Answer::NOT_IMPLEMENTED)
    } else {
        Err(Answer::NOT_UNDERSTOOD)
    }
}

/// The name is what the client claims to be: kept, never trusted.
fn hello(argument: &str) -> Result<&str, Answer> {
    let valid = (1..=255).contains(&argument.len()) && !argument.contains(' ');
    if valid { Ok(argument) } else { Err(Answer::HELLO_NAME) }
}

fn mail(argument: &str) -> Result<Command<'_>, Answer> {
    let (path, rest) = path(argument, "FROM:").ok_or(Answer::SENDER_SYNTAX)?;
    let mut parameters = MailParameters::default();
    for parameter in rest.split(' ').filter(|parameter| !parameter.is_empty()) {
        parameters.add(parameter)?;
    }
    match path {
        "" => Ok(Command::Mail(None, parameters)),
        address if is_address(address) => Ok(Command::Mail(Some(address), parameters)),
        _ => Err(Answer::SENDER_SYNTAX),
    }
}

fn rcpt(argument: &str) -> Result<Command<'_>, Answer> {
    let (path, rest) = path(argument, "TO:").ok_or(Answer::RECIPIENT_SYNTAX)?;
    if !rest.is_empty() {
        return Err(Answer::PARAMETER);
    }
    // RFC 5321 section 4.5.1: postmaster needs no domain.
    let valid = is_address(path) || path.eq_ignore_ascii_case("postmaster");
    if valid { Ok(Command::Rcpt(path)) } else { Err(Answer::RECIPIENT_SYNTAX) }
}

impl MailParameters {
    fn add(&mut self, parameter: &str) -> Result<(), Answer> {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match value {
            Some(value) if is("SIZE") => {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let size = value.parse().ok().filter(|_| digits);
                self.size = Some(size.ok_or(Answer::PARAMETER_VALUE)?);
            }
            Some(value) if is("BODY") => {
                self.body = true;
                self.eight_bit = value.eq_ignore_ascii_case("8BITMIME");
                if !self.eight_bit && !value.eq_ignore_ascii_case("7BIT") {
                    return Err(Answer::PARAMETER_VALUE);
                }
            }
            None if is("SMTPUTF8") => self.smtputf8 = true,
            _ => return Err(Answer::PARAMETER),
        }
        Ok(())
    }
}

/// `KEYWORD:<path> rest`, the source route taken off (RFC 5321 appendix C).
/// A space after the colon is an error that many make.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (given, after) = argument.split_at_checked(keyword.len())?;
    if !given.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let inner = after.trim_start_matches(' ').strip_prefix('<')?;
    let end = closing_bracket(inner)?;
    let (path, rest) = inner.split_at_checked(end)?;
    let rest = rest.strip_prefix('>')?;
    if path.len() > MAX_PATH_LEN || !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let path = match path.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => path,
    };
    Some((path, rest.trim_start_matches(' ')))
}

/// The first `>` that is not inside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(bytes.next()),
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Something before and after the `@`. More is the business of the host, which
/// knows what it takes mail for.
fn is_address(path: &str) -> bool {
    let Some((local, domain)) = path.rsplit_once('@') else { return false };
    let spaced = !local.starts_with('"') && local.contains([' ', '<']);
    !local.is_empty() && !domain.is_empty() && !domain.contains([' ', '<', '"']) && !spaced
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(path: &str) -> Result<Command<'_>, Answer> {
        Ok(Command::Mail(Some(path), MailParameters::default()))
    }

    #[test]
    fn commands() {
        let none = MailParameters::default;
        for (line, expected) in [
            ("EHLO a.example", Ok(Command::Ehlo("a.example"))),
            ("ehlo [192.0.2.1]", Ok(Command::Ehlo("[192.0.2.1]"))),
            ("EHLO", Err(Answer::HELLO_NAME)),
            ("EHLO a b", Err(Answer::HELLO_NAME)),
            ("HeLo a", Ok(Command::Helo("a"))),
            ("MAIL FROM:<a@b>", from("a@b")),
            ("mail from: <a@b> ", from("a@b")),
            ("MAIL FROM:<>", Ok(Command::Mail(None, none()))),
            ("MAIL FROM:<@x,@y:a@b>", from("a@b")),
            ("MAIL FROM:<\"a>b\"@c>", from("\"a>b\"@c")),
            ("MAIL FROM:<\"a\\\">b\"@c>", from("\"a\\\">b\"@c")),
            (
                "MAIL FROM:<a@b> SIZE=10 body=8bitmime SMTPUTF8",
                Ok(Command::Mail(
                    Some("a@b"),
                    MailParameters { size: Some(10), body: true, eight_bit: true, smtputf8: true },
                )),
            ),
            (
                "MAIL FROM:<a@b> BODY=7BIT",
                Ok(Command::Mail(Some("a@b"), MailParameters { body: true, ..none() })),
            ),
            ("MAIL FROM:<a@b> SIZE=x", Err(Answer::PARAMETER_VALUE)),
            ("MAIL FROM:<a@b> SIZE=+1", Err(Answer::PARAMETER_VALUE)),
            ("MAIL FROM:<a@b> SIZE=99999999999999999999", Err(Answer::PARAMETER_VALUE)),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", Err(Answer::PARAMETER_VALUE)),
            ("MAIL FROM:<a@b> SMTPUTF8=1", Err(Answer::PARAMETER)),
            ("MAIL FROM:<a@b> X=1", Err(Answer::PARAMETER)),
            ("MAIL FROM:<a@b>SIZE=1", Err(Answer::SENDER_SYNTAX)),
            ("MAIL FROM:a@b", Err(Answer::SENDER_SYNTAX)),
            ("MAIL FROM:<a@b", Err(Answer::SENDER_SYNTAX)),
            ("MAIL FROM:<a>", Err(Answer::SENDER_SYNTAX)),
            ("MAIL FROM:<a b@c>", Err(Answer::SENDER_SYNTAX)),
            ("MAIL FROM:<@b>", Err(Answer::SENDER_SYNTAX)),
            ("MAIL TO:<a@b>", Err(Answer::SENDER_SYNTAX)),
            ("MAIL", Err(Answer::SENDER_SYNTAX)),
            ("MAILFROM:<a@b>", Err(Answer::NOT_UNDERSTOOD)),
            ("RCPT TO:<a@b>", Ok(Command::Rcpt("a@b"))),
            ("RCPT TO:<Postmaster>", Ok(Command::Rcpt("Postmaster"))),
            ("RCPT TO:<jörg@b>", Ok(Command::Rcpt("jörg@b"))),
            ("RCPT TO:<>", Err(Answer::RECIPIENT_SYNTAX)),
            ("RCPT TO:<a@b> NOTIFY=NEVER", Err(Answer::PARAMETER)),
            ("RCPT TO:é", Err(Answer::RECIPIENT_SYNTAX)),
            ("RCPT é", Err(Answer::RECIPIENT_SYNTAX)),
            ("DATA", Ok(Command::Data)),
            ("DATA ", Ok(Command::Data)),
            ("DATA now", Err(Answer::NO_ARGUMENT)),
            ("RSET", Ok(Command::Rset)),
            ("NOOP anything", Ok(Command::Noop)),
            ("QUIT", Ok(Command::Quit)),
            ("VRFY a", Ok(Command::Vrfy)),
            ("STARTTLS", Ok(Command::StartTls)),
            ("STARTTLS x", Err(Answer::NO_ARGUMENT)),
            ("BDAT 1 LAST", Err(Answer::NOT_IMPLEMENTED)),
            ("", Err(Answer::NOT_UNDERSTOOD)),
            ("NOOP\0", Err(Answer::NOT_UNDERSTOOD)),
            ("GET / HTTP/1.1", Err(Answer::NOT_UNDERSTOOD)),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(parse(b"NOOP \xff"), Err(Answer::NOT_UNDERSTOOD));
        let long = format!("RCPT TO:<{}@b>", "x".repeat(600));
        assert_eq!(parse(long.as_bytes()), Err(Answer::RECIPIENT_SYNTAX));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "(MAIL FROM:|RCPT TO:|EHLO )?[<>@\"\\\\:, =a\\PC]{0,40}") {
            if let Ok(Command::Mail(Some(path), _) | Command::Rcpt(path)) = parse(line.as_bytes()) {
                prop_assert!(line.contains(path));
                prop_assert!(!path.is_empty());
            }
        }
    }
}
