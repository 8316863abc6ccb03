//! The server's side of a session, without I/O.
//!
//! The host feeds bytes to [`Server::next`], which answers by itself whatever
//! is a matter of protocol (syntax, order, limits), and gives a [`Request`] for
//! whatever the host must decide. The host answers it with [`Server::accept`],
//! [`Server::accept_with`] or [`Server::refuse`] before it calls again. Replies
//! are gathered in a buffer that the host sends when `next` wants more input,
//! so that a client that pipelines is answered at once (RFC 2920 section 3.2).
//!
//! Invariants: commands are taken in the order of RFC 5321 section 4.1.4 only;
//! memory is bounded by the options; content ends with `CRLF . CRLF` and nothing
//! else; nothing said before TLS is known after it (RFC 3207 section 4.2).

mod answer;
mod command;
mod session;
#[cfg(test)]
mod tests;

pub use session::Server;

/// Longest command line in bytes. RFC 5321 section 4.5.3.1.4 asks for 512,
/// and the extensions for some hundred more.
pub const MAX_COMMAND_LEN: usize = 4 * 1024;

/// What a server offers and allows.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Its name, in the greeting and in the reply to EHLO.
    pub hostname: String,
    /// Offers PIPELINING (RFC 2920). It works without the offer, too.
    pub pipelining: bool,
    /// Offers 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// Offers SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Offers STARTTLS (RFC 3207).
    pub starttls: bool,
    /// Offers ENHANCEDSTATUSCODES and uses them (RFC 2034).
    pub enhanced_status_codes: bool,
    /// Offers SIZE (RFC 1870).
    pub size: bool,
    /// Largest content in bytes, whether SIZE tells it or not.
    pub max_content: usize,
    /// Most recipients of one message. RFC 5321 section 4.5.3.1.8 asks for 100.
    pub max_recipients: usize,
    /// So many commands that make no sense end the session.
    pub max_errors: usize,
}

impl ServerOptions {
    /// Everything that is offered by default: all but STARTTLS, which needs a
    /// certificate.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            starttls: false,
            enhanced_status_codes: true,
            size: true,
            max_content: 64 * 1024 * 1024,
            max_recipients: 1000,
            max_errors: 20,
        }
    }
}

/// What the host must decide. The particulars are with the [`Server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// EHLO or HELO with [`Server::hello_name`].
    Hello,
    /// MAIL with the sender and parameters of [`Server::envelope`].
    Mail,
    /// RCPT with [`Server::candidate`].
    Recipient,
    /// DATA for [`Server::envelope`].
    Data,
    /// The whole [`Server::content`] is there. To accept it is to take
    /// responsibility for it (RFC 5321 section 6.1).
    Message,
    /// STARTTLS. After accepting, the host sends the replies and does the
    /// handshake. Input that came after the command is gone already.
    StartTls,
}

/// The envelope of the message that is being received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse path; `None` is the null path.
    pub sender: Option<String>,
    /// The forward paths that were accepted.
    pub recipients: Vec<String>,
    /// The size that the client declared.
    pub size: Option<u64>,
    /// Whether the client declared BODY=8BITMIME.
    pub eight_bit: bool,
    /// Whether the client declared SMTPUTF8.
    pub smtputf8: bool,
}
